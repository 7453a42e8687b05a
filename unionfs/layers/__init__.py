"""One tree on disk, and the formats that overlayfs, aufs and we keep in it."""
