"""The configuration of a machine: which of the files that may say it counts."""

import os

from unionfs.mounting import readonlyroot, tomlfile
from unionfs.mounting.configuration import Configuration
from unionfs.mounting.options import Refused


def read(file: str | None = None, root: str = "/") -> Configuration:
    """Read *file*, or the one that the root has; Refused where it is wrong, or missing.

    Our own file wins over Fedora's, as it was written for unionfs.
    """
    if file is None:
        file = _found(root)
    if file.endswith(".toml"):
        return tomlfile.read(file)
    return readonlyroot.read(file, root)


def _found(root: str) -> str:
    for file in (tomlfile.FILE, readonlyroot.FILE):
        path = os.path.join(root, file.lstrip("/"))
        if os.path.exists(path):
            return path
    raise Refused(
        f"there is neither {tomlfile.FILE} nor {readonlyroot.FILE}:"
        " 'unionfs config --suggest' proposes the first"
    )
