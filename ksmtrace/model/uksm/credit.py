"""Who is credited with a merge: the slot that was scanned, and the slots it merged with.

A sampled slot speaks for `step` pages, so that is what the others get. If they turn out to be
merged with often enough, they climb a rung without a sample of their own.
"""

from __future__ import annotations

from ksmtrace.model.uksm.structures import Group, Item, Slot, StableNode


class Credit:
    """Credits slots with merges. slots: the ones credited in this evaluation round, in order.

    literally: walk a node's groups as the kernel does, which leaves some slots uncredited and may
    make a second group for one.
    """

    def __init__(self, *, literally: bool) -> None:
        self._literally = literally
        self.slots: dict[Slot, None] = {}

    def append(self, item: Item, node: StableNode, *, log: bool) -> None:
        """Put an item into its slot's group in a stable node. log: credit slots with the merge."""
        slot = item.slot
        weight = slot.rung.step if log and slot.rung is not None else 0
        if not node.groups:
            group = _insert(node, slot, 0)
        elif self._literally:
            group = self._by_walking(node, slot, weight)
        else:
            group = self._once_each(node, slot, weight)
        group.items[item] = None
        item.group = group
        node.items[item] = None
        if log:
            slot.merged += 1

    def _by_walking(self, node: StableNode, slot: Slot, weight: int) -> Group:
        groups = node.groups
        at = 0
        while at < len(groups) and groups[at].slot.key < slot.key:
            self._credit(groups[at].slot, weight)
            at += 1
        if at == len(groups):
            # Meant for the end, but it lands at the head; nobody comes after it.
            return _insert(node, slot, 0)
        own = groups[at] if groups[at].slot is slot else _insert(node, slot, at)
        # The group right after the own one is left out.
        for group in groups[at + 2 :]:
            self._credit(group.slot, weight)
        return own

    def _once_each(self, node: StableNode, slot: Slot, weight: int) -> Group:
        own = None
        for group in node.groups:
            if group.slot is slot:
                own = group
            else:
                self._credit(group.slot, weight)
        return _insert(node, slot, len(node.groups)) if own is None else own

    def _credit(self, slot: Slot, weight: int) -> None:
        if weight:
            slot.bemerged += weight
            self.slots[slot] = None


def _insert(node: StableNode, slot: Slot, at: int) -> Group:
    group = Group(node, slot)
    node.groups.insert(at, group)
    return group
