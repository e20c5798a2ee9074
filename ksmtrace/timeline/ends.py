"""How the lives of merged pages ended: between which moments, and whether that is certain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import Aggregator, page_keys
from ksmtrace.timeline.before import LivesByPage, spaces_of
from ksmtrace.timeline.context import CensusRead, Context, Samples
from ksmtrace.timeline.growing import column
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
from ksmtrace.timeline.tables import HOW

U64 = npt.NDArray[np.uint64]
BEFORE = HOW.index("before")


@dataclass
class Ends:
    """Of each life: `end` as in `lives`; it went on at `after` and was over by `before`.

    For lives that have not ended `after` is the last moment at which that is certain, `before` 0.
    """

    end: npt.NDArray[np.uint8]
    after: U64
    before: U64
    proven: Mask

    def part(self, which: slice) -> Ends:
        """Those of some lives: views, so that what changes there changes here."""
        return Ends(self.end[which], self.after[which], self.before[which], self.proven[which])


def ends_of(stream: Aggregator, context: Context, scans: Scans, *, sees_breaks: bool) -> Ends:
    """The ends of a finished stream's lives.

    sees_breaks: nothing that ends a mapping goes unseen (`record --cow`, and no break unseen).
    """
    lives = stream.lives.table
    end, merged, ended = lives["end"].copy(), lives["merged_ts"], lives["ended_ts"]
    before = column(ended)
    after = column(merged)
    exact = (end == COW_BREAK) | (end == UNMAPPED) | (end == UNMERGED)
    after[exact] = ended[exact]
    ends = Ends(end, after, before, exact | (end == UNKNOWN) | (end == STALE) | (end == FOUND_DEAD))
    _told_after_the_exit(ends, stream)
    _removed_with_their_item(ends, scans)
    _resets(ends, stream, context, merged, sees_breaks=sees_breaks)
    if sees_breaks:
        # Whatever is not told of has not happened.
        going_on = end == STILL_MERGED
        after[going_on] = stream.last_ts
        ends.proven[going_on] = True
    _by_census(ends, stream, context)
    if sees_breaks:
        # A mapping of before that no census saw may have been gone before, too.
        known = (stream.lives.table["how"] != BEFORE) | (after > 0)
        by_exit = (end == EXIT) & known
        after[by_exit] = before[by_exit]
        ends.proven[by_exit] = True
    if len(stream.losses):
        across = across_losses(stream, ends) & (end != STILL_MERGED)
        ends.after[across] = merged[across]
        ends.proven[across] = False
    return ends


def _told_after_the_exit(ends: Ends, stream: Aggregator) -> None:
    """Lives of before that ksmd found over after their process had exited: the exit ended them."""
    lives = stream.lives.table
    rows = np.flatnonzero((lives["how"] == BEFORE) & (ends.end == STALE))
    exited = stream.spaces.table["exited_ts"][lives["space"][rows]]
    late = (exited > 0) & (exited < ends.before[rows])
    rows, exited = rows[late], exited[late]
    ends.end[rows] = EXIT
    ends.before[rows] = exited
    ends.proven[rows] = False


def across_losses(stream: Aggregator, ends: Ends) -> Mask:
    """Lives in which events were lost: another may have come between its begin and its end."""
    across = np.zeros(len(ends.end), bool)
    merged = stream.lives.table["merged_ts"]
    over = np.where(ends.end == STILL_MERGED, np.uint64(stream.last_ts), ends.before)
    for since, until in zip(stream.losses["since"], stream.losses["ts"], strict=True):
        across |= (merged <= until) & (over >= since)
    return across


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
    # With losses nobody knows when what is only told of by its end began.
    born = (stream.lives.table["how"] != BEFORE) | (len(stream.losses) == 0)
    resets = resets_of(stream, context.host)
    in_time = bool(resets) and bool((merged[1:] >= merged[:-1]).all())
    begin = 0
    for reset in resets:
        # What began before one reset is over at the next.
        end = int(np.searchsorted(merged, np.uint64(reset.before))) if in_time else len(merged)
        part = slice(begin, end)
        _reset(ends.part(part), reset, merged[part], born[part], sees_breaks=sees_breaks)
        begin = int(np.searchsorted(merged, np.uint64(reset.after))) if in_time else 0


def _reset(ends: Ends, reset: Reset, merged: U64, born: Mask, *, sees_breaks: bool) -> None:
    """End what a run=2 has ended. ends, merged, born: of the same lives."""
    after, before = np.uint64(reset.after), np.uint64(reset.before)
    there = born & (merged < before) & ((ends.before == 0) | (ends.before > after))
    told = there & (ends.before != 0) & (ends.before <= before)
    told &= (ends.end == STALE) | (ends.end == FOUND_DEAD)
    silent = there & ((ends.before == 0) | (ends.before > before))
    ends.before[silent] = before
    # What tells of it later, by its rmap_item or a write, was another life, whose begin was lost.
    later = silent & (ends.after > before)
    ends.after[later] = merged[later]
    # What ended silently before can't be told from what run=2 ended.
    over = told | silent
    ends.end[over] = UNMERGED
    ends.proven[over] = sees_breaks
    if sees_breaks:
        ends.after[over] = np.maximum(ends.after[over], after)


def _by_census(ends: Ends, stream: Aggregator, context: Context) -> None:
    """Confirm lives by each census, and end those that the last one no longer finds."""
    for reason in ("start", "interval", "end"):
        census = context.census(reason)
        spaces = spaces_of(stream, census.tgid, census.ts)
        known = spaces >= 0
        keys = page_keys(spaces[known], census.addr[known])
        ts = census.ts[known]
        lives = LivesByPage(stream, np.unique(spaces[known]))
        found, at = lives.latest(keys, ts)
        rows, seen = lives.rows[at[found]], ts[found]
        going_on = (ends.before[rows] == 0) | (ends.before[rows] >= seen)
        going_on &= ~_elsewhere(stream, rows, census.pfn[known][found], seen)
        rows, seen = rows[going_on], seen[going_on]
        # A KSM page where a zero page was: that one's life is over.
        zero = stream.lives.table["ksm_page"][rows] < 0
        over = zero & (ends.end[rows] == STILL_MERGED)
        ends.end[rows[over]] = UNKNOWN
        ends.before[rows[over]] = seen[over]
        ends.proven[rows[over]] = True
        rows, seen = rows[~zero], seen[~zero]
        ends.after[rows] = np.maximum(ends.after[rows], seen)
        if reason == "end" and (read := context.census_of("end")) is not None:
            _missed_by_the_last(ends, stream, read, rows)


def _elsewhere(stream: Aggregator, rows: Indices, pfn: U64, seen: U64) -> Mask:
    """Lives whose page a census finds in the frame of another KSM page, made after they began.

    They are over: a fork shared that frame before it became a KSM page, and ksmd has yet to meet
    the page. A frame of which nobody knows is no proof, since the kernel moves KSM pages.
    """
    table, lives = stream.ksm_pages.table, stream.lives.table
    mine = lives["ksm_page"][rows]
    over: Mask = (mine >= 0) & (table["pfn"][mine] != pfn)
    if not over.any():
        return over
    begun = seen[over].min()
    made = np.flatnonzero((table["born_ts"] != 0) & (table["born_ts"] <= begun))
    made = made[(table["died_ts"][made] == 0) | (table["died_ts"][made] > begun)]
    # The newest of each frame.
    made = made[np.lexsort((table["born_ts"][made], table["pfn"][made]))]
    at = np.searchsorted(table["pfn"][made], pfn[over], "right") - 1
    newest = made[at] if len(made) else np.full(len(at), -1)
    later = (at >= 0) & (newest >= 0)
    later &= table["pfn"][newest] == pfn[over]
    later &= table["born_ts"][newest] > lives["merged_ts"][rows[over]]
    over[over] = later
    return over


def _missed_by_the_last(ends: Ends, stream: Aggregator, read: CensusRead, found: Indices) -> None:
    """What the last census finds is still merged; what it does not find is not."""
    lives, spaces = stream.lives.table, stream.spaces.table
    going_on = ends.end == STILL_MERGED
    confirmed = np.zeros(len(going_on), bool)
    confirmed[found] = True
    ends.proven[going_on & confirmed] = True
    covered = np.isin(spaces["tgid"], list(read.tgids)) & (spaces["exited_ts"] == 0)
    over = going_on & ~confirmed & (lives["ksm_page"] >= 0) & covered[lives["space"]]
    over &= lives["merged_ts"] < read.begin_ns
    ends.end[over] = UNKNOWN
    ends.before[over] = max(read.end_ns, stream.last_ts)
    ends.proven[over] = True
