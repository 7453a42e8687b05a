"""Print the table of docs/peers.md, other unions as tried here: python -m tools.peers, as root.

Every file system is mounted anew for every question, over layers on a tmpfs.
The answers are about the versions that are installed.
"""

import contextlib
import ctypes
import mmap
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.probe import filesystems

BIG = 64 << 20  # bytes of the file that is copied up, or is not
_RENAME_EXCHANGE = 2  # renameat2(2)
_NOBODY = 65534

# A question: plants `lower`, then is asked of the union and its upper.
Question = Callable[[Path, Path], bool]
Plant = Callable[[Path], None]


def files(lower: Path) -> None:
    """Plant a file with a second name, and a directory."""
    (lower / "file").write_text("old\n")
    os.link(lower / "file", lower / "second")
    (lower / "dir").mkdir()
    (lower / "dir" / "inner").write_text("inner\n")


def big(lower: Path) -> None:
    """Plant a file with content, and one that is all hole."""
    (lower / "big").write_bytes(bytes(range(256)) * (BIG >> 8))
    with (lower / "hole").open("wb") as hole:
        hole.truncate(BIG)


def set_uid(lower: Path) -> None:
    """Plant a set-uid program that all may write to."""
    (lower / "program").write_text("x")
    (lower / "program").chmod(0o4777)


def renames_directories(mnt: Path, _upper: Path) -> bool:
    os.rename(mnt / "dir", mnt / "moved")
    return (mnt / "moved" / "inner").read_text() == "inner\n"


def exchanges(mnt: Path, _upper: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    names = [os.fsencode(mnt / name) for name in ("file", "dir")]
    return libc.renameat2(-100, names[0], -100, names[1], _RENAME_EXCHANGE) == 0


def readers_see_writes(mnt: Path, _upper: Path) -> bool:
    with (mnt / "file").open() as reader:
        (mnt / "file").write_text("new\n")
        return reader.read() == "new\n"


def mappings_see_writes(mnt: Path, _upper: Path) -> bool:
    with (mnt / "file").open("rb") as reader:
        mapping = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)
        _ = mapping[:]
        with (mnt / "file").open("r+") as writer:
            writer.write("new\n")
        return mapping[:4] == b"new\n"


def keeps_inode_numbers(mnt: Path, _upper: Path) -> bool:
    before = (mnt / "file").stat().st_ino
    (mnt / "file").write_text("new\n")
    listed = {entry.name: entry.inode() for entry in os.scandir(mnt)}["file"]
    return before == (mnt / "file").stat().st_ino == listed


def keeps_hard_links(mnt: Path, _upper: Path) -> bool:
    (mnt / "file").write_text("new\n")
    same = (mnt / "file").stat().st_ino == (mnt / "second").stat().st_ino
    return same and (mnt / "second").read_text() == "new\n"


def copies_no_data_for_metadata(mnt: Path, upper: Path) -> bool:
    (mnt / "big").chmod(0o600)
    return (mnt / "big").stat().st_mode & 0o777 == 0o600 and _used(upper) < BIG // 2


def keeps_holes(mnt: Path, upper: Path) -> bool:
    with (mnt / "hole").open("ab") as hole:
        hole.write(b"x")
    return (mnt / "hole").stat().st_size == BIG + 1 and _used(upper) < BIG // 2


def hides_recreated_directories(mnt: Path, _upper: Path) -> bool:
    (mnt / "dir" / "inner").unlink()
    (mnt / "dir").rmdir()
    (mnt / "dir").mkdir()
    return os.listdir(mnt / "dir") == []


def drops_set_uid(mnt: Path, _upper: Path) -> bool:
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            (mnt / "program").write_text("y")
            os._exit(0)
        os._exit(1)
    wrote = os.waitpid(child, 0)[1] == 0
    return wrote and not (mnt / "program").stat().st_mode & stat.S_ISUID


def writes_overlayfs_markers(mnt: Path, upper: Path) -> bool:
    (mnt / "file").unlink()
    st = (upper / "file").lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def deletes_lower_files(mnt: Path, _upper: Path) -> bool:
    (mnt / "file").unlink()
    return "file" not in os.listdir(mnt)


def leaves_lowers_alone(mnt: Path, upper: Path) -> bool:
    (mnt / "file").write_text("new\n")
    (mnt / "second").unlink()
    (mnt / "dir" / "inner").rename(mnt / "dir" / "other")
    lower = upper.parent / "lower1"
    same = (lower / "file").read_text() == "old\n" and (lower / "second").exists()
    return same and os.listdir(lower / "dir") == ["inner"]


def _used(upper: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in upper.rglob("*"))


QUESTIONS: dict[str, tuple[Plant, Question]] = {
    "nothing changes in a lower": (files, leaves_lowers_alone),
    "a file of a lower can be deleted": (files, deletes_lower_files),
    "a directory deleted and made again is empty": (files, hides_recreated_directories),
    "a directory of a lower can be renamed": (files, renames_directories),
    "RENAME_EXCHANGE": (files, exchanges),
    "an old reader sees what is written after copy-up": (files, readers_see_writes),
    "an old mmap sees it too": (files, mappings_see_writes),
    "the inode number stays across copy-up, and is the listed one": (files, keeps_inode_numbers),
    "hard links in a lower stay links": (files, keeps_hard_links),
    "chmod copies no data": (big, copies_no_data_for_metadata),
    "holes stay holes": (big, keeps_holes),
    "set-uid falls when another user writes": (set_uid, drops_set_uid),
    "upper is in overlayfs's format": (files, writes_overlayfs_markers),
}


def answer(system: filesystems.FileSystem, plant: Plant, question: Question) -> str:
    """Mount *system* and return what it does: yes, no, or the error."""
    with tempfile.TemporaryDirectory() as home, filesystems.tmpfs(Path(home) / "fs") as base:
        Path(home).chmod(0o755)
        for name in (*filesystems.LAYERS, "work", "mnt"):
            (base / name).mkdir()
        for layer in filesystems.LAYERS:
            (base / layer).chmod(0o777)
        plant(base / "lower1")
        with system.mounted(base) as mnt:
            try:
                return "yes" if question(mnt, base / "upper") else "**no**"
            except OSError as exc:
                return f"**no** ({exc.strerror})"


def main() -> None:
    """Print a table in Markdown."""
    systems = [system for system in (filesystems.UNIONFS, *filesystems.PEERS) if not system.missing]
    print("| | " + " | ".join(system.name for system in systems) + " |")
    print("|---" * (len(systems) + 1) + "|")
    for name, (plant, question) in QUESTIONS.items():
        answers = [answer(system, plant, question) for system in systems]
        print(f"| {name} | " + " | ".join(answers) + " |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
