"""Upper objects that lost their last name, reached through descriptors held open.

The path of a pin is its magic link (proc_pid_fd(5)), so every verb follows it.
That of procfs leads to the object itself; `nosymfollow` of the object's own mount
has no say in it.
"""

import os

from unionfs.layers.layer import NO_WAIT, WritableLayer


class Pins(WritableLayer):
    """The layer of pinned objects; its root is /proc/self/fd."""

    follow = True

    def __init__(self) -> None:
        super().__init__(os.open(b"/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # Relative to the held directory, so /proc itself may go away later.

    def open(self, path: bytes, flags: int) -> int:
        """Open the pinned object once more."""
        return os.open(path, flags | NO_WAIT, dir_fd=self.fd)

    def create_unnamed(self, path: bytes, flags: int, mode: int) -> int:
        """Create a file without a name in the pinned directory."""
        return os.open(path, flags | os.O_TMPFILE | NO_WAIT, mode, dir_fd=self.fd)

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a pinned symlink: readlink(2), "empty pathname"."""
        return os.readlink(b"", dir_fd=int(path))


def path_of_pin(fd: int) -> bytes:
    """Return the path of the descriptor *fd* in `Pins`."""
    return b"%d" % fd
