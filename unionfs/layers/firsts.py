"""What the lowers had under a persisted name when the union first changed it.

When the image below is upgraded, persisted files stay, and hide the files of the new image.
Only the lowers' old file tells whether a persisted file hides anything new.  Its record cannot be
kept on the object in state: programs replace files as a whole (`passwd` renames /etc/nshadow over
/etc/shadow).  So the record is kept by path, as the target of a symlink in state's work,
`work/unionfs/first/`; the symlink's name is a hash of the path.  Files and symlinks have records.

A record holds size, times and inode number.  For small files it has a digest of the content, as an
image that is made anew has other inodes and often other times for the same files.  To read larger
ones would take too long while a request waits: for these, size and modification time have to do.
"""

import errno
import hashlib
import os
import re
import stat
from typing import NamedTuple

from unionfs.layers.layer import Layer, WritableLayer, join

DIRECTORY = b"unionfs/first"

# Bytes up to which content is read: 2 ms.  Persisted files are mostly configuration.
MOST_READ = 1 << 20

_FORM = re.compile(rb"1:([0-9a-f]+):(-?[0-9a-f]+):([0-9a-f]+):(-?[0-9a-f]+):([0-9a-f]*)")
_OPEN = os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK


class First(NamedTuple):
    """The record of one file of a lower."""

    size: int
    mtime_ns: int
    ino: int
    ctime_ns: int
    digest: bytes  # in hexadecimal; b"" where the content was not read

    def is_the_same_inode(self, st: os.stat_result) -> bool:
        """Tell whether a file is this very one, unchanged since."""
        now = (st.st_size, st.st_mtime_ns, st.st_ino, st.st_ctime_ns)
        return self[:4] == now

    def has_content_of(self, layer: Layer, path: bytes, st: os.stat_result) -> bool:
        """Tell whether a file has this one's content, as far as is known."""
        if self.is_the_same_inode(st):
            return True
        if st.st_size != self.size:
            return False
        if not self.digest:
            return st.st_mtime_ns == self.mtime_ns
        return digest(layer, path, st) == self.digest


def key(path: bytes) -> bytes:
    """Return the path in work of the record of *path*."""
    return join(DIRECTORY, hashlib.blake2b(path, digest_size=16).hexdigest().encode())


def digest(layer: Layer, path: bytes, st: os.stat_result) -> bytes:
    """Return a digest of the content of a file or symlink; b"" where the content is not read.

    A far layer is not asked: nobody may have to wait for its server here.
    """
    made = hashlib.blake2b(digest_size=16)
    if stat.S_ISLNK(st.st_mode):
        made.update(layer.readlink(path))
    elif layer.asks or st.st_size > MOST_READ:
        return b""
    else:
        fd = layer.open(path, _OPEN)
        try:
            while data := os.read(fd, MOST_READ):
                made.update(data)
        finally:
            os.close(fd)
    return made.hexdigest().encode()


def note(work: WritableLayer, path: bytes, layer: Layer, at: bytes) -> None:
    """Remember what *layer* has at *at*, and the union shows at *path*.

    An older record is forgotten: it was made for a change that failed.
    """
    st = layer.stat(at)
    if not (stat.S_ISREG(st.st_mode) or stat.S_ISLNK(st.st_mode)):
        return
    fields = (st.st_size, st.st_mtime_ns, st.st_ino, st.st_ctime_ns)
    target = b"1:%x:%x:%x:%x:" % fields + digest(layer, at, st)
    name = key(path)
    try:
        work.symlink(target, name)
    except FileExistsError:
        work.unlink(name)
        work.symlink(target, name)
    except FileNotFoundError:
        work.mkdir(DIRECTORY, 0o700)
        work.symlink(target, name)


def find(work: Layer, path: bytes) -> First | None:
    """Return the record of *path*; None where there is none, or it is damaged."""
    try:
        target = work.readlink(key(path))
    except OSError as exc:
        if exc.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EINVAL}:
            raise
        return None
    found = _FORM.fullmatch(target)
    if found is None:
        return None
    size, mtime_ns, ino, ctime_ns = (int(number, 16) for number in found.groups()[:4])
    return First(size, mtime_ns, ino, ctime_ns, found[5])
