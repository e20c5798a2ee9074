"""Which live source to use. The one list of them, best first."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from ksmtrace.capture.source import Source
from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot

SOURCES = {"core": "CoreSource", "bcc": "BccSource", "tracefs": "TracefsSource"}
"""Class by module of this package; the module has the source's name and is loaded on demand."""


def load_source(name: str) -> Source:
    """The source called `name`, one of SOURCES."""
    module = importlib.import_module(f"ksmtrace.capture.{name}")
    source: Source = getattr(module, SOURCES[name])()
    return source


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
    if name not in SOURCES:
        names = ", ".join(SOURCES)
        raise KsmtraceError(
            f"there is no backend called {name!r}", f"the backends are auto, {names}", Exit.USAGE
        )
    source = load_source(name)
    obstacles = source.check()
    if obstacles:
        raise host_cannot(obstacles, f"trace KSM with the {name} backend")
    return Choice(source, "asked for")


def _best() -> Choice:
    passed_over: list[tuple[str, list[Obstacle]]] = []
    for source in map(load_source, SOURCES):
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
