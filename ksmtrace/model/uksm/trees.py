"""UKSM's two trees. First by partial hash; those with one partial hash are told by the full one.

The unstable tree lives until the strength changes. The stable tree is built anew then.
"""

from __future__ import annotations

from ksmtrace.model.uksm.credit import Credit
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import (
    Item,
    ItemState,
    StableNode,
    StableTreeNode,
    UnstableNode,
)


class Trees:
    """Both trees. nodes: all merged pages, the lost ones too."""

    def __init__(self, state: State, credit: Credit) -> None:
        self._state = state
        self.credit = credit
        self.stable: dict[int, StableTreeNode] = {}
        self.unstable: dict[int, UnstableNode] = {}
        self.nodes: dict[StableNode, None] = {}

    # Items.

    def detach(self, item: Item) -> None:
        """Take an item out of whatever tree it is in."""
        state = self._state
        if item.state is ItemState.STABLE:
            group = item.group
            assert group is not None
            node = group.node
            if node.stale:
                self.drop(node)
                return
            del group.items[item]
            del node.items[item]
            if not group.items:
                node.groups.remove(group)
            if node.groups:
                state.pages_sharing -= 1
            else:
                state.pages_shared -= 1
            item.group = None
        elif item.state is ItemState.UNSTABLE:
            if item.hash_round == state.hash_round:
                self._unlink(item)
            item.tree_node = None
            state.pages_unshared -= 1
        item.state = ItemState.NONE
        item.full_hash = 0

    def append(self, item: Item, node: StableNode, *, log: bool) -> None:
        """Count an item among those who map a merged page. log: credit the merge to slots."""
        state = self._state
        if node.groups:
            state.pages_sharing += 1
        else:
            state.pages_shared += 1
        self.credit.append(item, node, log=log)
        item.state = ItemState.STABLE

    # The unstable tree.

    def insert_unstable(self, item: Item, tree_node: UnstableNode | None, hash_: int) -> None:
        """Put an item under its hash; the full hash must be known if it isn't the first."""
        state = self._state
        if tree_node is None:
            tree_node = self.unstable[hash_] = UnstableNode(hash_)
        tree_node.by_full_hash[item.full_hash] = item
        if not state.quirks.ghost:
            tree_node.count += 1
        item.state = ItemState.UNSTABLE
        item.tree_node = tree_node
        item.hash_round = state.hash_round
        state.pages_unshared += 1

    def know_full_hash(self, item: Item) -> None:
        """Find out the full hash of an item that waits in the unstable tree without."""
        tree_node = item.tree_node
        assert tree_node is not None
        if item.full_hash:
            return
        del tree_node.by_full_hash[0]
        item.full_hash = self._state.full_hash(item.page.content)
        tree_node.by_full_hash[item.full_hash] = item

    def _unlink(self, item: Item) -> None:
        tree_node = item.tree_node
        assert tree_node is not None
        del tree_node.by_full_hash[item.full_hash]
        tree_node.count -= 1
        if not tree_node.by_full_hash:
            del self.unstable[tree_node.hash]

    def empty_unstable(self) -> None:
        """Throw the unstable tree away; the items don't know until they are visited."""
        self._state.hash_round += 1
        self.unstable = {}

    # The stable tree.

    def insert_stable(self, node: StableNode, tree_node: StableTreeNode | None, hash_: int) -> None:
        """Put a merged page under its hash; the full hash must be known if it isn't the first."""
        if tree_node is None:
            tree_node = self.stable[hash_] = StableTreeNode(hash_)
        tree_node.by_full_hash[node.full_hash] = node
        node.tree_node = tree_node
        self.nodes[node] = None

    def find_stable(self, tree_node: StableTreeNode, full_hash: int) -> StableNode | None:
        """The merged page with that full hash, where there are several."""
        self._state.search(len(tree_node.by_full_hash))
        return tree_node.by_full_hash.get(full_hash)

    def know_node_hash(self, node: StableNode) -> None:
        """Find out the full hash of a merged page that had none."""
        if node.full_hash:
            return
        tree_node = node.tree_node
        node.full_hash = self._state.full_hash(node.frame.content)
        if tree_node is not None:
            del tree_node.by_full_hash[0]
            tree_node.by_full_hash[node.full_hash] = node

    def drop(self, node: StableNode) -> None:
        """Forget a merged page that has died, and all its items."""
        state = self._state
        pfn = node.frame.pfn
        newest_first = list(reversed(node.items))
        state.tick()
        for item in newest_first:
            if item is newest_first[-1]:
                state.pages_shared -= 1
            else:
                state.pages_sharing -= 1
                state.stream.remove_rmap_item(pfn, item)
            item.group = None
            item.state = ItemState.NONE
            item.full_hash = 0
        node.items = {}
        node.groups = []
        state.stream.remove_ksm_page(pfn)
        tree_node = node.tree_node
        if tree_node is not None:
            del tree_node.by_full_hash[node.full_hash]
            if not tree_node.by_full_hash:
                del self.stable[tree_node.hash]
            node.tree_node = None
        del self.nodes[node]

    def rekey(self, old: int) -> None:
        """The strength has changed: build the stable tree anew. old: the strength before."""
        state = self._state
        distance = abs(state.strength.value - old)
        state.hashes.set_strength(state.strength.value)
        for node in list(self.nodes):
            if node.stale:
                self.drop(node)
        lost_before = {node for node in self.nodes if node.tree_node is None}
        self.stable = {}
        for node in self.nodes:
            steps = state.strength.value if node in lost_before else distance
            state.work.uksm_bytes += 4 * steps
            node.tree_node = None
            hash_ = state.hashes.at(node.frame.content)
            state.search(len(self.stable))
            tree_node = self.stable.get(hash_)
            if tree_node is not None:
                for other in list(tree_node.by_full_hash.values()):
                    self.know_node_hash(other)
                self.know_node_hash(node)
                if node.full_hash in tree_node.by_full_hash:
                    state.tallies.lost += 1
                    continue
            self.insert_stable(node, tree_node, hash_)
