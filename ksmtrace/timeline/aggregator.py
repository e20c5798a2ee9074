"""The aggregator: a stream of event batches in, address spaces, KSM pages and lives out.

It works in chunks of its own, whatever the batches are, so any batching gives the same. What goes
on is carried from chunk to chunk; chunks grow with it, so time stays linear and memory bounded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.events.registry import (
    COW_BREAK,
    FIRST_SIGHT,
    KINDS,
    KSM_ADVISOR,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    LOST,
    MAPCOUNT_SHIFT,
    RANGE_LEFT,
    WHOLE_ADDRESS_SPACE,
    ZERO_PAGE,
)
from ksmtrace.timeline import ksm_pages, lives
from ksmtrace.timeline.address_spaces import AddressSpaces
from ksmtrace.timeline.growing import GrowingTable
from ksmtrace.timeline.ksm_pages import KsmPages
from ksmtrace.timeline.lives import WRITTEN, Expiry, PageEvents, PageLives
from ksmtrace.timeline.merging import Columns, Merges, whole_pairs
from ksmtrace.timeline.sorting import Indices, Mask
from ksmtrace.timeline.tables import HOW

SLOTS = ("ts", "kind", "pfn", "item", "mm", "addr", "tgid", "err", "arg")
CHUNK = 1 << 19
_EFAULT = -14
_PAGE_BITS = np.uint64(36)
_PAGE_SHIFT = np.uint64(12)
_PAGE_MASK = np.uint64((1 << 36) - 1)
_ABOUT_PAGES = np.zeros(max(kind.id for kind in KINDS) + 1, bool)
_ABOUT_PAGES[
    [
        kind.id
        for kind in (
            KSM_MERGE_ONE_PAGE,
            KSM_MERGE_WITH_KSM_PAGE,
            KSM_REMOVE_RMAP_ITEM,
            COW_BREAK,
            RANGE_LEFT,
        )
    ]
] = True
_HOW = {name: code for code, name in enumerate(HOW)}


class Aggregator:
    """Reconstructs what happened from the stream alone.

    first_sight_known: the source says `first_sight` and `mapcount`, and ksmd compares checksums
    before it searches (6.11), so that a page attached at first sight can only be inherited.
    addresses_known: pages are told by address; if not, by the rmap_item's. chunk: events at once.

    After `finish`: `spaces`, `ksm_pages`, `lives`; `borders` (of each scan's start and stop: order,
    ts, start, seq, items, and the lives begun before), `tallies` (what is only counted, by the
    number of borders before it), `breaks`, `ranges` (given up, as keys), `losses` (between `since`
    and `ts`), `decisions` (the advisor's), `by_kind`, `failures` (by kind and errno), `orders` (how
    many events there were), `last_ts`.
    """

    def __init__(
        self, *, first_sight_known: bool, addresses_known: bool, chunk: int = CHUNK
    ) -> None:
        self._first_sight_known = first_sight_known
        self._addresses_known = addresses_known
        self._chunk = chunk
        self._waiting: list[dict[str, npt.NDArray[Any]]] = []
        self._rows = 0
        self._wanted = chunk
        self._expires = Expiry()
        self._scan_start: int | None = None
        self.spaces = AddressSpaces()
        self.ksm_pages = KsmPages()
        self.lives = PageLives()
        self.borders = GrowingTable(
            {
                "order": np.int64,
                "ts": np.uint64,
                "start": bool,
                "seq": np.int64,
                "items": np.int64,
                "lives": np.int64,
            }
        )
        self.tallies = GrowingTable(
            dict.fromkeys(
                ("failed_efault", "failed_other", "found_dead", "breaks", "lost"), np.int64
            )
        )
        self.failed_by_space = np.zeros(0, np.int64)
        self.breaks = GrowingTable(
            {
                "order": np.int64,
                "ts": np.uint64,
                "space": np.int32,
                "addr": np.uint64,
                "ip": np.uint64,
                "arg": np.uint32,
            }
        )
        self.decisions = GrowingTable(
            {
                "order": np.int64,
                "ts": np.uint64,
                "scan_time": np.int64,
                "pages_to_scan": np.int64,
                "cpu_percent": np.int64,
            }
        )
        self.by_kind: Counter[int] = Counter()
        self.failures: dict[int, Counter[int]] = {
            KSM_MERGE_ONE_PAGE.id: Counter(),
            KSM_MERGE_WITH_KSM_PAGE.id: Counter(),
        }
        self.losses = GrowingTable({"since": np.uint64, "ts": np.uint64, "count": np.int64})
        self.ranges = GrowingTable(
            {"ts": np.uint64, "first": np.uint64, "behind": np.uint64, "end": np.uint8}
        )
        self._ts_before = 0
        self.orders = 0
        self.last_ts = 0

    def feed(self, batch: Columns) -> None:
        """Take a batch."""
        rows = len(batch["ts"])
        if not rows:
            return
        self._waiting.append({name: batch[name] for name in SLOTS})
        self._rows += rows
        while self._rows >= self._wanted:
            self._work(self._wanted, last=False)

    def finish(self) -> None:
        """The stream has ended."""
        while self._rows:
            self._work(min(self._rows, self._wanted), last=self._rows <= self._wanted)

    def _work(self, rows: int, *, last: bool) -> None:
        parts = self._waiting
        columns = {
            name: np.concatenate([part[name] for part in parts])
            if len(parts) > 1
            else np.ascontiguousarray(parts[0][name])
            for name in SLOTS
        }
        taken = rows if last else whole_pairs(columns, rows)
        rest = self._rows - taken
        self._waiting = [{n: c[taken:] for n, c in columns.items()}] if rest else []
        self._rows = rest
        if not taken:
            # A chunk that is nothing but an open pair waits for more.
            self._wanted = rows + self._chunk
            return
        self._process({name: column[:taken] for name, column in columns.items()})
        self.orders += taken
        self._wanted = max(self._chunk, self.lives.carried // 2)

    def _process(self, events: Columns) -> None:
        # CPUs' clocks may differ: what comes later in the stream is no earlier.
        in_order = np.maximum.accumulate(np.maximum(events["ts"], np.uint64(self._ts_before)))
        events = {**events, "ts": in_order}
        kind = events["kind"]
        counts = np.bincount(kind)
        self.by_kind.update({k: c for k, c in enumerate(counts.tolist()) if c})
        self.last_ts = int(in_order[-1])
        borders = self._borders(events)
        rows = np.flatnonzero(_ABOUT_PAGES[kind])
        spaces = self.spaces.assign(events, rows, self.orders)
        everything = len(rows) == len(kind)
        about = {name: events[name] if everything else events[name][rows] for name in SLOTS}
        if not self._addresses_known:
            about["addr"] = np.zeros(len(rows), np.uint64)
        parted = (kind == LOST.id) | (kind == KSM_STOP_SCAN.id)
        merges = Merges(about, rows, np.flatnonzero(parted))
        pages = self._page_events(about, rows, spaces, merges)
        chunk = self.lives.before(pages, self._expires, self.spaces.table["entered_ts"])
        whence = chunk.source[chunk.begins]
        dead = np.flatnonzero(kind == KSM_REMOVE_KSM_PAGE.id)
        page, how = self._ksm_pages(events, about, rows, spaces, merges, dead, whence)
        # Who writes to a KSM page that was made under our eyes, and was not merged with it since,
        # only shared its frame by a fork: that mapping was never one of ksmd's.
        never = (how == _HOW["before"]) & (chunk.events.what[chunk.begins] == WRITTEN)
        never &= page >= 0
        never[never] = self.ksm_pages.table["born"][page[never]] >= 0
        if never.any():
            chunk, page, how = chunk.without(never), page[~never], how[~never]
            whence = chunk.source[chunk.begins]
        died = self.ksm_pages.table
        spaces_table = self.spaces.table
        first_life = len(self.lives.table)
        self.lives.feed(
            chunk,
            page,
            how,
            died["died"],
            died["died_ts"],
            spaces_table["exited"],
            spaces_table["exited_ts"],
            self._expires,
        )
        if len(borders):
            begun = first_life + np.searchsorted(rows[whence], borders)
            self.borders["lives"][-len(borders) :] = begun
        self._count(events, about, rows, spaces, merges, dead)

    def _borders(self, events: Columns) -> Indices:
        """Note scans' starts and stops, the advisor's decisions, losses; rows of the first two."""
        kind = events["kind"]
        borders = np.flatnonzero((kind == KSM_START_SCAN.id) | (kind == KSM_STOP_SCAN.id))
        if len(borders):
            start = kind[borders] == KSM_START_SCAN.id
            ts = events["ts"][borders]
            self.borders.extend(
                order=self.orders + borders,
                ts=ts,
                start=start,
                seq=events["addr"][borders],
                items=events["arg"][borders],
                lives=0,
            )
            for when, starts in zip(ts.tolist(), start.tolist(), strict=True):
                if starts:
                    self._scan_start = when
                elif self._scan_start is not None:
                    self._expires.completed(self._scan_start, when)
                    self._scan_start = None
        rows = np.flatnonzero(kind == KSM_ADVISOR.id)
        if len(rows):
            self.decisions.extend(
                order=self.orders + rows,
                ts=events["ts"][rows],
                scan_time=events["err"][rows],
                pages_to_scan=events["addr"][rows],
                cpu_percent=events["arg"][rows],
            )
        rows = np.flatnonzero(kind == LOST.id)
        if len(rows):
            before = np.concatenate(([np.uint64(self._ts_before)], events["ts"]))[rows]
            self.losses.extend(since=before, ts=events["ts"][rows], count=events["addr"][rows])
        self._ts_before = int(events["ts"][-1])
        return borders

    def _page_events(
        self, about: Columns, rows: Indices, spaces: Indices, merges: Merges
    ) -> PageEvents:
        kind = about["kind"]
        what = np.full(len(rows), lives.MET, np.uint8)
        what[merges.stood | (merges.zero & (about["err"] == 0))] = lives.MERGED
        what[kind == KSM_REMOVE_RMAP_ITEM.id] = lives.REMOVED
        what[kind == COW_BREAK.id] = lives.WRITTEN
        items, addresses = about["item"].copy, about["addr"]
        key = page_keys(spaces, addresses) if self._addresses_known else items()
        addr = about["addr"]
        end = np.zeros(len(rows), np.uint8)
        ranges = np.flatnonzero(kind == RANGE_LEFT.id)
        if len(ranges):
            addr = addr.copy()
            what[ranges] = lives.RANGE_LEFT
            whole = about["arg"][ranges] == WHOLE_ADDRESS_SPACE
            count = np.where(whole, _PAGE_MASK, about["arg"][ranges].astype(np.uint64))
            key[ranges] = np.where(whole, page_keys(spaces[ranges], addr[ranges] * 0), key[ranges])
            addr[ranges] = key[ranges] + count
            how = about["err"][ranges]
            end[ranges] = lives.UNMAPPED
            end[ranges[how == LEFT_UNMERGEABLE]] = lives.UNMERGED
            end[ranges[how == LEFT_PRCTL]] = lives.PERHAPS_UNMERGED
            self.ranges.extend(
                ts=about["ts"][ranges], first=key[ranges], behind=addr[ranges], end=end[ranges]
            )
        return PageEvents(key, what, self.orders + rows, about["ts"], spaces, addr, end)

    def _ksm_pages(
        self,
        events: Columns,
        about: Columns,
        rows: Indices,
        spaces: Indices,
        merges: Merges,
        dead: Indices,
        begins: Indices,
    ) -> tuple[Indices, npt.NDArray[np.uint8]]:
        """The KSM page, -1 for a zero page, and the way of merging of each life that begins."""
        first, joined = merges.created, merges.stood & ~merges.first
        what = np.full(len(rows), 255, np.uint8)
        what[first] = ksm_pages.BIRTH
        what[joined] = ksm_pages.JOIN
        began = np.zeros(len(rows), bool)
        began[begins] = True
        what[began & (about["kind"] == KSM_REMOVE_RMAP_ITEM.id)] = ksm_pages.LEFT
        written = began & (about["kind"] == COW_BREAK.id) & ((about["arg"] & ZERO_PAGE) == 0)
        what[written & (about["pfn"] != 0)] = ksm_pages.WRITTEN
        chosen = np.flatnonzero(what != 255)
        at = np.concatenate((rows[chosen], dead))
        code = np.concatenate((what[chosen], np.full(len(dead), ksm_pages.GONE, np.uint8)))
        back = np.arange(len(chosen))
        if len(dead):
            in_stream = np.argsort(at)
            at, code = at[in_stream], code[in_stream]
            back = np.argsort(in_stream)[: len(chosen)]
        named = self.ksm_pages.assign(events["pfn"][at], code, events["ts"][at], self.orders + at)
        page = np.full(len(rows), -1, np.int64)
        page[chosen] = named[back]
        self.ksm_pages.made(page[first], spaces[first])
        second = merges.second & joined
        self.ksm_pages.mapped_first(page[second], about["arg"][second] >> MAPCOUNT_SHIFT)
        how = self._how(about, merges, joined, page, spaces)
        return page[begins], how[begins]

    def _how(
        self, about: Columns, merges: Merges, joined: Mask, page: Indices, spaces: Indices
    ) -> npt.NDArray[np.uint8]:
        how = np.full(len(page), _HOW["before"], np.uint8)
        how[joined] = _HOW["joined_or_inherited"]
        if self._first_sight_known:
            at_first_sight = joined & ((about["arg"] & FIRST_SIGHT) != 0)
            seen = np.flatnonzero(joined & ~at_first_sight)
            entered = self.spaces.table["entered_ts"][spaces[seen]]
            sure = self.ksm_pages.surely_not_mapped(page[seen], spaces[seen], entered)
            how[seen[sure]] = _HOW["joined"]
            how[at_first_sight] = _HOW["inherited"]
        how[merges.second & joined] = _HOW["partner"]
        how[merges.created] = _HOW["created"]
        how[merges.zero] = _HOW["zero_page"]
        return how

    def _count(
        self,
        events: Columns,
        about: Columns,
        rows: Indices,
        spaces: Indices,
        merges: Merges,
        dead: Indices,
    ) -> None:
        orders = self.borders["order"]
        needed = len(orders) + 1 - len(self.tallies)
        if needed > 0:
            self.tallies.extend(
                failed_efault=np.zeros(needed, np.int64),
                failed_other=0,
                found_dead=0,
                breaks=0,
                lost=0,
            )

        def add(name: str, at: Indices, weights: npt.NDArray[Any] | None = None) -> None:
            if len(at):
                segment = np.searchsorted(orders, self.orders + at, "right")
                counts = np.bincount(segment, weights, len(self.tallies))
                self.tallies[name][:] += counts.astype(np.int64)

        failed = np.flatnonzero(merges.failed)
        if len(failed):
            errors = about["err"][failed]
            add("failed_efault", rows[failed[errors == _EFAULT]])
            add("failed_other", rows[failed[errors != _EFAULT]])
            for kind, counter in self.failures.items():
                mine = errors[about["kind"][failed] == kind]
                numbers, counts = np.unique(mine, return_counts=True)
                counter.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
            by_space = np.bincount(spaces[failed], minlength=len(self.spaces.table))
            by_space[: len(self.failed_by_space)] += self.failed_by_space
            self.failed_by_space = by_space
        add("found_dead", dead)
        lost = np.flatnonzero(events["kind"] == LOST.id)
        add("lost", lost, events["addr"][lost].astype(np.float64))
        broken = np.flatnonzero(about["kind"] == COW_BREAK.id)
        add("breaks", rows[broken])
        if len(broken):
            self.breaks.extend(
                order=self.orders + rows[broken],
                ts=about["ts"][broken],
                space=spaces[broken],
                addr=about["addr"][broken],
                ip=about["item"][broken],
                arg=about["arg"][broken],
            )


def page_keys(spaces: Indices, addr: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A number for each page: the address space above, the page's number in it below.

    With five-level page tables a page's number may have 45 bits; the uppermost are folded in.
    """
    page = addr >> _PAGE_SHIFT
    if len(page) and page.max() > _PAGE_MASK:
        page ^= (page >> _PAGE_BITS) << np.uint64(27)
        page &= _PAGE_MASK
    keys: npt.NDArray[np.uint64] = spaces.astype(np.uint64)
    keys <<= _PAGE_BITS
    keys |= page
    return keys
