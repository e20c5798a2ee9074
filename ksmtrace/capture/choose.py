"""Which live source to use. The one list of them, best first."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from ksmtrace.capture.cow import CowWatch
from ksmtrace.capture.source import EventStream, Source
from ksmtrace.errors import Exit, KsmtraceError, host_cannot

SOURCES = {
    "core": "CoreSource",
    "fentry": "FentrySource",
    "bcc": "BccSource",
    "tracefs": "TracefsSource",
}
"""Class by module of this package; the module has the source's name and is loaded on demand."""


def load_source(name: str) -> Source:
    """The source called `name`, one of SOURCES."""
    module = importlib.import_module(f"ksmtrace.capture.{name}")
    source: Source = getattr(module, SOURCES[name])()
    return source


@dataclass(frozen=True)
class Choice:
    """Sources to try, best first, and in words why those before them were passed over."""

    candidates: tuple[Source, ...]
    passed_over: tuple[str, ...] = ()
    asked_for: bool = False

    @property
    def source(self) -> Source:
        """The first to try."""
        return self.candidates[0]

    @property
    def why(self) -> str:
        """Why that one."""
        if self.asked_for:
            return "asked for"
        reasons = f" ({'; '.join(self.passed_over)})" if self.passed_over else ""
        return f"the best that works here{reasons}"

    def without_first(self, reason: str) -> Choice:
        """What is left when the first was refused after all."""
        passed_over = (*self.passed_over, f"{self.source.name}: {reason}")
        return Choice(self.candidates[1:], passed_over)


def choose_source(name: str, watch: CowWatch | None = None) -> Choice:
    """The source called `name`, or for "auto" the best that works here.

    watch: see writes to merged pages too, which only one source can.
    Raises KsmtraceError: HOST_CANNOT with every obstacle and remedy, USAGE for an unknown name.
    """
    if watch is not None and name in ("auto", *SOURCES):
        return _with_cow(name, watch)
    if name == "auto":
        return _best()
    if name not in SOURCES:
        names = ", ".join(SOURCES)
        raise KsmtraceError(
            f"there is no backend called {name!r}", f"the backends are auto, {names}", Exit.USAGE
        )
    source = load_source(name)
    obstacles = source.check()
    if obstacles:
        raise host_cannot(obstacles, f"trace KSM with the {name} backend")
    return Choice((source,), asked_for=True)


def _with_cow(name: str, watch: CowWatch) -> Choice:
    from ksmtrace.capture.core import CoreSource

    source = CoreSource(watch)
    if name not in ("auto", source.name):
        raise KsmtraceError(
            f"the {name} backend can't see writes to merged pages (--cow)",
            f"use --backend {source.name}, or leave --cow out",
            Exit.HOST_CANNOT,
        )
    obstacles = source.check()
    if obstacles:
        raise host_cannot(obstacles, "see writes to merged pages (--cow)")
    return Choice((source,), asked_for=name == source.name)


def _best() -> Choice:
    obstacles = {source: source.check() for source in map(load_source, SOURCES)}
    able = [source for source, found in obstacles.items() if not found]
    if not able:
        distinct = list(dict.fromkeys(o for found in obstacles.values() for o in found))
        raise host_cannot(distinct, "trace KSM")
    before = list(obstacles)[: list(obstacles).index(able[0])]
    return Choice(
        tuple(able), tuple(f"{source.name}: {obstacles[source][0].what}" for source in before)
    )


def open_first(
    stack: ExitStack, choice: Choice, ring_bytes: int, say: Callable[[str], None]
) -> tuple[Choice, EventStream, float]:
    """Open the first source that the host does not refuse.

    Returns what is left of the choice, the stream, and how many seconds opening took. say: told
    where a source is passed over. Raises KsmtraceError where the last one is refused too.
    """
    while True:
        begin = time.monotonic()
        try:
            stream = stack.enter_context(choice.source.open(ring_bytes=ring_bytes))
        except KsmtraceError as error:
            if error.exit_code != Exit.HOST_CANNOT or len(choice.candidates) == 1:
                raise
            choice = choice.without_first(error.message)
            say(f"backend {choice.source.name}: {choice.why}")
            continue
        return choice, stream, time.monotonic() - begin
