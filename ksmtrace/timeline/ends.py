"""How the lives of merged pages ended: between which moments, and whether that is certain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import Aggregator, page_keys
from ksmtrace.timeline.before import LivesByPage, spaces_of
from ksmtrace.timeline.context import Context, Samples
from ksmtrace.timeline.lives import (
    COW_BREAK,
    EXIT,
    FOUND_DEAD,
    STALE,
    STILL_MERGED,
    UNKNOWN,
    UNMAPPED,
    UNMERGED,
)
from ksmtrace.timeline.scans import Scans
from ksmtrace.timeline.sorting import Indices, Mask

U64 = npt.NDArray[np.uint64]


@dataclass
class Ends:
    """Of each life: `end` as in `lives`; it went on at `after` and was over by `before`.

    For lives that have not ended `after` is the last moment at which that is certain, `before` 0.
    """

    end: npt.NDArray[np.uint8]
    after: U64
    before: U64
    proven: Mask


def ends_of(stream: Aggregator, context: Context, scans: Scans, *, sees_breaks: bool) -> Ends:
    """The ends of a finished stream's lives.

    sees_breaks: nothing that ends a mapping goes unseen (`record --cow`, and no break unseen).
    """
    lives = stream.lives.table
    end, merged, ended = lives["end"].copy(), lives["merged_ts"], lives["ended_ts"]
    before = ended.copy()
    after = merged.copy()
    exact = (end == COW_BREAK) | (end == UNMAPPED) | (end == UNMERGED)
    after[exact] = ended[exact]
    ends = Ends(end, after, before, exact | (end == UNKNOWN) | (end == STALE) | (end == FOUND_DEAD))
    _removed_with_their_item(ends, scans)
    _resets(ends, stream, context, merged, sees_breaks=sees_breaks)
    if sees_breaks:
        # Whatever is not told of has not happened.
        going_on = end == STILL_MERGED
        after[going_on] = stream.last_ts
        ends.proven[going_on] = True
        by_exit = end == EXIT
        after[by_exit] = before[by_exit]
        ends.proven[by_exit] = True
    _by_census(ends, stream, context)
    return ends


def _removed_with_their_item(ends: Ends, scans: Scans) -> None:
    """Narrow the ends that ksmd tells by removing the rmap_item from a dead KSM page.

    It met the item in each full scan before, still mapped there, or would have removed it then.
    """
    rows = np.flatnonzero(ends.end == STALE)
    starts, stops = scans.completed
    if not len(rows) or not len(stops):
        return
    last = np.searchsorted(stops, ends.before[rows], "left") - 1
    seen = last >= 0
    rows, last = rows[seen], last[seen]
    ends.after[rows] = np.maximum(ends.after[rows], starts[last])


@dataclass(frozen=True)
class Reset:
    """A run=2: everything was unmerged between two moments."""

    after: int
    before: int


def resets_of(stream: Aggregator, host: Samples) -> list[Reset]:
    """When everything was unmerged: run=2 was seen in a sample, or full_scans began anew."""
    found: list[Reset] = []
    run = host.knobs["run"]
    scanned = host.counters["full_scans"]
    for i in range(1, len(host)):
        turned = run[i] == "2" and run[i - 1] != "2"
        if turned or scanned[i] < scanned[i - 1]:
            found.append(Reset(int(host.ts[i - 1]), int(host.ts[i])))
    borders = stream.borders
    seq, start, ts = (borders[name].tolist() for name in ("seq", "start", "ts"))
    for i in range(1, len(seq)):
        # A start may be repeated if the list of processes was empty.
        anew = start[i] and seq[i] == 0 and (not start[i - 1] or seq[i - 1] != 0)
        if anew and not any(r.after < ts[i] and r.before > ts[i - 1] for r in found):
            found.append(Reset(ts[i - 1], ts[i]))
    return sorted(found, key=lambda reset: reset.after)


def _resets(
    ends: Ends, stream: Aggregator, context: Context, merged: U64, *, sees_breaks: bool
) -> None:
    for reset in resets_of(stream, context.host):
        after, before = np.uint64(reset.after), np.uint64(reset.before)
        there = (merged < before) & ((ends.before == 0) | (ends.before > after))
        told = there & (ends.before != 0) & (ends.before <= before)
        told &= (ends.end == STALE) | (ends.end == FOUND_DEAD)
        silent = there & ((ends.before == 0) | (ends.before > before))
        ends.before[silent] = before
        for which, proven in ((told, True), (silent, sees_breaks)):
            rows = np.flatnonzero(which)
            ends.end[rows] = UNMERGED
            # What ended silently before can't be told from what run=2 ended.
            since = np.maximum(merged[rows], after) if proven else merged[rows]
            ends.after[rows] = np.minimum(since, ends.before[rows])
            ends.proven[rows] = proven
        table = stream.ksm_pages.table
        pages = stream.lives.table["ksm_page"]
        survives = np.zeros(len(table), bool)
        survives[pages[(pages >= 0) & (merged > before)]] = True
        over = ~survives & (table["born_ts"] <= before)
        over &= (table["died_ts"] == 0) | (table["died_ts"] > before)
        table["died_ts"][over] = before


def _by_census(ends: Ends, stream: Aggregator, context: Context) -> None:
    """Confirm lives by each census, and end those that the last one no longer finds."""
    for reason in ("start", "interval", "end"):
        if not context.census_moments.get(reason):
            continue
        census = context.census(reason)
        spaces = spaces_of(stream, census.tgid, census.ts)
        known = spaces >= 0
        keys = page_keys(spaces[known], census.addr[known])
        ts = census.ts[known]
        lives = LivesByPage(stream, np.unique(spaces[known]))
        found, at = lives.latest(keys, ts)
        rows, seen = lives.rows[at[found]], ts[found]
        going_on = (ends.before[rows] == 0) | (ends.before[rows] >= seen)
        rows, seen = rows[going_on], seen[going_on]
        ends.after[rows] = np.maximum(ends.after[rows], seen)
        if reason == "end":
            _missed_by_the_last(ends, stream, context, rows)


def _missed_by_the_last(ends: Ends, stream: Aggregator, context: Context, found: Indices) -> None:
    """What the last census finds is still merged; what it does not find is not."""
    census = context.census("end")
    lives = stream.lives.table
    going_on = ends.end == STILL_MERGED
    confirmed = np.zeros(len(going_on), bool)
    confirmed[found] = True
    ends.proven[going_on & confirmed] = True
    begin: dict[int, int] = {}
    for tgid, ts in zip(census.tgid.tolist(), census.ts.tolist(), strict=True):
        begin.setdefault(tgid, ts)
    # When the last process was read; ones without any KSM page leave no row of their own.
    last = int(census.ts.max())
    owners = stream.spaces.table["tgid"]
    read_at = np.array([begin.get(tgid, 0) for tgid in owners.tolist()], np.uint64)
    read_at[(read_at == 0) & (stream.spaces.table["exited_ts"] == 0)] = census.ts.min()
    when = read_at[lives["space"]]
    mapped = lives["ksm_page"] >= 0
    over = going_on & ~confirmed & mapped & (when > 0) & (lives["merged_ts"] < when)
    ends.end[over] = UNKNOWN
    ends.before[over] = max(last, stream.last_ts)
    ends.proven[over] = True
