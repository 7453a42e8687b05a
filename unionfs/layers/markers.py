"""What the attributes of an object on disk say: the only module that can spell them.

The format is overlayfs's (overlayfs.rst; fs/overlayfs/overlayfs.h), so that an
upper of ours can be mounted by the kernel and the reverse:

* a whiteout is a character device 0:0 that bears the name, or, in a directory
  marked `opaque=x`, an empty regular file with the attribute `whiteout`;
* `trusted.overlay.opaque` = `y` hides the directories below;
* `.redirect` names where a moved directory's or file's lower part is: from the
  root of the union with a leading `/`, else in the same parent;
* `.metacopy` marks a file whose content is still that of the file below;
* `.impure` marks a directory that holds copied-up objects;
* `.protattr` holds the flags `a` and `i` of chattr(1), which upper's inode cannot have (`iflags`);
* a user's own `trusted.overlay.X` is stored as `trusted.overlay.overlay.X`.

Attributes of ours alone, which the kernel hides as private:
* `.unionfs.ino`: the layer that a copied object was in, and the host's inode number there
  (`inodes`);
* `.unionfs.link`: the entry of the hard link index that holds the file;
* `.nlink`, in the kernel's form `U+2`: how many links the union shows beyond those that upper's
  inode has; `.unionfs.unsettled` (`N:L`) says that these are L as long as the inode has N;
* `.unionfs.mtime`, the modification time (ns) of a metadata-only copy while its content is filled
  in, and `.unionfs.capability`, its `security.capability` (`fills`);
* `.unionfs.blocks`: which blocks of the content a metadata-only copy has itself (`blockmap`).

Whiteouts themselves are made and read in `whiteouts`, aufs's in `aufs_whiteouts`.
"""

import errno
import logging
import os
import re
from typing import NamedTuple

from unionfs.layers.blockmap import BlockMap
from unionfs.layers.iflags import APPEND, IMMUTABLE
from unionfs.layers.layer import Layer, WritableLayer

log = logging.getLogger(__name__)

_PREFIX = "trusted.overlay."
_ESCAPED = "trusted.overlay.overlay."
OPAQUE = _PREFIX + "opaque"
REDIRECT = _PREFIX + "redirect"
METACOPY = _PREFIX + "metacopy"
IMPURE = _PREFIX + "impure"
WHITEOUT = _PREFIX + "whiteout"
NLINK = _PREFIX + "nlink"
PROTATTR = _PREFIX + "protattr"
INO = _PREFIX + "unionfs.ino"
LINK = _PREFIX + "unionfs.link"
UNSETTLED = _PREFIX + "unionfs.unsettled"
MTIME = _PREFIX + "unionfs.mtime"
KEPT_CAPABILITY = _PREFIX + "unionfs.capability"
BLOCKS = _PREFIX + "unionfs.blocks"
INCOMPLETE = _PREFIX + "unionfs.incomplete"  # on upper's root: it has such files, or may have
LOWERS = _PREFIX + "unionfs.lowerdir"  # `mount_record`
WORK = _PREFIX + "unionfs.workdir"
SCRATCH = _PREFIX + "unionfs.scratch"  # all in this upper is emptied at the next mount

BARRED = b"p"  # a metacopy that the kernel does not take

_READ = frozenset({OPAQUE, REDIRECT, METACOPY, NLINK, PROTATTR, INO, LINK, UNSETTLED, BLOCKS})
_LINKS = frozenset({NLINK, UNSETTLED})
_PROTECTIONS = {b"a": APPEND, b"i": IMMUTABLE}  # in the kernel's order
_NUMBER = re.compile(rb"-?[0-9]{1,9}")
_NAME_MAX = 255

# The errors of setxattr(2) for a value that is too long; each file system has its own.
_TOO_LONG = frozenset({errno.ENOSPC, errno.E2BIG, errno.ERANGE})

CAPABILITY = "security.capability"


class Marks(NamedTuple):
    """What the attributes of one object on one layer say."""

    opaque: bool = False
    whiteouts_are_files: bool = False  # opaque=x: look for `whiteout` on empty files
    redirect: bytes = b""
    metacopy: bool = False
    ino: int = 0  # what its inode number is made of, see `inodes.kept`; 0: the host's number
    link: bytes = b""  # its entry in the hard link index
    links: int = 0  # links that the union shows beyond upper's st_nlink
    mtime: int | None = None  # ns; of a metadata-only copy that was being filled
    protection: int = 0  # `iflags.IMMUTABLE` and `APPEND`; in lowers it says nothing
    partial: bool = False  # a metadata-only copy that has some of the content: `blocks`


UNMARKED = Marks()


def is_private(name: str) -> bool:
    """Tell whether an attribute is a marker, never shown through the mount."""
    return name.startswith(_PREFIX) and not name.startswith(_ESCAPED)


def short(name: str) -> str:
    """Return the name of a marker's attribute as overlayfs.rst has it, without the prefix."""
    return name.removeprefix(_PREFIX)


def stored_name(name: str) -> str:
    """Return the name under which a user's attribute is kept on disk."""
    if name.startswith(_PREFIX):
        return _ESCAPED + name.removeprefix(_PREFIX)
    return name


def shown_names(stored: list[str]) -> list[str]:
    """Return the names that users see of the attributes on disk."""
    return [
        _PREFIX + name.removeprefix(_ESCAPED) if name.startswith(_ESCAPED) else name
        for name in stored
        if not is_private(name)
    ]


class DamagedError(OSError):
    """An object on disk violates the format: EIO."""


def damaged(layer: Layer, path: bytes, what: str) -> DamagedError:
    """Log a fault on disk, and return the error to raise."""
    text = f"{layer.name}: {os.fsdecode(path)}: {what}; run 'unionfs check' on the upper"
    log.error("%s", text)
    return DamagedError(errno.EIO, text)


def _is_name(text: bytes) -> bool:
    return text not in (b"", b".", b"..") and len(text) <= _NAME_MAX and b"\0" not in text


def redirect_is_legal(redirect: bytes) -> bool:
    """Tell whether a redirect is one name, or a clean path from the root of the union."""
    if redirect.startswith(b"/"):
        return all(_is_name(name) for name in redirect[1:].split(b"/"))
    return _is_name(redirect) and b"/" not in redirect


def _read_redirect(layer: Layer, path: bytes) -> bytes:
    redirect = layer.attribute(path, REDIRECT)
    if not redirect_is_legal(redirect):
        raise damaged(layer, path, f"illegal redirect {redirect!r}")
    return redirect


def _read_number(layer: Layer, path: bytes, name: str, base: int, limit: int) -> int:
    """Return a number of ours; 0 where it is damaged, for it is only a hint."""
    value = layer.attribute(path, name)
    try:
        number = int(value.removeprefix(b"U"), base)
    except ValueError:
        number = limit
    if abs(number) < limit:
        return number
    log.warning("%s: %s: %s is damaged: %r", layer.name, os.fsdecode(path), name, value)
    return 0


def read(layer: Layer, path: bytes) -> Marks:
    """Read the marks of one object; EIO, logged, where a redirect is damaged."""
    names = layer.attributes(path)
    if not names or _READ.isdisjoint(names):
        return UNMARKED
    opaque = layer.attribute(path, OPAQUE) if OPAQUE in names else b""
    return Marks(
        opaque=opaque == b"y",
        whiteouts_are_files=opaque == b"x",
        redirect=_read_redirect(layer, path) if REDIRECT in names else b"",
        metacopy=METACOPY in names,
        ino=max(0, _read_number(layer, path, INO, 16, 1 << 64)) if INO in names else 0,
        link=layer.attribute(path, LINK) if LINK in names else b"",
        links=0 if _LINKS.isdisjoint(names) else _read_links(layer, path, names),
        mtime=_read_number(layer, path, MTIME, 10, 1 << 63) if MTIME in names else None,
        protection=_read_protection(layer, path) if PROTATTR in names else 0,
        partial=BLOCKS in names,
    )


def _read_links(layer: Layer, path: bytes, names: list[str]) -> int:
    if UNSETTLED in names:
        at, _, links = layer.attribute(path, UNSETTLED).partition(b":")
        if at == b"%d" % layer.stat(path).st_nlink and _NUMBER.fullmatch(links):
            return int(links)
    return _read_number(layer, path, NLINK, 10, 1 << 31) if NLINK in names else 0


def _read_protection(layer: Layer, path: bytes) -> int:
    """Return an object's protection; none where a letter is unknown (ovl_check_protattr)."""
    letters = layer.attribute(path, PROTATTR)
    if protection_is_legal(letters):
        return sum(flag for letter, flag in _PROTECTIONS.items() if letter in letters)
    log.warning("%s: %s: %s is damaged: %r", layer.name, os.fsdecode(path), PROTATTR, letters)
    return 0


def protection_is_legal(letters: bytes) -> bool:
    """Tell whether each letter stands for a flag."""
    return set(letters) <= set(b"".join(_PROTECTIONS))


def set_protection(layer: WritableLayer, path: bytes, protection: int) -> None:
    """Protect an object from changes, or end its protection."""
    letters = b"".join(letter for letter, flag in _PROTECTIONS.items() if flag & protection)
    if letters:
        layer.set_attribute(path, PROTATTR, letters)
    elif layer.find_attribute(path, PROTATTR) is not None:
        layer.remove_attribute(path, PROTATTR)


def set_opaque(layer: WritableLayer, path: bytes) -> None:
    """Hide the directories below *path*."""
    layer.set_attribute(path, OPAQUE, b"y")


def is_too_long(error: OSError, redirect: bytes) -> bool:
    """Tell whether a redirect may have failed because it is long: ext4 takes 4 KiB, others 64.

    ext4 gives the error of a full disk; on a full disk, what is done instead fails as well.
    """
    return len(redirect) > _NAME_MAX and error.errno in _TOO_LONG


def has_no_room(error: OSError) -> bool:
    """Tell whether an attribute may have failed because it is long."""
    return error.errno in _TOO_LONG


def set_redirect(layer: WritableLayer, path: bytes, redirect: bytes) -> None:
    """Say where the lower part of *path* is, from the root of the union."""
    layer.set_attribute(path, REDIRECT, redirect)


def end_redirect(layer: WritableLayer, path: bytes) -> None:
    """Say that *path* has no lower part elsewhere."""
    if layer.find_attribute(path, REDIRECT) is not None:
        layer.remove_attribute(path, REDIRECT)


def set_incomplete(upper: WritableLayer) -> None:
    """Say that upper has files of whose content it has some blocks, or may come to have."""
    if upper.find_attribute(b".", INCOMPLETE) is None:
        upper.set_attribute(b".", INCOMPLETE, b"y")


def end_incomplete(upper: WritableLayer) -> None:
    """Say so no more."""
    if upper.find_attribute(b".", INCOMPLETE) is not None:
        upper.remove_attribute(b".", INCOMPLETE)


def bar_metacopy(layer: WritableLayer, path: bytes) -> None:
    """Have kernel overlayfs refuse a metadata-only copy: it would show the lower's content.

    It answers EIO from Linux 6.6 on: fs/overlayfs/util.c, ovl_check_metacopy_xattr.
    """
    layer.set_attribute(path, METACOPY, BARRED)


def set_metacopy(layer: WritableLayer, path: bytes) -> None:
    """Say that the content of *path* is still that of the file below."""
    layer.set_attribute(path, METACOPY, b"")


def end_metacopy(layer: WritableLayer, path: bytes) -> None:
    """Say that *path* has its content now."""
    layer.remove_attribute(path, METACOPY)
    for name in (REDIRECT, MTIME, KEPT_CAPABILITY, BLOCKS):  # without METACOPY they say nothing
        try:
            if layer.find_attribute(path, name) is not None:
                layer.remove_attribute(path, name)
        except OSError:
            log.exception("%r keeps %s", path, name)


def set_blocks(layer: WritableLayer, path: bytes, blocks: BlockMap, most: int) -> None:
    """Say which blocks of its content a metadata-only copy has itself; see `BlockMap.encoded`."""
    layer.set_attribute(path, BLOCKS, blocks.encoded(most))


def set_blocks_of_cut(layer: WritableLayer, path: bytes, blocks: BlockMap, size: int) -> None:
    """Set the blocks of a copy that is cut to *size* next, and that size, in one step."""
    layer.set_attribute(path, BLOCKS, blocks.encoded_cut(size))


def put_blocks(fd: int, blocks: BlockMap) -> None:
    """Set the blocks of an open copy, wherever its name is."""
    os.setxattr(fd, BLOCKS, blocks.encoded())


def blocks(layer: Layer, path: bytes) -> BlockMap | None:
    """Return the blocks that a copy has, None for none; EIO, logged, where the mark is damaged."""
    value = layer.find_attribute(path, BLOCKS)
    try:
        return None if value is None else BlockMap.decoded(value, layer.stat(path).st_size)
    except ValueError as exc:
        raise damaged(layer, path, f"the mark {short(BLOCKS)} cannot be read: {exc}") from None


def set_mtime(layer: WritableLayer, path: bytes, mtime_ns: int) -> None:
    """Remember the modification time of *path* while its size or content changes."""
    layer.set_attribute(path, MTIME, b"%d" % mtime_ns)


def end_mtime(layer: WritableLayer, path: bytes) -> None:
    """Say that *path* has its modification time, and its capability, again."""
    drop_kept_capability(layer, path)
    if layer.find_attribute(path, MTIME) is not None:
        layer.remove_attribute(path, MTIME)


def keep_capability(layer: WritableLayer, path: bytes) -> None:
    """Put the capability of *path* aside, as writing would take it away."""
    value = layer.find_attribute(path, CAPABILITY)
    if value is not None:
        layer.set_attribute(path, KEPT_CAPABILITY, value)
        layer.remove_attribute(path, CAPABILITY)


def give_capability_back(layer: WritableLayer, path: bytes) -> None:
    """Give *path* back the capability that was put aside."""
    value = layer.find_attribute(path, KEPT_CAPABILITY)
    if value is None:
        return
    try:
        layer.set_attribute(path, CAPABILITY, value)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        log.warning("%s: %s: %s is damaged", layer.name, os.fsdecode(path), KEPT_CAPABILITY)


def drop_capability(layer: WritableLayer, path: bytes) -> None:
    """Take the capability of *path* away, as cutting a file does: fs/inode.c, file_remove_privs."""
    if layer.find_attribute(path, CAPABILITY) is not None:
        layer.remove_attribute(path, CAPABILITY)


def drop_kept_capability(layer: WritableLayer, path: bytes) -> None:
    """Forget the capability that was put aside, if there is one."""
    if layer.find_attribute(path, KEPT_CAPABILITY) is not None:
        layer.remove_attribute(path, KEPT_CAPABILITY)


def set_impure(layer: WritableLayer, path: bytes) -> None:
    """Say that the directory *path* holds copied-up objects."""
    layer.set_attribute(path, IMPURE, b"y")


def set_origin(layer: WritableLayer, path: bytes, origin: int) -> None:
    """Remember what `inodes.kept` makes the inode number of *path* from."""
    layer.set_attribute(path, INO, b"%x" % origin)


def set_link(layer: WritableLayer, path: bytes, key: bytes) -> None:
    """Remember the entry of the hard link index that holds *path*."""
    layer.set_attribute(path, LINK, key)


def set_links(layer: WritableLayer, path: bytes, links: int) -> None:
    """Set how many links the union shows beyond upper's st_nlink."""
    layer.set_attribute(path, NLINK, b"U%+d" % links)


def prepare_links(layer: WritableLayer, path: bytes, now: int, after: int) -> None:
    """Let the next system call that changes st_nlink change `links` from *now* to *after*, too.

    The old number counts until st_nlink changes, so both change in one step, also in a crash.
    """
    layer.set_attribute(path, UNSETTLED, b"%d:%d" % (layer.stat(path).st_nlink, now))
    set_links(layer, path, after)


def settle_links(layer: WritableLayer, path: bytes) -> None:
    """End what `prepare_links` began, whether the system call was made or not."""
    if layer.find_attribute(path, UNSETTLED) is not None:
        set_links(layer, path, read(layer, path).links)
        layer.remove_attribute(path, UNSETTLED)
