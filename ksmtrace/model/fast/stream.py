"""The compiled scanner's events: `model.stream` with arrays.

Each is a row of seven 64-bit words, which is EVENT's layout on a little-endian machine; where
events are only counted none is written.
"""

from __future__ import annotations

from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    MAPCOUNT_SHIFT,
)
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.tables import BLOCK_SHIFT, EVENTS, KINDS_AT, NOW, Rules, Tables

WORDS = 7
_MERGE_ONE = KSM_MERGE_ONE_PAGE.id
_MERGE_WITH = KSM_MERGE_WITH_KSM_PAGE.id
_REMOVE_ITEM = KSM_REMOVE_RMAP_ITEM.id
_REMOVE_PAGE = KSM_REMOVE_KSM_PAGE.id
_U32 = 0xFFFFFFFF


@compiled
def mm_of(t: Tables, place: int) -> int:
    """The address space of a place."""
    return int(t.segment[t.segment_of[place >> BLOCK_SHIFT]].mm)


@compiled
def address_of(t: Tables, place: int) -> int:
    """The address of a place."""
    segment = t.segment_of[place >> BLOCK_SHIFT]
    return int(t.segment[segment].start) + (place - int(t.segment[segment].base)) * PAGE_SIZE


@compiled
def _about(t: Tables, r: Rules, kind: int, pfn: int, place: int, err: int, arg: int) -> None:
    t.counts[KINDS_AT + kind] += 1
    if not r.keep_events:
        return
    row = t.events[t.counts[EVENTS]]
    t.counts[EVENTS] += 1
    mm = mm_of(t, place)
    row[0] = t.counts[NOW]
    row[1] = pfn
    row[2] = t.place[place].item
    row[3] = t.mm[mm].id
    row[4] = address_of(t, place)
    row[5] = (t.mm[mm].tgid & _U32) | err << 32
    row[6] = kind | (arg & _U32) << 32


@compiled
def merge_one_page(t: Tables, r: Rules, pfn: int, place: int, err: int) -> None:
    """ksm_merge_one_page."""
    _about(t, r, _MERGE_ONE, pfn, place, err, 0)


@compiled
def merge_with_ksm_page(
    t: Tables, r: Rules, ksm_page: int, page: int, place: int, err: int
) -> None:
    """ksm_merge_with_ksm_page. ksm_page: a frame, 0 where `page` itself becomes one."""
    arg = 0
    pfn = int(t.frame[page].pfn)
    if ksm_page != 0:
        pfn = int(t.frame[ksm_page].pfn)
        arg = INTO_EXISTING | int(t.frame[ksm_page].mapcount) << MAPCOUNT_SHIFT
    if t.place[place].oldchecksum == 0:
        arg |= FIRST_SIGHT
    _about(t, r, _MERGE_WITH, pfn, place, err, arg)


@compiled
def remove_rmap_item(t: Tables, r: Rules, pfn: int, place: int) -> None:
    """ksm_remove_rmap_item."""
    _about(t, r, _REMOVE_ITEM, pfn, place, 0, 0)


@compiled
def remove_ksm_page(t: Tables, r: Rules, pfn: int) -> None:
    """ksm_remove_ksm_page."""
    t.counts[KINDS_AT + _REMOVE_PAGE] += 1
    if not r.keep_events:
        return
    row = t.events[t.counts[EVENTS]]
    t.counts[EVENTS] += 1
    row[:] = 0
    row[0] = t.counts[NOW]
    row[1] = pfn
    row[6] = _REMOVE_PAGE
