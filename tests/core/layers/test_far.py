"""A layer that asks instead of waiting."""

import errno
import os
import stat

import pytest

from tests.layers import opened
from tests.trees import Link, plant
from unionfs.layers import iflags
from unionfs.layers.far import PINNED, Answer, Ask, FarLayer, Memo
from unionfs.layers.layer import Layer

TREE = {"f": "text", "d": {"x": "in d", "y": ""}, "l": Link("f")}

# Each verb with what it is asked, and what it says of that.
VERBS = {
    "find": (lambda layer: layer.find(b"f").st_size, 4),
    "find nothing": (lambda layer: layer.find(b"nothing"), None),
    "stat": (lambda layer: layer.stat(b"f").st_size, 4),
    "stat nothing": (lambda layer: layer.stat(b"nothing"), errno.ENOENT),
    "is_guarded": (lambda layer: layer.is_guarded(b"f"), False),
    "readlink": (lambda layer: layer.readlink(b"l"), b"f"),
    "readlink of a file": (lambda layer: layer.readlink(b"f"), errno.EINVAL),
    "scan": (lambda layer: sorted(entry.name for entry in layer.scan(b"d")), [b"x", b"y"]),
    "attributes": (lambda layer: layer.attributes(b"f"), ["trusted.a"]),
    "attribute": (lambda layer: layer.attribute(b"f", "trusted.a"), b"1"),
    "no attribute": (lambda layer: layer.attribute(b"f", "trusted.b"), errno.ENODATA),
    "no capability": (lambda layer: layer.attribute(b"f", "security.capability"), errno.ENODATA),
    "find_attribute": (lambda layer: layer.find_attribute(b"f", "trusted.b"), None),
    "flags": (lambda layer: len(iflags.find(layer, b"f", iflags.FLAGS)), 4),
    "statvfs": (lambda layer: layer.statvfs().f_namemax, 255),
    "read": (lambda layer: layer.read(b"f", 3, 1), b"ext"),
    "read beyond the end": (lambda layer: layer.read(b"f", 10, 2), b"xt"),
    "read a directory": (lambda layer: layer.read(b"d", 10, 0), errno.ESTALE),
    "seek": (lambda layer: layer.seek(b"f", 0, os.SEEK_HOLE), 4),
    "open": (lambda layer: _content(layer.open(b"f", os.O_RDONLY)), (b"text", 4)),
    "open_content": (lambda layer: _content(layer.open_content(b"f", 2)), (b"te\0\0", 4)),
    "open_content of none": (lambda layer: layer.open_content(b"nothing"), errno.ENOENT),
}


def _content(fd):
    try:
        return os.pread(fd, 100, 0), os.fstat(fd).st_size
    finally:
        os.close(fd)


@pytest.fixture
def layer(tmp_path):
    plant(tmp_path / "lower", TREE)
    os.setxattr(tmp_path / "lower/f", "trusted.a", b"1")
    cwd = os.getcwd()
    made = FarLayer(*opened(tmp_path / "lower"), number=1, name="lower")
    yield made
    os.chdir(cwd)
    made.close()


def asked(call, layer):
    """Return what a verb says after what it asked was answered, or its errno; and the questions."""
    pinned, keys = {}, []
    token = PINNED.set(pinned)
    try:
        while True:
            try:
                return call(layer), keys
            except Ask as ask:
                keys.append(ask.key)
                answer = pinned[layer, ask.key] = ask.answered(layer.for_thread())
                layer.keep(ask, answer)
            except OSError as exc:
                return exc.errno, keys
    finally:
        PINNED.reset(token)
        for answer in pinned.values():
            answer.drop()


@pytest.mark.parametrize(("call", "said"), VERBS.values(), ids=VERBS)
def test_a_verb_asks_and_then_says_what_a_near_layer_says(layer, call, said):
    layer.ask_from_now_on(-1)
    with pytest.raises(Ask):
        call(layer)
    assert asked(call, layer)[0] == said


@pytest.mark.parametrize("verb", ["find", "stat nothing", "attribute", "no attribute", "statvfs"])
def test_what_was_answered_is_not_asked_again(layer, verb):
    layer.ask_from_now_on(-1)
    call, said = VERBS[verb]
    assert asked(call, layer)[1]
    assert asked(call, layer) == (said, [])


def test_content_and_what_is_changed_are_asked_for_each_time(layer):
    layer.ask_from_now_on(-1)
    for verb in ("read", "open_content"):
        asked(VERBS[verb][0], layer)
        assert len(asked(VERBS[verb][0], layer)[1]) == 1
    asked(VERBS["find"][0], layer)
    layer.forget()
    assert len(asked(VERBS["find"][0], layer)[1]) == 1


def test_a_layer_that_does_not_ask_yet_is_as_any_other(layer):
    near = Layer(layer.fd, number=1, name="lower")
    for verb in ("find", "readlink", "scan", "attributes", "flags", "statvfs", "open"):
        assert VERBS[verb][0](layer) == VERBS[verb][0](near)


@pytest.mark.parametrize(
    ("number", "lasts"), [(errno.ENOENT, True), (errno.EIO, False), (errno.ENOTCONN, False)]
)
def test_an_error_that_may_pass_is_told_to_those_alone_who_asked(layer, number, lasts):
    layer.ask_from_now_on(-1)
    ask = Ask(layer, ("find", b"f"), lambda near: near.find(b"f"), kept=True)
    layer.keep(ask, Answer(None, OSError(number, "no")))
    if lasts:
        with pytest.raises(OSError, match=os.strerror(number)):
            layer.find(b"f")
    else:
        with pytest.raises(Ask):
            layer.find(b"f")


def _finding(name):
    return lambda layer: layer.find(name)


def test_what_was_used_least_lately_is_let_go_of(tmp_path):
    plant(tmp_path / "lower", dict.fromkeys("abc", ""))
    layer = FarLayer(*opened(tmp_path / "lower"), number=1, name="lower", memo=Memo(2000))
    layer.ask_from_now_on(-1)
    for name in (b"a", b"b", b"a", b"c"):
        asked(lambda layer, name=name: layer.find(name), layer)
    kept = [
        name for name in b"abc" if not asked(lambda one, n=name: one.find(bytes([n])), layer)[1]
    ]
    assert bytes(kept)[:1] == b"a"
    layer.close()


def test_a_request_is_not_asked_in_circles_by_a_memo_without_room(tmp_path):
    plant(tmp_path / "lower", dict.fromkeys("abc", ""))
    layer = FarLayer(*opened(tmp_path / "lower"), number=1, name="lower", memo=Memo(0))
    layer.ask_from_now_on(-1)
    modes, keys = asked(lambda one: [one.stat(bytes([n])).st_mode for n in b"abc"], layer)
    assert all(map(stat.S_ISREG, modes))
    assert len(keys) == 3
    layer.close()
