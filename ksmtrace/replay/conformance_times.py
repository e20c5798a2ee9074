"""What numpy sees of a batch faster than one event after the other: times, and kinds.

ksmd is one thread, so its events come one after the other. Whatever else tells of the order is
judged without the times: they may be a simulation's, which let a whole visit take no time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EventBatch, concatenate, empty, of_kind
from ksmtrace.events.registry import (
    BY_ID,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
)
from ksmtrace.kernel.releases import Profile

KSMD_S = (
    KSM_START_SCAN, KSM_STOP_SCAN, KSM_ADVISOR, KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM, KSM_REMOVE_KSM_PAGE,
)  # fmt: skip
"""Events of ksmd, or of a task that keeps it waiting meanwhile."""
_FIRST_TRACEPOINTS = (6, 4)
_BETWEEN_CPUS_NS = 1000
"""How far the clocks of two CPUs may be apart."""
_ENOUGH = 8
"""So many steps of ksmd told apart by their time prove a clock that tells them all apart."""

Passed = npt.NDArray[np.int64]
Misplaced = tuple[int, str, str]
"""Row, rule, message."""


class Times:
    """Looks through a stream's batches."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._absent = _absent_kinds(profile)
        self._steps_apart = 0
        self._ties = False
        self._last = empty()
        self._last_ksmd = empty()

    def lost(self) -> None:
        """Events are missing here."""
        self._last = self._last_ksmd = empty()

    def first_impossible(self, batch: EventBatch) -> Misplaced | None:
        """The first event that can't be there, or can't be at all."""
        found = self._absent_events(batch) + self._entered_twice(batch)
        rows = np.flatnonzero(of_kind(batch, *KSMD_S))
        if len(rows):
            ksmd = concatenate([self._last_ksmd, batch[rows]])
            shift = len(self._last_ksmd)
            found += [(int(rows[at - shift]), "time", message) for at, message in self._of(ksmd)]
            self._last_ksmd = ksmd[-1:].copy()
        self._last = batch[-1:].copy()
        return min(found, default=None)

    def _absent_events(self, batch: EventBatch) -> list[Misplaced]:
        rows = np.flatnonzero(np.isin(batch["kind"], self._absent))[:1]
        name = self._profile.name
        return [
            (row, "kind", f"there is no {BY_ID[int(batch['kind'][row])].name} in Linux {name}")
            for row in rows.tolist()
        ]

    def _entered_twice(self, batch: EventBatch) -> list[Misplaced]:
        """A ksm_enter like the event before, to the nanosecond: ksmd had no time to drop the mm."""
        whole = concatenate([self._last, batch])
        shift = len(self._last)
        return [
            (row, "registration", "the same address space entered twice at one moment")
            for row in np.flatnonzero(of_kind(batch, KSM_ENTER)).tolist()
            if row + shift and whole[row + shift] == whole[row + shift - 1]
        ][:1]

    def _of(self, ksmd: EventBatch) -> list[tuple[int, str]]:
        """Events of ksmd that can't come when they do, by row."""
        if len(ksmd) < 2:
            return []
        passed: Passed = np.diff(ksmd["ts"].astype(np.int64))  # type: ignore[assignment]
        same_cpu = ksmd["cpu"][1:] == ksmd["cpu"][:-1]
        back = np.flatnonzero(passed < np.where(same_cpu, 0, -_BETWEEN_CPUS_NS))
        found = [
            (int(at) + 1, f"the event is {-passed[at]} ns before the one before it")
            for at in back[:1]
        ]
        return found if self._ties else found + self._repeated(ksmd, passed)

    def _repeated(self, ksmd: EventBatch, passed: Passed) -> list[tuple[int, str]]:
        """An event like the one before, at the same nanosecond, of a clock that tells all apart.

        Such a clock is known by the steps of one removal, which a simulation does in no time.
        """
        tie = np.flatnonzero(passed == 0)
        step = (ksmd["kind"][:-1] == KSM_REMOVE_RMAP_ITEM.id) & (passed > 0)
        first = int(tie[0]) if len(tie) else len(passed)
        self._steps_apart += int(step[:first].sum())
        if not len(tie):
            return []
        if self._steps_apart >= _ENOUGH and ksmd[first] == ksmd[first + 1]:
            return [(first + 1, "the same event came twice at the same nanosecond")]
        self._ties = True
        return []


def _absent_kinds(profile: Profile) -> list[int]:
    """Kinds that a kernel lacks. Where it should have none at all, a later one was ported back."""
    if profile.version[:2] < _FIRST_TRACEPOINTS:
        return []
    return [kind.id for kind in KSMD_S if not profile.has(kind.since)]
