"""Many at once: deep stacks of lowers, and two clients that work side by side."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, ClassVar

from bench.material import STACK_DIRECTORIES
from bench.names import create_files, remove_files
from bench.workload import UnprovenError, Workload, expect, tool

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.workload import Mounted

CLIENTS = 2


class OneLower(Workload):
    """Walk merged directories, and ask for names that no layer has."""

    name = "lowers-1"
    title = "walk and miss, 1 lower"
    section = "Many"
    depth: ClassVar[int] = 1

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return store.stack(self.depth)

    def run(self, place: Mounted) -> None:
        self.seen = tool("find", place.root, "-type", "f", "-printf", "%s\n").count("\n")
        for number in range(self.sizes.stacked):
            if os.path.lexists(place.root / f"d{number % STACK_DIRECTORIES}/none{number}"):
                raise UnprovenError(f"none{number} exists")

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was seen is the proof
        expect("files", seen=self.seen, wanted=self.sizes.stacked)


class TenLowers(OneLower):
    """The same files spread over ten layers."""

    name = "lowers-10"
    title = "walk and miss, 10 lowers"
    depth = 10


class HundredLowers(OneLower):
    """The same files spread over a hundred layers."""

    name = "lowers-100"
    title = "walk and miss, 100 lowers"
    depth = 100


class TwoClients(Workload):
    """Two processes, each walking the tree and creating and removing small files."""

    name = "two-clients"
    title = "two clients at once"
    section = "Many"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.tree(),)

    def run(self, place: Mounted) -> None:
        children = [self._start(place.root, number) for number in range(CLIENTS)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        expect("exit statuses", seen=statuses, wanted=[0] * CLIENTS)

    def _start(self, root: Path, number: int) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._client(root, number)
                status = 0
            except (OSError, UnprovenError) as error:
                sys.stderr.write(f"client {number}: {error}\n")
            finally:
                os._exit(status)
        return child

    def _client(self, root: Path, number: int) -> None:
        directory = root / f"client{number}"
        tool("find", root / "tree", "-printf", "%s")
        create_files(directory, self.sizes.small_files // CLIENTS)
        expect("files", seen=len(os.listdir(directory)), wanted=self.sizes.small_files // CLIENTS)
        remove_files(directory, self.sizes.small_files // CLIENTS)

    def check(self, place: Mounted) -> None:
        expect("names", seen=os.listdir(place.root), wanted=["tree"])


WORKLOADS = (OneLower, TenLowers, HundredLowers, TwoClients)
