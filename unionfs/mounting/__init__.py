"""The life of a mount: its options, its layers opened, its daemon from start to end."""
