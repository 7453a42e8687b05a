"""All objects in a layer, found without recursion: a tree may be deeper than Python recurses."""

from typing import TYPE_CHECKING

from unionfs.layers.layer import Layer, join

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


def non_directories(
    layer: Layer, top: bytes = b"."
) -> "Iterator[tuple[bytes, os.DirEntry[bytes]]]":
    """Yield the path of each object below *top* that is no directory, and its entry."""
    directories = [top]
    while directories:
        directory = directories.pop()
        for entry in layer.scan(directory):
            path = join(directory, entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(path)
            else:
                yield path, entry
