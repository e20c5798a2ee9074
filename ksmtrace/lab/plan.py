"""A checked scenario: its operations, step by step, and what the scenario calls its pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksmtrace.lab.operations import Operation
from ksmtrace.lab.scenario import Scenario, Step
from ksmtrace.model.content import PAGE_SIZE

BESIDE = ("say", "expect", "refused", "intro", "ask", "shows")
"""Keys that any step may have beside its verb; the last three are for lessons."""
ARENA = 0x1000_0000_0000
"""Where scenario memory is, in every process: far from what a C library or interpreter maps."""
ARENA_PAGES = 1 << 26


@dataclass
class Region:
    """A named piece of a process's memory. start: page number in the arena."""

    start: int
    pages: int


@dataclass(frozen=True)
class PlannedStep:
    """A step's operations, and what stands beside them. number: from 1."""

    number: int
    step: Step
    operations: tuple[Operation, ...]
    say: str = ""
    expect: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""

    @property
    def does(self) -> dict[str, Any]:
        """What the step does, as its file has it: without what is only said of it."""
        return {key: value for key, value in self.step.values.items() if key not in BESIDE}


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


def address_of(page: int) -> int:
    """The address of a page of the arena."""
    return ARENA + page * PAGE_SIZE
