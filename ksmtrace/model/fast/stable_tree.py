"""Searches of the stable tree over arrays: `model.stable_tree`'s walks, and the way round them.

A search that would pass nobody watched (`watch`) asks by content instead of walking; it finds what
the walk would, and the walk would have changed nothing.
"""

from __future__ import annotations

from ksmtrace.model.fast.chains import resolve
from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.redblack import insert as insert_leaf
from ksmtrace.model.fast.stable_nodes import (
    chain_of,
    destroy,
    erase_place,
    has_died,
    has_room,
    is_dead,
    join_chain,
    leave_chain,
    leave_migrating,
    new_node,
    put_aside,
    take_place,
    unlink,
)
from ksmtrace.model.fast.tables import (
    COLD_LEVELS,
    DEPTH_UNIT,
    IN_TREES,
    IS_CHAIN,
    MIGRATING,
    MIGRATING_FIRST,
    NEXT_CHAIN,
    NEXT_DUE,
    NEXT_NODE,
    NO_CHAINS,
    NOW,
    STABLE_DEPTH,
    STABLE_LEVELS,
    STALE,
    STALE_NODES,
    WATCHED,
    WATCHED_NODES,
    Rules,
    Tables,
)
from ksmtrace.model.fast.watch import (
    busy_walk,
    idle_walk,
    is_calm,
    rank,
    renew_marks,
    watch,
)
from ksmtrace.model.work import WARM_LEVELS

_FOUND, _RESTART, _GIVE_UP = 0, 1, 2
_NEVER = 1 << 62
_BESIDE = 64


@compiled
def nid_of(r: Rules, nid: int) -> int:
    """Which tree a page on NUMA node `nid` belongs to."""
    return int(nid) if r.per_node else 0


@compiled
def begin_scan(t: Tables, r: Rules) -> int:
    """Find out who has died since the last scan, and watch them and all chains.

    Returns how many events their removal may make.
    """
    n = t.node
    t.counts[STALE_NODES] = 0
    t.counts[WATCHED_NODES] = 0
    for chain in range(t.counts[NEXT_CHAIN]):
        t.chain[chain].stale = 0
    events = 0
    for node in range(1, t.counts[NEXT_NODE]):
        n[node].flags &= 0xFF ^ (STALE | WATCHED)
        if n[node].frame != 0 and has_died(t, node):
            n[node].flags |= STALE
            t.counts[STALE_NODES] += 1
            events += 1 + int(n[node].items)
            if n[node].chain != 0:
                t.chain[n[node].chain].stale += 1
    for node in range(1, t.counts[NEXT_NODE]):
        if n[node].flags & MIGRATING or (n[node].chain != 0 and not n[node].flags & IS_CHAIN):
            continue
        if n[node].flags & (STALE | IS_CHAIN):
            watch(t, int(n[node].nid), node)
    renew_marks(t)
    t.counts[NEXT_DUE] = _NEVER
    _watch_due_chains(t, r)
    return events


@compiled
def _watch_due_chains(t: Tables, r: Rules) -> None:
    """Watch chains whose stale dups are looked for soon; note when the next ones are due."""
    soon = t.counts[NOW] + (r.prune_ns >> 3)
    due = _NEVER
    for node in range(1, t.counts[NEXT_NODE]):
        if t.node[node].flags & IS_CHAIN:
            at = int(t.chain[t.node[node].chain].pruned) + r.prune_ns
            if at <= soon:
                watch(t, int(t.node[node].nid), node)
            else:
                due = min(due, at)
    t.counts[NEXT_DUE] = due


@compiled
def search(t: Tables, r: Rules, frame: int) -> int:
    """The KSM page that `frame` may be merged with: frame itself if it is one already, or 0."""
    n = t.node
    page_node = int(t.frame[frame].node)
    if page_node != 0 and not n[page_node].flags & MIGRATING:
        return frame
    tree = nid_of(r, int(t.frame[frame].nid))
    content = int(t.frame[frame].content)
    node = dup = parent = 0
    left = False
    count_levels(t, STABLE_LEVELS, STABLE_DEPTH)
    while True:
        if t.counts[NOW] >= t.counts[NEXT_DUE]:
            _watch_due_chains(t, r)
        if page_node == 0 and is_calm(t, tree, content):
            node = int(t.known[tree, content].stable)
            dup = node
            if node != 0 and n[node].flags & IS_CHAIN:
                dup = int(t.chain[n[node].chain].first)
            break
        status, node, dup, parent, left, met = _walk(t, r, content, tree, True)
        if met:
            busy_walk(t)
        else:
            idle_walk(t)
        if status == _FOUND:
            break
        if status == _GIVE_UP:
            return 0
    if node == 0:
        if page_node == 0:
            return 0
        _settle(t, page_node, tree)
        _hang(t, page_node, tree, parent, left)
        return frame if has_room(t, r, page_node, 0) else 0
    if page_node != 0 and t.frame[frame].mapcount > 1 and r.chains != NO_CHAINS:
        _settle(t, page_node, tree)
        join_chain(t, r, chain_of(t, r, node), page_node)
        return frame if has_room(t, r, page_node, 0) else 0
    if dup == 0 or not has_room(t, r, dup, 0):
        return 0
    dup_frame = int(n[dup].frame)
    if nid_of(r, int(t.frame[dup_frame].nid)) != n[dup].nid:
        return _take_the_place_of(t, r, dup, node, page_node, frame, tree)
    return dup_frame


@compiled
def count_levels(t: Tables, levels: int, depth: int) -> None:
    """Count what a search of a tree costs, by the tree's depth: not what this one passed."""
    t.counts[levels] += t.counts[depth]
    t.counts[COLD_LEVELS] += max(0, t.counts[depth] - WARM_LEVELS * DEPTH_UNIT)


@compiled
def insert(t: Tables, r: Rules, frame: int) -> int:
    """A stable node for a new KSM page; 0 if there can be none."""
    tree = nid_of(r, int(t.frame[frame].nid))
    content = int(t.frame[frame].content)
    count_levels(t, STABLE_LEVELS, STABLE_DEPTH)
    equal = 0
    parent, left = _parent_beside(t, tree, content)
    while parent == 0:
        status, equal, _dup, parent, left, _met = _walk(t, r, content, tree, False)
        if status == _FOUND:
            break
        if status == _GIVE_UP:
            return 0
    if equal != 0 and r.chains == NO_CHAINS:
        return 0
    node = new_node(t, content, tree)
    t.node[node].frame = frame
    t.frame[frame].node = node
    if equal == 0:
        _hang(t, node, tree, parent, left)
    else:
        join_chain(t, r, chain_of(t, r, equal), node)
    return node


@compiled
def _parent_beside(t: Tables, tree: int, content: int) -> tuple[int, bool]:
    """A new leaf's parent and side, found from the node next below in order; (0, _) if that fails.

    There is one place for a key in a tree of a given shape: right below its predecessor, or left
    below its successor. Where contents are numbered in order the predecessor is close by.
    """
    if len(t.content) != 0 or not is_calm(t, tree, content) or t.known[tree, content].stable != 0:
        return 0, False
    below = content - 1
    least = max(0, content - _BESIDE)
    while below >= least and t.known[tree, below].stable == 0:
        below -= 1
    if below < least:
        return 0, False
    node = int(t.known[tree, below].stable)
    if t.node[node].right == 0:
        return node, False
    node = int(t.node[node].right)
    while t.node[node].left != 0:
        node = int(t.node[node].left)
    return node, True


@compiled
def _hang(t: Tables, node: int, tree: int, parent: int, left: bool) -> None:
    insert_leaf(t, tree, node, parent, left)
    t.known[tree, t.node[node].content].stable = node
    t.counts[IN_TREES] += 1


@compiled
def _walk(
    t: Tables,
    r: Rules,
    content: int,
    tree: int,
    prune: bool,
) -> tuple[int, int, int, int, bool, bool]:
    """Down the tree.

    (how it ended, equal node, the dup to use, a new leaf's parent, whether on its left, whether it
    met somebody watched.)
    """
    n = t.node
    key = rank(t, content)
    node = int(t.root[tree])
    parent = 0
    left = met = False
    while node != 0:
        dup = node
        if n[node].flags & WATCHED:
            met = True
        if n[node].flags & IS_CHAIN:
            dup, node, lives = resolve(t, r, int(n[node].chain), prune)
        else:
            lives = not is_dead(t, node)
            if not lives:
                destroy(t, r, node)
        if not lives:
            return (_GIVE_UP if r.give_up else _RESTART), 0, 0, 0, False, met
        key_here = rank(t, n[node].content)
        if key == key_here:
            return _FOUND, node, dup, parent, left, met
        parent = node
        left = key < key_here
        node = int(n[node].left if left else n[node].right)
    return _FOUND, 0, 0, parent, left, met


# NUMA nodes: KSM pages that the kernel has moved.


@compiled
def left_its_node(t: Tables, r: Rules, node: int) -> None:
    """Put a node aside whose page has moved to another NUMA node."""
    unlink(t, r, node)
    put_aside(t, node)


@compiled
def prune_migrating(t: Tables, r: Rules) -> None:
    """At a scan's start: forget dead pages among those put aside."""
    node = int(t.counts[MIGRATING_FIRST])
    while node != 0:
        following = int(t.node[node].after)
        if is_dead(t, node):
            destroy(t, r, node)
        node = following


@compiled
def _settle(t: Tables, node: int, tree: int) -> None:
    leave_migrating(t, node)
    t.node[node].nid = tree


@compiled
def _take_the_place_of(
    t: Tables, r: Rules, dup: int, node: int, page_node: int, frame: int, tree: int
) -> int:
    """The tree's own page has moved away: it is put aside, for ours if we have one."""
    if page_node != 0:
        _settle(t, page_node, tree)
    if t.node[dup].chain == 0:
        if page_node != 0:
            take_place(t, node, page_node)
        else:
            erase_place(t, node)
    else:
        chain = int(t.node[dup].chain)
        leave_chain(t, r, dup)
        if page_node != 0:
            join_chain(t, r, chain, page_node)
    put_aside(t, dup)
    return frame if page_node != 0 and has_room(t, r, page_node, 0) else 0
