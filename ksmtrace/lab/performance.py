"""What came of performing a scenario somewhere: counters and events after every operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.releases import Profile

RELATIVE = ("pages_scanned", "pages_skipped", "cow_ksm", "ksm_swpin_copy")
"""Counters that nothing ever resets: a performance counts them from its own beginning."""


@dataclass(frozen=True)
class Moment:
    """A point in time as ksmd sees it: CLOCK_MONOTONIC and its own CPU time."""

    now_ns: int
    ksmd_cpu_ns: int


@dataclass(frozen=True)
class Observation:
    """After one operation. step: its number. scan: full scans so far, if it was one.

    counters: by name, RELATIVE ones from the beginning. processes: ksm_stat by process. events:
    those since the observation before. refused: the errno's name if a knob's write was, None
    if that isn't known. begin,
    end: when ksmd worked, if it did. visits: (page, what became of it), where a model was asked.
    tgids: the living processes by id, on the host.
    """

    step: int
    scan: int | None
    counters: Mapping[str, int]
    processes: Mapping[str, Mapping[str, int]]
    events: EventBatch
    told: tuple[str, ...]
    refused: str | None = ""
    begin: Moment | None = None
    end: Moment | None = None
    visits: tuple[tuple[str, str], ...] = ()
    tgids: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Performance:
    """A whole one. on: where, as on the command line. tgids: each process's id there.

    has_events: whether the kernel has the tracepoints. fields_unknown: slots that its source of
    events can't fill. real: a real kernel's, which uses numbers again. item_lives: see KsmScanner.
    """

    on: str
    profile: Profile
    observations: list[Observation] = field(default_factory=list)
    tgids: dict[int, str] = field(default_factory=dict)
    has_events: bool = True
    fields_unknown: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    real: bool = False
    item_lives: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def of_step(self, number: int) -> list[Observation]:
        """What was observed in one step."""
        return [seen for seen in self.observations if seen.step == number]


Watch = Callable[[Observation], None]
"""Called with each observation as it is made."""
