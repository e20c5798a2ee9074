"""The tables `pages` and `stable_pages`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context
from ksmtrace.timeline.convergence import growth
from ksmtrace.timeline.ends import Ends, resets_of
from ksmtrace.timeline.lives import FOUND_DEAD, PERHAPS_UNMERGED, STALE, STILL_MERGED, UNMERGED
from ksmtrace.timeline.scans import Scans
from ksmtrace.timeline.sorting import distinct, rows_of, stable_order
from ksmtrace.timeline.tables import END, HOW, NODE_END, frame

Numbers = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
_BEFORE = HOW.index("before")
_SHOWN = np.arange(PERHAPS_UNMERGED + 1, dtype=np.int8)
_SHOWN[[FOUND_DEAD, PERHAPS_UNMERGED]] = STALE, UNMERGED
"""How each end is shown: as codes of `tables.END`."""


def merged_in(stream: Aggregator, scans: Scans, ends: Ends) -> Numbers:
    """The scan in which each life began; -1 for before."""
    lives = stream.lives.table
    borders = np.minimum(stream.borders["lives"], len(lives))
    counts = np.diff(np.concatenate(([0], borders, [len(ends.end)])))
    numbers: Numbers = np.repeat(scans.of_segment, counts)
    numbers[lives["how"] == _BEFORE] = -1
    return numbers


def categories(codes: npt.NDArray[Any], names: tuple[str, ...]) -> pd.Categorical:
    """A column of a few names, by their position in `names`."""
    dtype = pd.CategoricalDtype(list(names))
    return pd.Categorical.from_codes(codes.astype(np.int8), dtype=dtype)


def integers(values: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> pd.arrays.IntegerArray:
    """A nullable column: NA where not known."""
    return pd.arrays.IntegerArray(values, ~known)


def pages(
    stream: Aggregator, scans: Scans, ends: Ends, scan: Numbers, region: Numbers
) -> pd.DataFrame:
    """The table `pages` (`tables.TABLES`)."""
    lives = stream.lives.table
    spaces = stream.spaces.table
    end = _SHOWN[ends.end]
    merged_ts, space, page = lives["merged_ts"], lives["space"], lives["ksm_page"]
    ended = end != STILL_MERGED
    waited, waited_known = _scans_waited(stream, scans, scan)
    return frame(
        "pages",
        {
            "process": integers(space, space >= 0),
            "tgid": spaces["tgid"][space],
            "addr": lives["addr"],
            "region": integers(region.astype(np.int32), region >= 0),
            "how": categories(lives["how"], HOW),
            "ksm_page": integers(page, page >= 0),
            "merged_ns": integers(merged_ts.view(np.int64), merged_ts > 0),
            "scan": integers(scan.astype(np.int32), scan >= 0),
            "scans_waited": integers(waited, waited_known),
            "end": categories(end, END),
            "ended_after_ns": integers(ends.after.view(np.int64), ended & (ends.after > 0)),
            "ended_before_ns": integers(ends.before.view(np.int64), ended),
            "proven": ends.proven,
        },
    )


def _scans_waited(
    stream: Aggregator, scans: Scans, scan: Numbers
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Full scans from the first that could see a process's page to the one that merged it.

    Not known for processes that ksmd's list had before the recording, nor for pages that had been
    merged before: of these it is the first merge that waits for ksmd.
    """
    spaces, lives = stream.spaces.table, stream.lives.table
    begins = np.array([s.begin_ns for s in scans.scans], np.uint64)
    first = np.searchsorted(begins, spaces["entered_ts"], "left")
    space = lives["space"]
    waited = (scan - first[space]).astype(np.int32)
    known = (spaces["entered_ts"][space] > 0) & (scan >= 0) & (waited >= 0)
    known &= ~lives["again"]
    return waited, known


def stable_pages(stream: Aggregator, context: Context, scans: Scans, ends: Ends) -> pd.DataFrame:
    """The table `stable_pages` (`tables.TABLES`)."""
    table, lives = stream.ksm_pages.table, stream.lives.table
    count = len(table)
    rows = rows_of(lives["ksm_page"] >= 0)
    page = lives["ksm_page"][rows]
    merges = np.bincount(page, minlength=count)
    born, died = table["born_ts"], table["died_ts"]
    nothing = np.zeros(count, np.int64)
    peak = growth(page, lives["merged_ts"][rows], ends.before[rows], count, nothing).peak
    return frame(
        "stable_pages",
        {
            "pfn": table["pfn"],
            "born_ns": integers(born.view(np.int64), born > 0),
            "born_scan": integers(scans.at(born).astype(np.int32), born > 0),
            "died_ns": integers(died.view(np.int64), died > 0),
            "end": categories(_node_end(stream, context), NODE_END),
            "merges": merges.astype(np.int32),
            "sharers_peak": peak.astype(np.int32),
            "sharers_last": _sharers_last(page, ends.end[rows], count).astype(np.int32),
            "processes": _distinct_spaces(page, lives["space"][rows], count).astype(np.int32),
            "in_chain": _in_chain(context, born, died),
        },
    )


def _sharers_last(page: Numbers, end: npt.NDArray[np.uint8], count: int) -> Numbers:
    """Lives that went on to the recording's end, or ended with their KSM page."""
    with_it = np.isin(end, (STILL_MERGED, STALE, FOUND_DEAD, UNMERGED, PERHAPS_UNMERGED))
    return np.bincount(page[with_it], minlength=count)


def _distinct_spaces(page: Numbers, space: npt.NDArray[np.int32], count: int) -> Numbers:
    pairs = page.astype(np.uint64)
    pairs <<= np.uint64(32)
    pairs |= space.astype(np.uint64)
    page = (distinct(pairs) >> np.uint64(32)).astype(np.int64)
    return np.bincount(page, minlength=count)


def _node_end(stream: Aggregator, context: Context) -> npt.NDArray[np.int8]:
    """How each KSM page ended, as codes of `tables.NODE_END`."""
    table = stream.ksm_pages.table
    died, pfn = table["died_ts"], table["pfn"]
    end = np.where(died > 0, NODE_END.index("stale"), NODE_END.index("alive")).astype(np.int8)
    # A frame holds one page: all but the newest of those that are not known to have died have.
    alive = np.flatnonzero(died == 0)
    order = alive[stable_order(pfn[alive])]
    reused = order[:-1][pfn[order[:-1]] == pfn[order[1:]]]
    end[reused] = NODE_END.index("frame_reused")
    for reset in resets_of(stream, context.host):
        by_it = (died > reset.after) & (died <= reset.before)
        end[by_it] = NODE_END.index("unmerged")
    return end


def _in_chain(context: Context, born: U64, died: U64) -> pd.arrays.BooleanArray:
    """Whether a chain held each KSM page, by the samples of its life.

    It did if at one of them as many KSM pages were in chains as there can have been, and did not if
    none was at any.
    """
    host = context.host
    there = np.searchsorted(np.sort(born), host.ts, "right")
    there -= np.searchsorted(np.sort(died[died > 0]), host.ts, "right")
    dups, shared = host.counters["stable_node_dups"], host.counters["pages_shared"]
    # Without a census there may be KSM pages of before that nothing names.
    all_named = bool(len(host)) and bool(shared[0] <= there[0])
    known = np.isfinite(dups)
    ts = host.ts[known]
    # A dup of before may be one that nobody maps any more, and no census names that.
    all_named = all_named and bool(known.any()) and bool(dups[known][0] == 0)
    some = np.concatenate(([0], np.cumsum(dups[known] > 0)))
    all_of_them = np.concatenate(
        ([0], np.cumsum(all_named & (dups[known] > 0) & (dups[known] >= there[known])))
    )
    first = np.searchsorted(ts, born, "left")
    last = np.where(died > 0, np.searchsorted(ts, died, "left"), len(ts))
    sampled = last > first
    ever = (all_of_them[last] - all_of_them[first]) > 0
    never = sampled & (some[last] - some[first] == 0)
    return pd.arrays.BooleanArray(ever, ~(ever | never))
