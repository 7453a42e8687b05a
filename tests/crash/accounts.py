"""shadow's programs as `programs`: each line of each file is the old one or the new one."""

import os
import re
import stat
from typing import NamedTuple

from .programs import Program, read

_HASH = "$y$j9T$abcdefghijklmnopqrstu.$0123456789012345678901234567890123456789012"
_MODES = {"passwd": 0o644, "group": 0o644, "subuid": 0o644, "subgid": 0o644,
          "shadow": 0o640, "gshadow": 0o640}  # fmt: skip
_SHADOW = 42  # group
_OTHERS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n",
    "shadow": f"root:*:20000:0:99999:7:::\nbob:{_HASH}:20000:0:99999:7:::\n",
    "group": "root:x:0:\nshadow:x:42:\nbob:x:1001:\n",
    "gshadow": "root:*::\nshadow:*::\nbob:!::\n",
    "subuid": "bob:165536:65536\n",
    "subgid": "bob:165536:65536\n",
}
_ADA = {
    "passwd": "ada:x:1000:1000::/home/ada:/bin/sh",
    "shadow": f"ada:{_HASH}:20000:0:99999:7:::",
    "group": "ada:x:1000:",
    "gshadow": "ada:!::",
    "subuid": "ada:100000:65536",
    "subgid": "ada:100000:65536",
}
_NEW = {
    "passwd": r"ada:x:1002:1002::/home/ada:/bin/sh",
    "shadow": r"ada:!:\d+:0:99999:7:::",
    "group": r"ada:x:1002:",
    "gshadow": r"ada:!::",
    "subuid": r"ada:\d+:65536",
    "subgid": r"ada:\d+:65536",
}
_PASSWORD = {"shadow": r"ada:\$y\$j9T\$(?!abcd)[./A-Za-z0-9]+\$[./A-Za-z0-9]{43}:\d+:0:99999:7:::"}


class _Change(NamedTuple):
    """What a program does to the line of ada in each file."""

    before: dict[str, str]  # file -> her line, where she has one
    after: dict[str, str]  # file -> the pattern of her line, where she shall have one

    def plant(self, top: str) -> None:
        os.mkdir(f"{top}/etc")
        for name, others in _OTHERS.items():
            path = f"{top}/etc/{name}"
            line = f"{self.before[name]}\n" if name in self.before else ""
            with open(path, "w", encoding="utf-8") as file:
                file.write(others + line)
            os.chmod(path, _MODES[name])
            os.chown(path, 0, _SHADOW if "shadow" in name else 0)
            os.utime(path, (1_600_000_000, 1_600_000_000))  # vipw tells changes by the second
        if self.before:
            os.makedirs(f"{top}/home/ada/sub")
            with open(f"{top}/home/ada/sub/file", "w", encoding="utf-8") as file:
                file.write("hers\n")
            os.chown(f"{top}/home/ada", 1000, 1000)

    def _line(self, top: str, name: str) -> tuple[str | None, list[str]]:
        """Return the line of ada in a file, None for none, and what is wrong with the others."""
        st, text = os.stat(f"{top}/etc/{name}"), read(f"{top}/etc/{name}") or ""
        owned = (stat.S_IMODE(st.st_mode), st.st_gid)
        words = []
        if owned != (_MODES[name], _SHADOW if "shadow" in name else 0):
            words.append(f"{name} is {owned[0]:o} of group {owned[1]}")
        her = re.search(r"^ada:.*\n", text, re.MULTILINE)
        if (text.replace(her[0], "", 1) if her else text) != _OTHERS[name]:
            words.append(f"{name}: {text!r}")
        return her[0].rstrip("\n") if her else None, words

    def _is_new(self, name: str, line: str | None) -> bool:
        pattern = self.after.get(name)
        return line is None if pattern is None else bool(line and re.fullmatch(pattern, line))

    def whole(self, top: str, _printed: str) -> list[str]:
        wrong = []
        for name in _OTHERS:
            line, words = self._line(top, name)
            wrong += words
            if line != self.before.get(name) and not self._is_new(name, line):
                wrong.append(f"{name} says of ada {line!r}")
        return wrong

    def done(self, top: str) -> list[str]:
        wrong = self.whole(top, "")
        for name in _OTHERS:
            line, _ = self._line(top, name)
            if not self._is_new(name, line):
                wrong.append(f"{name} still says of ada {line!r}")
        if os.path.exists(f"{top}/home/ada") != ("passwd" in self.after):
            wrong.append("the home does not fit the account")
        left = [
            name for name in os.listdir(f"{top}/etc") if re.fullmatch(r"[a-z]+(\+|\.lock)", name)
        ]
        return wrong + [f"left in etc: {left}"] * bool(left)


def _program(name: str, script: str, before: dict, after: dict, recover: str = ":") -> Program:
    change = _Change(before, after)
    changed = [file for file in _OTHERS if before.get(file) != after.get(file)]
    return Program(
        name, change.plant, script, change.whole, change.done,
        tuple(f"etc/{file}" for file in changed), recover,
    )  # fmt: skip


_SAME = {name: re.escape(line) for name, line in _ADA.items()}
_EDITOR = """printf '#!/bin/sh\\nsed -i "s,:/home/ada:,:/home/Ada:," "$1"\\n' >/edit
    chmod 755 /edit
    EDITOR=/edit VISUAL=/edit vipw"""

# An account that is there in part cannot be added, nor one that is gone in part be removed.
_REMOVE_HALF = "if grep -q '^ada:' /etc/passwd; then userdel -rf ada; fi"
_RESTORE = """for file in passwd group; do
    grep -q '^ada:' /etc/$file || cp -p /etc/$file- /etc/$file; done"""  # passwd(5), FILES

ACCOUNTS = (
    _program("passwd", r"printf 'new-Word1\nnew-Word1\n' | passwd ada", _ADA, _SAME | _PASSWORD),
    _program("chpasswd", "echo ada:new-Word1 | chpasswd", _ADA, _SAME | _PASSWORD),
    _program("useradd", "useradd -m ada", {}, _NEW, _REMOVE_HALF),
    _program("userdel", "userdel -r ada", _ADA, {}, _RESTORE),
    _program("vipw", _EDITOR, _ADA, _SAME | {"passwd": "ada:x:1000:1000::/home/Ada:/bin/sh"}),
)
