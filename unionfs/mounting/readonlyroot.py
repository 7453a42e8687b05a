"""Fedora's readonly-root, read as a configuration of ours: its file, rwtab and statetab.

The files mean what initscripts' `readonly-root` makes of them (systemd/readonly-root in its
source, and Red Hat's "Managing file systems").  There, a scratch file system takes copies of
what rwtab names, a state file system takes copies of what statetab names, and each copy is
mounted over its original.  Here the union takes every change: what statetab names persists, all
else goes to scratch.  So of rwtab only the entries that show *less* than the root mean
something: `empty` and `dirs`.

READONLY and TEMPORARY_STATE are ignored: a mount by this file has decided them.  Such a
machine has to say READONLY=no, or Fedora's own script would do its part on top.
"""

import glob
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from unionfs.layers.persistence import Rules
from unionfs.mounting import fstab
from unionfs.mounting.configuration import Configuration, Directory, Disk, Planted, Ram, Room, Rule
from unionfs.mounting.options import Refused
from unionfs.mounting.truepaths import resolved

FILE = "/etc/sysconfig/readonly-root"

# Left behind by editors and package managers: initscripts, is_ignored_file.
_LEFTOVERS = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave")

_SCRATCH_MOUNT = "/var/lib/stateless/writable"
_STATE_MOUNT = "/var/lib/stateless/state"


def read(file: str = FILE, root: str = "/") -> Configuration:
    """Read *file*, and the tables below *root*; Refused says which line is not understood."""
    values = _variables(file)
    notes = list(_unheeded(values))
    rules = tuple(_statetab(root, root))
    scratch = tuple(_scratch(values, root, notes))
    state = tuple(_state(values, root, notes, awaited=bool(rules)))
    planted = tuple(_planted(root, notes))
    return Configuration(
        source=file,
        scratch=scratch,
        state=state,
        state_adds_rules=True,
        rules=rules,
        planted=planted,
        notes=tuple(notes),
    )


def rules_on(state: str, root: str = "/") -> tuple[Rule, ...]:
    """Return the rules with the directory *state*, which may have some of its own.

    These are in its file `files`, and in its own copies of statetab, which replace the root's.
    """
    return tuple(_statetab(root, state))


# The file with the settings


class _Line(NamedTuple):
    file: str
    number: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.number}"


def _lines(file: str, root: str) -> Iterator[_Line]:
    """Yield a file's lines, without blank lines and comments; none without a file."""
    try:
        with open(_below(root, file), encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield _Line(file, number, text)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}") from None


def _below(root: str, path: str) -> str:
    """Return where a path of a root is; "": it is as it stands."""
    return os.path.join(root, path.lstrip("/")) if root else path


# A word of sh: quoted in one of three ways, or not; and what may follow it.
_ASSIGNMENT = re.compile(
    r"""(?:export\s+)?(?P<key>[A-Za-z_][A-Za-z0-9_]*)=
    (?P<value>(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|[^\s'"\\;#]|(?<=[^\s=;])\#)*)
    \s*;?\s*(?:\#.*)?""",
    re.VERBOSE,
)


# The parts of a word in which sh expands something, or nothing.
_PART = re.compile(r"""'[^']*'|"(?P<double>(?:[^"\\]|\\.)*)"|\\.|(?P<plain>[^'"\\])""")


def _is_expanded(word: str) -> bool:
    """Tell whether sh would replace a part of the word by something else."""
    parts = (found["double"] or found["plain"] or "" for found in _PART.finditer(word))
    return any(re.search(r"[$`]", re.sub(r"\\.", "", part)) for part in parts)


def _unquoted(word: str) -> str:
    """Return the value of a word in sh, where nothing is expanded."""
    text = ""
    for found in _PART.finditer(word):
        if found["double"] is not None:
            text += re.sub(r"\\([$`\"\\])", r"\1", found["double"])
        elif found["plain"] is not None:
            text += found["plain"]
        else:
            text += found[0][1:-1] if found[0].startswith("'") else found[0][1:]
    return text


def _variables(file: str) -> dict[str, _Line]:
    """Return the file's variables: name -> the line, with the value as its text."""
    if not os.path.exists(file):
        raise Refused(f"{file} does not exist: say --readonly-root FILE, or --config")
    values = {}
    for line in _lines(file, ""):
        found = _ASSIGNMENT.fullmatch(line.text)
        if found is None:
            raise Refused(f"{line.where}: '{line.text}' is not understood; say NAME=VALUE")
        if _is_expanded(found["value"]):
            raise Refused(
                f"{line.where}: '{line.text}': what $ and ` stand for is not known here;"
                " write it out"
            )
        values[found["key"]] = line._replace(text=_unquoted(found["value"]))
    return values


def _value(values: dict[str, _Line], key: str, default: str = "") -> str:
    line = values.get(key)
    return line.text if line is not None and line.text else default


def _unheeded(values: dict[str, _Line]) -> Iterator[str]:
    for key in ("READONLY", "TEMPORARY_STATE"):
        if _value(values, key) == "yes":
            yield (
                f"{values[key].where}: {key}=yes makes Fedora's own readonly-root mount over the"
                " union, too; say no, the union needs neither"
            )


def _absolute(values: dict[str, _Line], key: str, default: str) -> str:
    value = _value(values, key, default)
    if not value.startswith("/"):
        raise Refused(f"{values[key].where}: {key}={value} is no absolute path; say {key}=/{value}")
    return os.path.normpath(value)


# Where the two sides are


def _scratch(values: dict[str, _Line], root: str, notes: list[str]) -> Iterator[Room]:
    yield from _in_fstab(_absolute(values, "RW_MOUNT", _SCRATCH_MOUNT), root)
    yield from _labelled(_value(values, "RW_LABEL"), _SCRATCH_MOUNT, awaited=False)
    yield Ram(_mount_options(values, "RW_OPTIONS", notes))


def _state(
    values: dict[str, _Line], root: str, notes: list[str], *, awaited: bool
) -> Iterator[Room]:
    mountpoint = _absolute(values, "STATE_MOUNT", _STATE_MOUNT)
    options = _mount_options(values, "STATE_OPTIONS", notes)
    for room in _in_fstab(mountpoint, root):
        if isinstance(room, Disk) and options:
            joined = ",".join(filter(None, (room.options, options)))
            yield Disk(room.device, room.mountpoint, room.kind, joined)
        else:
            yield room
    yield from _labelled(_value(values, "STATE_LABEL"), mountpoint, awaited=awaited)
    client = _value(values, "CLIENTSTATE")
    if client.startswith("/"):
        yield Directory(_of_this_client(client, root))
    elif client:
        notes.append(
            f"{values['CLIENTSTATE'].where}: '{client}' is on a server; NFS has no trusted"
            " attributes and no whiteouts, so a side of a union cannot be there"
        )


def _of_this_client(directory: str, root: str) -> str:
    """Return this machine's directory, which has its host name, among those of other machines."""
    name = next((line.text for line in _lines("/etc/hostname", root)), "")
    own = os.path.join(directory, name)
    return own if name and os.path.isdir(_below(root, own)) else directory


def _in_fstab(mountpoint: str, root: str) -> Iterator[Room]:
    """Yield the entries of fstab(5) for a mount point."""
    for entry in fstab.entries(root):
        if entry.mountpoint != mountpoint:
            continue
        if entry.kind == "tmpfs":
            yield Ram(entry.options)
        elif entry.is_bind:
            yield Directory(entry.device)
        else:
            yield Disk(entry.device, mountpoint, entry.kind, entry.options)


def _labelled(label: str, mountpoint: str, *, awaited: bool) -> Iterator[Room]:
    if label:
        yield Disk(f"LABEL={label}", mountpoint, awaited=awaited)


def _mount_options(values: dict[str, _Line], key: str, notes: list[str]) -> str:
    """Return the options of a value that initscripts hands to mount(8) as it is: `-o size=1g`."""
    said = []
    words = iter(shlex.split(_value(values, key)))
    for word in words:
        if word == "-o":
            said.append(next(words, ""))
        elif word.startswith("-o"):
            said.append(word.removeprefix("-o"))
        elif "-" not in word[:1]:
            said.append(word)
        else:
            notes.append(f"{values[key].where}: '{word}' of {key} means nothing here: left out")
    return ",".join(filter(None, said))


# The tables


def _tables(name: str, root: str, over: str | None = None) -> Iterator[str]:
    """Yield the names of a table's files, of the root and of the directory *over*."""
    found = {f"/etc/{name}"}
    for directory in filter(None, (root, over)):
        pattern = os.path.join(glob.escape(_below(directory, f"/etc/{name}.d")), "*")
        found |= {f"/etc/{name}.d/{os.path.basename(path)}" for path in glob.glob(pattern)}
    yield from (path for path in sorted(found) if not path.endswith(_LEFTOVERS))


def _statetab(root: str, state: str) -> Iterator[Rule]:
    """Yield the rules of statetab: a line may have several paths, and each may be a glob."""
    for file in _tables("statetab", root, state):
        lines = list(_lines(file, state)) or list(_lines(file, root))
        if state != root and os.path.isfile(_below(state, file)):
            yield Rule(file, f"{state}{file}")  # so that the union shows the file that counts
        yield from _rules(lines, root)
    if state != root:
        yield from _rules(_lines("/files", state), root)


def _rules(lines: Iterable[_Line], root: str) -> Iterator[Rule]:
    for line in lines:
        for word in line.text.split():
            rule = resolved(word, root) if word.startswith("/") else word
            try:
                Rules.parse([rule])
            except ValueError as exc:
                raise Refused(f"{line.where}: {exc}") from None
            yield Rule(rule, line.where)


def _planted(root: str, notes: list[str]) -> Iterator[Planted]:
    """Yield the directories to plant; those not in the root are left out, as in initscripts."""
    files = [*_tables("rwtab", root), "/run/initramfs/rwtab"]
    for line in (line for file in files for line in _lines(file, root)):
        kind, *words = line.text.split()
        if kind == "files" or not words:
            continue
        if kind not in {"empty", "dirs"}:
            notes.append(f"{line.where}: '{kind}' is none of empty, dirs and files: left out")
            continue
        for path in _expanded(resolved(words[0], root), root):
            yield Planted("empty" if kind == "empty" else "dirs", path)


def _expanded(path: str, root: str) -> Iterator[str]:
    """Yield the directories that a path or glob names in the root."""
    for found in sorted(glob.glob(path.lstrip("/"), root_dir=root)):
        st = os.lstat(os.path.join(root, found))
        if stat.S_ISDIR(st.st_mode):
            yield "/" + found.rstrip("/")
