"""What changes a union: names, copy-up, attributes; each as a whole or not at all."""
