"""What one sees at each stop of a lesson: a sequence of frames, made as it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ksmtrace.lessons.lesson import Question
from ksmtrace.model.decisions import Decision
from ksmtrace.model.scene import Member, Scene


class Kind(Enum):
    """Which sort of stop it is; the value says so in JSON."""

    OPENING = "opening"
    BEFORE = "before a step"
    VISIT = "visit"
    DONE = "step done"
    CLOSING = "closing"


@dataclass(frozen=True)
class View:
    """What one scanner shows at a stop.

    page, visit: what it looks at, by name and place, and steps: what it decided there; None between
    visits. scene: what it knows; None of a real kernel, whose knowledge can't be read. before: the
    counters at the stop before. events: since then. name: says a page's name.
    """

    on: str
    counters: Mapping[str, int]
    before: Mapping[str, int] = field(default_factory=dict)
    scene: Scene | None = None
    page: str | None = None
    visit: Member | None = None
    steps: tuple[Decision, ...] = ()
    events: tuple[str, ...] = ()
    refused: str = ""
    name: Callable[[Member], str] = field(default=str, compare=False)

    @property
    def changed(self) -> dict[str, tuple[int | None, int]]:
        """Counters that are others than at the stop before: name -> (then, now)."""
        return {
            name: (self.before.get(name), value)
            for name, value in self.counters.items()
            if value != self.before.get(name, 0)
        }


@dataclass(frozen=True)
class Frame:
    """A stop.

    step: the scenario's, from 1; 0 before the first. scan: the full scan under way, or the last
    that ended. visit, visits: which visit it is, of how many. does: the step as its file has it.
    text: words to read. note: what was left out here. unmet: what went otherwise than the lesson
    expects, in words. seconds: of simulated time since the beginning.
    """

    kind: Kind
    step: int
    views: tuple[View, ...]
    scan: int = 0
    does: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    question: Question | None = None
    note: str = ""
    unmet: tuple[str, ...] = ()
    visit: int = 0
    visits: int = 0
    seconds: float = 0.0

    @property
    def of_scan(self) -> int:
        """The scan that a stop belongs to: what is said before one is part of it."""
        return self.scan + (self.kind is Kind.BEFORE and "scan" in self.does)


class Frames:
    """A sequence that is made as far as it was asked for.

    working: called with how many there are after each that is made; what it raises stops the
    making, which may go on later.
    """

    def __init__(self, source: Iterator[Frame]) -> None:
        self._source = source
        self._made: list[Frame] = []
        self.complete = False
        self.working: Callable[[int], None] = lambda _made: None

    def get(self, number: int) -> Frame | None:
        """The frame of that number, from 0; None beyond the end."""
        while not self.complete and len(self._made) <= number:
            frame = next(self._source, None)
            if frame is None:
                self.complete = True
            else:
                self._made.append(frame)
                self.working(len(self._made))
        return self._made[number] if 0 <= number < len(self._made) else None

    @property
    def made(self) -> int:
        """How many there are so far."""
        return len(self._made)

    def all(self, most: int | None = None) -> list[Frame]:
        """All of them, or the first so many."""
        self.get((most if most is not None else 1 << 60) - 1)
        return self._made[:most]

    def find_scan(self, scan: int) -> int | None:
        """The number of the first stop of a scan: its question, or its first visit."""
        number = 0
        while (frame := self.get(number)) is not None:
            if frame.of_scan >= scan and "scan" in frame.does:
                return number
            number += 1
        return None
