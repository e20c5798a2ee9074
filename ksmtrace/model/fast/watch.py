"""Which searches of the stable tree must walk it, and which may ask where a content is.

A walk does something to what it passes only if that is a dead KSM page, or a chain in which it
would move or remove one. Such nodes are watched: the ranks of all contents whose way leads past one
are marked, in buckets. A search for a content in a bucket that isn't marked finds its node by
number, and leaves behind what the walk would have. Too many marks cost time, never exactness.

The ways past a node near the top are many, and marks stay until all are made anew; so those few
nodes are on a short list of their own, which each search looks through.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.tables import (
    I64,
    IDLE_WALKS,
    PATIENCE,
    SHIFT,
    UNSTABLE,
    WATCHED,
    WATCHED_NODES,
    WIDE_AT,
    Tables,
)

_LEAST_PATIENCE = 256
_MOST_PATIENCE = 1 << 16
_WIDE = 64
_HIGHEST = 1 << 62


@compiled
def rank(t: Tables, content: int) -> int:
    """Where a content stands among all; comparing ranks is comparing pages."""
    if len(t.content) == 0:
        return int(content)
    return int(t.content[content].order)


@compiled
def mark(t: Tables, tree: int, low: int, high: int) -> None:
    """Mark the ranks from low to high; -1 and -2 for no limit."""
    bucket = t.bucket[tree]
    shift = t.counts[SHIFT]
    first = 0 if low < 0 else low >> shift
    last = len(bucket) - 1 if high < 0 else high >> shift
    for at in range(first, last + 1):
        bucket[at] = 1


@compiled
def mark_subtree(t: Tables, tree: int, node: int) -> None:
    """Mark all contents whose way leads past `node`."""
    n = t.node
    low = high = -1
    child = node
    parent = int(n[node].parent)
    while parent != 0 and (low < 0 or high < 0):
        if n[parent].left == child:
            if high < 0:
                high = rank(t, n[parent].content)
        elif low < 0:
            low = rank(t, n[parent].content)
        child = parent
        parent = int(n[parent].parent)
    last = len(t.bucket[tree]) - 1 if high < 0 else high >> t.counts[SHIFT]
    if last - (max(low, 0) >> t.counts[SHIFT]) < _WIDE or not _list_wide(t, tree, node, low, high):
        mark(t, tree, low, high)


@compiled
def _list_wide(t: Tables, tree: int, node: int, low: int, high: int) -> bool:
    """Put a node on the short list; False if that is full."""
    wide = t.wide[tree]
    used = int(t.counts[WIDE_AT + tree])
    at = 0
    while at < used and wide[at].node != node:
        at += 1
    if at == len(wide):
        return False
    wide[at].node = node
    wide[at].low = low
    wide[at].high = high if high >= 0 else _HIGHEST
    t.counts[WIDE_AT + tree] = max(used, at + 1)
    return True


@compiled
def is_calm(t: Tables, tree: int, content: int) -> bool:
    """Whether a walk to this content would pass nobody watched."""
    key = rank(t, content)
    if t.bucket[tree, key >> t.counts[SHIFT]]:
        return False
    wide = t.wide[tree]
    for at in range(t.counts[WIDE_AT + tree]):  # noqa: SIM110 compiled
        if wide[at].low <= key <= wide[at].high:
            return False
    return True


@compiled
def unwatch(t: Tables, node: int) -> None:
    """Watch it no more; its marks in buckets go when they are next made anew."""
    t.node[node].flags &= 0xFF ^ WATCHED
    tree = int(t.node[node].nid)
    wide = t.wide[tree]
    last = int(t.counts[WIDE_AT + tree]) - 1
    for at in range(last + 1):
        if wide[at].node == node:
            wide[at].node = wide[last].node
            wide[at].low = wide[last].low
            wide[at].high = wide[last].high
            t.counts[WIDE_AT + tree] = last
            return


@compiled
def renew_marks(t: Tables) -> None:
    """Mark anew, for those alone that are still watched."""
    t.bucket[:, :] = 0
    t.counts[WIDE_AT : WIDE_AT + UNSTABLE] = 0
    kept = 0
    for at in range(t.counts[WATCHED_NODES]):
        node = int(t.watched[at])
        if t.node[node].flags & WATCHED:
            # A row that was freed and is watched again is on the list twice.
            t.node[node].flags &= 0xFF ^ WATCHED
            t.watched[kept] = node
            kept += 1
    t.counts[WATCHED_NODES] = kept
    for at in range(kept):
        node = int(t.watched[at])
        t.node[node].flags |= WATCHED
        mark_subtree(t, int(t.node[node].nid), node)


@compiled
def watch(t: Tables, tree: int, node: int) -> None:
    """Watch a node of a stable tree from now on."""
    if t.node[node].flags & WATCHED:
        return
    if t.counts[WATCHED_NODES] == len(t.watched):
        renew_marks(t)
    t.node[node].flags |= WATCHED
    at = t.counts[WATCHED_NODES]
    t.watched[at] = node
    t.counts[WATCHED_NODES] = at + 1
    mark_subtree(t, tree, node)


@compiled
def idle_walk(t: Tables) -> None:
    """A walk met nobody who was watched. After many such the marks are made anew."""
    counts: I64 = t.counts
    counts[IDLE_WALKS] += 1
    if counts[IDLE_WALKS] > max(counts[PATIENCE], counts[WATCHED_NODES] >> 2):
        renew_marks(t)
        counts[IDLE_WALKS] = 0
        counts[PATIENCE] = min(counts[PATIENCE] * 2, _MOST_PATIENCE)


@compiled
def busy_walk(t: Tables) -> None:
    """A walk met somebody who was watched."""
    t.counts[PATIENCE] = _LEAST_PATIENCE
