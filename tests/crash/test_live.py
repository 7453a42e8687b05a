"""A call of a mounted daemon fails: the kernel goes on with what it knows, and that is true."""

import errno
import os
from typing import Self

import pytest

from tests.forgetting import forget

from . import corpus
from .contender import Place
from .corpus import Case
from .plain import Plain
from .real import Mortal
from .sample import SEED, chosen
from .trees import differences, harvest
from .trial import Field, features, settled


class Mount:
    """A mount over a fresh upper, on which a case is prepared and all is known to the kernel."""

    def __init__(self, directory: str, whiteout: str, case: Case) -> None:
        self.field = Field(directory, features(whiteout))
        lowers, upper, work = self.field.dirs
        place = Place(":".join(lowers), upper, work, f"{directory}/mnt")
        self.union = Mortal(place, f"whiteout={whiteout}")
        self.mountpoint = place.mountpoint
        self.case = case
        self.expected = self.field.expect(case)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.union.end()

    def begin(self) -> None:
        """Mount anew."""
        self.union.end()
        self.field.fresh()
        self.union.mount()
        self.case.prepare(Plain(self.mountpoint))
        assert self.differs(self.expected.old) == []

    def fail(self, at: int) -> bool:
        """Let call number *at* fail; tell whether the program heard of it."""
        self.union.trigger.set(at, errno.EIO)
        try:
            self.case.do(Plain(self.mountpoint))
        except OSError:
            return True
        finally:
            self.union.trigger.set(0)
        return False

    def differs(self, expected: dict) -> list[str]:
        """Say where the mount is not as expected."""
        return differences(expected, settled(harvest(self.mountpoint, times=True)))


def _wrong(mount: Mount) -> dict[str, list[str]]:
    """Let each call of a case fail in turn; say what is wrong then."""
    mount.begin()
    calls = mount.union.calls(lambda: mount.case.do(Plain(mount.mountpoint)))
    mount.begin()
    wrong = {}
    for at in range(1, calls + 1):
        heard = mount.fail(at)
        expected = mount.expected.old if heard else mount.expected.new
        words = [f"known: {word}" for word in mount.differs(expected)]
        forget(mount.mountpoint)
        words += [f"looked up: {word}" for word in mount.differs(expected)]
        if words:
            wrong[f"call {at}, error {heard}"] = words
        if not heard or words:
            mount.begin()
    return wrong


_FIRST = ("d emptied, then rename m d", "ud/moved emptied, then rmdir ud/moved")


def _cases() -> list[Case]:
    cases = {case.name: case for case in corpus.all_cases()}
    return [cases[name] for name in _FIRST] + chosen(cases.values(), share=0.01)


@pytest.mark.parametrize("whiteout", ["overlay", "aufs"])
def test_an_error_changes_nothing_of_what_the_kernel_shows(directory, whiteout):
    for case in _cases():
        top = f"{directory}/{len(os.listdir(directory))}"
        os.mkdir(top)
        with Mount(top, whiteout, case) as mount:
            assert (SEED, case.name, _wrong(mount)) == (SEED, case.name, {})
