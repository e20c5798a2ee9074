"""Copies that processes made of merged pages: which were seen, which were not, and who made them.

The kernel counts each copy of a KSM page in vmstat's `cow_ksm` (94bfe85bde18, 5.19), whoever made
it: a write at a page fault, which `record --cow` sees; a page pinned for the kernel (GUP, io_uring,
a KVM guest's fault), which it doesn't; and the unsharing that madvise(MADV_UNMERGEABLE), prctl,
mremap and run=2 ask for (break_ksm() in mm/ksm.c). The zero page is no KSM page: copies of it are
counted nowhere, but `ksm_zero_pages` falls.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.events.registry import (
    INTO_EXISTING,
    KERNEL_MODE,
    KSM_MERGE_WITH_KSM_PAGE,
    LEFT_MREMAP,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    UNCHECKED,
    ZERO_PAGE,
)
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.build import Timeline
from ksmtrace.timeline.context import Samples
from ksmtrace.timeline.ends import resets_of
from ksmtrace.timeline.merging import Columns
from ksmtrace.timeline.sorting import Indices
from ksmtrace.timeline.tables import HOW, whole
from ksmtrace.timeline.unsharing import MergedPages

U64 = npt.NDArray[np.uint64]
_NO_LIMIT = 1 << 62
_UNSHARING = (LEFT_UNMERGEABLE, LEFT_PRCTL, LEFT_MREMAP)
"""`how` of a range_left after which the pages are still there, but copied."""
_SLOTS = ("ts", "kind", "err", "arg")


@dataclass(frozen=True)
class BreakTables:
    """What a recording with `--cow` says about copies of merged pages.

    accounts: see `break_accounts`. writers: see `top_writers`.
    """

    accounts: pd.DataFrame
    writers: pd.DataFrame

    @property
    def totals(self) -> pd.Series[Any]:
        """The sums of the accounts' columns; NA where a sample lacks the number."""
        sums: pd.Series[Any] = self.accounts.drop(columns=["start_ns", "end_ns", "run_2"]).sum(
            skipna=False
        )
        return sums


def break_tables(recording: StoredRecording, timeline: Timeline) -> BreakTables:
    """The tables of a recording; of one with --pid nobody knows what was not seen.

    Raises KsmtraceError (exit code 4) where it is damaged.
    """
    accounts = break_accounts(timeline, recording.event_columns(_SLOTS))
    if recording.manifest.get("only_pids"):
        # The kernel counts everybody's copies, the recording has only some processes'.
        accounts[["unshared", "unseen", "surplus", "zero_left"]] = pd.NA
    return BreakTables(accounts, top_writers(timeline))


def break_accounts(timeline: Timeline, batches: Iterable[Columns]) -> pd.DataFrame:
    """What became of the copies that the kernel counted, between each two samples of the host.

    batches: the timeline's stream again, for what its tables don't tell. One row an interval:

    - start_ns, end_ns: uint64, CLOCK_MONOTONIC; run_2: bool, everything was unmerged in it
    - cow_ksm: Int64, copies counted by the kernel; NA where it doesn't say
    - seen, seen_kernel_mode, unchecked: int64, writes to KSM pages; of them those made by the
      kernel for a process, and those that may have been refused
    - undone: int64, new KSM pages taken back because their twin could not be merged
    - unshared: Int64, explained by unsharing: at most as many as were merged there
    - unseen: Int64, what remains; surplus: Int64, seen but not counted (two threads of a process
      that write to a page at once). cow_ksm = seen + undone + unshared + unseen - surplus
    - zero_seen, zero_merges: int64, writes to the zero page where ksmd had put it, and how often it
      put it there; zero_left: Int64, other ends of such mappings, NA before 6.6
    - merges, forks, lost: int64, attachments to KSM pages, forks of registered processes, and
      events that were lost; where some were, `unseen` holds them too

    What the two ends of a recording cut off is in no row.
    """
    host, stream, lives = timeline.context.host, timeline.stream, timeline.stream.lives.table
    intervals = _Intervals(host.ts)
    firsts, left = _told_besides(batches)
    merged_at = {name: lives["merged_ts"][lives["how"] == code] for code, name in enumerate(HOW)}
    zero_merged = merged_at.pop("zero_page")
    del merged_at["before"]
    breaks = stream.breaks
    zero = (breaks["arg"] & ZERO_PAGE) != 0
    by_kernel, doubtful = ((breaks["arg"] & flag) != 0 for flag in (KERNEL_MODE, UNCHECKED))
    spaces = stream.spaces.table
    table = pd.DataFrame(
        {
            "start_ns": host.ts[:-1],
            "end_ns": host.ts[1:],
            "seen": intervals.count(breaks["ts"][~zero]),
            "seen_kernel_mode": intervals.count(breaks["ts"][~zero & by_kernel]),
            "unchecked": intervals.count(breaks["ts"][~zero & doubtful]),
            # A new KSM page whose twin fails is copied back: break_cow() in
            # try_to_merge_two_pages().
            "undone": intervals.count(firsts) - intervals.count(merged_at["created"]),
            "merges": sum(intervals.count(ts) for ts in merged_at.values()),
            "zero_merges": intervals.count(zero_merged),
            "zero_seen": intervals.count(breaks["ts"][zero]),
            "forks": intervals.count(spaces["entered_ts"][spaces["parent_tgid"] > 0]),
            "lost": intervals.count(stream.losses["ts"], stream.losses["count"]),
        }
    )
    cow_ksm = _change(host, "cow_ksm")
    run_2 = intervals.count(_ends_of_resets(stream, host)) > 0
    remaining = cow_ksm - table["seen"] - table["undone"]
    room = remaining.clip(lower=0)
    limit = pd.Series(_unshared_by_calls(timeline, left, intervals), dtype="Int64")
    # Where the limit is not known, all that remains may be the run=2's.
    limit = limit.where(~run_2, limit + _most_unmerged(host, table)).fillna(_NO_LIMIT)
    unshared = room.where(room <= limit, limit).mask(room.isna())
    table["cow_ksm"] = cow_ksm
    table["unshared"] = unshared
    table["unseen"] = room - unshared
    table["surplus"] = (-remaining).clip(lower=0)
    table["run_2"] = run_2
    table["zero_left"] = table["zero_merges"] - table["zero_seen"] - _change(host, "ksm_zero_pages")
    return table


class _Intervals:
    """The intervals between samples. edges: when these were taken, ascending."""

    def __init__(self, edges: U64) -> None:
        self._edges = edges
        self._number = max(len(edges) - 1, 0)

    def count(self, ts: U64, numbers: npt.NDArray[np.int64] | None = None) -> Indices:
        """How many moments fall into each interval, or the sum of their `numbers`."""
        # A sample is taken at its edge: what came at that very moment is before it.
        place = np.searchsorted(self._edges, ts, side="left") - 1
        inside = (place >= 0) & (place < self._number)
        counts = np.zeros(self._number, np.int64)
        np.add.at(counts, place[inside], 1 if numbers is None else numbers[inside])
        return counts


def _told_besides(batches: Iterable[Columns]) -> tuple[U64, npt.NDArray[np.int32]]:
    """What the aggregated stream does not hold.

    When each page was made a KSM page, undone or not, and how each range was given up.
    """
    firsts, left = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    before = np.uint64(0)
    for batch in batches:
        if not len(batch["ts"]):
            continue
        # As the aggregator has it: what comes later in the stream is no earlier.
        ts = np.maximum.accumulate(np.maximum(batch["ts"], before))
        before = ts[-1]
        kind, err = batch["kind"], batch["err"]
        first = (kind == KSM_MERGE_WITH_KSM_PAGE.id) & (err == 0)
        first &= (batch["arg"] & INTO_EXISTING) == 0
        firsts.append(ts[first])
        left.append(err[kind == RANGE_LEFT.id])
    return np.concatenate(firsts), np.concatenate(left)


def _ends_of_resets(stream: Aggregator, host: Samples) -> U64:
    """When a run=2 was over, and when the numbers of scans began again after it.

    A sample may be taken while it goes on: then it copies pages in the next interval, too.
    """
    begun = stream.borders["start"]
    seq, ts = stream.borders["seq"][begun], stream.borders["ts"][begun]
    over = np.array([reset.before for reset in resets_of(stream, host)], np.uint64)
    return np.concatenate((over, ts[1:][seq[1:] <= seq[:-1]]))


def _change(host: Samples, name: str) -> pd.Series[Any]:
    """How much a counter grew from each sample to the next; NA where one lacks it."""
    return pd.Series(whole(np.diff(host.counters[name])))


def _most_unmerged(host: Samples, table: pd.DataFrame) -> pd.Series[Any]:
    """How many mappings a run=2 in each interval could unshare; NA where nobody can say."""
    merged = host.counters["pages_shared"] + host.counters["pages_sharing"]
    before = pd.Series(whole(merged[:-1]))
    # What a child inherited is merged, but not counted until ksmd comes by.
    unknown = table["forks"].cumsum() > 0
    return (before + table["merges"]).mask(unknown)


def _unshared_by_calls(
    timeline: Timeline, left: npt.NDArray[np.int32], intervals: _Intervals
) -> Indices:
    """How many merged pages lay in the ranges that processes unshared in each interval.

    left: how each range was given up.
    """
    numbers = np.flatnonzero(np.isin(left, _UNSHARING))
    pages = MergedPages(timeline, numbers)
    merged = np.array([pages.count(number) for number in numbers.tolist()], np.int64)
    return intervals.count(timeline.stream.ranges["ts"][numbers], merged)


def top_writers(timeline: Timeline) -> pd.DataFrame:
    """Who wrote to merged pages, most first.

    One row a process and instruction: tgid (uint32), ip (uint64, as stored), file, offset, symbol
    (as in `code`; NA: not known), breaks, of them kernel_mode and zero_page (int64), first_ns,
    last_ns (int64).
    """
    rows = timeline.breaks.assign(ip=timeline.stream.breaks["ip"])
    groups = rows.groupby(["tgid", "ip"], as_index=False)
    writers = groups.agg(
        file=("file", "first"),
        offset=("offset", "first"),
        symbol=("symbol", "first"),
        breaks=("ts_ns", "size"),
        kernel_mode=("kernel_mode", "sum"),
        zero_page=("zero_page", "sum"),
        first_ns=("ts_ns", "min"),
        last_ns=("ts_ns", "max"),
    )
    return writers.sort_values(
        ["breaks", "tgid", "ip"], ascending=[False, True, True], ignore_index=True
    )
