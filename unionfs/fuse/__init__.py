"""Requests of the kernel, answered: bytes of the FUSE protocol in, verbs of the union out."""
