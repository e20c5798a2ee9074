"""What must hold between wake-ups, whatever happened (docs/uksm.md#invariants)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksmtrace.model.invariants import InvariantBroken
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import ItemState, StableNode

if TYPE_CHECKING:
    from ksmtrace.model.uksm.wakeup import WakeUp


def assert_invariants(state: State, daemon: WakeUp) -> None:
    """Raise InvariantBroken if the counters don't count what is there, or a tree is none."""
    slots = [*daemon.slots.by_serial.values()]
    items = [item for slot in slots for item in slot.items.values()]
    trees = daemon.trees
    _equal("items", state.items, len(items))
    waiting = sum(item.state is ItemState.UNSTABLE for item in items)
    _equal("pages_unshared", state.pages_unshared, waiting)
    nodes = list(trees.nodes)
    lengths = [len(node.items) for node in nodes]
    _equal("pages_shared", state.pages_shared, sum(length > 0 for length in lengths))
    _equal("pages_sharing", state.pages_sharing, sum(length - 1 for length in lengths if length))
    stable = sum(item.state is ItemState.STABLE for item in items)
    _equal("items in stable nodes", sum(lengths), stable)
    placed = sum(len(mm.ksm_zero) for mm in state.memory.mms)
    _equal("zero pages", state.zero_pages, placed)
    _equal("total_pages", state.total_pages, sum(slot.pages for slot in slots if slot.counted))
    for rung in daemon.rungs:
        _equal(f"pages of rung {rung.number}", rung.pages, sum(slot.pages for slot in rung))
        if (rung.slot is None) != (rung.pages == 0):
            raise InvariantBroken(f"rung {rung.number} has lost its cursor")
    for slot in slots:
        if slot.rung is not None and sorted(slot.order) != list(range(slot.pages)):
            raise InvariantBroken("a slot's order is no permutation")
        if slot.done > slot.pages or slot.merged > slot.sampled:
            raise InvariantBroken("a slot has done more than it has")
    for node in nodes:
        _assert_node(node)
    _assert_trees(state, daemon)


def _equal(what: str, counted: int, there: int) -> None:
    if counted != there:
        raise InvariantBroken(f"{what} is {counted}, but there are {there}")


def _assert_node(node: StableNode) -> None:
    grouped = [item for group in node.groups for item in group.items]
    if len(grouped) != len(node.items) or set(grouped) != set(node.items):
        raise InvariantBroken("a stable node's groups don't have its items")
    for group in node.groups:
        for item in group.items:
            if item.group is not group or item.slot is not group.slot:
                raise InvariantBroken("an item does not know its group")
    for item in node.items:
        mapped = item.mm.pages.get(item.address)
        if mapped is node.frame and mapped.content != node.frame.content:
            raise InvariantBroken("a merged page differs from its frame")


def _assert_trees(state: State, daemon: WakeUp) -> None:
    trees = daemon.trees
    for hash_, stable in trees.stable.items():
        if stable.hash != hash_ or not stable.by_full_hash:
            raise InvariantBroken("the stable tree has a wrong or empty node")
        for full_hash, node in stable.by_full_hash.items():
            if node.full_hash != full_hash or node.tree_node is not stable:
                raise InvariantBroken("a merged page is not where it thinks")
            if state.hashes.at(node.frame.content) != hash_:
                raise InvariantBroken("a merged page has another hash than its place")
    for hash_, unstable in trees.unstable.items():
        if unstable.hash != hash_ or not unstable.by_full_hash:
            raise InvariantBroken("the unstable tree has a wrong or empty node")
        for full_hash, item in unstable.by_full_hash.items():
            there = item.state is ItemState.UNSTABLE and item.tree_node is unstable
            if item.full_hash != full_hash or not there or item.hash_round != state.hash_round:
                raise InvariantBroken("a waiting page is not where it thinks")
