"""Events in words, for a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ksmtrace.events.registry import (
    BY_ID,
    COW_BREAK,
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    RANGE_LEFT,
)

Row = tuple[int, ...]
"""An event's slots in the order of the record."""

_TS, _PFN, _ITEM, _MM, _ADDR, _TGID, _ERR, _KIND, _CPU, _ARG = range(10)


def _page(row: Row) -> str:
    owner = f"process {row[_TGID]}" if row[_TGID] else f"mm {row[_MM]:#x}"
    where = f"page {row[_ADDR]:#x}" if row[_ADDR] else "a page"
    return f"{where} of {owner} (rmap_item {row[_ITEM]:#x})"


def _merged(row: Row) -> str:
    onto = "onto KSM page" if row[_ARG] & INTO_EXISTING else "became KSM page"
    sight = ", at first sight" if row[_ARG] & FIRST_SIGHT else ""
    return f"{_page(row)} {onto} {row[_PFN]:#x}{sight}: {_outcome(row)}"


def _outcome(row: Row) -> str:
    return f"failed ({row[_ERR]})" if row[_ERR] else "ok"


_WORDS: dict[int, Callable[[Row], str]] = {
    KSM_ENTER.id: lambda row: f"mm {row[_MM]:#x} (process {row[_TGID] or 'not yet known'})",
    KSM_EXIT.id: lambda row: f"mm {row[_MM]:#x} (process {row[_TGID]})",
    KSM_START_SCAN.id: lambda row: f"scan {row[_ADDR]}, {row[_ARG]} rmap_items",
    KSM_STOP_SCAN.id: lambda row: f"scan {row[_ADDR]}, {row[_ARG]} rmap_items",
    KSM_MERGE_ONE_PAGE.id: lambda row: f"{_page(row)} onto the zero page: {_outcome(row)}",
    KSM_MERGE_WITH_KSM_PAGE.id: _merged,
    KSM_REMOVE_RMAP_ITEM.id: lambda row: f"{_page(row)} from KSM page {row[_PFN]:#x}",
    KSM_REMOVE_KSM_PAGE.id: lambda row: f"KSM page {row[_PFN]:#x}",
    KSM_ADVISOR.id: lambda row: f"{row[_ERR]} s, CPU {row[_ARG]} %, pages_to_scan {row[_ADDR]}",
    LOST.id: lambda row: f"{row[_ADDR]} events",
    COW_BREAK.id: lambda row: f"page {row[_ADDR]:#x} of process {row[_TGID]}",
    RANGE_LEFT.id: lambda row: f"{row[_ARG]} pages from {row[_ADDR]:#x} of process {row[_TGID]}",
}


def told(index: int, row: Sequence[int]) -> str:
    """An event in a line. index: its number in the stream."""
    slots = tuple(row)
    kind = BY_ID.get(slots[_KIND])
    if kind is None:
        return f"event {index}: of unknown kind {slots[_KIND]}"
    return f"event {index}: {kind.name}: {_WORDS[kind.id](slots)}"
