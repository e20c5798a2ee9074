"""Hand-made and random batches of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KINDS,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    MAPCOUNT_SHIFT,
    SLOTS,
    EventKind,
    role_of,
)

Row = dict[str, Any]
POINTERS = ("pfn", "item", "mm")


def event(kind: EventKind, ts: int = 1, **slots: int) -> Row:
    """One event; slots that are not named are 0."""
    return {"kind": kind.id, "ts": ts, **slots}


def batch_of(rows: Sequence[Row]) -> EventBatch:
    """The events as a batch, in order."""
    batch = np.zeros(len(rows), EVENT)
    for number, row in enumerate(rows):
        for slot, value in row.items():
            batch[slot][number] = value
    return batch


def makes_ksm_page(pfn: int, ts: int = 1, **slots: int) -> Row:
    """The first half of a pair: the page itself becomes a KSM page."""
    return event(KSM_MERGE_WITH_KSM_PAGE, ts, pfn=pfn, **slots)


def joins_ksm_page(
    pfn: int, ts: int = 1, *, mapcount: int = 0, first_sight: bool = False, **slots: int
) -> Row:
    """An attachment to an existing KSM page, a second half among them."""
    arg = INTO_EXISTING | mapcount << MAPCOUNT_SHIFT | (FIRST_SIGHT if first_sight else 0)
    return event(KSM_MERGE_WITH_KSM_PAGE, ts, pfn=pfn, arg=arg, **slots)


def scan_starts(seq: int, ts: int, items: int = 0) -> Row:
    """A full scan's first event."""
    return event(KSM_START_SCAN, ts, addr=seq, arg=items)


def scan_stops(seq: int, ts: int, items: int = 0) -> Row:
    """A full scan's last event."""
    return event(KSM_STOP_SCAN, ts, addr=seq, arg=items)


def loses(count: int, ts: int = 1, cpu: int = 0) -> Row:
    """A loss."""
    return event(LOST, ts, addr=count, cpu=cpu)


def split(batch: EventBatch, borders: Sequence[int]) -> list[EventBatch]:
    """The batch in pieces, some possibly empty."""
    return list(np.split(batch, sorted(min(border, len(batch)) for border in borders)))


def borders(most: int = 41) -> st.SearchStrategy[list[int]]:
    """Where to split a stream."""
    return st.lists(st.integers(0, most), max_size=7)


def _numbers(numpy: str) -> st.SearchStrategy[int]:
    info = np.iinfo(numpy)
    return st.one_of(st.just(0), st.integers(int(info.min), int(info.max)))


_OF_SLOT = {slot.name: _numbers(slot.numpy) for slot in SLOTS}


@st.composite
def random_event(draw: st.DrawFn) -> Row:
    """An event of any kind whose unused slots are 0, as every source leaves them."""
    kind = draw(st.sampled_from(KINDS))
    row: Row = {
        slot.name: draw(_OF_SLOT[slot.name])
        for slot in SLOTS
        if slot.name != "kind" and role_of(kind, slot.name) is not None
    }
    return {**row, "kind": kind.id}


def random_batch(most: int = 23) -> st.SearchStrategy[EventBatch]:
    """Batches of events of all kinds."""
    return st.lists(random_event(), max_size=most).map(batch_of)
