"""Events in a line each, by the scenario's names: `NEW a.heap[1]`, `ADD a.heap[0] to a.heap[1]`.

| word | event |
|---|---|
| START n, STOP n | a full scan begins, ends |
| ENTER p, EXIT p | a process goes on ksmd's list; its address space goes away |
| NEW x | the page x becomes a KSM page |
| ADD x to y | x is mapped onto the KSM page that y was turned into |
| ZERO x | x is mapped onto the zero page |
| DROP x | x was on a KSM page that is found dead |
| GONE y | that KSM page is removed |
| ADVISE n | the advisor chose n pages_to_scan |

A failed try has an exclamation mark: NEW! x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    COW_BREAK,
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


class Teller:
    """Tells events. process_of: the scenario's name of an mm; page_of: of a page in a process."""

    def __init__(
        self, process_of: Callable[[int, int], str], page_of: Callable[[str, int], str]
    ) -> None:
        self._process_of = process_of
        self._page_of = page_of
        self._frames: dict[int, str] = {}

    def tell(self, batch: EventBatch) -> list[str]:
        """A line for each event."""
        return [self._line(event) for event in batch]

    def _line(self, event: Any) -> str:
        kind = int(event["kind"])
        if kind in (KSM_START_SCAN.id, KSM_STOP_SCAN.id):
            return f"{'START' if kind == KSM_START_SCAN.id else 'STOP'} {int(event['addr'])}"
        if kind == KSM_ADVISOR.id:
            return f"ADVISE {int(event['addr'])}"
        if kind == LOST.id:
            return f"LOST {int(event['addr'])}"
        pfn = int(event["pfn"])
        if kind == KSM_REMOVE_KSM_PAGE.id:
            return f"GONE {self._frame(pfn)}"
        process = self._process_of(int(event["mm"]), int(event["tgid"]))
        if kind in (KSM_ENTER.id, KSM_EXIT.id):
            return f"{'ENTER' if kind == KSM_ENTER.id else 'EXIT'} {process}"
        if kind == RANGE_LEFT.id:
            return f"LEFT {process} {int(event['addr']):#x}"
        page = self._page_of(process, int(event["addr"]))
        if kind == COW_BREAK.id:
            return f"BREAK {page}"
        mark = "!" if event["err"] else ""
        if kind == KSM_REMOVE_RMAP_ITEM.id:
            return f"DROP {page}"
        if kind == KSM_MERGE_ONE_PAGE.id:
            return f"ZERO{mark} {page}"
        assert kind == KSM_MERGE_WITH_KSM_PAGE.id
        if event["arg"] & INTO_EXISTING:
            return f"ADD{mark} {page} to {self._frame(pfn)}"
        if not mark:
            self._frames[pfn] = page
        return f"NEW{mark} {page}"

    def _frame(self, pfn: int) -> str:
        return self._frames.get(pfn, "a page from before")


def without_scans(told: tuple[str, ...]) -> list[str]:
    """Lines without START and STOP."""
    return [line for line in told if not line.startswith(("START ", "STOP "))]
