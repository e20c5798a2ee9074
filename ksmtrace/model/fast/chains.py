"""Chains over arrays: which KSM page a walk finds in one, and what it leaves behind.

The parts of `model.stable_tree` about max_page_sharing.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.stable_nodes import (
    collapse,
    destroy,
    erase_chain,
    has_room,
    is_dead,
    move_to_front,
)
from ksmtrace.model.fast.tables import LONGEST, NEXT_DUE, NOW, Rules, Tables
from ksmtrace.model.fast.watch import unwatch


@compiled
def resolve(t: Tables, r: Rules, chain: int, prune: bool) -> tuple[int, int, bool]:
    """A chain's (KSM page to use, node now in the tree, whether one can be compared with)."""
    c = t.chain
    place = int(c[chain].node)
    if prune:
        prune = t.counts[NOW] >= c[chain].pruned + r.prune_ns
        if prune:
            c[chain].pruned = t.counts[NOW]
    if r.chains == LONGEST:
        found = _longest(t, r, chain, prune)
        alone = c[chain].dups == 1
    else:
        found, live = _longest_with_room(t, r, chain, prune)
        alone = prune and live == 1
    if found == 0:
        if c[chain].dups == 0:
            erase_chain(t, chain)
            return 0, 0, False
        first = int(c[chain].first)
        if is_dead(t, first):
            destroy(t, r, first)
            return 0, place, False
        _leave_in_peace(t, r, chain)
        return 0, place, True
    if alone:
        collapse(t, r, chain, found)
        return found, found, True
    if c[chain].first != found and has_room(t, r, found, 1):
        move_to_front(t, chain, found)
    _leave_in_peace(t, r, chain)
    return found, place, True


@compiled
def _leave_in_peace(t: Tables, r: Rules, chain: int) -> None:
    """Watch a chain no more, if the next walk that passes would do nothing to it."""
    c = t.chain
    if c[chain].stale != 0 or (r.chains == LONGEST and c[chain].dups == 1):
        return
    if c[chain].roomy != 0 and not has_room(t, r, int(c[chain].first), 0):
        return
    due = int(c[chain].pruned) + r.prune_ns
    if due <= t.counts[NOW] + (r.prune_ns >> 3):
        return
    t.counts[NEXT_DUE] = min(t.counts[NEXT_DUE], due)
    unwatch(t, int(c[chain].node))


@compiled
def _longest_with_room(t: Tables, r: Rules, chain: int, prune: bool) -> tuple[int, int]:
    """4.13 to 6.10: (the dup found or 0, how many live ones were seen)."""
    found = live = 0
    dup = int(t.chain[chain].first)
    if not prune and t.chain[chain].stale == 0 and t.chain[chain].roomy == 0:
        return 0, 0
    while dup != 0:
        following = int(t.node[dup].after)
        if is_dead(t, dup):
            destroy(t, r, dup)
        else:
            live += 1
            longer = found == 0 or t.node[dup].items > t.node[found].items
            if longer and has_room(t, r, dup, 0):
                found = dup
                if not prune:
                    break
        dup = following
    return found, live


@compiled
def _longest(t: Tables, r: Rules, chain: int, prune: bool) -> int:
    """Since 6.11: a full page is found, too, where none has room."""
    found = 0
    dup = int(t.chain[chain].first)
    if not prune and t.chain[chain].stale == 0 and t.chain[chain].roomy == 0:
        return dup
    while dup != 0:
        following = int(t.node[dup].after)
        if is_dead(t, dup):
            destroy(t, r, dup)
        else:
            roomy = has_room(t, r, dup, 0)
            better = found == 0
            if not better and roomy:
                more = t.node[dup].items > t.node[found].items
                better = more or not has_room(t, r, found, 0)
            if better:
                found = dup
                if not prune and roomy:
                    break
        dup = following
    return found
