"""Smart scan: pages that did not merge are visited less often (Linux 6.7, 5e924ff54d08)."""

from __future__ import annotations

from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem

_ALWAYS_BELOW_AGE = 3
_OLDEST = 255


def skips_after(age: int) -> int:
    """How many scans in a row a page of that age is skipped."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    return 4 if age <= 8 else 8


def skips(state: State, item: RmapItem) -> bool:
    """Whether this visit of a page that isn't merged is left out; counts and ages it."""
    if not state.settings.smart_scan or not state.behaviour.smart_scan:
        return False
    age = item.age
    if age < _OLDEST:
        item.age = age + 1
    if age < _ALWAYS_BELOW_AGE:
        return False
    if item.remaining_skips == 0:
        item.remaining_skips = skips_after(age)
        return False
    item.remaining_skips -= 1
    state.pages_skipped += 1
    return True
