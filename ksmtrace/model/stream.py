"""The model's events, in the same records as a live kernel's."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ksmtrace.events.batch import EVENT, EventBatch, empty
from ksmtrace.events.registry import (
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
    MAPCOUNT_SHIFT,
    VIA_EXEC,
    VIA_FORK,
    VIA_SELF,
    EventKind,
)
from ksmtrace.model.clock import Clock
from ksmtrace.model.memory import Frame, Mm


class Item(Protocol):
    """What an event tells of a page: a scanner's note about one (mm, address).

    oldchecksum: 0 if the scanner knew nothing of the page before.
    """

    @property
    def id(self) -> int:
        """Its number, never used again."""
        ...

    @property
    def mm(self) -> Mm:
        """Whose page."""
        ...

    @property
    def address(self) -> int:
        """Where."""
        ...

    @property
    def oldchecksum(self) -> int:
        """What the page held when it was seen last."""
        ...


class ModelStream:
    """Collects events until they are taken. clock: gives their times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: list[tuple[int, ...]] = []
        self._taken = 0

    @property
    def position(self) -> int:
        """How many events there were so far."""
        return self._taken + len(self._rows)

    def take(self) -> EventBatch:
        """The events since the last call."""
        batch = np.array(self._rows, EVENT) if self._rows else empty()
        self._taken += len(self._rows)
        self._rows = []
        return batch

    def enter(self, mm: Mm, parent: Mm | None, *, exec_: bool) -> None:
        """ksm_enter."""
        if parent is not None:
            self._add(KSM_ENTER, mm=mm.id, addr=parent.tgid, arg=VIA_FORK)
        else:
            self._add(KSM_ENTER, mm=mm.id, tgid=mm.tgid, arg=VIA_EXEC if exec_ else VIA_SELF)

    def exit(self, mm: Mm) -> None:
        """ksm_exit."""
        self._add(KSM_EXIT, mm=mm.id, tgid=mm.tgid)

    def scan(self, kind: EventKind, seqnr: int, rmap_items: int) -> None:
        """ksm_start_scan or ksm_stop_scan."""
        assert kind in (KSM_START_SCAN, KSM_STOP_SCAN)
        self._add(kind, addr=seqnr, arg=rmap_items)

    def merge_one_page(self, zero_page: Frame, item: Item, err: int) -> None:
        """ksm_merge_one_page."""
        self._about(KSM_MERGE_ONE_PAGE, zero_page.pfn, item, err, 0)

    def merge_with_ksm_page(self, ksm_page: Frame | None, pfn: int, item: Item, err: int) -> None:
        """ksm_merge_with_ksm_page."""
        arg = 0
        if ksm_page is not None:
            arg = INTO_EXISTING | ksm_page.mapcount << MAPCOUNT_SHIFT
        if not item.oldchecksum:
            arg |= FIRST_SIGHT
        self._about(KSM_MERGE_WITH_KSM_PAGE, pfn, item, err, arg)

    def remove_rmap_item(self, pfn: int, item: Item) -> None:
        """ksm_remove_rmap_item."""
        self._about(KSM_REMOVE_RMAP_ITEM, pfn, item, 0, 0)

    def remove_ksm_page(self, pfn: int) -> None:
        """ksm_remove_ksm_page."""
        self._add(KSM_REMOVE_KSM_PAGE, pfn=pfn)

    def advisor(self, scan_time: int, pages_to_scan: int, cpu_percent: int) -> None:
        """ksm_advisor."""
        self._add(KSM_ADVISOR, err=scan_time, addr=pages_to_scan, arg=cpu_percent)

    def _about(self, kind: EventKind, pfn: int, item: Item, err: int, arg: int) -> None:
        mm = item.mm
        self._rows.append(
            (
                self._clock.now_ns,
                pfn, item.id, mm.id, item.address, mm.tgid, err, kind.id, 0, arg,
            )
        )  # fmt: skip

    def _add(
        self,
        kind: EventKind,
        *,
        pfn: int = 0,
        mm: int = 0,
        addr: int = 0,
        tgid: int = 0,
        err: int = 0,
        arg: int = 0,
    ) -> None:
        self._rows.append((self._clock.now_ns, pfn, 0, mm, addr, tgid, err, kind.id, 0, arg))
