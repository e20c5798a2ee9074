"""Does a live timeline keep up with 300,000 events a second on a quarter of a core?

make bench-timeline
.venv/bin/python bench/live_timeline.py --rounds 5 --seconds 10 --json

A made-up stream is handed over in batches as a capture would, 1,500 events each 5 ms: full scans of
300,000 events in which a million pages of 31 processes merge, are written (as `record --cow` sees
it), merge again, and KSM pages die. Each scan ends with a sample of the counters, which are the
stream's own, so that the accounts of the finished timeline must close. CPU time is the process's
own while the stream runs, sleeping included; the end (what still waited) and the making of all
tables are timed apart. Pointers are taken as they are, and renamed, in turn; medians and span of
the rounds. The longest hand-over is what a ring must be able to hold: nobody reads it meanwhile.
Not measured: reading the ring, looking at processes (`make bench-capture` does), and a screen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import (
    COW_BREAK,
    INTO_EXISTING,
    KSM_ENTER,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    VIA_SELF,
)
from ksmtrace.recording.pseudonyms import Namer, Pseudonyms, RawPointers
from ksmtrace.timeline.live import LiveTimeline
from ksmtrace.timeline.tables import TABLES

Numbers = npt.NDArray[np.int64]
Scans = list[tuple[EventBatch, dict[str, int]]]

RATE, BATCH = 300_000, 1_500
SCAN = RATE
"""Events of a full scan: one a second."""
PROCESSES, PAGES, CONTENTS = 31, 1_000_003, 10_007
WRITTEN, DEAD = 0.1, 211
"""Of a scan: the share of the merged pages written before it, and KSM pages found dead in it."""
BURST = 97
"""Pages a process writes in a row."""
BEGIN = 10**12
STEP_NS = 10**9 // RATE
MANIFEST: dict[str, Any] = {
    "kernel": "6.18.2",
    "page_bytes": 4096,
    "clock": {"monotonic_ns": BEGIN - 1, "wall_ns": 1},
    "fields_unknown": [],
    "cow": {"obstacles": [], "seen_by": ["page_fault_user"]},
    "notes": [],
    "censuses": [],
}


class Stream:
    """Scans of a host that never was, and what its kernel would count."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(7)
        self._content = np.full(PAGES, -1, np.int64)
        self._frame = np.zeros(CONTENTS, np.int64)
        self._frames = 0
        self._merged_at = np.zeros(PAGES, np.int64)
        self._copies = 0
        self._merges = 0

    def scan(self, seq: int) -> EventBatch:
        """The events of one full scan, writes before it included."""
        parts = [self._entered()] if seq == 0 else []
        parts += [self._written(), self._border(KSM_START_SCAN.id, seq), self._dead()]
        parts.append(self._merged(SCAN - 1 - sum(map(len, parts))))
        parts.append(self._border(KSM_STOP_SCAN.id, seq))
        events = np.concatenate(parts)
        events["ts"] = BEGIN + seq * 10**9 + np.arange(len(events)) * STEP_NS
        return events

    def counters(self) -> dict[str, int]:
        """After a scan."""
        merged = self._content[self._content >= 0]
        shared = len(np.unique(merged))
        return {
            "pages_shared": shared,
            "pages_sharing": len(merged) - shared,
            "ksm_zero_pages": 0,
            "cow_ksm": self._copies,
        }

    def _of(self, kind: int, pages: Numbers) -> EventBatch:
        events = np.zeros(len(pages), EVENT)
        space = pages % PROCESSES
        events["kind"] = kind
        events["mm"] = (1 << 58) + space * 4096
        events["tgid"] = 1001 + space
        events["addr"] = (1 << 44) + pages // PROCESSES * 4096
        events["item"] = (1 << 60) + pages * 64
        events["pfn"] = self._frame[self._content[pages]]
        return events

    def _entered(self) -> EventBatch:
        events = self._of(KSM_ENTER.id, np.arange(PROCESSES))
        for slot in ("addr", "item", "pfn"):
            events[slot] = 0
        events["arg"] = VIA_SELF
        return events

    @staticmethod
    def _border(kind: int, seq: int) -> EventBatch:
        event = np.zeros(1, EVENT)
        event["kind"], event["addr"], event["arg"] = kind, seq, PAGES
        return event

    def _written(self) -> EventBatch:
        merged = np.flatnonzero(self._content >= 0)
        pages = self._random.choice(merged, int(len(merged) * WRITTEN), replace=False)
        events = self._of(COW_BREAK.id, self._in_bursts(pages))
        events["item"] = 0x4000_1000 + pages % 13
        self._content[pages] = -1
        self._copies += len(pages)
        return events

    def _in_bursts(self, pages: Numbers) -> Numbers:
        """A process writes some pages, then another does."""
        pages = pages[np.argsort(pages % PROCESSES, kind="stable")]
        burst = np.arange(len(pages)) // BURST
        turns = self._random.permutation(len(pages) // BURST + 1)
        return pages[np.argsort(turns[burst], kind="stable")]

    def _dead(self) -> EventBatch:
        """KSM pages whose mappings were all written; the oldest rmap_item leaves silently."""
        living = np.unique(self._content[self._content >= 0])
        if not len(living):
            return np.zeros(0, EVENT)
        contents = self._random.choice(living, min(DEAD, len(living)), replace=False)
        pages = np.flatnonzero(np.isin(self._content, contents))
        pages = pages[np.lexsort((self._merged_at[pages], self._content[pages]))]
        oldest = np.concatenate(([True], np.diff(self._content[pages]) != 0))
        written = self._of(COW_BREAK.id, self._in_bursts(pages))
        written["item"] = 0x4000_2000
        left = self._of(KSM_REMOVE_RMAP_ITEM.id, pages[~oldest])
        dead = np.zeros(int(oldest.sum()), EVENT)
        dead["kind"] = KSM_REMOVE_KSM_PAGE.id
        dead["pfn"] = self._frame[self._content[pages[oldest]]]
        # Each KSM page's items go with it, then the page itself.
        after = np.concatenate((self._content[pages[~oldest]], self._content[pages[oldest]]))
        events = np.concatenate((left, dead))[np.argsort(after, kind="stable")]
        self._copies += len(pages)
        self._content[pages] = -1
        return np.concatenate((written, events))

    def _merged(self, most: int) -> EventBatch:
        free = self._random.permutation(np.flatnonzero(self._content < 0))
        content = self._random.integers(0, CONTENTS, len(free))
        alive = np.zeros(CONTENTS, bool)
        alive[self._content[self._content >= 0]] = True
        fresh = np.flatnonzero(~alive)
        joins = alive[content]
        pairs = free[~joins][: 2 * min(len(fresh), most // 2)]
        pairs = pairs[: len(pairs) // 2 * 2]
        fresh = fresh[: len(pairs) // 2]
        rest = max(0, most - len(pairs))
        joined, into = free[joins][:rest], content[joins][:rest]
        self._frame[fresh] = np.arange(1, len(fresh) + 1) + self._frames
        self._frames += len(fresh)
        pages = np.concatenate((pairs, joined))
        self._content[pages] = np.concatenate((np.repeat(fresh, 2), into))
        events = self._of(KSM_MERGE_WITH_KSM_PAGE.id, pages)
        events["arg"] = INTO_EXISTING
        events["arg"][: len(pairs) : 2] = 0
        # In ksmd's order; the twin that a page is merged with is told of just after it.
        place = pages % PROCESSES * PAGES + pages
        place[1 : len(pairs) : 2] = place[: len(pairs) : 2]
        order = np.argsort(place, kind="stable")
        self._merged_at[pages[order]] = self._merges + np.arange(len(pages))
        self._merges += len(pages)
        return events[order]


@dataclass(frozen=True)
class Figures:
    """Of a round. of_a_core: CPU seconds a second while the stream ran."""

    events_a_second: float
    of_a_core: float
    longest_hand_over_s: float
    rest_s: float
    tables_s: float
    lives: int
    residual: int
    peak_mib: int


NAMERS: dict[str, Callable[[], Namer]] = {
    "pointers": RawPointers,
    "pseudonyms": Pseudonyms,
}
LINES = {
    "events_a_second": ("events a second", "{:,.0f}"),
    "of_a_core": ("of a core", "{:.3f}"),
    "longest_hand_over_s": ("longest hand-over, s", "{:.3f}"),
    "rest_s": ("what still waited, s", "{:.3f}"),
    "tables_s": ("all tables, s", "{:.3f}"),
    "lives": ("lives", "{:,.0f}"),
    "residual": ("residual, pages", "{:.0f}"),
    "peak_mib": ("peak memory, MiB", "{:,.0f}"),
}


def measure(scans: Scans, namer: Namer) -> Figures:
    """Hand the stream over at its pace."""
    live = LiveTimeline(MANIFEST, namer)
    live.table("counters", [_sample(BEGIN - 1, "start", dict.fromkeys(scans[0][1], 0))])
    begin, begin_cpu = time.monotonic(), time.process_time()
    due, longest = begin, 0.0
    for number, (batch, counters) in enumerate(scans):
        for part in _parts(batch):
            due += BATCH / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            start = time.monotonic()
            live.events(part)
            longest = max(longest, time.monotonic() - start)
        ts = BEGIN + number * 10**9 + len(batch) * STEP_NS - 1
        live.table("counters", [_sample(ts, "scan", counters)])
    seconds, cpu = time.monotonic() - begin, time.process_time() - begin_cpu
    begin = time.monotonic()
    timeline = live.finish()
    finished = time.monotonic()
    for name in TABLES:
        getattr(timeline, name)
    made = time.monotonic()
    return Figures(
        events_a_second=sum(len(batch) for batch, _ in scans) / seconds,
        of_a_core=cpu / seconds,
        longest_hand_over_s=longest,
        rest_s=finished - begin,
        tables_s=made - finished,
        lives=len(timeline.pages),
        residual=int(timeline.accounts["residual"].abs().max()),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    )


def measure_apart(scans: Scans, namer: str) -> Figures:
    """The same in a process of its own, which pays for its memory as a capture does."""

    def run(sending: Connection) -> None:
        sending.send(measure(scans, NAMERS[namer]()))

    receiving, sending = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=run, args=(sending,))
    process.start()
    figures: Figures = receiving.recv()
    process.join()
    return figures


def _parts(batch: EventBatch) -> Iterator[EventBatch]:
    for at in range(0, len(batch), BATCH):
        yield batch[at : at + BATCH]


def _sample(ts: int, reason: str, counters: dict[str, int]) -> dict[str, Any]:
    return {"ts": ts, "reason": reason, **counters}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    stream = Stream()
    scans = [(stream.scan(seq), stream.counters()) for seq in range(args.seconds)]
    found: dict[str, list[Figures]] = {name: [] for name in NAMERS}
    for _ in range(args.rounds):
        for name, figures in found.items():
            figures.append(measure_apart(scans, name))
    if args.json:
        print(json.dumps({name: [asdict(one) for one in all_] for name, all_ in found.items()}))
        return 0
    table = Table("", *found, box=None)
    for field, (title, form) in LINES.items():
        cells = []
        for figures in found.values():
            values = [getattr(one, field) for one in figures]
            median = form.format(statistics.median(values))
            low, high = form.format(min(values)), form.format(max(values))
            cells.append(median if low == high else f"{median} ({low}–{high})")
        table.add_row(title, *cells)
    Console(width=80).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
