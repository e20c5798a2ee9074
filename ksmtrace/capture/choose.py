"""Which live source to use. The one list of them, best first."""

from __future__ import annotations

from dataclasses import dataclass

from ksmtrace.capture.bcc import BccSource
from ksmtrace.capture.core import CoreSource
from ksmtrace.capture.source import Source
from ksmtrace.capture.tracefs import TracefsSource
from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot

SOURCES: tuple[Source, ...] = (CoreSource(), BccSource(), TracefsSource())


@dataclass(frozen=True)
class Choice:
    """A source and, in words, why it was taken."""

    source: Source
    why: str


def choose_source(name: str) -> Choice:
    """The source called `name`, or for "auto" the best that works here.

    Raises KsmtraceError: HOST_CANNOT with every obstacle and remedy, USAGE for an unknown name.
    """
    if name == "auto":
        return _best()
    source = next((s for s in SOURCES if s.name == name), None)
    if source is None:
        names = ", ".join(s.name for s in SOURCES)
        raise KsmtraceError(
            f"there is no backend called {name!r}", f"the backends are auto, {names}", Exit.USAGE
        )
    obstacles = source.check()
    if obstacles:
        raise host_cannot(obstacles, f"trace KSM with the {name} backend")
    return Choice(source, "asked for")


def _best() -> Choice:
    passed_over: list[tuple[str, list[Obstacle]]] = []
    for source in SOURCES:
        obstacles = source.check()
        if not obstacles:
            why = "the best that works here"
            if passed_over:
                reasons = "; ".join(f"{name}: {found[0].what}" for name, found in passed_over)
                why = f"{why} ({reasons})"
            return Choice(source, why)
        passed_over.append((source.name, obstacles))
    distinct = list(dict.fromkeys(o for _, found in passed_over for o in found))
    raise host_cannot(distinct, "trace KSM")
