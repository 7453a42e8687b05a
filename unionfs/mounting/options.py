r"""The options that a user may give to a mount: those of overlayfs, mount(8) and our own.

`-o` is one string of options with commas between them.  As in overlayfs, a
backslash takes the meaning from the character after it, so that a directory
may have `,` `:` or `\` in its name: fs/overlayfs/params.c, `ovl_next_opt` and
`ovl_unescape`.  The options that mount(8) and fstab(5) pass along are
understood where they mean something for a mount, and ignored where they are
for mount(8) alone.

This module only reads words; nothing here looks at the file system.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from unionfs.mounting import words

OnOff = Literal["on", "off"]


class Refused(Exception):  # noqa: N818 - it says what happens to the request
    """The user's request cannot be carried out: says why and what to do; exit status 2."""


@dataclass(frozen=True, slots=True)
class Options:
    """All that can be chosen for a mount; None is "not said"."""

    lowers: tuple[str, ...] = ()  # top first
    upper: str | None = None
    work: str | None = None
    ram: str | None = None  # the size as tmpfs(5) takes it, "" for tmpfs's default
    # The second writable side: its upper, its work, the rules for what persists, and whether there
    # is to be no mount without it.
    state: str | None = None
    state_work: str | None = None
    persist: tuple[str, ...] = ()
    state_required: bool = False
    flags: int = 0  # MS_* of mount(2)
    remount: bool = False
    config: str | None = None  # the file that says the rest, "" for the one that the machine has
    source: str = "unionfs"
    subtype: str = "unionfs"
    # Options that are chosen from a few words, each with its name in `-o` and its line in --help.
    metacopy: Annotated[OnOff | None, "copy only the metadata up when only that changes [on]"] = (
        None
    )
    redirect_dir: Annotated[OnOff | None, "rename directories of lower layers in one step [on]"] = (
        None
    )
    copyup: Annotated[
        Literal["whole", "blocks"] | None,
        "how a large lower file comes up when it is written to: all of it, or the blocks written"
        " [blocks with --ram]",
    ] = None
    fill: Annotated[
        OnOff,
        "with copyup=blocks on a disk: the rest of a file is copied when nobody asks for anything"
        " [off]",
    ] = "off"
    whiteout: Annotated[
        Literal["overlay", "aufs"],
        'how upper says "deleted": as overlayfs does, or by names .wh.* [overlay]',
    ] = "overlay"
    fsync: Annotated[Literal["auto", "strict", "off"], "what is made durable when [auto]"] = "auto"
    passthrough: Annotated[
        Literal["upper", "all", "off"],
        "which files the kernel reads and writes without the daemon [upper]",
    ] = "upper"
    noopen: Annotated[
        OnOff,
        "files are used without asking the daemon to open them; nothing passes through then [off]",
    ] = "off"
    loop: Annotated[OnOff, "the fast event loop [on]"] = "on"
    direct: Annotated[OnOff, "requests answered without libfuse [on]"] = "on"
    handshake: Annotated[OnOff, "the extended kernel handshake [on]"] = "on"
    boot: Annotated[
        OnOff, "this will be the root of the machine: the daemon is watched and spared [off]"
    ] = "off"
    dead: Annotated[
        Literal["reboot", "panic", "halt", "nothing"],
        "what to do when the daemon of a boot=on mount dies [reboot]",
    ] = "reboot"
    wipe: Annotated[OnOff, "upper is emptied first: what is in it is gone [off]"] = "off"
    # Directories that upper begins with, of a configuration: "empty" or "dirs", and a path.
    planted: tuple[tuple[str, str], ...] = ()
    # Where disks are mounted for this union alone, of a configuration: they go with it.
    disks: tuple[str, ...] = ()
    far: str | None = None  # lowers that may keep one waiting: "all", or "1:3", the first being 1
    near: str | None = None


def choices() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the options chosen from a few words: name -> (the words, what it means)."""
    types = get_type_hints(Options, include_extras=True)
    return {
        name: (_words(type_.__origin__), type_.__metadata__[0])
        for name, type_ in types.items()
        if get_origin(type_) is Annotated
    }


def _words(type_: object) -> tuple[str, ...]:
    """Return the words of a Literal, or of one that may be None."""
    said = get_args(type_)
    return _words(said[0]) if type(None) in said else said


_CHOICES = choices()

_SIZE = re.compile(r"[1-9][0-9]*[kKmMgGtTpPeE]?|([1-9][0-9]?|100)%")


def checked_size(size: str) -> str:
    """Return *size* if tmpfs(5) takes it: bytes, with k, m, g..., or a percentage of the RAM.

    tmpfs takes 0 for "no limit", which no union should have by accident.
    """
    if size and not _SIZE.fullmatch(size):
        raise Refused(
            f"bad size '{size}': give bytes with an optional k, m, g or t (512M),"
            " or a percentage of the RAM (50%)"
        )
    return size


def split_escaped(text: str, separator: str) -> list[str]:
    """Split at every *separator* that no backslash precedes; backslashes are kept."""
    parts = [""]
    for piece in re.findall(r"\\.|.", text, re.DOTALL):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def unescape(text: str) -> str:
    """Take the backslashes away that protect the character after them."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def parse(strings: Iterable[str], base: Options) -> Options:
    """Add the options in the strings of `-o` to *base*; the last of several counts."""
    options = base
    for key, value in _pairs(strings):
        options = _add(options, key, value)
    return options


def _pairs(strings: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    for string in strings:
        for option in split_escaped(string, ","):
            if option:
                key, equals, value = option.partition("=")
                yield key, value if equals else None


def _add(options: Options, key: str, value: str | None) -> Options:
    if value is None and key in words.FLAGS:
        clear, add = words.FLAGS[key]
        return replace(options, flags=options.flags & ~clear | add)
    if value is None and key in words.IGNORED:
        return options
    if f"{key}={value or ''}".startswith(words.IGNORED_PREFIXES):
        return options
    if key in _CHOICES:
        return replace(options, **{key: _chosen(key, value)})  # type: ignore[arg-type]
    if key in _OWN:
        return _OWN[key](options, value)
    raise Refused(_unknown(key, value))


def _chosen(key: str, value: str | None) -> str:
    words, _ = _CHOICES[key]
    if value not in words:
        said = key if value is None else f"{key}={value}"
        raise Refused(f"bad option '{said}': {key} is one of {', '.join(words)}")
    return value


def _unknown(key: str, value: str | None) -> str:
    said = key if value is None else f"{key}={value}"
    hint = words.EXPLAINED.get(key, "see unionfs mount --help for those there are")
    return f"unknown option '{said}': {hint}"


def _needed(key: str, value: str | None) -> str:
    if not value:
        raise Refused(f"option '{key}' needs a value: {key}=...")
    return value


def _said(key: str, value: str | None) -> str:
    """Return the value, which may be empty."""
    if value is None:
        raise Refused(f"option '{key}' needs a value: {key}=...")
    return value


def _set_lowers(options: Options, value: str | None) -> Options:
    names = split_escaped(_needed("lowerdir", value), ":")
    if "" in names:
        raise Refused(
            f"bad option 'lowerdir={value}': an empty name between colons"
            " (overlayfs's '::' data-only layers are not supported)"
        )
    return replace(options, lowers=tuple(map(unescape, names)))


def _append_lower(options: Options, value: str | None) -> Options:
    return replace(options, lowers=(*options.lowers, unescape(_needed("lowerdir+", value))))


_PLACES = re.compile(r"all|[1-9][0-9]*(:[1-9][0-9]*)*")


def _places(key: str, value: str | None) -> str:
    """Return the lowers that an option names."""
    if value is None or not _PLACES.fullmatch(value):
        raise Refused(f"bad option '{key}': say {key}=all, or which lowers ({key}=1:3)")
    return value


def _add_persist(options: Options, value: str | None) -> Options:
    rules = map(unescape, split_escaped(_needed("persist", value), ":"))
    return replace(options, persist=(*options.persist, *rules))


def _require_state(options: Options, value: str | None) -> Options:
    if value is not None:
        raise Refused(_unknown("state-required", value))
    return replace(options, state_required=True)


def _set_remount(options: Options, value: str | None) -> Options:
    if value is not None:
        raise Refused(_unknown("remount", value))
    return replace(options, remount=True)


_OWN: dict[str, Callable[[Options, str | None], Options]] = {
    "lowerdir": _set_lowers,
    "lowerdir+": _append_lower,
    "upperdir": lambda options, value: replace(options, upper=unescape(_needed("upperdir", value))),
    "workdir": lambda options, value: replace(options, work=unescape(_needed("workdir", value))),
    "ram": lambda options, value: replace(options, ram=checked_size(value or "")),
    "statedir": lambda options, value: replace(options, state=unescape(_needed("statedir", value))),
    "stateworkdir": lambda options, value: replace(
        options, state_work=unescape(_needed("stateworkdir", value))
    ),
    "persist": _add_persist,
    "state-required": _require_state,
    "remount": _set_remount,
    "config": lambda options, value: replace(options, config=unescape(value or "")),
    "far": lambda options, value: replace(options, far=_places("far", value)),
    "near": lambda options, value: replace(options, near=_places("near", value)),
    "fsname": lambda options, value: replace(options, source=unescape(_needed("fsname", value))),
    "subtype": lambda options, value: replace(options, subtype=_said("subtype", value)),
}


def settled(options: Options) -> Options:
    """Check that the options agree, and decide those that were not given.

    A metadata-only copy finds its data by a path, which after a rename only a
    redirect can tell: metacopy=on needs redirect_dir=on, as in overlayfs.rst.
    The names of whiteout=aufs can express neither.
    """
    _check_upper(options)
    _check_places(options)
    if options.state or options.persist or options.state_work or options.state_required:
        options = _with_state(options)
    if options.wipe == "on" and not options.upper:
        raise Refused("wipe=on without an upper directory: there is nothing to empty")
    if options.noopen == "on":
        options = _without_opens(options)
    options = replace(options, copyup=_copyup(options))
    if options.fill == "on":
        _check_fill(options)
    features = {"metacopy": options.metacopy, "redirect_dir": options.redirect_dir}
    if options.whiteout == "aufs":
        for key, value in features.items():
            if value == "on":
                raise Refused(f"{key}=on and whiteout=aufs exclude each other: leave one out")
        return replace(options, metacopy="off", redirect_dir="off")
    redirect_dir = options.redirect_dir or "on"
    if options.metacopy == "on" and redirect_dir == "off":
        raise Refused("metacopy=on needs redirect_dir=on: leave redirect_dir=off out")
    metacopy = options.metacopy or redirect_dir
    return replace(options, metacopy=metacopy, redirect_dir=redirect_dir)


def _copyup(options: Options) -> Literal["whole", "blocks"]:
    """Return how files are copied up.

    A copy by blocks takes a metadata-only copy.  On a disk other programs that look at upper find
    it in part, so there it is asked for; beside state it is never, as that disk is emptied.
    """
    without = "off" in (options.metacopy, options.redirect_dir) or options.whiteout == "aufs"
    if options.copyup == "blocks" and options.state and options.ram is None:
        raise Refused("copyup=blocks beside a state directory needs scratch in RAM: say --ram")
    if options.copyup == "blocks" and options.ram is None and not options.upper:
        raise Refused("copyup=blocks without an upper directory: there is nothing to copy up to")
    if options.copyup == "blocks" and without:
        raise Refused("copyup=blocks needs metacopy=on: leave one of them out")
    fits = options.ram is not None and not without
    return options.copyup or ("blocks" if fits else "whole")


def _check_fill(options: Options) -> None:
    """Check that upper can have files in part, and that filling them makes sense."""
    if options.ram is not None:
        raise Refused("fill=on and a RAM upper exclude each other: whole files would fill the RAM")
    if options.copyup != "blocks":
        raise Refused("fill=on needs copyup=blocks: add it, or leave fill=on out")


def _with_state(options: Options) -> Options:
    """Check the options of the second side, and those that exclude it.

    Nothing passes through: an open file may move to the other side, and the kernel's backing
    file could not move along.
    """
    if not options.state:
        raise Refused("what persists needs a state directory: add --state DIR (or statedir=DIR)")
    if not options.persist:
        raise Refused(f"state '{options.state}' has nothing to keep: add --persist PATH")
    if options.upper is None and options.ram is None:
        raise Refused(
            f"state '{options.state}' takes only what persists: add --ram for all else"
            " (or --upper DIR and --work DIR, which are emptied at each mount)"
        )
    if options.whiteout == "aufs":
        raise Refused("whiteout=aufs and a state directory exclude each other: leave one out")
    if options.passthrough == "all":
        raise Refused("passthrough=all and a state directory exclude each other: leave one out")
    from unionfs.layers.persistence import Rules  # noqa: PLC0415 - few mounts have state

    try:
        Rules.parse(options.persist)
    except ValueError as exc:
        raise Refused(str(exc)) from None
    return replace(options, passthrough="off")


def _without_opens(options: Options) -> Options:
    """Check the options that exclude noopen=on, with which nothing passes through."""
    if options.passthrough == "all":
        raise Refused("noopen=on and passthrough=all exclude each other: leave one out")
    for key in ("loop", "direct", "handshake"):
        if getattr(options, key) == "off":
            raise Refused(f"noopen=on needs {key}=on: leave {key}=off out")
    return replace(options, passthrough="off")


def _check_places(options: Options) -> None:
    """Check that far= and near= name existing lowers, and none in both."""
    far, near = ((value or "").split(":") for value in (options.far, options.near))
    for key, places in (("far", far), ("near", near)):
        for place in places:
            if place.isdigit() and int(place) > len(options.lowers):
                raise Refused(f"bad option '{key}={place}': there is no lower {place}")
    both = {"all"}.union(far).intersection(near) if "all" in far else set(far).intersection(near)
    if both - {""}:
        raise Refused(f"a lower cannot be both far and near: {', '.join(sorted(both))}")


def _check_upper(options: Options) -> None:
    if options.ram is not None and (options.upper or options.work):
        raise Refused("a RAM upper and an upper directory exclude each other: leave one out")
    if options.upper and not options.work:
        raise Refused(
            f"upper '{options.upper}' needs a work directory on the same file system:"
            " add --work DIR (or workdir=DIR)"
        )
    if options.work and not options.upper:
        raise Refused(f"work '{options.work}' without an upper: add --upper DIR (or upperdir=DIR)")
