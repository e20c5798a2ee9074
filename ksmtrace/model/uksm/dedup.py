"""What UKSM does with one page that may have equals."""

from __future__ import annotations

from ksmtrace.model.memory import Frame
from ksmtrace.model.uksm.merging import Merging, Outcome
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Item, StableNode, StableTreeNode
from ksmtrace.model.uksm.trees import Trees


class Dedup:
    """Looks for a page's equals in both trees, and merges it with what it finds."""

    def __init__(self, state: State, trees: Trees, merging: Merging) -> None:
        self._state = state
        self._trees = trees
        self._merging = merging

    def page(self, item: Item, hash_: int) -> None:
        """Look for the equals of an item's page, whose hash is known."""
        trees, merging = self._trees, self._merging
        trees.detach(item)
        node = self._find_stable(item, hash_)
        if node is not None:
            outcome = merging.onto_merged(item, node.frame, hash_)
            if outcome is Outcome.OK:
                trees.append(item, node, log=True)
                return
            if outcome is Outcome.COLLISION and item.full_hash:
                return
        other = self._find_or_insert_unstable(item, hash_)
        if other is None:
            return
        outcome = merging.pair(item, other)
        if outcome is Outcome.OK:
            trees.detach(other)
            self._settle(item, other, hash_)
        elif outcome is Outcome.COLLISION and not self._state.quirks.ghost:
            self._both_stay(item, other)
        else:
            trees.detach(other)

    def _find_stable(self, item: Item, hash_: int) -> StableNode | None:
        state, trees = self._state, self._trees
        if item.page.ksm:
            node = item.page.node
            assert isinstance(node, StableNode)
            return node
        state.search(len(trees.stable))
        tree_node = trees.stable.get(hash_)
        if tree_node is None:
            return None
        if len(tree_node.by_full_hash) == 1:
            found: StableNode | None = tree_node.only()
        else:
            self._know_full_hash(item)
            found = trees.find_stable(tree_node, item.full_hash)
        if found is not None and found.stale:
            trees.drop(found)
            return None
        return found

    def _know_full_hash(self, item: Item) -> None:
        if not item.full_hash:
            item.full_hash = self._state.full_hash(item.page.content)

    def _find_or_insert_unstable(self, item: Item, hash_: int) -> Item | None:
        """An item whose page may be equal; without one the item is put into the tree."""
        state, trees = self._state, self._trees
        state.search(len(trees.unstable))
        tree_node = trees.unstable.get(hash_)
        if tree_node is None:
            trees.insert_unstable(item, None, hash_)
            return None
        if tree_node.count == 1:
            other: Item | None = next(iter(tree_node.by_full_hash.values()))
        else:
            self._know_full_hash(item)
            state.search(len(tree_node.by_full_hash))
            other = tree_node.by_full_hash.get(item.full_hash)
            if other is None:
                trees.insert_unstable(item, tree_node, hash_)
                return None
        assert other is not None
        if other.page is item.page or other.slot.deleted:
            return None
        if other.page.ksm or other.mm.pages.get(other.address) is not other.page:
            trees.detach(other)
            return None
        return other

    def _both_stay(self, item: Item, other: Item) -> None:
        """Two pages with one hash: from now on both are told by their full ones."""
        trees = self._trees
        tree_node = other.tree_node
        assert tree_node is not None
        trees.know_full_hash(other)
        self._know_full_hash(item)
        if item.full_hash in tree_node.by_full_hash:
            trees.detach(other)
            return
        # The code forgets to count it here, where it never comes as released.
        trees.insert_unstable(item, tree_node, tree_node.hash)

    def _settle(self, item: Item, other: Item, hash_: int) -> None:
        """Two pages were merged: find their place in the stable tree, and the frame they keep."""
        state, trees, merging = self._state, self._trees, self._merging
        page = item.page
        state.search(len(trees.stable))
        tree_node = trees.stable.get(hash_)
        while tree_node is not None:
            several = len(tree_node.by_full_hash) > 1
            if several:
                self._know_full_hash(item)
                found = trees.find_stable(tree_node, item.full_hash)
                if found is None:
                    break
            else:
                found = tree_node.only()
            if found.stale:
                trees.drop(found)
                tree_node = trees.stable.get(hash_)
                continue
            state.strength.account.spent += state.memcmp_cost
            if merging.equal(page, found.frame):
                for one in (item, other):
                    merging.to_another(one, found.frame)
                trees.append(other, found, log=False)
                trees.append(item, found, log=True)
                return
            if several or not self._tell_apart(item, found):
                self._give_up(item, other)
                return
            break
        self._become_merged(item, other, page, tree_node, hash_)

    def _tell_apart(self, item: Item, node: StableNode) -> bool:
        """Whether full hashes tell a page from the only merged one under its hash."""
        self._trees.know_node_hash(node)
        self._know_full_hash(item)
        return node.full_hash != item.full_hash

    def _become_merged(
        self, item: Item, other: Item, page: Frame, tree_node: StableTreeNode | None, hash_: int
    ) -> None:
        node = StableNode(page)
        page.node = node
        if tree_node is not None:
            node.full_hash = item.full_hash
        self._trees.insert_stable(node, tree_node, hash_)
        self._merging.tell_pair(item, other)
        self._trees.append(other, node, log=False)
        self._trees.append(item, node, log=True)

    def _give_up(self, item: Item, other: Item) -> None:
        """There is no place in the stable tree: private pages again."""
        for one in (item, other):
            self._merging.break_cow(one)
