"""How paths of the union are written: for people on a line, for programs in JSON.

A path is bytes, relative to the root of the union, without a leading slash;
output has the slash.  Bytes that are no UTF-8 become lone surrogates
(PEP 383), which JSON spells as escapes: Python's json.loads and os.fsencode
give the bytes back.
"""

import io
import os
import re
import sys

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")

JSON_HELP = "print one JSON document; bytes of a name that are no UTF-8 become \\udc80 to \\udcff"


def absolute(path: bytes) -> str:
    """Return *path* as JSON has it."""
    return "/" + os.fsdecode(b"" if path == b"." else path)


def shown(path: bytes) -> str:
    """Return *path* on one line: control characters and backslashes escaped, as in Python."""
    return _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], absolute(path))


def let_stdout_write_any_name() -> None:
    """Let print write bytes that are no UTF-8 as they are."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
