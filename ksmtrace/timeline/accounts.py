"""The accounts: what the events say is merged, against what the kernel counts, at each sample.

Un-merging is mostly silent, so events give bounds: what must be merged, and what may be. What the
kernel counts lies between them, or the rest is the residual. The kernel counts rmap_items, which
outlive a mapping until ksmd meets them: an end is in its numbers only once ksmd has noticed it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.kernel.releases import fork_counts_afresh
from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context
from ksmtrace.timeline.ends import Ends, across_losses
from ksmtrace.timeline.lives import (
    COW_BREAK,
    EXIT,
    FOUND_DEAD,
    PERHAPS_UNMERGED,
    STALE,
    STILL_MERGED,
    UNKNOWN,
    UNMAPPED,
    UNMERGED,
)
from ksmtrace.timeline.scans import IN_TRANSIT_NS, Scans
from ksmtrace.timeline.sorting import Mask, in_order, rows_of
from ksmtrace.timeline.tables import HOW, frame, whole
from ksmtrace.timeline.zero_pages import inherited_zero_pages

U64 = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
_FOREVER = np.iinfo(np.uint64).max
_BEFORE = HOW.index("before")


@dataclass(frozen=True)
class Counted:
    """From when to when the kernel counts each life: surely until `least`, at most until `most`."""

    begun: U64
    least: U64
    most: U64


def counted(stream: Aggregator, ends: Ends, scans: Scans, *, sees_breaks: bool) -> Counted:
    """When the kernel counts each life's rmap_item among its merged ones."""
    lives = stream.lives.table
    end = ends.end
    begun = lives["merged_ts"]
    least, most = ends.after.copy(), ends.before.copy()
    most[end == STILL_MERGED] = _FOREVER
    # Removed with an event: counted until just then.
    told = end == STALE
    least[told] = ends.before[told]
    # The mapping's end is known, the rmap_item's is when ksmd comes by.
    unshared = (end == UNMERGED) & (lives["end"] == UNMERGED)
    silent = np.flatnonzero((end == COW_BREAK) | (end == UNMAPPED) | (end == EXIT) | unshared)
    most[silent] = _noticed_by(stream, scans, silent, ends.before[silent])
    perhaps = np.flatnonzero(end == PERHAPS_UNMERGED)
    most[perhaps] = _told_by(stream, perhaps)
    if sees_breaks:
        least[end == STILL_MERGED] = _FOREVER
    if len(stream.losses):
        across = across_losses(stream, ends)
        least[across] = begun[across]
    # A mapping of before may have had no rmap_item yet; after a loss it may not be of before.
    least[(lives["how"] == _BEFORE) & (~told | (len(stream.losses) > 0))] = 0
    return Counted(begun, least, most)


def _noticed_by(stream: Aggregator, scans: Scans, rows: Numbers, ended: U64) -> U64:
    """When ksmd has noticed ends at the latest: told by what it did, or a whole scan later."""
    starts, stops = scans.completed
    stops = np.append(stops, np.uint64(_FOREVER))
    by: U64 = stops[np.searchsorted(starts, ended, "left")]
    return np.minimum(by, _told_by(stream, rows))


def _told_by(stream: Aggregator, rows: Numbers) -> U64:
    """When ksmd has noticed ends, by what it did; never, where it did nothing that tells."""
    if not len(rows):
        return np.empty(0, np.uint64)
    noticed = stream.lives.noticed
    told = np.full(len(stream.lives.table), _FOREVER)
    np.minimum.at(told, noticed["life"], noticed["ts"])
    by: U64 = told[rows]
    return by


def accounts(
    stream: Aggregator, context: Context, scans: Scans, ends: Ends, *, sees_breaks: bool
) -> pd.DataFrame:
    """The table `accounts` (`tables.TABLES`)."""
    host = context.host
    lives = stream.lives.table
    zero = lives["ksm_page"] < 0
    mapped = ~zero
    times = counted(stream, ends, scans, sees_breaks=sees_breaks)
    slack = _slack(host.ts, scans)
    early, late = host.ts - np.minimum(slack, host.ts), host.ts + slack

    def between(which: Mask, begin: U64, end: U64, at_begin: U64, at_end: U64) -> Numbers:
        """How many of some lives have begun by `at_begin` and not ended by `at_end`."""
        rows = rows_of(which)
        begun = np.searchsorted(in_order(begin[rows]), at_begin, "right")
        # A life can't end before it began, so counting each apart is enough.
        over = np.searchsorted(in_order(end[rows]), at_end, "right")
        counts: Numbers = begun - np.minimum(over, begun)
        return counts

    def open_at(which: Mask) -> Numbers:
        """Lives that may be going on and need not: between `least` and `most`."""
        rows = rows_of(which)
        surely = np.searchsorted(in_order(least[rows]), early, "right")
        counts: Numbers = surely - np.searchsorted(in_order(times.most[rows]), early, "right")
        return counts

    end = ends.end
    least = np.maximum(times.least, times.begun)
    merged_most = between(mapped, times.begun, times.most, late, early)
    merged_least = between(mapped, times.begun, least, early, late)
    born, node_least_end, node_end, surely = _ksm_page_times(stream, times)
    everything = np.ones(len(born), bool)
    shared_most = between(everything, born, node_end, late, early)
    shared_least = between(everything, surely, node_least_end, early, late)
    lost = _running(stream.losses["since"], stream.losses["count"], late)
    # The kernel counts all processes' pages: of some of them there is nothing to compare.
    judged = np.nan if context.manifest.get("only_pids") else 0.0
    shared, sharing = host.counters["pages_shared"], host.counters["pages_sharing"]
    merged = shared + sharing
    was_there = mapped & (lives["how"] == _BEFORE)
    unsure = was_there & (times.least == 0)
    named = int((was_there & ~unsure).sum()) + between(unsure, times.begun, times.most, late, early)
    unnamed = _unnamed(merged, merged_most, named)
    zeros = host.counters["ksm_zero_pages"]
    # Zero pages are counted as they come and go, not when ksmd notices.
    rows = np.flatnonzero(zero)
    every = np.ones(len(rows), bool)
    begun, after, before = times.begun[rows], ends.after[rows], ends.before[rows]
    # A ksm_exit comes before the process's memory goes.
    before = np.where(end[rows] == EXIT, before + np.uint64(IN_TRANSIT_NS), before)
    before = np.where(end[rows] == STILL_MERGED, _FOREVER, before)
    zero_most = between(every, begun, before, late, early)
    zero_least = between(every, begun, np.maximum(after, begun), early, late)
    first_zero = zeros[0] if len(zeros) and np.isfinite(zeros[0]) else 0
    zero_before = max(0, int(first_zero) - (int(zero_most[0]) if len(zero_most) else 0))
    living, ever = inherited_zero_pages(stream, ends, host.ts, int(zero_before))
    if fork_counts_afresh(context.manifest["kernel"]):
        zero_most += living
    else:
        zero_least -= ever
    return frame(
        "accounts",
        {
            "ts_ns": host.ts.astype(np.int64),
            "reason": host.reason,
            "scan": scans.at(host.ts),
            "shared_kernel": whole(shared),
            "shared_least": shared_least,
            "shared_most": shared_most,
            "merged_kernel": whole(merged),
            "merged_least": merged_least,
            "merged_most": merged_most,
            "silent": open_at(
                mapped & np.isin(end, (UNKNOWN, FOUND_DEAD, UNMERGED, PERHAPS_UNMERGED))
            ),
            "unnoticed": open_at(mapped & np.isin(end, (COW_BREAK, UNMAPPED, EXIT))),
            "open": open_at(mapped & (end == STILL_MERGED)),
            "before": unnamed,
            "lost": lost,
            "residual": whole(_outside(merged, merged_least, merged_most + unnamed, lost) + judged),
            "zero_kernel": whole(zeros),
            "zero_least": zero_least,
            "zero_most": zero_most,
            "zero_residual": whole(
                _outside(zeros, zero_least, zero_most + zero_before, lost) + judged
            ),
        },
    )


def _slack(ts: U64, scans: Scans) -> U64:
    """How exact the moment of each sample is: only while ksmd stands still it is."""
    slack = np.zeros(len(ts), np.uint64)
    for scan in scans.scans:
        begin = np.uint64(scan.start_ns or scan.begin_ns)
        end = np.uint64(scan.end_ns if scan.end_ns is not None else _FOREVER)
        if scan.number == 0 and scan.end_ns is None:
            continue
        near = np.uint64(IN_TRANSIT_NS)
        slack[(ts + near >= begin) & (ts <= end + np.minimum(near, _FOREVER - end))] = near
    return slack


def _ksm_page_times(stream: Aggregator, times: Counted) -> tuple[U64, U64, U64, U64]:
    """Of each KSM page: born, surely in use until, may be in use until, surely in use since.

    Surely in use is it while the life is, of all its lives, that surely goes on longest.
    """
    table, lives = stream.ksm_pages.table, stream.lives.table
    pages = len(table)
    rows = np.flatnonzero(lives["ksm_page"] >= 0)
    page = lives["ksm_page"][rows]
    until, most = np.zeros(pages, np.uint64), np.zeros(pages, np.uint64)
    np.maximum.at(until, page, times.least[rows])
    np.maximum.at(most, page, times.most[rows])
    since = np.full(pages, _FOREVER)
    longest = times.least[rows] == until[page]
    np.minimum.at(since, page[longest], times.begun[rows[longest]])
    died = np.where(table["died_ts"] == 0, np.uint64(_FOREVER), table["died_ts"])
    end = np.minimum(most, died)
    return table["born_ts"], np.maximum(np.minimum(until, end), since), end, since


def _running(ts: U64, counts: Numbers, at: U64) -> Numbers:
    """The sum of what happened by each moment."""
    sums = np.concatenate(([0], np.cumsum(counts)))
    total: Numbers = sums[np.searchsorted(np.sort(ts), at, "right")]
    return total


def _unnamed(merged: npt.NDArray[np.float64], most: Numbers, named: Numbers) -> Numbers:
    """Pages the kernel counts at the first sample that no event or census ever names.

    named: those of the first sample that are named and surely counted then, or may be counted yet.
    Others that are named may have had no rmap_item: what is over of them may have stood for
    unnamed pages that were counted. They are added as far as the kernel counts more than the most.
    """
    if not len(merged) or not np.isfinite(merged[0]):
        return np.zeros_like(most)
    first = int(merged[0])
    needed = np.where(np.isfinite(merged), merged, 0).astype(np.int64) - most
    possible = np.maximum(first - named, 0)
    unnamed: Numbers = np.maximum(np.minimum(needed, possible), max(0, first - int(most[0])))
    return unnamed


def _outside(
    kernel: npt.NDArray[np.float64], least: Numbers, most: Numbers, lost: Numbers
) -> npt.NDArray[np.float64]:
    """How far a count is above what may be (positive) or below what must be (negative)."""
    above = np.maximum(kernel - most - lost, 0)
    below = np.minimum(kernel - least, 0)
    return np.asarray(above + below)
