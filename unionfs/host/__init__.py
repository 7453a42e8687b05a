"""System calls that the standard library lacks, and the mounts and processes of this machine."""
