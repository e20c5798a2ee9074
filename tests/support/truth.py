"""What really happened to each merged page and KSM page while the model performed a scenario.

`support.watched_model` finds it out. Times are nanoseconds of the recording's clock; whatever
happens between two events has the time of the one before, or of the operation's begin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.releases import Profile
from ksmtrace.lab import operations as op
from ksmtrace.model.memory import Frame
from tests.support.batches import Row, batch_of

Allocation = tuple[Literal["pfn", "item", "mm"], int, bool]
"""What number of a frame, rmap_item or address space came into use, or fell free."""
How = Literal["created", "partner", "joined", "inherited", "zero_page"]
Cause = Literal["written", "unmapped", "moved", "exit", "unmerged", "undone"]
ItemEnd = Literal["silent", "stale", "stale_oldest", "run=2"]


@dataclass
class Life:
    """A mapping that an rmap_item was attached for. mm: the model's number, as in events.

    event: index of its merge event. node: number of the KSM page; None for a zero page. end, cause:
    when and by what the mapping went, None while it is there. item_ns, item_end: when and how the
    rmap_item left the KSM page.
    """

    process: str
    mm: int
    tgid: int
    addr: int
    how: How
    event: int
    ns: int
    node: int | None
    frame: Frame
    end: int | None = None
    cause: Cause | None = None
    by: str = ""
    item_ns: int | None = None
    item_end: ItemEnd | None = None

    def mapped_at(self, ns: int) -> bool:
        """Whether the mapping was there just after `ns`."""
        return self.ns <= ns and (self.end is None or self.end > ns)

    def attached_at(self, ns: int) -> bool:
        """Whether the rmap_item was attached just after `ns`."""
        return self.ns <= ns and (self.item_ns is None or self.item_ns > ns)


@dataclass
class Node:
    """A stable node. died: when its ksm_remove_ksm_page stands. by_sweep: in a
    knob's write, as run=2. chained: ever a chain's dup."""

    number: int
    pfn: int
    born: int
    chained: bool
    lives: list[Life] = field(default_factory=list)
    died: int | None = None
    by_sweep: bool = False

    def peak(self) -> int:
        """Most mappings at once."""
        changes = [(life.ns, 1) for life in self.lives]
        # What goes at the same moment goes first.
        changes += [(life.end, -1) for life in self.lives if life.end is not None]
        now = peak = 0
        for _ns, change in sorted(changes):
            now += change
            peak = max(peak, now)
        return peak


@dataclass(frozen=True)
class CensusRow:
    """A mapping of a KSM page that a census would list. attached: an rmap_item is for it."""

    tgid: int
    mm: int
    addr: int
    pfn: int


@dataclass(frozen=True)
class Region:
    """A mapping of a process."""

    tgid: int
    start: int
    end: int
    mergeable: bool


@dataclass(frozen=True)
class StepSeen:
    """The state after one operation: when, and what samples and a census would say.

    full_scans: of a full scan, if it was one. known: (tgid, name) of living processes that have
    been on ksmd's list. zeros: (tgid, addr) of mappings of the zero page that ksmd made, or a fork
    copied.
    """

    ns: int
    operation: op.Operation
    full_scans: int | None
    counters: Mapping[str, int]
    knobs: Mapping[str, str]
    processes: Mapping[int, Mapping[str, int]]
    mappings: Sequence[CensusRow]
    regions: Sequence[Region]
    known: Sequence[tuple[int, str]]
    zeros: Collection[tuple[int, int]]


@dataclass
class Truth:
    """Everything. marks: cow_break and range_left events, each with the index before which it is.

    zero_pfn: the zero page's frame. parents: by tgid, who forked it. allocations: in order.
    """

    profile: Profile
    begin: StepSeen
    events: EventBatch
    lives: list[Life]
    nodes: list[Node]
    steps: list[StepSeen]
    marks: list[tuple[int, Row]]
    parents: Mapping[int, int]
    zero_pfn: int
    allocations: Sequence[Allocation]

    @property
    def last_ns(self) -> int:
        """When it was over."""
        return self.steps[-1].ns if self.steps else self.begin.ns

    def events_with_marks(self) -> EventBatch:
        """The stream as `record --cow` sees it."""
        at = [index for index, _row in self.marks]
        rows = batch_of([row for _index, row in self.marks])
        return np.insert(self.events, at, rows) if len(rows) else self.events
