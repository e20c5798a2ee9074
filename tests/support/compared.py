"""A small recording whose figures can be worked out by hand, at any speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.batches import Row, batch_of, event, joins_ksm_page, makes_ksm_page
from support.batches import scan_starts as starts
from support.batches import scan_stops as stops
from support.recordings import BEGIN, SECOND, host_sample, make_recording

from ksmtrace.events.registry import (
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    VIA_FORK,
)

PAGE = 4096
MERGED = 11
"""KSM pages of two mappings each: 22 merges, and then one inherited."""


def small_recording(
    path: Path,
    *,
    slower: int = 1,
    cow: bool = False,
    without: tuple[str, ...] = (),
    part: tuple[int, int] | None = None,
    **facts: Any,
) -> Path:
    """Ten seconds, three full scans of 1 s, 3 s and 2 s; slower: by what all time is stretched.

    Samples at 0 s, 4 s and 10 s. without: counters that its kernel lacks. part: from which
    event to before which; None: all. facts: of the manifest.
    """

    def at(seconds: float) -> int:
        return BEGIN + int(seconds * SECOND) * slower

    def sample(seconds: float, reason: str, **counters: int) -> Mapping[str, Any]:
        kept = {k: v for k, v in counters.items() if k not in without}
        return host_sample(at(seconds), reason, **kept)

    rows: list[Row] = [event(KSM_ENTER, at(0.5), mm=7, tgid=70)]
    rows += [starts(0, at(1)), stops(0, at(2), 29), starts(1, at(2), 29)]
    for number in range(MERGED):
        where = {"mm": 7, "tgid": 70}
        when = at(2.2 + 0.2 * number)
        addr = (number + 1) * PAGE
        rows += [
            makes_ksm_page(100 + number, when, item=number * 2 + 1, addr=addr, **where),
            joins_ksm_page(100 + number, when, item=number * 2 + 2, addr=addr + (1 << 20), **where),
        ]
    rows += [event(KSM_MERGE_ONE_PAGE, at(4.7), pfn=3, item=99, addr=1 << 24, mm=7, tgid=70)]
    rows += [stops(1, at(5), 29), event(KSM_ENTER, at(5.5), mm=8, tgid=80, addr=70, arg=VIA_FORK)]
    rows += [starts(2, at(6), 29)]
    rows += [
        joins_ksm_page(
            100, at(7), mapcount=2, first_sight=True, item=101, addr=PAGE, mm=8, tgid=80
        ),
        event(
            KSM_MERGE_WITH_KSM_PAGE, at(7.5), pfn=9, item=55, addr=1 << 25, mm=7, tgid=70, err=-14
        ),
    ]
    rows += [stops(2, at(8), 30)]
    return make_recording(
        path,
        [batch_of(rows if part is None else rows[slice(*part)])],
        tables={
            "counters": [
                sample(0, "start", pages_shared=0, pages_sharing=0, ksm_zero_pages=0, full_scans=5,
                       pages_scanned=1000, ksmd_cpu_ns=7 * SECOND, general_profit=0, cow_ksm=30),
                sample(4, "interval", pages_shared=9, pages_sharing=9, ksm_zero_pages=0,
                       full_scans=6, pages_scanned=1700, ksmd_cpu_ns=8 * SECOND,
                       general_profit=30_000, cow_ksm=30),
                sample(10, "end", pages_shared=11, pages_sharing=12, ksm_zero_pages=1,
                       full_scans=8, pages_scanned=3000, ksmd_cpu_ns=9 * SECOND,
                       general_profit=50_000, cow_ksm=37),
            ],
            "identities": [
                {"ts": at(0.5), "what": "enter", "tgid": 70, "comm": "mother", "cgroup": "/a"},
                {"ts": at(5.5), "what": "fork", "tgid": 80, "comm": "child", "cgroup": "/a"},
            ],
        },
        facts={"cow": {"seen_by": []} if cow else None, **facts},
        final={"duration_s": 10.0 * slower},
    )  # fmt: skip
