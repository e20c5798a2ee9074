"""One address space's part of a full scan: every page's turn, rmap_items made and freed."""

from __future__ import annotations

from ksmtrace.model.fast import stable_tree, unstable_tree
from ksmtrace.model.fast.ahead import look_ahead
from ksmtrace.model.fast.compiled import compiled, entry
from ksmtrace.model.fast.stable_nodes import detach
from ksmtrace.model.fast.sweep import sweep as sweep_trees
from ksmtrace.model.fast.tables import (
    ABSENT,
    HAS_ITEM,
    I64,
    IN_UNSTABLE,
    KSM,
    NEXT_ITEM,
    NOW,
    RMAP_ITEMS,
    VISITS,
    ZERO_FRAME,
    Rows,
    Rules,
    Tables,
)
from ksmtrace.model.fast.visit import remove_from_trees, skips, visit


@entry
def scan_mm(t: Tables, r: Rules, mm: int, spans: Rows, cursor: I64, visits: int) -> bool:
    """Go on with an address space, for at most so many page visits.

    cursor: (span, place) where to go on, 0 for its beginning; kept up to date. Returns whether the
    address space is done. There must be room for a node, a chain, two frames and eight events a
    visit, and for the events that `begin_scan` foretold.
    """
    at = int(cursor[0])
    place = int(cursor[1])
    while at < len(spans):
        place = max(place, int(spans[at].first))
        visited = spans[at].visited
        end = int(spans[at].end)
        while place < end:
            if visited:
                look_ahead(t, r, place, end)
            frame = int(t.place[place].frame)
            if not visited or frame <= ZERO_FRAME:
                if visited and frame == ZERO_FRAME:
                    t.counts[ABSENT] += 1
                if t.place[place].flags & HAS_ITEM:
                    _free_item(t, r, mm, place)
                place += 1
                continue
            if visits == 0:
                cursor[0] = at
                cursor[1] = place
                return False
            if not t.place[place].flags & HAS_ITEM:
                _make_item(t, mm, place)
            if r.smart_scan and not t.frame[frame].flags & KSM and skips(t, place):
                remove_from_trees(t, r, place)
                place += 1
                continue
            visit(t, r, frame, place)
            t.counts[NOW] += r.visit_ns
            t.counts[VISITS] += 1
            visits -= 1
            place += 1
        at += 1
        place = 0
    cursor[0] = at
    return True


@compiled
def _make_item(t: Tables, mm: int, place: int) -> None:
    p = t.place
    p[place].flags |= HAS_ITEM
    p[place].item = t.counts[NEXT_ITEM]
    p[place].oldchecksum = 0
    p[place].age = 0
    p[place].remaining_skips = 0
    p[place].head = 0
    t.counts[NEXT_ITEM] += 1
    t.counts[RMAP_ITEMS] += 1
    t.mm[mm].items += 1
    t.mm[mm].rmap_items += 1


@compiled
def _free_item(t: Tables, r: Rules, mm: int, place: int) -> None:
    """The page is gone, so its rmap_item goes as the scan passes."""
    if t.place[place].head != 0:
        detach(t, r, place)
    elif t.place[place].flags & IN_UNSTABLE:
        unstable_tree.remove(t, r, place)
    t.place[place].flags &= 0xFF ^ (HAS_ITEM | IN_UNSTABLE)
    t.counts[RMAP_ITEMS] -= 1
    t.mm[mm].items -= 1
    t.mm[mm].rmap_items -= 1


@entry
def begin_scan(t: Tables, r: Rules) -> int:
    """What a full scan begins with; returns how many events the removal of the dead may make."""
    if r.unstable_walks:
        unstable_tree.reset(t)
    return stable_tree.begin_scan(t, r)


@entry
def prune_migrating(t: Tables, r: Rules) -> None:
    """See `stable_tree.prune_migrating`."""
    stable_tree.prune_migrating(t, r)


@entry
def sweep(t: Tables, r: Rules) -> bool:
    """See `model.fast.sweep`."""
    return sweep_trees(t, r)
