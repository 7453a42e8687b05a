"""A union filesystem for FUSE: read-only lower trees under a writable upper one."""

__version__ = "0.1.0"
