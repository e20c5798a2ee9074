"""Streams that are hard to reconstruct: lossy, skewed, partial, foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ksmtrace.events.batch import EVENT, EventBatch, concatenate
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    MAPCOUNT_SHIFT,
    VIA_EXEC,
    VIA_SELF,
)
from tests.support.batches import (
    Row,
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)
from tests.support.recordings import BEGIN, SECOND, host_sample

PAGE = 4096
MS = SECOND // 1000
END = BEGIN + 5 * SECOND
EFAULT = -14
A, B, C = {"mm": 0xA000, "tgid": 11}, {"mm": 0xB000, "tgid": 13}, {"mm": 0xC000, "tgid": 17}
IDLE = [host_sample(ts, "end", pages_shared=7, pages_sharing=30) for ts in (BEGIN, END)]


def one_a_ms(rows: Sequence[Row]) -> EventBatch:
    """The events a millisecond apart, from the second on."""
    return batch_of([{**row, "ts": BEGIN + n * MS} for n, row in enumerate(rows, 1)])


def at(ms: int) -> int:
    return BEGIN + ms * MS


def pairs(count: int, pfn: int, addr: int, one: Mapping[str, int] = A,
          other: Mapping[str, int] = B) -> EventBatch:  # fmt: skip
    """`count` new KSM pages, each of a page of `one` and its twin of `other`; without times."""
    batch = np.zeros(2 * count, EVENT)
    batch["kind"] = KSM_MERGE_WITH_KSM_PAGE.id
    batch["pfn"] = np.repeat(pfn + np.arange(count), 2)
    batch["addr"] = np.repeat(addr + PAGE * np.arange(count), 2)
    batch["item"] = 2 * addr + 64 * np.arange(2 * count)
    batch["arg"][1::2] = INTO_EXISTING | 2 << MAPCOUNT_SHIFT
    for half, owner in enumerate((one, other)):
        batch["mm"][half::2], batch["tgid"][half::2] = owner["mm"], owner["tgid"]
    return batch


def in_time(parts: Sequence[EventBatch]) -> EventBatch:
    """The events of all parts, a microsecond apart."""
    batch = concatenate(list(parts))
    batch["ts"] = BEGIN + 1000 * (1 + np.arange(len(batch)))
    return batch


def scan_of(seq: int, body: EventBatch) -> list[EventBatch]:
    return [batch_of([scan_starts(seq, 0)]), body, batch_of([scan_stops(seq, 0)])]


def counted(shared: int, sharing: int, *, ts: int = END, scans: int = 1) -> list[dict[str, Any]]:
    """Samples of the host: nothing at first, these pages at the end."""
    return [
        host_sample(BEGIN, "start", pages_shared=0, pages_sharing=0, full_scans=0),
        host_sample(ts, "end", pages_shared=shared, pages_sharing=sharing, full_scans=scans),
    ]


# A pair before 500 events are lost, half of one at that moment, and a pair after; then B exits.
CUT_BY_A_LOSS = [
    scan_starts(0, 0),
    makes_ksm_page(7, addr=0x1000, item=1, **A),
    joins_ksm_page(7, addr=0x1000, item=2, mapcount=2, **B),
    makes_ksm_page(11, addr=0x2000, item=3, **A),
    loses(500),
    joins_ksm_page(11, addr=0x3000, item=4, mapcount=3, **B),
    makes_ksm_page(13, addr=0x4000, item=5, **A),
    joins_ksm_page(13, addr=0x4000, item=6, mapcount=2, **B),
    scan_stops(0, 0),
    event(KSM_EXIT, **B),
]


def on_two_clocks(skew: int) -> EventBatch:
    """Three scans, 10 ms each event: ksmd moves each three events to a CPU that is `skew` late."""
    parts = [batch_of([event(KSM_ENTER, arg=VIA_SELF, **owner) for owner in (A, B)])]
    for seq in range(3):
        parts += scan_of(seq, pairs(100, 1000 + 100 * seq, 0x60000000 + 100 * PAGE * seq))
    batch = concatenate([*parts, batch_of([event(KSM_EXIT, **B)])])
    number = np.arange(len(batch))
    batch["ts"] = BEGIN + 100 * MS + 10 * MS * number
    batch["cpu"] = number // 3 % 2
    batch["ts"][batch["cpu"] == 1] -= np.uint64(skew)
    return batch


def pid_used_again() -> list[Row]:
    return [event(KSM_EXIT, **A), event(KSM_ENTER, mm=0xD000, tgid=11, arg=VIA_SELF)]


def mm_used_again() -> list[Row]:
    return [event(KSM_EXIT, **A), event(KSM_ENTER, mm=0xA000, tgid=19, arg=VIA_SELF)]


def execs() -> list[Row]:
    return [event(KSM_ENTER, mm=0xD000, tgid=11, arg=VIA_EXEC), event(KSM_EXIT, **A)]


def life_after(between: Sequence[Row], again: Mapping[str, int]) -> list[Row]:
    """A and C share a page; something happens; `again` merges the same address, and another."""
    return [
        *(event(KSM_ENTER, arg=VIA_SELF, **owner) for owner in (C, A)),
        scan_starts(0, 0),
        makes_ksm_page(7, addr=0x5000, item=1, **A),
        joins_ksm_page(7, addr=0x5000, item=2, mapcount=2, **C),
        scan_stops(0, 0),
        *between,
        scan_starts(1, 0),
        joins_ksm_page(7, addr=0x5000, item=3, mapcount=2, **again),
        joins_ksm_page(7, addr=0x6000, item=4, mapcount=3, **again),
        scan_stops(1, 0),
    ]


IMPORTED: Mapping[str, Any] = {
    "fields_unknown": ["addr", "tgid", "via", "parent_tgid", "first_sight", "mapcount"],
    "cpus": None,
    "memory_bytes": None,
    "backend": "import",
}


def as_imported(batch: EventBatch) -> EventBatch:
    """What another tool's text tells of it."""
    batch = batch.copy()
    border = (batch["kind"] == KSM_START_SCAN.id) | (batch["kind"] == KSM_STOP_SCAN.id)
    batch["tgid"] = 0
    batch["addr"][~border] = 0
    batch["arg"][~border] &= INTO_EXISTING
    return batch


def only_of_11() -> EventBatch:
    rows = life_after(pid_used_again(), {"mm": 0xD000, "tgid": 11})
    return one_a_ms([row for row in rows if row.get("tgid", 11) == 11])
