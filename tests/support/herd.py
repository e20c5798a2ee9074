"""A herd of real processes, whose pages merge and are rewritten between scans."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ksmtrace.kernel.stepper import Stepper
from ksmtrace.lab.puppet import ARENA, PAGE
from ksmtrace.lab.puppeteer import Puppeteer, nursery

STILL_SECONDS = 0.03
"""Long enough for samples that no scan and no write is near to, just after something happened."""
LONG_SECONDS = 0.15
"""The same however long nothing has happened: a recorder wakes ten times a second by itself."""


@dataclass(frozen=True)
class Round:
    """Pages were rewritten, then scanned once: monotonic nanoseconds of CLOCK_MONOTONIC, in order.

    Nothing happened from `still` to `writing`, and from `written` to `scanning`.
    """

    still: int
    writing: int
    written: int
    scanning: int
    pages: int


@dataclass
class Herd:
    """Processes of pages with few contents, each mapped at ARENA.

    pids, pages: by name; pages only of the living. rewritten: (pid, address) of every page that
    `rewrite` ever wrote.
    """

    puppets: Puppeteer
    stepper: Stepper
    random: random.Random = field(default_factory=lambda: random.Random(7))
    pids: dict[str, int] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)
    rewritten: set[tuple[int, int]] = field(default_factory=set)

    def start(self, name: str, contents: list[int]) -> None:
        """Start a process with mergeable pages of these contents (0: zeroes)."""
        self.pids[name] = self.puppets.start(name)
        self.pages[name] = len(contents)
        length = len(contents) * PAGE
        self.puppets.tell(name, "map", ARENA, length, False, 0)
        self.puppets.tell(name, "advise", ARENA, length, "mergeable")
        self.write(name, dict(enumerate(contents)))

    def fork(self, name: str, child: str) -> None:
        """Fork a process."""
        self.pids[child] = self.puppets.start(child, name)
        self.pages[child] = self.pages[name]

    def write(self, name: str, contents: dict[int, int]) -> None:
        """Rewrite pages, by number."""
        pages = tuple((ARENA + n * PAGE, _page(c)) for n, c in sorted(contents.items()))
        self.puppets.tell(name, "write", pages)

    def rewrite(self, count: int, contents: int) -> int:
        """Rewrite some pages of any process, each with one of many contents; returns how many."""
        everywhere = [
            (name, number) for name, pages in self.pages.items() for number in range(pages)
        ]
        chosen: dict[str, dict[int, int]] = {}
        for name, number in self.random.sample(everywhere, count):
            chosen.setdefault(name, {})[number] = self.random.randrange(contents)
            self.rewritten.add((self.pids[name], ARENA + number * PAGE))
        for name, pages in chosen.items():
            self.write(name, pages)
        return count

    def round(self, count: int, contents: int, pause: float = STILL_SECONDS) -> Round:
        """Stand still, rewrite, stand still for `pause` seconds, scan."""
        still = time.monotonic_ns()
        time.sleep(STILL_SECONDS)
        writing = time.monotonic_ns()
        self.rewrite(count, contents)
        written = time.monotonic_ns()
        time.sleep(pause)
        scanning = time.monotonic_ns()
        self.stepper.scan()
        return Round(still, writing, written, scanning, count)

    def exit(self, name: str) -> None:
        """End a process; returns when its memory is gone."""
        self.puppets.exit(name)
        del self.pages[name]


@contextmanager
def herd_of(stepper: Stepper) -> Iterator[Herd]:
    """No process yet; all of them end with it."""
    with nursery() as channel:
        puppets = Puppeteer(channel)
        try:
            yield Herd(puppets, stepper)
        finally:
            puppets.clear()


def _page(content: int) -> bytes:
    return b"content %d" % content if content else b""
