"""/etc/unionfs.toml, read as a configuration.

    lower = "/"                         # or a list, top first ["/"]
    persist = ["/etc/passwd", "/etc/ssh/ssh_host_*", "!/etc/ssh/moduli"]
    empty = ["/tmp"]                    # directories that begin empty at each mount
    dirs = ["/var/log"]                 # directories that begin without files
    options = "noatime,fsync=strict"    # as -o takes them; or a list

    [scratch]                           # what is gone after a reboot: one of
    ram = "50%"                         #   a size, as tmpfs(5) has it [this]
    disk = "LABEL=scratch"              #   a file system that is mounted, and emptied, first
    directory = "/data/scratch"         #   a directory that is emptied
    mount_options = "noatime"           # of the disk

    [state]                             # what stays: one of
    disk = "LABEL=state"
    directory = "/data/state"
    mount_options = "noatime"
    required = false                    # true: nothing is mounted without it

Errors are reported with their lines.  The standard library's parser does not tell the line of a
value, so it is looked for in the text.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from unionfs.layers.persistence import Rules
from unionfs.mounting.configuration import Configuration, Directory, Disk, Planted, Ram, Room, Rule
from unionfs.mounting.options import Options, Refused, checked_size, parse, settled

FILE = "/etc/unionfs.toml"

_SCRATCH = ("ram", "disk", "directory", "mount_options")
_STATE = ("disk", "directory", "mount_options", "required")
_KEYS = ("lower", "persist", "empty", "dirs", "options", "scratch", "state")

# Keys that belong elsewhere in the file, or to other programs -> where.
_ELSEWHERE = {
    "lowerdir": "say lower = ... outside of options",
    "lowerdir+": "say lower = ... outside of options",
    "upperdir": "say it in [scratch]",
    "workdir": "say it in [scratch]",
    "ram": "say ram = ... in [scratch]",
    "statedir": "say it in [state]",
    "persist": "say persist = [...] outside of options",
    "remount": "it is for the command line",
    "boot": "the boot says it by itself",
    "dead": "say unionfs.dead= on the kernel's command line",
}


def read(file: str = FILE) -> Configuration:
    """Read the file; Refused says which line is wrong, and what would be right."""
    try:
        with open(file, "rb") as stream:
            text = stream.read().decode()
    except FileNotFoundError:
        raise Refused(f"{file} does not exist: 'unionfs config --suggest' proposes one") from None
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise Refused(f"{file}: byte {exc.start} is not UTF-8: save it as that") from None
    return parsed(text, file)


def parsed(text: str, file: str = FILE) -> Configuration:
    """Return the configuration in the text of the file *file*."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        what, _, where = str(exc).partition(" (at ")
        line = where.removesuffix(")").partition(",")[0] or "its end"
        raise Refused(f"{file}, {line}: {what}: see toml.io for the form") from None
    document = _Document(file, text)
    document.check_keys((), found, _KEYS)
    state = _table(document, found, "state", _STATE)
    scratch = _table(document, found, "scratch", _SCRATCH)
    return Configuration(
        source=file,
        lowers=tuple(_lowers(document, found)),
        scratch=(_room(document, "scratch", scratch) or Ram(),),
        state=tuple(filter(None, [_room(document, "state", state)])),
        state_required=document.flag(("state", "required"), state.get("required", False)),
        rules=tuple(_rules(document, found, state)),
        planted=tuple(_planted(document, found)),
        options=tuple(_options(document, found)),
    )


@dataclass(frozen=True, slots=True)
class _Document:
    """The text, for messages that name a place in it."""

    file: str
    text: str

    def refuse(self, key: tuple[str, ...], trouble: str, value: object = None) -> NoReturn:
        raise Refused(f"{self.where(key, value)}: {trouble}")

    def where(self, key: tuple[str, ...], value: object = None) -> str:
        """Return the place of a key, or of a value that follows the key."""
        lines = self.text.splitlines()
        at = self._line(key, lines)
        if at and isinstance(value, str):
            quoted = (f'"{value}"', f"'{value}'", _escaped(value))
            following = enumerate(lines[at - 1 :], at)
            at = next((n for n, line in following if any(q in line for q in quoted)), at)
        return f"{self.file}, line {at}" if at else self.file

    @staticmethod
    def _line(key: tuple[str, ...], lines: list[str]) -> int:
        """Return the line of a key, or of its table; 0 where it is not found."""
        header: tuple[str, ...] = ()
        best = 0
        for number, line in enumerate(lines, 1):
            table = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
            if table:
                header = tuple(_names(table[1]))
                best = number if header == key[: len(header)] else best
                continue
            said = re.match(r"\s*([\w.\"' -]+?)\s*=", line)
            names = (*header, *_names(said[1])) if said else ()
            if names == key:
                return number
            if names and names == key[: len(names)]:  # an inline table
                best = number
        return best

    def check_keys(
        self, above: tuple[str, ...], found: Mapping[str, object], known: tuple[str, ...]
    ) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self.refuse((*above, key), f"'{key}' is unknown{_within(above)}: {hint}")

    def string(self, key: tuple[str, ...], value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            self.refuse(key, f'{key[-1]} is {_kind(value)}: say {key[-1]} = "..."')
        return value

    def flag(self, key: tuple[str, ...], value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(key, f"{key[-1]} is {_kind(value)}: say {key[-1]} = true, or false")
        return value

    def strings(self, key: tuple[str, ...], value: object) -> list[str]:
        if not isinstance(value, list):
            self.refuse(key, f'{key[-1]} is {_kind(value)}: say {key[-1]} = ["...", "..."]')
        for one in value:
            if not isinstance(one, str):
                self.refuse(key, f"{key[-1]} has {_kind(one)} in it: each must be in quotes")
        return value


def _escaped(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names(dotted: str) -> Iterator[str]:
    return (name.strip().strip("\"'") for name in dotted.split("."))


def _within(above: tuple[str, ...]) -> str:
    return f" in [{'.'.join(above)}]" if above else ""


_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def _kind(value: object) -> str:
    return "a string" if isinstance(value, str) else _KINDS.get(type(value), "a date or time")


def _table(
    document: _Document, found: dict[str, Any], name: str, known: tuple[str, ...]
) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        document.refuse((name,), f"{name} is {_kind(table)}: say [{name}], and its keys below that")
    document.check_keys((name,), table, known)
    return table


def _room(document: _Document, name: str, table: dict[str, Any]) -> Room | None:
    """Return the room of a side, None where the file does not name one."""
    said = [key for key in ("ram", "disk", "directory") if key in table]
    if len(said) > 1:
        document.refuse(
            (name, said[1]), f"{' and '.join(said)} exclude each other in [{name}]: leave one out"
        )
    if "mount_options" in table and said != ["disk"]:
        document.refuse(
            (name, "mount_options"), "mount_options are those of a disk: leave them out"
        )
    if not said:
        return None
    key = (name, said[0])
    value = document.string(key, table[said[0]])
    if said[0] == "ram":
        return _ram(document, key, value)
    if said[0] == "directory":
        return Directory(_absolute(document, key, value))
    return _disk(document, name, value, table.get("mount_options", ""))


def _ram(document: _Document, key: tuple[str, ...], size: str) -> Ram:
    try:
        return Ram(f"size={checked_size(size)}" if size else "")
    except Refused as exc:
        document.refuse(key, str(exc))


def _disk(document: _Document, name: str, device: str, options: object) -> Disk:
    known = ("LABEL=", "UUID=", "PARTLABEL=", "PARTUUID=", "/dev/")
    if not device.startswith(known):
        document.refuse(
            (name, "disk"), f"'{device}' is no disk: say LABEL=..., UUID=... or /dev/..."
        )
    return Disk(device, options=document.string((name, "mount_options"), options))


def _absolute(document: _Document, key: tuple[str, ...], path: str) -> str:
    if not path.startswith("/"):
        document.refuse(key, f"'{path}' is no absolute path: say '/{path}'", path)
    return os.path.normpath(path)


def _lowers(document: _Document, found: dict[str, Any]) -> Iterator[str]:
    said = found.get("lower", "/")
    names = [said] if isinstance(said, str) else document.strings(("lower",), said)
    if not names:
        document.refuse(("lower",), 'a union needs a lower layer: say lower = "/"')
    yield from (_absolute(document, ("lower",), name) for name in names)


def _rules(document: _Document, found: dict[str, Any], state: dict[str, Any]) -> Iterator[Rule]:
    key = ("persist",)
    texts = document.strings(key, found.get("persist", []))
    for text in texts:
        try:
            Rules.parse([text])
        except ValueError as exc:
            document.refuse(key, str(exc), text)
        yield Rule(text, document.where(key, text))
    if texts and not {"disk", "directory"}.intersection(state):
        document.refuse(key, "what persists needs a place: say disk or directory in [state]")


def _planted(document: _Document, found: dict[str, Any]) -> Iterator[Planted]:
    for path in document.strings(("empty",), found.get("empty", [])):
        yield Planted("empty", _absolute(document, ("empty",), path))
    for path in document.strings(("dirs",), found.get("dirs", [])):
        yield Planted("dirs", _absolute(document, ("dirs",), path))


def _options(document: _Document, found: dict[str, Any]) -> Iterator[str]:
    key = ("options",)
    said = found.get("options", [])
    for string in [said] if isinstance(said, str) else document.strings(key, said):
        for word in string.split(","):
            name = word.partition("=")[0]
            if name in _ELSEWHERE:
                document.refuse(key, f"'{name}' is no option here: {_ELSEWHERE[name]}", string)
        try:
            _settle(parse([string], Options()), found)
        except Refused as exc:
            document.refuse(key, str(exc), string)
        yield string


def _settle(options: Options, found: dict[str, Any]) -> None:
    """Refuse options that exclude each other, or two sides."""
    persist = tuple(found.get("persist", []))
    state = "/" if persist else None
    settled(replace(options, lowers=("/",), ram="", state=state, persist=persist))
