"""Comparing two performances of a scenario: every counter, and every event in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ksmtrace.lab.matching import EventMatcher
from ksmtrace.lab.performance import Observation, Performance
from ksmtrace.lab.plan import Plan


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
    unknown = {*first.fields_unknown, *second.fields_unknown}
    if first.real and second.real:
        # Both use numbers again, each at its own time: neither can be what the other stands for.
        unknown |= {"pfn", "item", "mm"}
    real = first.real or second.real
    matcher = EventMatcher(
        first.tgids, second.tgids, unknown, first_reuses=first.real, one_clock=not real
    )
    where = {step.number: step.step.where for step in plan.steps}
    compared = []
    for one, other in zip(first.observations, second.observations, strict=True):
        difference = ObservationComparison(one.step, one.scan)
        difference.counters = _differing(one, other)
        if events:
            difference.events = _first_difference(matcher, one, other, where[one.step])
        compared.append(difference)
    one_real = first.real != second.real
    if events and one_real and all(one.events is None for one in compared):
        _mark_overlap(matcher, first, second, compared, where)
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
    if None not in (one.refused, other.refused) and one.refused != other.refused:
        differing["refused"] = (None, None)
    return dict(sorted(differing.items()))


def _first_difference(
    matcher: EventMatcher, one: Observation, other: Observation, where: str
) -> EventDifference | None:
    found = matcher.first_difference(one.events, other.events)
    if found is None:
        return None
    at, why = found
    return EventDifference(one.step, where, at, why, (_told(one, at), _told(other, at)))


def _mark_overlap(
    matcher: EventMatcher,
    first: Performance,
    second: Performance,
    compared: list[ObservationComparison],
    where: Mapping[int, str],
) -> None:
    """Note an event that names an rmap_item which somebody else has at that time."""
    model = second if first.real else first
    at = matcher.overlap(model.item_lives)
    if at is None:
        return
    for one, other, difference in zip(
        first.observations, second.observations, compared, strict=True
    ):
        if at < len(one.events):
            told = (_told(one, at), _told(other, at))
            difference.events = EventDifference(one.step, where[one.step], at, "rmap_item", told)
            return
        at -= len(one.events)


def _told(seen: Observation, at: int) -> str:
    return seen.told[at] if at < len(seen.told) else "nothing"
