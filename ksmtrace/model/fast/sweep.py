"""Sweeps of the stable trees over arrays, as run=2 and two knobs do them."""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.stable_nodes import destroy, erase_chain, is_dead
from ksmtrace.model.fast.tables import IS_CHAIN, MIGRATING_FIRST, Rules, Tables


@compiled
def sweep(t: Tables, r: Rules) -> bool:
    """Remove every stable node, as run=2 and two knobs do; False if one is still mapped."""
    clean = True
    for tree in range(len(t.known)):
        # One that is still mapped stops its own node's sweep only.
        while t.root[tree] != 0:
            if not _sweep_place(t, r, int(t.root[tree])):
                clean = False
                break
    node = int(t.counts[MIGRATING_FIRST])
    while node != 0:
        following = int(t.node[node].after)
        clean = _sweep_node(t, r, node) and clean
        node = following
    return clean


@compiled
def _sweep_place(t: Tables, r: Rules, node: int) -> bool:
    if not t.node[node].flags & IS_CHAIN:
        return _sweep_node(t, r, node)
    chain = int(t.node[node].chain)
    dup = int(t.chain[chain].first)
    while dup != 0:
        following = int(t.node[dup].after)
        if not _sweep_node(t, r, dup):
            return False
        dup = following
    erase_chain(t, chain)
    return True


@compiled
def _sweep_node(t: Tables, r: Rules, node: int) -> bool:
    if not is_dead(t, node):
        frame = t.node[node].frame
        if t.frame[frame].mapcount != 0:
            return False
        t.frame[frame].node = 0
    destroy(t, r, node)
    return True
