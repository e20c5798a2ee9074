"""Comparing two performances of a scenario: every counter, and every event in its order.

What can't be equal is compared up to renaming: a page frame, an address space and an rmap_item
have other numbers on each side, but one of the first side must always be the same on the other.
Frames are bound anew where a page becomes a KSM page, because a real kernel uses frames again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ksmtrace.events.registry import (
    BY_ID,
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
)
from ksmtrace.lab.performance import Observation, Performance
from ksmtrace.lab.plan import Plan

_WITH_FRAMES = (
    KSM_MERGE_ONE_PAGE.id, KSM_MERGE_WITH_KSM_PAGE.id, KSM_REMOVE_RMAP_ITEM.id,
    KSM_REMOVE_KSM_PAGE.id,
)  # fmt: skip
_WITH_MM = (KSM_ENTER.id, KSM_EXIT.id, *_WITH_FRAMES[:3])


@dataclass(frozen=True)
class EventDifference:
    """The first event that differs. at: its number in the observation, from 0.

    told: what each side says there, "nothing" where one has ended. why: in words.
    """

    step: int
    where: str
    at: int
    why: str
    told: tuple[str, str]


@dataclass
class ObservationComparison:
    """One operation on both sides. counters: name -> (first, second), those that differ."""

    step: int
    scan: int | None
    counters: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    events: EventDifference | None = None

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.counters and self.events is None


@dataclass
class Comparison:
    """Two performances side by side. first_event: the first event that differs."""

    first: Performance
    second: Performance
    observations: list[ObservationComparison]
    events_compared: bool

    @property
    def agree(self) -> bool:
        """Whether nothing differs anywhere."""
        return all(compared.agrees for compared in self.observations)

    @property
    def first_event(self) -> EventDifference | None:
        """The first event that differs, or None."""
        return next((c.events for c in self.observations if c.events is not None), None)


def compare(plan: Plan, first: Performance, second: Performance) -> Comparison:
    """Compare two performances of one plan.

    Events are compared where both kernels have tracepoints; counters where both have them.
    """
    events = first.has_events and second.has_events
    matcher = _Matcher(first, second)
    where = {step.number: step.step.where for step in plan.steps}
    compared = []
    for one, other in zip(first.observations, second.observations, strict=True):
        difference = ObservationComparison(one.step, one.scan)
        difference.counters = _differing(one, other)
        if events:
            difference.events = matcher.first_difference(one, other, where[one.step])
        compared.append(difference)
    return Comparison(first, second, compared, events)


def _differing(one: Observation, other: Observation) -> dict[str, tuple[int | None, int | None]]:
    differing: dict[str, tuple[int | None, int | None]] = {}
    for name in one.counters.keys() & other.counters.keys():
        if one.counters[name] != other.counters[name]:
            differing[name] = (one.counters[name], other.counters[name])
    for process in sorted(one.processes.keys() & other.processes.keys()):
        mine, theirs = one.processes[process], other.processes[process]
        for name in mine.keys() & theirs.keys():
            if mine[name] != theirs[name]:
                differing[f"{process}.{name}"] = (mine[name], theirs[name])
    if one.refused != other.refused:
        differing["refused"] = (None, None)
    return dict(sorted(differing.items()))


class _Matcher:
    """Matches events pairwise; remembers what stands for what."""

    def __init__(self, first: Performance, second: Performance) -> None:
        self._first = first
        self._second = second
        unknown = {*first.fields_unknown, *second.fields_unknown}
        self._addresses = "addr" not in unknown
        self._owners = "tgid" not in unknown
        self._details = "arg" not in unknown and self._addresses
        self._frames: dict[int, int] = {}
        self._mms: dict[int, int] = {}

    def first_difference(
        self, one: Observation, other: Observation, where: str
    ) -> EventDifference | None:
        mine, theirs = one.events, other.events
        for at in range(max(len(mine), len(theirs))):
            if at >= len(mine) or at >= len(theirs):
                why = "one side has an event more"
            else:
                why = self._differs(mine[at], theirs[at])
            if why:
                told = (_told(one, at), _told(other, at))
                return EventDifference(one.step, where, at, why, told)
        return None

    def _differs(self, one: Any, other: Any) -> str:
        """Why two events are not the same, or "" if they are."""
        kind = int(one["kind"])
        if kind != int(other["kind"]):
            return f"{BY_ID[kind].name} against {BY_ID[int(other['kind'])].name}"
        if int(one["err"]) != int(other["err"]):
            return "err"
        if kind in _WITH_MM and (why := self._other_mm(kind, one, other)):
            return why
        if kind in _WITH_FRAMES and (why := self._other_frame(kind, one, other)):
            return why
        if kind == KSM_ENTER.id:
            return "how it was entered" if self._details and one["arg"] != other["arg"] else ""
        if kind in _WITH_FRAMES:
            if self._addresses and int(one["addr"]) != int(other["addr"]):
                return "address"
        elif int(one["addr"]) != int(other["addr"]):
            return "number"
        if kind == KSM_MERGE_WITH_KSM_PAGE.id and not self._details:
            return "" if not (one["arg"] ^ other["arg"]) & INTO_EXISTING else "ksm_page"
        return (
            ""
            if one["arg"] == other["arg"]
            else _about_arg(kind, int(one["arg"]), int(other["arg"]))
        )

    def _other_mm(self, kind: int, one: Any, other: Any) -> str:
        mine, theirs = int(one["mm"]), int(other["mm"])
        if kind == KSM_ENTER.id:
            self._mms[mine] = theirs
        if self._mms.setdefault(mine, theirs) != theirs:
            return "address space"
        if not self._owners or not one["tgid"] or not other["tgid"]:
            return ""
        names = self._first.tgids.get(int(one["tgid"])), self._second.tgids.get(int(other["tgid"]))
        return "" if names[0] == names[1] else "process"

    def _other_frame(self, kind: int, one: Any, other: Any) -> str:
        mine, theirs = int(one["pfn"]), int(other["pfn"])
        new = kind == KSM_MERGE_WITH_KSM_PAGE.id and not int(one["arg"]) & INTO_EXISTING
        if new:
            self._frames[mine] = theirs
        return "" if self._frames.setdefault(mine, theirs) == theirs else "page frame"


def _about_arg(kind: int, one: int, other: int) -> str:
    if kind != KSM_MERGE_WITH_KSM_PAGE.id:
        return "number of rmap_items"
    if (one ^ other) & INTO_EXISTING:
        return "ksm_page"
    return "mapcount" if one >> 8 != other >> 8 else "first sight"


def _told(seen: Observation, at: int) -> str:
    return seen.told[at] if at < len(seen.told) else "nothing"
