"""What is known of a scenario while its steps are turned into operations.

It follows which processes live and what they have mapped, so a scenario with a mistake is refused
with its file and line, before a process was started or a knob changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab.plan import ARENA_PAGES, Region
from ksmtrace.lab.scenario import ScenarioError

MOST_PROCESSES = 1000
MOST_PAGES = 1 << 21
"""Mapped at a time, in all processes."""

_NAME = r"[a-z][a-z0-9_]*"
_PLACE = re.compile(rf"({_NAME})\.({_NAME})(?:\[(\d{{1,9}})(?:(:)(\d{{1,9}})?)?\])?")


@dataclass
class Process:
    """What the plan knows of a process. mapped: its pages, by number, and whether writable."""

    alive: bool = True
    regions: dict[str, Region] = field(default_factory=dict)
    mapped: dict[int, str] = field(default_factory=dict)

    def next_free(self) -> int:
        """Where a region goes that didn't say: one page above everything so far."""
        return max((r.start + r.pages + 1 for r in self.regions.values()), default=0)


class Planner:
    """The state while steps are turned into operations; verbs use its methods."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.places: dict[str, dict[str, Region]] = {}
        self.pins: set[str] = set()
        self.unique = 0
        self.where = ""
        self.pages_mapped = 0

    def error(self, message: str, hint: str | None = None) -> ScenarioError:
        """A ScenarioError at the present step."""
        return ScenarioError(self.where, message, hint)

    # Looking things up.

    def living(self, name: object) -> Process:
        """A process that runs now."""
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise self.error(f"{name!r} is no process name", "lower-case letters, digits and _")
        process = self.processes.get(name)
        if process is None:
            known = ", ".join(self.processes) or "none yet"
            raise self.error(f"there is no process {name!r}", f"the processes are: {known}")
        if not process.alive:
            raise self.error(f"process {name!r} has ended before")
        return process

    def begin(self, name: object) -> Process:
        """A new process."""
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise self.error(f"{name!r} is no process name", "lower-case letters, digits and _")
        if name in self.processes:
            raise self.error(f"there is a process {name!r} already")
        if len(self.processes) >= MOST_PROCESSES:
            raise self.error(f"a scenario may have {MOST_PROCESSES} processes at most")
        process = self.processes[name] = Process()
        self.places[name] = {}
        return process

    def split(self, place: object) -> tuple[str, str, int, int | None]:
        """The parts of `process.region[from:to]`; to is None for "up to the end"."""
        found = _PLACE.fullmatch(place) if isinstance(place, str) else None
        if found is None:
            raise self.error(
                f"{place!r} is no place in memory", "write process.region, a.heap[3] or a.heap[2:5]"
            )
        process, region, low, colon, high = found.groups()
        if low is None:
            return process, region, 0, None
        first = int(low)
        if colon is None:
            return process, region, first, first + 1
        return process, region, first, int(high) if high is not None else None

    def pages_of(self, place: object) -> tuple[str, Process, Region, range]:
        """(process's name, process, region, page numbers in the arena) of a place."""
        name, region_name, low, high = self.split(place)
        process = self.living(name)
        region = process.regions.get(region_name)
        if region is None:
            known = ", ".join(process.regions) or "none"
            raise self.error(f"process {name!r} has no region {region_name!r}", f"it has: {known}")
        end = region.pages if high is None else high
        if not low < end <= region.pages:
            raise self.error(
                f"{place} is outside the region", f"{name}.{region_name} has {region.pages} pages"
            )
        return name, process, region, range(region.start + low, region.start + end)

    def mapped(self, place: object) -> tuple[str, Process, Region, range]:
        """As `pages_of`, where all of it is mapped now."""
        name, process, region, pages = self.pages_of(place)
        gone = next((page for page in pages if page not in process.mapped), None)
        if gone is not None:
            raise self.error(f"page {gone - region.start} of {place} is not mapped now")
        return name, process, region, pages

    # Changing what is mapped.

    def add_pages(self, process: Process, pages: range, what: str) -> None:
        """Map pages. what: for the message if some are taken."""
        if pages.start < 0 or pages.stop > ARENA_PAGES:
            raise self.error(f"{what} would end beyond page {ARENA_PAGES}")
        self.count_pages(len(pages))
        taken = next((page for page in pages if page in process.mapped), None)
        if taken is not None:
            raise self.error(f"{what} overlaps what is mapped already at page {taken}")
        process.mapped.update(dict.fromkeys(pages, "write"))

    def count_pages(self, pages: int) -> None:
        """So many more are mapped."""
        self.pages_mapped += pages
        if self.pages_mapped > MOST_PAGES:
            raise self.error(f"a scenario may have {MOST_PAGES} pages at most at a time")

    def remove_pages(self, process: Process, pages: range) -> None:
        """Unmap pages."""
        self.pages_mapped -= len(pages)
        for page in pages:
            del process.mapped[page]


def knob_text(error: Any, name: str, value: object) -> str:
    """A knob's value as it is written. error: makes the exception for a bad one."""
    if name not in KNOBS_BY_NAME:
        raise error(f"KSM has no knob called {name!r}", f"the knobs are {', '.join(KNOBS_BY_NAME)}")
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, int | str) or str(value).strip() != str(value) or value == "":
        raise error(f"{value!r} is no value for {name}")
    return str(value)
