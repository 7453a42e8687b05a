"""What a session asks of the kernel, and what the kernel granted."""

from dataclasses import dataclass
from typing import Any

from unionfs.fuse.session.protocol import Answer, Init, Offer, names

_NONE = Init(0)


@dataclass(frozen=True, slots=True)
class Switches:
    """Which of the session's means are used, where kernel and privileges allow."""

    loop: bool = True  # requests are taken without a pass through trio
    direct: bool = True  # requests are answered without libfuse; needs loop and handshake
    handshake: bool = True  # we mount and add flags to INIT; without it pyfuse3 does all
    passthrough: bool = True  # of file data; needs the handshake
    noopen: bool = False  # files are used without being opened: no passthrough; needs direct


@dataclass(frozen=True, slots=True)
class Granted:
    """What the kernel granted; before FUSE_INIT is answered, nothing.

    Without the handshake the flags are libfuse's secret, and `flags` is empty.
    """

    loop: bool = False
    direct: bool = False
    handshake: bool = False
    passthrough: bool = False
    noopen: bool = False  # no request will say that a file is opened
    protocol: tuple[int, int] = (0, 0)
    offered: Init = _NONE
    flags: Init = _NONE
    max_readahead: int = 0  # bytes
    max_write: int = 0  # bytes
    max_background: int = 0  # requests; 0: the kernel's default
    refused: str = ""  # why the handshake was not made though wanted

    @property
    def dont_mask(self) -> bool:
        """The daemon has to apply the umask; the kernel has not done so."""
        return Init.DONT_MASK in self.flags

    @property
    def kill_privileges(self) -> bool:
        """The daemon takes set-id bits away at writes, truncations and changes of owner."""
        return Init.HANDLE_KILLPRIV_V2 in self.flags

    def as_json(self) -> dict[str, Any]:
        """Return it for `unionfs status`."""
        return {
            "loop": self.loop,
            "direct": self.direct,
            "handshake": self.handshake,
            "passthrough": self.passthrough,
            "noopen": self.noopen,
            "protocol": ".".join(map(str, self.protocol)) if any(self.protocol) else None,
            "flags": list(names(self.flags)),
            "offered": list(names(self.offered)),
            "max_readahead": self.max_readahead,
            "max_write": self.max_write,
            "max_background": self.max_background,
            "refused": self.refused,
        }


def granted(offer: Offer | None, answer: Answer | None, *, loop: bool) -> Granted:
    """Sum up a handshake."""
    if offer is None or answer is None:
        return Granted(loop=loop, refused="the kernel speaks an unknown protocol")
    flags = answer.flags & offer.flags
    return Granted(
        loop=loop,
        handshake=True,
        passthrough=Init.PASSTHROUGH in flags and answer.max_stack_depth > 0,
        protocol=offer.protocol,
        offered=offer.flags,
        flags=flags,
        max_readahead=answer.max_readahead,
        max_write=answer.max_write,
        max_background=answer.max_background,
    )
