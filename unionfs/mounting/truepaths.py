"""Where a path of a root directory leads when symlinks are followed, as they are within that root.

In a union a rule speaks of names, and there are no names below a symlink.
"""

import os

_MOST_LINKS = 40  # of symlinks that lead to one another: path_resolution(7)


def resolved(path: str, root: str) -> str:
    """Return the path with the symlinks above its last name followed, as a bind mount does.

    The path's last name need not exist.
    """
    left = [name for name in reversed(path.split("/")) if name not in {"", "."}]
    there: list[str] = []
    links = 0
    while left:
        name = left.pop()
        if name == "..":
            del there[-1:]
            continue
        there.append(name)
        place = os.path.join(root, *there)
        if left and links < _MOST_LINKS and os.path.islink(place):
            target = os.readlink(place)
            links += 1
            there = [] if target.startswith("/") else there[:-1]
            left += [part for part in reversed(target.split("/")) if part not in {"", "."}]
    return "/" + "/".join(there)
