"""From a scenario's steps to operations, with everything checked before anything starts.

The plan follows which processes live and what they have mapped, so a scenario with a mistake is
refused with its file and line, before a process was started or a knob changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab.operations import Operation, SetKnob
from ksmtrace.lab.scenario import Scenario, ScenarioError, Step
from ksmtrace.model.content import PAGE_SIZE

ARENA = 0x1000_0000_0000
"""Where scenario memory is, in every process: far from what a C library or interpreter maps."""
ARENA_PAGES = 1 << 26
MOST_PROCESSES = 1000
MOST_PAGES = 1 << 21
"""Mapped at a time, in all processes."""

_NAME = r"[a-z][a-z0-9_]*"
_PLACE = re.compile(rf"({_NAME})\.({_NAME})(?:\[(\d+)(?:(:)(\d+)?)?\])?")


@dataclass
class Region:
    """A named piece of a process's memory. start: page number in the arena."""

    start: int
    pages: int
    huge: bool = False


@dataclass
class Process:
    """What the plan knows of a process. mapped: its pages, by number, and whether writable."""

    alive: bool = True
    regions: dict[str, Region] = field(default_factory=dict)
    mapped: dict[int, str] = field(default_factory=dict)

    def next_free(self) -> int:
        """Where a region goes that didn't say: one page above everything so far."""
        return max((r.start + r.pages + 1 for r in self.regions.values()), default=0)


@dataclass(frozen=True)
class PlannedStep:
    """A step's operations, and what stands beside them. number: from 1."""

    number: int
    step: Step
    operations: tuple[Operation, ...]
    say: str = ""
    expect: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Plan:
    """A checked scenario. names: (process, page address) -> what the scenario calls it."""

    scenario: Scenario
    knobs: Mapping[str, str]
    steps: tuple[PlannedStep, ...]
    places: Mapping[str, Mapping[str, Region]]
    processes: tuple[str, ...]

    def name_of(self, process: str, address: int) -> str:
        """What the scenario calls a page: `a.heap[3]`, or its address."""
        page = (address - ARENA) // PAGE_SIZE
        for name, region in reversed(list(self.places.get(process, {}).items())):
            if region.start <= page < region.start + region.pages:
                number = f"[{page - region.start}]" if region.pages > 1 else ""
                return f"{process}.{name}{number}"
        return f"{process}:{address:#x}"


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
        self.pages_mapped += len(pages)
        if self.pages_mapped > MOST_PAGES:
            raise self.error(f"a scenario may have {MOST_PAGES} pages at most at a time")
        taken = next((page for page in pages if page in process.mapped), None)
        if taken is not None:
            raise self.error(f"{what} overlaps what is mapped already at page {taken}")
        process.mapped.update(dict.fromkeys(pages, "write"))

    def remove_pages(self, process: Process, pages: range) -> None:
        """Unmap pages."""
        self.pages_mapped -= len(pages)
        for page in pages:
            del process.mapped[page]


def address_of(page: int) -> int:
    """The address of a page of the arena."""
    return ARENA + page * PAGE_SIZE


def knob_text(error: Any, name: str, value: object) -> str:
    """A knob's value as it is written. error: makes the exception for a bad one."""
    if name not in KNOBS_BY_NAME:
        raise error(f"KSM has no knob called {name!r}", f"the knobs are {', '.join(KNOBS_BY_NAME)}")
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, int | str) or str(value).strip() != str(value) or value == "":
        raise error(f"{value!r} is no value for {name}")
    return str(value)


def plan_scenario(scenario: Scenario) -> Plan:
    """Check a scenario and turn it into operations. Raises ScenarioError with file and line."""
    from ksmtrace.lab.verbs import BESIDE, VERBS

    planner = Planner()
    planner.where = scenario.name
    knobs = {name: knob_text(planner.error, name, v) for name, v in scenario.knobs.items()}
    planned = []
    for number, step in enumerate(scenario.steps, start=1):
        planner.where = step.where
        values = dict(step.values)
        beside = {key: values.pop(key) for key in BESIDE if key in values}
        verbs = [key for key in values if key in VERBS]
        if len(verbs) > 1:
            raise planner.error(f"a step does one thing, this one {' and '.join(verbs)}")
        if not verbs and values:
            unknown = next(iter(values))
            raise planner.error(f"{unknown!r} is no step", f"the steps are {', '.join(VERBS)}")
        operations: tuple[Operation, ...] = ()
        if verbs:
            verb = VERBS[verbs[0]]
            subject = values.pop(verbs[0])
            for key in values:
                if key not in verb.options:
                    has = ", ".join(verb.options) or "no options"
                    raise planner.error(f"{verb.name} has no option {key!r}", f"it has {has}")
            operations = tuple(verb.resolve(planner, subject, values))
        planned.append(_planned(planner, number, step, operations, beside))
    return Plan(scenario, knobs, tuple(planned), planner.places, tuple(planner.processes))


def _planned(
    planner: Planner,
    number: int,
    step: Step,
    operations: tuple[Operation, ...],
    beside: Mapping[str, Any],
) -> PlannedStep:
    say, refused = beside.get("say", ""), beside.get("refused", "")
    if not isinstance(say, str):
        raise planner.error("say must be a text")
    if refused and (refused not in ("EBUSY", "EINVAL") or not _sets_a_knob(operations)):
        raise planner.error('refused is "EBUSY" or "EINVAL", beside set')
    expect = beside.get("expect", [])
    expectations = [expect] if isinstance(expect, dict) else expect
    if not isinstance(expectations, list) or not all(isinstance(e, dict) for e in expectations):
        raise planner.error("expect must be a table, or a list of tables")
    from ksmtrace.lab.expectations import check_expectation

    for expectation in expectations:
        check_expectation(planner, expectation)
    return PlannedStep(number, step, operations, say, tuple(expectations), refused)


def _sets_a_knob(operations: tuple[Operation, ...]) -> bool:
    return any(isinstance(operation, SetKnob) for operation in operations)
