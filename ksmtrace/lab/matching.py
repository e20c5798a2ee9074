"""Matching two streams of events, up to the names that can't be equal.

What can't be equal is compared up to renaming: page frames, address spaces and rmap_items have
other numbers on each side, but what is one thing on the model's side must always be the same on
the other. It is asked that way round because a real kernel uses numbers again, a model never.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    BY_ID,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    MAPCOUNT_SHIFT,
)

_WITH_FRAMES = (
    KSM_MERGE_ONE_PAGE.id, KSM_MERGE_WITH_KSM_PAGE.id, KSM_REMOVE_RMAP_ITEM.id,
    KSM_REMOVE_KSM_PAGE.id,
)  # fmt: skip
_WITH_ITEMS = _WITH_FRAMES[:3]
_WITH_MM = (KSM_ENTER.id, KSM_EXIT.id, *_WITH_ITEMS)


class EventMatcher:
    """Matches two streams event by event; remembers what stands for what.

    first, second: each side's processes by id. unknown: slots that one side can't fill.
    first_reuses: the first side is the one that uses numbers again. one_clock: the model's clocks
    were not read beside a real kernel's.
    """

    def __init__(
        self,
        first: Mapping[int, str],
        second: Mapping[int, str],
        unknown: Collection[str] = (),
        *,
        first_reuses: bool = True,
        one_clock: bool = True,
    ) -> None:
        self._first_reuses = first_reuses
        self._one_clock = one_clock
        self._first = first
        self._second = second
        self._unknown = frozenset(unknown)
        self._addresses = "addr" not in unknown
        self._owners = "tgid" not in unknown
        self._details = "arg" not in unknown and self._addresses
        self._frames: dict[int, int] = {}
        self._mms: dict[int, int] = {}
        self._items: dict[int, int] = {}
        self._seen = 0
        self._first_seen: dict[int, int] = {}

    def first_difference(self, mine: EventBatch, theirs: EventBatch) -> tuple[int, str] | None:
        """(number, why) of the first event that isn't the same, or None. The streams go on."""
        for at in range(max(len(mine), len(theirs))):
            if at >= len(mine) or at >= len(theirs):
                return at, "one side has an event more"
            if why := self._differs(mine[at], theirs[at]):
                return at, why
            self._note_item(mine[at], theirs[at])
            self._seen += 1
        return None

    def overlap(self, item_lives: Mapping[int, Sequence[int]]) -> int | None:
        """The number (from 0, of all events) of one whose rmap_item can't be the one it names.

        To be asked at the end. item_lives: the model's; while one of its rmap_items lives, its
        number on the other side can't be another's.
        """
        owners: dict[int, list[tuple[int, int, int]]] = {}
        for key, number in self._items.items():
            born, *freed = item_lives.get(key, (0,))
            last = freed[0] if freed else self._seen
            owners.setdefault(number, []).append((born, last, self._first_seen[key]))
        found = []
        for lives in owners.values():
            lives.sort()
            found += [max(one[2], other[2]) for one, other in pairwise(lives) if other[0] < one[1]]
        return min(found, default=None)

    def _note_item(self, one: Any, other: Any) -> None:
        if int(one["kind"]) in _WITH_ITEMS:
            key = int(other["item"] if self._first_reuses else one["item"])
            self._first_seen.setdefault(key, self._seen)

    def _differs(self, one: Any, other: Any) -> str:
        """Why two events are not the same, or "" if they are."""
        kind = int(one["kind"])
        if kind != int(other["kind"]):
            return f"{BY_ID[kind].name} against {BY_ID[int(other['kind'])].name}"
        if kind == KSM_ADVISOR.id and not self._one_clock and is_rounding(one, other):
            return ""
        if int(one["err"]) != int(other["err"]):
            return "err"
        if kind in _WITH_MM and (why := self._other_mm(one, other)):
            return why
        if kind in _WITH_FRAMES and self._is_another("pfn", self._frames, one, other):
            return "page frame"
        if kind in _WITH_ITEMS and self._is_another("item", self._items, one, other):
            return "rmap_item"
        if kind == KSM_ENTER.id:
            if not self._details:
                return ""
            parents = self._first.get(int(one["addr"])), self._second.get(int(other["addr"]))
            same = one["arg"] == other["arg"] and parents[0] == parents[1]
            same &= bool(one["addr"]) == bool(other["addr"])
            return "" if same else "how it was entered"
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

    def _other_mm(self, one: Any, other: Any) -> str:
        if self._is_another("mm", self._mms, one, other):
            return "address space"
        real, model = (one, other) if self._first_reuses else (other, one)
        # A real kernel may have forgotten an owner; one that isn't there yet nobody knows.
        if not self._owners or not real["tgid"]:
            return ""
        names = self._first.get(int(one["tgid"])), self._second.get(int(other["tgid"]))
        return "" if model["tgid"] and names[0] == names[1] else "process"

    def _is_another(self, slot: str, known: dict[int, int], one: Any, other: Any) -> bool:
        if slot in self._unknown:
            return False
        mine, theirs = int(one[slot]), int(other[slot])
        key, value = (theirs, mine) if self._first_reuses else (mine, theirs)
        return known.setdefault(key, value) != value


def is_rounding(one: Any, other: Any) -> bool:
    """Whether an advisor read the clocks just before a whole number, and the lab just after it.

    ksmd's CPU time can't be read in the instant in which the advisor reads it. What it then
    decided must be the same.
    """
    decided = int(one["addr"]) == int(other["addr"])
    seconds, percent = (abs(int(one[slot]) - int(other[slot])) for slot in ("err", "arg"))
    return decided and seconds <= 1 and percent <= 1


def _about_arg(kind: int, one: int, other: int) -> str:
    if kind == KSM_ADVISOR.id:
        return "CPU percent"
    if kind != KSM_MERGE_WITH_KSM_PAGE.id:
        return "number of rmap_items"
    if (one ^ other) & INTO_EXISTING:
        return "ksm_page"
    return "mapcount" if one >> MAPCOUNT_SHIFT != other >> MAPCOUNT_SHIFT else "first sight"
