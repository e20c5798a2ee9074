"""The unstable tree over arrays: which place holds a content in this scan.

Nothing moves during a scan, so the tree needs no shape: whoever is in it is found by content. The
exception is 6.1, where pages that may not be accessed are in the tree and block all ways past them;
there, `unstable_walks`, the tree is built as the kernel builds it.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.redblack import erase, insert
from ksmtrace.model.fast.stable_nodes import free_node, new_node
from ksmtrace.model.fast.stable_tree import count_levels, nid_of
from ksmtrace.model.fast.stream import address_of, mm_of
from ksmtrace.model.fast.tables import (
    IN_UNSTABLE,
    IS_UNSTABLE,
    NEXT_NODE,
    SCAN_UNSHARED,
    UNSHARED,
    UNSTABLE,
    UNSTABLE_DEPTH,
    UNSTABLE_LEVELS,
    Rules,
    Tables,
)
from ksmtrace.model.fast.watch import rank


@compiled
def vma_of(t: Tables, place: int) -> int:
    """The region that a place lies in; it must lie in one."""
    address = address_of(t, place)
    vma = int(t.mm[mm_of(t, place)].vmas)
    while t.vma[vma].end <= address:
        vma += 1
    return vma


@compiled
def reset(t: Tables) -> None:
    """Begin a scan with empty trees; the items don't know until they are visited."""
    for node in range(1, t.counts[NEXT_NODE]):
        if t.node[node].flags & IS_UNSTABLE:
            t.known[t.node[node].nid, t.node[node].content].unstable = 0
            free_node(t, node)
    t.root[UNSTABLE:] = 0


@compiled
def _is_in_tree(t: Tables, r: Rules, place: int) -> bool:
    flagged = t.place[place].flags & IN_UNSTABLE
    return bool(flagged != 0 and t.place[place].seqnr == r.seqnr & 0xFF)


@compiled
def remove(t: Tables, r: Rules, place: int) -> None:
    """Take an item out of its tree, if that is still this scan's."""
    if r.unstable_walks and _is_in_tree(t, r, place):
        frame = t.place[place].frame
        tree = nid_of(r, int(t.frame[frame].nid))
        node = int(t.known[tree, t.frame[frame].content].unstable)
        t.known[tree, t.frame[frame].content].unstable = 0
        erase(t, UNSTABLE + tree, node)
        free_node(t, node)
    t.place[place].flags &= 0xFF ^ IN_UNSTABLE
    t.counts[UNSHARED] -= 1


@compiled
def _put_in(t: Tables, r: Rules, place: int) -> None:
    t.place[place].flags |= IN_UNSTABLE
    t.place[place].seqnr = r.seqnr & 0xFF
    t.counts[UNSHARED] += 1
    t.counts[SCAN_UNSHARED] += 1


@compiled
def search_or_insert(t: Tables, r: Rules, frame: int, place: int) -> int:
    """The page's twin; without one its item is put into the tree, if nothing blocks the way."""
    tree = nid_of(r, int(t.frame[frame].nid))
    content = int(t.frame[frame].content)
    count_levels(t, UNSTABLE_LEVELS, UNSTABLE_DEPTH)
    if r.unstable_walks:
        return _walk(t, r, frame, place, tree, content)
    twin = int(t.known[tree, content].unstable)
    if twin != 0 and _is_in_tree(t, r, twin):
        twin_frame = t.place[twin].frame
        same_tree = nid_of(r, int(t.frame[twin_frame].nid)) == tree
        if same_tree and t.frame[twin_frame].content == content:
            return 0 if twin_frame == frame else twin
    t.known[tree, content].unstable = place
    _put_in(t, r, place)
    return 0


@compiled
def _walk(t: Tables, r: Rules, frame: int, place: int, tree: int, content: int) -> int:
    n = t.node
    node = int(t.root[UNSTABLE + tree])
    key = rank(t, content)
    parent = 0
    left = False
    while node != 0:
        twin = int(n[node].oldest)
        if t.vma[vma_of(t, twin)].none or t.place[twin].frame == frame:
            return 0
        if n[node].content == content:
            return twin
        parent = node
        left = key < rank(t, n[node].content)
        node = int(n[node].left if left else n[node].right)
    leaf = new_node(t, content, tree)
    n[leaf].flags |= IS_UNSTABLE
    n[leaf].oldest = place
    insert(t, UNSTABLE + tree, leaf, parent, left)
    t.known[tree, content].unstable = leaf
    _put_in(t, r, place)
    return 0
