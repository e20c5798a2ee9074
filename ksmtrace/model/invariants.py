"""What must hold between batches, whatever happened (docs/model.md#invariants)."""

from __future__ import annotations

from ksmtrace.model.cycle import Cycle
from ksmtrace.model.rbtree import RedBlackNode
from ksmtrace.model.state import State
from ksmtrace.model.structures import StableChain, StableNode


class InvariantBroken(AssertionError):
    """The scanner contradicts itself."""


def assert_invariants(state: State, cycle: Cycle) -> None:
    """Raise InvariantBroken if the counters don't count what is there, or a tree is none."""
    items = [item for slot in cycle.slots for item in slot.items()]
    _equal("rmap_items", state.rmap_items, len(items))
    _equal("pages_unshared", state.pages_unshared, sum(item.tree is not None for item in items))
    nodes = _stable_nodes(cycle)
    lengths = [len(node.items) for node in nodes]
    _equal("pages_shared", state.pages_shared, sum(length > 0 for length in lengths))
    _equal("pages_sharing", state.pages_sharing, sum(length - 1 for length in lengths if length))
    _equal(
        "stable_node_dups", state.stable_node_dups, sum(node.chain is not None for node in nodes)
    )
    chains = {id(node.chain) for node in nodes if node.chain is not None}
    if state.stable_node_chains < len(chains):
        raise InvariantBroken("there are more chains than stable_node_chains counts")
    if state.behaviour.fork_counters == "fresh":
        placed = sum(len(mm.ksm_zero) for mm in state.memory.mms)
        _equal("ksm_zero_pages", state.ksm_zero_pages, placed)
    for unstable in cycle.visit.unstable.all_trees():
        _assert_balanced(unstable.root)
    if state.behaviour.fork_counters == "fresh":
        for slot in cycle.slots:
            mine = slot.items()
            _equal("ksm_rmap_items", slot.mm.ksm_rmap_items, len(mine))
            merged = sum(item.head is not None for item in mine)
            _equal("ksm_merging_pages", slot.mm.ksm_merging_pages, merged)
    for slot in cycle.slots:
        addresses = [item.address for item in slot.items()]
        if addresses != sorted(set(addresses)):
            raise InvariantBroken("a list of rmap_items is out of order")


def _equal(what: str, counted: int, there: int) -> None:
    if counted != there:
        raise InvariantBroken(f"{what} is {counted}, but there are {there}")


def _stable_nodes(cycle: Cycle) -> list[StableNode]:
    stable = cycle.visit.stable
    nodes = list(stable.migrating)
    for tree in stable.trees.values():
        _assert_balanced(tree.root)
        for place in tree.in_order():
            if isinstance(place, StableNode):
                nodes.append(place)
            else:
                assert isinstance(place, StableChain)
                nodes.extend(place.dups)
    for node in nodes:
        for item in node.items:
            if item.head is not node or item.tree is not None:
                raise InvariantBroken("an rmap_item does not know its stable node")
    return nodes


def _assert_balanced(node: RedBlackNode | None) -> int:
    """The black height; raises where it is no red-black tree."""
    if node is None:
        return 1
    heights = {_assert_balanced(child) for child in (node.left, node.right)}
    if len(heights) > 1:
        raise InvariantBroken("a tree's paths differ in black nodes")
    for child in (node.left, node.right):
        if child is not None and (child.parent is not node or (node.red and child.red)):
            raise InvariantBroken("a tree has a red child of a red node, or a wrong parent")
    return heights.pop() + (not node.red)
