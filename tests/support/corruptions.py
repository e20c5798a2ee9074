"""One thing wrong with a legal execution: an event dropped, doubled, swapped or altered, or one
sampled counter altered. Seeded, so that each can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from support.executions import Execution

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    BY_ID,
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    MAPCOUNT_SHIFT,
    TRACEPOINTS,
    role_of,
)
from ksmtrace.replay.conformance import Reading

EFAULT = -14
_PAGE = 4096
_SLOTS = ("pfn", "item", "mm", "addr", "tgid", "err", "arg", "kind")
_ALL_BUT_TIME = ("pfn", "item", "mm", "addr", "tgid", "err", "kind", "arg")
_OF_PAGES = (KSM_MERGE_ONE_PAGE.id, KSM_MERGE_WITH_KSM_PAGE.id, KSM_REMOVE_RMAP_ITEM.id)
_SCANS = (KSM_START_SCAN.id, KSM_STOP_SCAN.id)
_NEAR = 5


@dataclass(frozen=True)
class Corruption:
    """A spoilt execution.

    kind: one of CORRUPTIONS. at: the event's number, or the sample's. what: the slot or counter,
    "" for a whole event. before, after: its values, or (swapped) the other event's number.
    """

    kind: str
    at: int
    what: str
    before: int
    after: int
    execution: Execution

    def __str__(self) -> str:
        where = "sample" if self.kind == ALTERED_COUNTER else "event"
        value = f": {self.what} {self.before} -> {self.after}" if self.what else ""
        return f"{self.kind}, {where} {self.at}{value}"


def _dropped(execution: Execution, dice: random.Random) -> Corruption:
    at = _any_event(execution, dice)
    events = np.delete(execution.events, at)
    return _of_event(DROPPED, execution, at, events)


def _doubled(execution: Execution, dice: random.Random) -> Corruption:
    """The same record, once more."""
    at = _any_event(execution, dice)
    events = np.insert(execution.events, at, execution.events[at])
    return _of_event(DOUBLED, execution, at, events)


def _repeated(execution: Execution, dice: random.Random) -> Corruption:
    """The same once more, but a little later."""
    at = _any_event(execution, dice)
    again = execution.events[at].copy()
    following = execution.events["ts"][at + 1 : at + 2]
    gap = int(following[0]) - int(again["ts"]) if len(following) else 2 * _NEAR
    again["ts"] += np.uint64(max(gap, 0) // 2)
    events = np.insert(execution.events, at + 1, again)
    return _of_event(REPEATED, execution, at, events)


def _misplaced(execution: Execution, dice: random.Random) -> Corruption:
    """Two records near each other in each other's place."""
    at, other = _two_near(execution, dice)
    events = execution.events.copy()
    events[[at, other]] = events[[other, at]]
    return _of_event(MISPLACED, execution, at, events, other)


def _swapped(execution: Execution, dice: random.Random) -> Corruption:
    """Two events near each other that happened in the other order: their times stay."""
    at, other = _two_near(execution, dice)
    events = execution.events.copy()
    for slot in _ALL_BUT_TIME:
        events[slot][[at, other]] = events[slot][[other, at]]
    return _of_event(SWAPPED, execution, at, events, other)


def _altered_event(execution: Execution, dice: random.Random) -> Corruption:
    """One slot that the event's kind uses has another plausible value; times and CPUs are left."""
    while True:
        at = _any_event(execution, dice)
        event = execution.events[at]
        kind = BY_ID[int(event["kind"])]
        slot = dice.choice([s for s in _SLOTS if s == "kind" or role_of(kind, s) is not None])
        before = int(event[slot])
        after = _other_value(execution.events, at, slot, dice)
        info = np.iinfo(execution.events.dtype[slot])
        if after == before or not info.min <= after <= info.max:
            continue
        events = execution.events.copy()
        events[slot][at] = after
        spoilt = execution.with_(events, execution.samples)
        return Corruption(ALTERED_EVENT, at, slot, before, after, spoilt)


def _altered_counter(execution: Execution, dice: random.Random) -> Corruption:
    """One value of one sample is another."""
    while True:
        at = dice.randrange(len(execution.samples))
        sample = execution.samples[at]
        if not sample.values:
            continue
        name = dice.choice(sorted(sample.values))
        before = sample.values[name]
        after = _other_count(execution.samples, sample, name, dice)
        if after == before:
            continue
        samples = list(execution.samples)
        samples[at] = replace(sample, values={**sample.values, name: after})
        spoilt = execution.with_(execution.events, samples)
        return Corruption(ALTERED_COUNTER, at, name, before, after, spoilt)


DROPPED, DOUBLED, REPEATED = "dropped", "doubled", "repeated"
MISPLACED, SWAPPED = "misplaced", "swapped"
ALTERED_EVENT, ALTERED_COUNTER = "altered event", "altered counter"
CORRUPTIONS: Mapping[str, Callable[[Execution, random.Random], Corruption]] = MappingProxyType(
    {
        DROPPED: _dropped,
        DOUBLED: _doubled,
        REPEATED: _repeated,
        MISPLACED: _misplaced,
        SWAPPED: _swapped,
        ALTERED_EVENT: _altered_event,
        ALTERED_COUNTER: _altered_counter,
    }
)
"""By name. doubled: the record twice; repeated: the second a little later. misplaced: two records
in each other's place, with their times; swapped: without."""


def corruption(execution: Execution, kind: str, seed: int) -> Corruption:
    """The corruption number `seed` of a kind."""
    return CORRUPTIONS[kind](execution, random.Random(f"{kind} {seed}"))


def _of_event(
    kind: str, execution: Execution, at: int, events: EventBatch, other: int = 0
) -> Corruption:
    return Corruption(kind, at, "", at, other, execution.with_(events, execution.samples))


def _any_event(execution: Execution, dice: random.Random) -> int:
    return dice.randrange(len(execution.events))


def _two_near(execution: Execution, dice: random.Random) -> tuple[int, int]:
    """Two events that differ, at most a few apart."""
    events = execution.events
    while True:
        at = _any_event(execution, dice)
        other = at + dice.randint(1, _NEAR)
        if other < len(events) and any(events[s][at] != events[s][other] for s in _ALL_BUT_TIME):
            return at, other


def _other_value(events: EventBatch, at: int, slot: str, dice: random.Random) -> int:
    event = events[at]
    kind, value = int(event["kind"]), int(event[slot])
    if slot == "kind":
        return dice.choice([k.id for k in TRACEPOINTS])
    if slot == "err":
        return EFAULT - value if kind != KSM_ADVISOR.id else value + dice.choice((-1, 1, 2))
    if slot == "arg":
        return _other_arg(kind, value, dice)
    if slot == "addr" and kind not in _OF_PAGES:
        return value + dice.choice((-2, -1, 1, 2)) if value else value + dice.randint(1, 3)
    if slot == "addr" and dice.random() < 0.5:
        return value + _PAGE * dice.choice((-2, -1, 1, 2))
    alike = events[slot][np.isin(events["kind"], _OF_PAGES)]
    return int(dice.choice(alike)) if len(alike) else value + 1


def _other_arg(kind: int, value: int, dice: random.Random) -> int:
    if kind == KSM_MERGE_WITH_KSM_PAGE.id:
        change = dice.choice((INTO_EXISTING, FIRST_SIGHT, 1 << MAPCOUNT_SHIFT, 3 << MAPCOUNT_SHIFT))
        return value ^ change
    if kind == KSM_ENTER.id:
        return dice.choice((1, 2, 3))
    return value + dice.choice((-7, -3, -1, 1, 3, 7))


def _other_count(
    samples: Sequence[Reading], sample: Reading, name: str, dice: random.Random
) -> int:
    value = sample.values[name]
    if name in ("ksm_merge_any", "ksm_mergeable"):
        return 1 - value
    if dice.random() < 0.4:
        other = dice.choice(samples)
        if other.tgid == sample.tgid and name in other.values:
            return other.values[name]
    if name.endswith("profit"):
        return value + dice.choice((-1, 1)) * dice.choice((1, 64, 4096, 12288))
    return value + dice.choice((-1, 1)) * dice.choice((1, 1, 2, 3, 7, 40))
