"""What upper's root says of the layers that it was mounted with, for `diff` and `check`."""

import os

from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.markers import LOWERS, WORK


def set_layers(layer: WritableLayer, lowers: list[str], work: str) -> None:
    """Record on upper's root what it is mounted with."""
    layer.set_attribute(b".", LOWERS, b"\0".join(os.fsencode(name) for name in lowers))
    layer.set_attribute(b".", WORK, os.fsencode(work))


def lowers(layer: Layer) -> list[str]:
    """Return the lowers that upper was last mounted over."""
    value = layer.find_attribute(b".", LOWERS) or b""
    return [os.fsdecode(name) for name in value.split(b"\0") if name]


def work(layer: Layer) -> str:
    """Return the work directory that upper was last mounted with, "" for none."""
    return os.fsdecode(layer.find_attribute(b".", WORK) or b"")
