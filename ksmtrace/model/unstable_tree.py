"""The unstable tree: pages that may find a twin in this scan.

mm/ksm.c: unstable_tree_search_insert. Its pages are not write-protected, so the tree may be wrong
about them: contents are compared as they are now, and the tree is thrown away at each scan's start.
"""

from __future__ import annotations

from typing import NamedTuple

from ksmtrace.model.branches import Branch
from ksmtrace.model.memory import Frame
from ksmtrace.model.merging import Merging
from ksmtrace.model.rbtree import RedBlackTree
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem


class Twin(NamedTuple):
    """A page in the tree with the same content."""

    item: RmapItem
    page: Frame


class UnstableTrees:
    """One tree for each NUMA node, or one for all."""

    def __init__(self, state: State, merging: Merging) -> None:
        self._state = state
        self._merging = merging
        self._trees: dict[int, RedBlackTree[RmapItem]] = {}

    def reset(self) -> None:
        """Begin a scan with empty trees; the items don't know until they are visited."""
        self._trees = {}

    def all_trees(self) -> list[RedBlackTree[RmapItem]]:
        """This scan's trees."""
        return list(self._trees.values())

    def trees_by_node(self) -> list[tuple[int, RedBlackTree[RmapItem]]]:
        """This scan's trees, each with its NUMA node."""
        return sorted(self._trees.items())

    def tree(self, nid: int) -> RedBlackTree[RmapItem]:
        """The tree of a NUMA node."""
        tree = self._trees.get(nid)
        if tree is None:
            tree = self._trees[nid] = RedBlackTree()
        return tree

    def remove(self, item: RmapItem) -> None:
        """Take `item` out of its tree, if that is still this scan's."""
        state = self._state
        assert item.tree is not None
        if (state.seqnr - item.seqnr) % 256 == 0:
            item.tree.erase(item)
        item.tree = None
        state.pages_unshared -= 1

    def search_or_insert(self, page: Frame, item: RmapItem) -> Twin | None:
        """The page's twin; without one `item` is put into the tree, if nothing blocks the way."""
        state = self._state
        nid = state.nid_of(page.nid)
        tree = self.tree(nid)
        content = page.content
        node = tree.root
        parent: RmapItem | None = None
        left = False
        while node is not None:
            tree_page = self._page_of(node)
            if tree_page is None:
                state.reached[Branch.UNSTABLE_BLOCKED] += 1
                return None
            if tree_page is page:
                state.reached[Branch.UNSTABLE_SHARED] += 1
                return None
            tree_content = tree_page.content
            if content == tree_content:
                if state.nid_of(tree_page.nid) != nid:
                    state.reached[Branch.NUMA_TWIN_MOVED] += 1
                    return None
                return Twin(node, tree_page)
            parent = node
            left = content < tree_content
            node = node.left if left else node.right  # type: ignore[assignment]  # of this tree
        tree.insert(item, parent, left=left)
        item.tree = tree
        item.seqnr = state.seqnr & 0xFF
        state.pages_unshared += 1
        state.reached[Branch.UNSTABLE_INSERTED] += 1
        return None

    def _page_of(self, item: RmapItem) -> Frame | None:
        """The page at a tree item's address now, if it is one that could be merged."""
        mm = item.mm
        page = mm.pages.get(item.address)
        if page is None or page is self._state.memory.zero_frame:
            return None
        vma = self._merging.mergeable_vma(item)
        if vma is None:
            return None
        if vma.protection == "none" and self._state.behaviour.prot_none != "visited":
            return None
        return page
