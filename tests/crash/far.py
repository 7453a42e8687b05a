"""A client over lowers that ask for everything once: each request begins anew after each answer.

Nothing is changed when a handler asks but what nobody sees.  `Stopped` ends the
operation at one question, as a client that is killed while it waits.
"""

import inspect

import pyfuse3

from unionfs.fuse.trouble import reply_number
from unionfs.layers.far import PINNED, Ask, FarLayer, Memo

from .client import Client
from .gate import Gate

_CORE = {"chattr", "files", "copies", "changes"}  # what the verbs use beside the handlers


class Stopped(Exception):  # noqa: N818 - it says what happened
    """The operation has ended at a question."""


class Questions:
    """The questions of one operation, and how much each run had changed when it asked."""

    def __init__(self, stop=0):
        self.gate = Gate()
        self.stop = stop  # the question, counted from 1, at which to end; 0: none
        self.counted = False
        self.seen = []  # what was asked after how many changes of that run

    def answer(self, ask, changes):
        if self.counted:
            self.seen.append((ask.key, changes))
            if len(self.seen) == self.stop:
                raise Stopped
        return ask.answered(ask.layer.for_thread())


class _Patient:
    """Handlers of pyfuse3's, or a part of the core, whose callers wait for far layers."""

    def __init__(self, real, questions):
        self._real = real
        self._questions = questions

    def __getattr__(self, name):
        value = getattr(self._real, name)
        if name in _CORE:
            return _Patient(value, self._questions)
        if not callable(value):
            return value
        raw = getattr(value, "__wrapped__", None)
        call = (lambda *args: raw(self._real, *args)) if raw else value
        if inspect.iscoroutinefunction(raw or value):
            return self._awaiting(call)
        return self._calling(call)

    def _awaiting(self, call):
        async def patient(*args):
            with _Pinned(self._questions) as run:
                while True:
                    try:
                        return await call(*args)
                    except Ask as ask:
                        run.answer(ask)
                    except OSError as exc:
                        raise pyfuse3.FUSEError(reply_number(exc)) from exc

        return patient

    def _calling(self, call):
        def patient(*args, **words):
            with _Pinned(self._questions) as run:
                while True:
                    try:
                        return call(*args, **words)
                    except Ask as ask:
                        run.answer(ask)

        return patient


class _Pinned:
    """The answers of one request."""

    def __init__(self, questions):
        self._questions = questions
        self._answers = {}

    def __enter__(self):
        self._token = PINNED.set(self._answers)
        self._begun = len(self._questions.gate.calls)
        return self

    def answer(self, ask):
        changes = len(self._questions.gate.calls) - self._begun
        self._answers[ask.layer, ask.key] = self._questions.answer(ask, changes)
        self._begun = len(self._questions.gate.calls)

    def __exit__(self, *_exc):
        PINNED.reset(self._token)
        for answer in self._answers.values():
            answer.drop()


class FarClient(Client):
    """The verbs over far lowers; nothing that one of them answers is kept for the next request."""

    @staticmethod
    def lower(fd, **words):
        return FarLayer(fd, memo=Memo(0), **words)

    def __init__(self, dirs, features=None, *, stop=0):
        super().__init__(dirs, features)
        self.questions = Questions(stop)
        self.operations = _Patient(self.operations, self.questions)
        for layer in self.union.far:
            layer.ask_from_now_on(self.union.upper.work.fd)

    async def _entries(self, ino):
        """Look each name up: a listing leaves that to who wants to know more of it."""
        names = _Patient(self.union, self.questions).listing(self.union.nodes[ino])
        return [(name, await self._find(ino, name)) for name in names]

    def counted(self, case):
        """Do what *case* is about, and count its questions."""
        self.questions.counted = True
        try:
            with self.questions.gate.armed():
                case.do(self)
        finally:
            self.questions.counted = False
