"""Stable nodes and chains over arrays: who is on them, their lives and deaths.

The parts of `model.stable_tree` that do not walk.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.redblack import erase, neighbour, replace
from ksmtrace.model.fast.stream import mm_of, remove_ksm_page, remove_rmap_item
from ksmtrace.model.fast.tables import (
    CHAINS,
    DUPS,
    FREE_CHAIN,
    FREE_NODE,
    IN_SWAP_CACHE,
    IN_TREES,
    IS_CHAIN,
    MIGRATING,
    MIGRATING_FIRST,
    NEXT_CHAIN,
    NEXT_DUE,
    NEXT_NODE,
    NO_CHAINS,
    NOW,
    SHARED,
    SHARING,
    STALE,
    STALE_NODES,
    WATCHED,
    WATCHED_NODES,
    Rules,
    Tables,
)
from ksmtrace.model.fast.watch import mark, rank, unwatch, watch


@compiled
def new_node(t: Tables, content: int, nid: int) -> int:
    """A row for a stable node or a chain's place, all zero but for these two."""
    n = t.node
    node = t.counts[FREE_NODE]
    if node != 0:
        t.counts[FREE_NODE] = n[node].after
    else:
        node = t.counts[NEXT_NODE]
        t.counts[NEXT_NODE] += 1
    n[node].content = content
    n[node].nid = nid
    n[node].flags = 0
    n[node].frame = 0
    n[node].oldest = 0
    n[node].newest = 0
    n[node].items = 0
    n[node].chain = 0
    n[node].before = 0
    n[node].after = 0
    return int(node)


@compiled
def free_node(t: Tables, node: int) -> None:
    """Give a row back."""
    if t.node[node].flags & WATCHED:
        unwatch(t, node)
    t.node[node].flags = 0
    t.node[node].after = t.counts[FREE_NODE]
    t.counts[FREE_NODE] = node


@compiled
def is_dead(t: Tables, node: int) -> bool:
    """Whether the node's frame was no KSM page of its any more when the scan began.

    None that has a node dies during a scan.
    """
    return bool(t.node[node].flags & STALE)


@compiled
def has_died(t: Tables, node: int) -> bool:
    """Whether the node's frame is no KSM page of its any more."""
    frame = t.node[node].frame
    if t.frame[frame].node != node:
        return True
    return bool(t.frame[frame].mapcount == 0 and t.frame[frame].flags & IN_SWAP_CACHE == 0)


@compiled
def items_have_room(r: Rules, items: int, more: int) -> bool:
    """Whether a KSM page with so many items may be mapped once more, and `more` times beyond."""
    if r.chains == NO_CHAINS:
        return True
    return items > 0 and items + more < r.max_page_sharing


@compiled
def has_room(t: Tables, r: Rules, node: int, more: int) -> bool:
    """`items_have_room` of a node."""
    return items_have_room(r, int(t.node[node].items), more)


@compiled
def _change_items(t: Tables, r: Rules, node: int, by: int) -> None:
    """Count one item more or less, and tell the chain if the node's room came or went."""
    before = int(t.node[node].items)
    t.node[node].items = before + by
    chain = t.node[node].chain
    if chain == 0:
        return
    had = items_have_room(r, before, 0)
    has = items_have_room(r, before + by, 0)
    if had != has:
        t.chain[chain].roomy += 1 if has else -1
        watch_chain(t, int(chain))


@compiled
def watch_chain(t: Tables, chain: int) -> None:
    """A chain changed: the next walk that passes may do something."""
    node = int(t.chain[chain].node)
    watch(t, int(t.node[node].nid), node)


@compiled
def append(t: Tables, r: Rules, place: int, node: int) -> None:
    """Count a place's item among those who map the node's page."""
    n = t.node
    if n[node].items != 0:
        t.counts[SHARING] += 1
        newest = n[node].newest
        t.place[newest].newer = place
        t.place[place].older = newest
    else:
        t.counts[SHARED] += 1
        n[node].oldest = place
        t.place[place].older = 0
    t.place[place].newer = 0
    n[node].newest = place
    t.place[place].head = node
    _change_items(t, r, node, 1)
    t.mm[mm_of(t, place)].merging_pages += 1


@compiled
def detach(t: Tables, r: Rules, place: int) -> None:
    """Take an item off its KSM page; a dead page is found on this occasion."""
    n = t.node
    node = int(t.place[place].head)
    if is_dead(t, node):
        destroy(t, r, node)
        return
    older, newer = t.place[place].older, t.place[place].newer
    if older != 0:
        t.place[older].newer = newer
    else:
        n[node].oldest = newer
    if newer != 0:
        t.place[newer].older = older
    else:
        n[node].newest = older
    _change_items(t, r, node, -1)
    t.counts[SHARING if n[node].items != 0 else SHARED] -= 1
    t.mm[mm_of(t, place)].merging_pages -= 1
    t.place[place].head = 0


@compiled
def destroy(t: Tables, r: Rules, node: int) -> None:
    """Remove a node with all its items: the only removal that makes events."""
    n = t.node
    pfn = int(t.frame[n[node].frame].pfn)
    place = int(n[node].newest)
    while place != 0:
        older = int(t.place[place].older)
        if older == 0:
            t.counts[SHARED] -= 1
        else:
            t.counts[SHARING] -= 1
            remove_rmap_item(t, r, pfn, place)
        t.mm[mm_of(t, place)].merging_pages -= 1
        t.place[place].head = 0
        place = older
    remove_ksm_page(t, r, pfn)
    unlink(t, r, node)
    if n[node].flags & STALE:
        t.counts[STALE_NODES] -= 1
    free_node(t, node)


@compiled
def unlink(t: Tables, r: Rules, node: int) -> None:
    """Take a node out of wherever it is: put aside, in a chain, or in the tree."""
    n = t.node
    if n[node].flags & MIGRATING:
        leave_migrating(t, node)
    elif n[node].chain != 0:
        leave_chain(t, r, node)
    else:
        erase_place(t, node)


@compiled
def erase_place(t: Tables, node: int) -> None:
    """Take a node or a chain's place out of the tree."""
    tree = int(t.node[node].nid)
    if t.counts[WATCHED_NODES]:
        # What lies in order beside it will be on other ways than before.
        before, after = neighbour(t, node, False), neighbour(t, node, True)
        low = rank(t, t.node[before].content) if before else -1
        high = rank(t, t.node[after].content) if after else -1
        mark(t, tree, low, high)
    erase(t, tree, node)
    t.counts[IN_TREES] -= 1
    t.known[tree, t.node[node].content].stable = 0


@compiled
def take_place(t: Tables, old: int, new: int) -> None:
    """Put `new` where `old` is in the tree."""
    tree = int(t.node[old].nid)
    replace(t, tree, old, new)
    t.known[tree, t.node[new].content].stable = new


# Nodes put aside.


@compiled
def put_aside(t: Tables, node: int) -> None:
    """Its page has moved to another NUMA node: newest first, among others of that kind."""
    n = t.node
    first = t.counts[MIGRATING_FIRST]
    n[node].flags |= MIGRATING
    n[node].before = 0
    n[node].after = first
    if first != 0:
        n[first].before = node
    t.counts[MIGRATING_FIRST] = node


@compiled
def leave_migrating(t: Tables, node: int) -> None:
    """It is put aside no more."""
    n = t.node
    before, after = n[node].before, n[node].after
    if before != 0:
        n[before].after = after
    else:
        t.counts[MIGRATING_FIRST] = after
    if after != 0:
        n[after].before = before
    n[node].flags &= 0xFF ^ MIGRATING
    n[node].before = 0
    n[node].after = 0


# Chains.


@compiled
def chain_of(t: Tables, r: Rules, node: int) -> int:
    """The chain at a place in the tree, made if there is a single KSM page yet."""
    n = t.node
    if n[node].flags & IS_CHAIN:
        return int(n[node].chain)
    chain = t.counts[FREE_CHAIN]
    if chain != 0:
        t.counts[FREE_CHAIN] = t.chain[chain].first
    else:
        chain = t.counts[NEXT_CHAIN]
        t.counts[NEXT_CHAIN] += 1
    place = new_node(t, int(n[node].content), int(n[node].nid))
    n[place].flags |= IS_CHAIN
    n[place].chain = chain
    c = t.chain
    c[chain].node = place
    c[chain].first = 0
    c[chain].dups = 0
    c[chain].roomy = 0
    c[chain].stale = 0
    c[chain].pruned = t.counts[NOW]
    t.counts[NEXT_DUE] = min(t.counts[NEXT_DUE], t.counts[NOW] + r.prune_ns)
    take_place(t, node, place)
    t.counts[CHAINS] += 1
    join_chain(t, r, int(chain), node)
    return int(chain)


@compiled
def join_chain(t: Tables, r: Rules, chain: int, node: int) -> None:
    """Make a node the first dup of a chain."""
    n = t.node
    _to_front(t, chain, node)
    n[node].chain = chain
    n[node].nid = n[t.chain[chain].node].nid
    t.chain[chain].dups += 1
    t.chain[chain].roomy += 1 if has_room(t, r, node, 0) else 0
    t.chain[chain].stale += 1 if n[node].flags & STALE else 0
    t.counts[DUPS] += 1
    watch_chain(t, chain)


@compiled
def _to_front(t: Tables, chain: int, node: int) -> None:
    n = t.node
    first = t.chain[chain].first
    n[node].before = 0
    n[node].after = first
    if first != 0:
        n[first].before = node
    t.chain[chain].first = node


@compiled
def _take_from_list(t: Tables, chain: int, node: int) -> None:
    n = t.node
    before, after = n[node].before, n[node].after
    if before != 0:
        n[before].after = after
    else:
        t.chain[chain].first = after
    if after != 0:
        n[after].before = before


@compiled
def move_to_front(t: Tables, chain: int, node: int) -> None:
    """Put a dup before the others."""
    _take_from_list(t, chain, node)
    _to_front(t, chain, node)


@compiled
def leave_chain(t: Tables, r: Rules, node: int) -> None:
    """Take a dup out of its chain."""
    n = t.node
    chain = int(n[node].chain)
    _take_from_list(t, chain, node)
    n[node].chain = 0
    n[node].before = 0
    n[node].after = 0
    t.chain[chain].dups -= 1
    t.chain[chain].roomy -= 1 if has_room(t, r, node, 0) else 0
    t.chain[chain].stale -= 1 if n[node].flags & STALE else 0
    t.counts[DUPS] -= 1
    watch_chain(t, chain)


@compiled
def erase_chain(t: Tables, chain: int) -> None:
    """A chain without dups goes."""
    place = int(t.chain[chain].node)
    erase_place(t, place)
    _drop_chain(t, chain, place)


@compiled
def collapse(t: Tables, r: Rules, chain: int, last: int) -> None:
    """A chain's only dup takes its place in the tree."""
    place = int(t.chain[chain].node)
    leave_chain(t, r, last)
    take_place(t, place, last)
    _drop_chain(t, chain, place)


@compiled
def _drop_chain(t: Tables, chain: int, place: int) -> None:
    free_node(t, place)
    t.chain[chain].first = t.counts[FREE_CHAIN]
    t.counts[FREE_CHAIN] = chain
    t.counts[CHAINS] -= 1
