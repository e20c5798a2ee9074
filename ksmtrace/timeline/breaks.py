"""Copies that processes made of merged pages: which were seen, which were not, and who made them.

The kernel counts each copy of a KSM page in vmstat's `cow_ksm` (94bfe85bde18, 5.19), whoever made
it: a write at a page fault, which `record --cow` sees; a page pinned for the kernel (GUP, io_uring,
a KVM guest's fault), which it doesn't; and the unsharing that madvise(MADV_UNMERGEABLE), prctl,
mremap and run=2 ask for (break_ksm() in mm/ksm.c). The zero page is no KSM page: copies of it are
counted nowhere, but `ksm_zero_pages` falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.events.batch import EventBatch, empty, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KERNEL_MODE,
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_START_SCAN,
    LOST,
    UNCHECKED,
    VIA_FORK,
    ZERO_PAGE,
)
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.merges import MergeClassifier
from ksmtrace.timeline.unsharing import MergedPages, unsharing_ranges

Batches = Callable[[], Iterable[EventBatch]]
"""The stream from its start, as often as it is asked for."""

_NO_LIMIT = 1 << 62
_COUNTS = (
    "seen",
    "seen_kernel_mode",
    "unchecked",
    "undone",
    "merges",
    "zero_merges",
    "zero_seen",
    "forks",
    "lost",
)


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


def break_tables(recording: StoredRecording) -> BreakTables:
    """The tables of a recording; of one with --pid nobody knows what was not seen.

    Raises KsmtraceError (exit code 4) where it is damaged.
    """
    manifest = recording.manifest
    samples = recording.table("counters").to_pandas()
    census = recording.table("census").to_pandas()
    accounts = break_accounts(recording.event_batches, samples, census, manifest["page_bytes"])
    if manifest.get("only_pids"):
        # The kernel counts everybody's copies, the recording has only some processes'.
        accounts[["unshared", "unseen", "surplus", "zero_left"]] = pd.NA
    return BreakTables(
        accounts, top_writers(recording.event_batches(), recording.table("code").to_pandas())
    )


class _Tally:
    """Counts of a stream by the interval between two samples that an event falls into."""

    def __init__(self, edges: npt.NDArray[np.uint64]) -> None:
        self._edges = edges
        self._classifier = MergeClassifier(first_sight_known=False, preexisting=None)
        self._last_seq = -1
        self.counts = {name: np.zeros(max(len(edges) - 1, 0), np.int64) for name in _COUNTS}
        self.restarted = np.zeros(max(len(edges) - 1, 0), bool)

    def _add(self, name: str, events: EventBatch, numbers: npt.NDArray[np.int64] | int = 1) -> None:
        # A sample is taken at its edge: what came at that very moment is before it.
        place = np.searchsorted(self._edges, events["ts"], side="left") - 1
        inside = (place >= 0) & (place < len(self.counts[name]))
        if isinstance(numbers, int):
            numbers = np.full(len(events), numbers, np.int64)
        np.add.at(self.counts[name], place[inside], numbers[inside])

    def feed(self, batch: EventBatch) -> None:
        """Count a batch."""
        breaks = batch[of_kind(batch, COW_BREAK)]
        zero = (breaks["arg"] & ZERO_PAGE) != 0
        self._add("seen", breaks[~zero])
        self._add("seen_kernel_mode", breaks[~zero & ((breaks["arg"] & KERNEL_MODE) != 0)])
        self._add("unchecked", breaks[~zero & ((breaks["arg"] & UNCHECKED) != 0)])
        self._add("zero_seen", breaks[zero])
        zero_merges = batch[of_kind(batch, KSM_MERGE_ONE_PAGE)]
        self._add("zero_merges", zero_merges[zero_merges["err"] == 0])
        enters = batch[of_kind(batch, KSM_ENTER)]
        self._add("forks", enters[enters["arg"] == VIA_FORK])
        lost = batch[of_kind(batch, LOST)]
        self._add("lost", lost, lost["addr"].astype(np.int64))
        self._merges(batch, last=False)
        self._scans(batch[of_kind(batch, KSM_START_SCAN)])

    def finish(self) -> None:
        """The stream is over."""
        self._merges(None, last=True)

    def _merges(self, batch: EventBatch | None, *, last: bool) -> None:
        found = self._classifier.finish() if last or batch is None else self._classifier.feed(batch)
        self._add("merges", found.events[found.stood])
        # A new KSM page whose twin fails is copied back: break_cow() in try_to_merge_two_pages().
        self._add("undone", found.events[found.undone])

    def _scans(self, starts: EventBatch) -> None:
        """run=2 lets the numbers of scans begin again."""
        seqs = np.concatenate(([self._last_seq], starts["addr"].astype(np.int64)))
        again = starts[seqs[1:] <= seqs[:-1]]
        place = np.searchsorted(self._edges, again["ts"], side="left") - 1
        self.restarted[place[(place >= 0) & (place < len(self.restarted))]] = True
        self._last_seq = int(seqs[-1])


def break_accounts(
    batches: Batches,
    samples: pd.DataFrame,
    census: pd.DataFrame | None = None,
    page_bytes: int = 4096,
) -> pd.DataFrame:
    """What became of the copies that the kernel counted, between each two samples of the host.

    samples: rows of the table `counters`; those with a tgid are left out. census: of that table,
    what was merged when the recording began. One row an interval:

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
    host = samples[samples["tgid"].isna()].sort_values("ts", kind="stable")
    edges = host["ts"].to_numpy(np.uint64)
    tally = _Tally(edges)
    for batch in batches():
        tally.feed(batch)
    tally.finish()
    table = pd.DataFrame({"start_ns": edges[:-1], "end_ns": edges[1:], **tally.counts})
    cow_ksm = _change(host, "cow_ksm")
    run_2 = _unmerged_all(host) | tally.restarted
    asked = _unshared_by_calls(batches, edges, census, page_bytes)
    remaining = cow_ksm - table["seen"] - table["undone"]
    room = remaining.clip(lower=0)
    limit = pd.Series(asked, dtype="Int64")
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


def _change(host: pd.DataFrame, name: str) -> pd.Series[Any]:
    """How much a counter grew from each sample to the next; NA where one lacks it."""
    values = host[name].astype("Int64").reset_index(drop=True)
    return values.diff().iloc[1:].reset_index(drop=True)


def _unmerged_all(host: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which intervals show a run=2 in the samples: the knob itself, or scans counted anew."""
    two = (host["knob_run"] == "2").to_numpy(bool)
    fewer = (_change(host, "full_scans") < 0).fillna(value=False).to_numpy(bool)
    found: npt.NDArray[np.bool_] = fewer | (two[1:] & ~two[:-1])
    return found


def _most_unmerged(host: pd.DataFrame, table: pd.DataFrame) -> pd.Series[Any]:
    """How many mappings a run=2 in each interval could unshare; NA where nobody can say."""
    before = (host["pages_shared"] + host["pages_sharing"]).astype("Int64").reset_index(drop=True)
    # What a child inherited is merged, but not counted until ksmd comes by.
    unknown = table["forks"].cumsum() > 0
    return (before.iloc[:-1] + table["merges"]).mask(unknown)


def _unshared_by_calls(
    batches: Batches, edges: npt.NDArray[np.uint64], census: pd.DataFrame | None, page_bytes: int
) -> npt.NDArray[np.int64]:
    """How many merged pages lay in the ranges that processes unshared in each interval."""
    counts = np.zeros(max(len(edges) - 1, 0), np.int64)
    ranges = unsharing_ranges(batches())
    if not len(ranges):
        return counts
    pages = MergedPages(ranges, page_bytes)
    for batch in batches():
        pages.feed(batch)
    pages.finish()
    if census is not None:
        pages.were_merged(census[census["reason"] == "start"])
    place = np.searchsorted(edges, ranges["ts"], side="left") - 1
    for number in np.flatnonzero((place >= 0) & (place < len(counts))).tolist():
        counts[place[number]] += pages.count(ranges[number])
    return counts


def _writers(batch: EventBatch) -> pd.DataFrame:
    """A batch's breaks, counted by process and instruction."""
    breaks = batch[of_kind(batch, COW_BREAK)]
    rows = pd.DataFrame(
        {
            "tgid": breaks["tgid"],
            "ip": breaks["item"],
            "kernel_mode": (breaks["arg"] & KERNEL_MODE) != 0,
            "zero_page": (breaks["arg"] & ZERO_PAGE) != 0,
            "ts": breaks["ts"],
        }
    )
    groups = rows.groupby(["tgid", "ip"], as_index=False)
    return groups.agg(
        breaks=("ts", "size"),
        kernel_mode=("kernel_mode", "sum"),
        zero_page=("zero_page", "sum"),
        first_ns=("ts", "min"),
        last_ns=("ts", "max"),
    )


def top_writers(batches: Iterable[EventBatch], code: pd.DataFrame | None = None) -> pd.DataFrame:
    """Who wrote to merged pages, most first.

    code: rows of the table `code`. One row a process and instruction: tgid (uint32), ip (uint64, as
    stored), file, offset, symbol (as in `code`; NA: not known), breaks, of them kernel_mode and
    zero_page (int64), first_ns, last_ns (uint64).
    """
    rows = pd.concat([_writers(empty()), *(_writers(batch) for batch in batches)])
    rows = rows.groupby(["tgid", "ip"], as_index=False).agg(
        breaks=("breaks", "sum"),
        kernel_mode=("kernel_mode", "sum"),
        zero_page=("zero_page", "sum"),
        first_ns=("first_ns", "min"),
        last_ns=("last_ns", "max"),
    )
    where = pd.DataFrame({"tgid": [], "ip": [], "file": [], "offset": [], "symbol": []})
    if code is not None and len(code):
        where = code.drop_duplicates(["tgid", "ip"], keep="last").drop(columns="ts")
    keys = {"tgid": np.uint32, "ip": np.uint64}
    joined = rows.astype(keys).merge(where.astype(keys), on=["tgid", "ip"], how="left")
    joined["offset"] = joined["offset"].astype("UInt64")
    order = ["tgid", "ip", "file", "offset", "symbol", "breaks", "kernel_mode", "zero_page"]
    return joined[[*order, "first_ns", "last_ns"]].sort_values(
        ["breaks", "tgid", "ip"], ascending=[False, True, True], ignore_index=True
    )
