"""A union filesystem for FUSE: read-only lower trees under a writable upper one."""
