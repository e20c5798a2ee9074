"""The stable tree: KSM pages by content, chains of those with one content, and their deaths.

mm/ksm.c: stable_tree_search, stable_tree_insert, stable_node_dup, get_ksm_page,
remove_node_from_stable_tree. Pages are compared where they are met, so what a walk passes, it
notices: a KSM page that died is only then taken out.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from ksmtrace.model.branches import Branch
from ksmtrace.model.memory import Frame
from ksmtrace.model.rbtree import RedBlackTree
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem, StableChain, StableNode, StableTreeNode


class Busy(Enum):
    """What a search answers instead of a page that somebody has locked."""

    BUSY = "busy"


class _Walk(Enum):
    RESTART = "restart"
    GIVE_UP = "give up"


Walked = (
    tuple[StableTreeNode | None, StableNode | None, StableTreeNode | None, bool]
    | Literal[_Walk.RESTART, _Walk.GIVE_UP]
)
"""What a walk found: (equal node, the dup to use, a new leaf's parent, whether on its left)."""


class StableTrees:
    """One tree for each NUMA node, or one for all."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.trees: dict[int, RedBlackTree[StableTreeNode]] = {}
        self.migrating: list[StableNode] = []

    def tree(self, nid: int) -> RedBlackTree[StableTreeNode]:
        """The tree of a NUMA node."""
        tree = self.trees.get(nid)
        if tree is None:
            tree = self.trees[nid] = RedBlackTree()
        return tree

    def has_room(self, node: StableNode, more: int = 0) -> bool:
        """Whether a KSM page may be mapped once more (and `more` times beyond that)."""
        if self._state.behaviour.chains == "absent":
            return True
        mappings = len(node.items)
        return mappings > 0 and mappings + more < self._state.settings.max_page_sharing

    # Who maps a KSM page.

    def append(self, item: RmapItem, node: StableNode) -> None:
        """Count `item` among those who map the node's page."""
        state = self._state
        if node.items:
            state.pages_sharing += 1
        else:
            state.pages_shared += 1
        node.items[item] = None
        item.head = node
        item.mm.ksm_merging_pages += 1

    def detach(self, item: RmapItem, where: Branch = Branch.STALE_MET_BY_ITEM) -> None:
        """Take `item` off its KSM page; a dead page is found on this occasion."""
        node = item.head
        assert node is not None
        if self.get(node, where) is None:
            return
        state = self._state
        del node.items[item]
        if node.items:
            state.pages_sharing -= 1
            state.reached[Branch.SHARER_LEFT] += 1
        else:
            state.pages_shared -= 1
        item.mm.ksm_merging_pages -= 1
        item.head = None

    # Life and death of stable nodes.

    def get(self, node: StableNode, where: Branch) -> Frame | None:
        """The node's page if it still is one; otherwise the node is destroyed (and counted)."""
        frame = node.frame
        if frame.node is node and (frame.mapcount > 0 or frame.pins > 0 or frame.swap is not None):
            return frame
        self._state.reached[where] += 1
        self.destroy(node)
        return None

    def destroy(self, node: StableNode) -> None:
        """Remove a node with all its items: the only removal that makes events."""
        state = self._state
        pfn = node.frame.pfn
        newest_first = list(reversed(node.items))
        for item in newest_first:
            if item is newest_first[-1]:
                state.pages_shared -= 1
            else:
                state.pages_sharing -= 1
                state.stream.remove_rmap_item(pfn, item)
            item.mm.ksm_merging_pages -= 1
            item.head = None
        node.items = {}
        state.stream.remove_ksm_page(pfn)
        self._unlink(node)

    def _unlink(self, node: StableNode) -> None:
        if node.migrating:
            self.migrating.remove(node)
            node.migrating = False
        elif node.chain is not None:
            node.chain.dups.remove(node)
            node.chain = None
            self._state.stable_node_dups -= 1
        else:
            self.tree(node.nid).erase(node)

    # Walks.

    def search(self, frame: Frame) -> Frame | Busy | None:
        """The KSM page that `frame` may be merged with: frame itself if it is one already."""
        page_node = frame.node if isinstance(frame.node, StableNode) else None
        if page_node is not None and not page_node.migrating:
            return frame
        nid = self._state.nid_of(frame.nid)
        while True:
            found = self._walk(frame, nid, prune=True)
            if found is _Walk.RESTART:
                continue
            if found is _Walk.GIVE_UP:
                return None
            assert not isinstance(found, _Walk)
            node, dup, parent, left = found
            break
        if node is None:
            if page_node is None:
                return None
            self._state.reached[Branch.NUMA_SETTLED] += 1
            self._settle(page_node, nid)
            self.tree(nid).insert(page_node, parent, left=left)
            return frame if self.has_room(page_node) else None
        chains = self._state.behaviour.chains != "absent"
        if page_node is not None and frame.mapcount > 1 and chains:
            self._state.reached[Branch.NUMA_JOINED] += 1
            self._join_chain(page_node, node, nid)
            return frame if self.has_room(page_node) else None
        if dup is None or not self.has_room(dup):
            self._state.reached[Branch.FULL] += 1
            return None
        if dup.frame.locked and self._state.behaviour.locked_page_is_busy:
            self._state.reached[Branch.BUSY] += 1
            return Busy.BUSY
        if self._state.nid_of(dup.frame.nid) != dup.nid:
            self._state.reached[Branch.NUMA_TREE_PAGE_MOVED] += 1
            return self._take_the_place_of(dup, node, page_node, frame, nid)
        if page_node is not None:
            self._state.reached[Branch.NUMA_LEFT_ALONE] += 1
        return dup.frame

    def insert(self, frame: Frame) -> StableNode | None:
        """A stable node for a new KSM page; None if there can be none."""
        state = self._state
        nid = state.nid_of(frame.nid)
        while True:
            found = self._walk(frame, nid, prune=False)
            if found is _Walk.RESTART:
                continue
            if found is _Walk.GIVE_UP:
                return None
            assert not isinstance(found, _Walk)
            equal, _dup, parent, left = found
            break
        if equal is not None and state.behaviour.chains == "absent":
            return None
        node = StableNode(frame, nid)
        frame.node = node
        if equal is None:
            self.tree(nid).insert(node, parent, left=left)
        else:
            self._add_dup(self._chain_of(equal), node)
        return node

    def _walk(self, frame: Frame, nid: int, *, prune: bool) -> Walked:
        """Down the tree."""
        content = frame.content
        stale = Branch.STALE_MET_BY_SEARCH if prune else Branch.STALE_MET_BY_INSERT
        node = self.tree(nid).root
        parent: StableTreeNode | None = None
        left = False
        while node is not None:
            dup: StableNode | None
            tree_page: Frame | None
            if type(node) is StableNode:
                dup, tree_page = node, self.get(node, stale)
            else:
                assert isinstance(node, StableChain)
                dup, node, tree_page = self._resolve(node, prune=prune)
            if tree_page is None:
                if self._state.behaviour.stale_node_on_walk == "give_up":
                    return _Walk.GIVE_UP
                return _Walk.RESTART
            assert node is not None
            tree_content = tree_page.content
            if content == tree_content:
                return node, dup, parent, left
            parent = node
            left = content < tree_content
            node = node.left if left else node.right  # type: ignore[assignment]  # of this tree
        return None, None, parent, left

    # Chains.

    def _resolve(
        self, chain: StableChain, *, prune: bool
    ) -> tuple[StableNode | None, StableTreeNode | None, Frame | None]:
        """A chain's (KSM page to use, node now in the tree, page to compare with).

        No page to compare with means that the walk must start again.
        """
        state = self._state
        if prune:
            wait = state.settings.stable_node_chains_prune_millisecs * 1_000_000
            prune = state.clock.now_ns >= chain.prune_time + wait
            if prune:
                chain.prune_time = state.clock.now_ns
                state.reached[Branch.CHAIN_PRUNED] += 1
        if state.behaviour.chains == "longest":
            found, alone = self._longest(chain, prune=prune)
        else:
            found, alone = self._longest_with_room(chain, prune=prune)
        if found is None:
            if not chain.dups:
                state.reached[Branch.CHAIN_ERASED] += 1
                self.tree(chain.nid).erase(chain)
                state.stable_node_chains -= 1
                return None, None, None
            # All are full: any of them serves to go on with the walk.
            return None, chain, self.get(chain.dups[0], Branch.STALE_MET_IN_CHAIN)
        if alone:
            self._collapse(chain, found)
            return found, found, found.frame
        if chain.dups[0] is not found and self.has_room(found, 1):
            state.reached[Branch.CHAIN_REORDERED] += 1
            chain.dups.remove(found)
            chain.dups.insert(0, found)
        return found, chain, found.frame

    def _longest_with_room(
        self, chain: StableChain, *, prune: bool
    ) -> tuple[StableNode | None, bool]:
        """4.13 to 6.10. Only a pruning walk knows whether the page found is the last one."""
        found: StableNode | None = None
        live = 0
        for dup in list(chain.dups):
            if self.get(dup, Branch.STALE_MET_IN_CHAIN) is None:
                continue
            live += 1
            if self.has_room(dup) and (found is None or len(dup.items) > len(found.items)):
                found = dup
                if not prune:
                    break
        return found, prune and live == 1

    def _longest(self, chain: StableChain, *, prune: bool) -> tuple[StableNode | None, bool]:
        """Since 6.11: a full page is found, too, where none has room."""
        found: StableNode | None = None
        for dup in list(chain.dups):
            if self.get(dup, Branch.STALE_MET_IN_CHAIN) is None:
                continue
            better = found is None or (
                self.has_room(dup)
                and (not self.has_room(found) or len(dup.items) > len(found.items))
            )
            if better:
                found = dup
                if not prune and self.has_room(dup):
                    break
        return found, len(chain.dups) == 1

    def _collapse(self, chain: StableChain, last: StableNode) -> None:
        state = self._state
        state.reached[Branch.CHAIN_COLLAPSED] += 1
        chain.dups.remove(last)
        last.chain = None
        self.tree(chain.nid).replace(chain, last)
        state.stable_node_chains -= 1
        state.stable_node_dups -= 1

    def _chain_of(self, node: StableTreeNode) -> StableChain:
        """The chain at a place in the tree, made if there is a single KSM page yet."""
        if isinstance(node, StableChain):
            self._state.reached[Branch.CHAIN_GREW] += 1
            return node
        assert isinstance(node, StableNode)
        state = self._state
        state.reached[Branch.CHAIN_MADE] += 1
        chain = StableChain(node.frame.pfn, node.nid, state.clock.now_ns)
        self.tree(node.nid).replace(node, chain)
        state.stable_node_chains += 1
        self._add_dup(chain, node)
        return chain

    def _add_dup(self, chain: StableChain, node: StableNode) -> None:
        chain.dups.insert(0, node)
        node.chain = chain
        self._state.stable_node_dups += 1

    # NUMA nodes: KSM pages that the kernel has moved.

    def left_its_node(self, node: StableNode) -> None:
        """Put a node aside whose page has moved to another NUMA node."""
        self._state.reached[Branch.NUMA_MIGRATED] += 1
        self._unlink(node)
        node.migrating = True
        self.migrating.insert(0, node)

    def prune_migrating(self) -> None:
        """At a scan's start: forget dead pages among those put aside."""
        for node in list(self.migrating):
            self.get(node, Branch.STALE_MET_BY_SEARCH)

    def _settle(self, node: StableNode, nid: int) -> None:
        self.migrating.remove(node)
        node.migrating = False
        node.nid = nid

    def _join_chain(self, page_node: StableNode, node: StableTreeNode, nid: int) -> None:
        self._settle(page_node, nid)
        self._add_dup(self._chain_of(node), page_node)

    def _take_the_place_of(
        self,
        dup: StableNode,
        node: StableTreeNode,
        page_node: StableNode | None,
        frame: Frame,
        nid: int,
    ) -> Frame | None:
        """The tree's own page has moved away: it is put aside, for ours if we have one."""
        tree = self.tree(nid)
        if page_node is not None:
            self._state.reached[Branch.NUMA_REPLACED] += 1
            self._settle(page_node, nid)
        chain = dup.chain
        if chain is None:
            if page_node is not None:
                tree.replace(node, page_node)
            else:
                tree.erase(node)
        else:
            chain.dups.remove(dup)
            dup.chain = None
            self._state.stable_node_dups -= 1
            if page_node is not None:
                self._add_dup(chain, page_node)
        dup.migrating = True
        self.migrating.insert(0, dup)
        return frame if page_node is not None and self.has_room(page_node) else None

    # Sweeps.

    def sweep(self) -> bool:
        """Remove every stable node, as run=2 and two knobs do; False if one is still mapped."""
        clean = True
        for _nid, tree in sorted(self.trees.items()):
            # One that is still mapped stops its own node's sweep only.
            while tree.root is not None:
                if not self._sweep_place(tree, tree.root):
                    clean = False
                    break
        for node in list(self.migrating):
            clean = self._sweep_node(node) and clean
        return clean

    def _sweep_place(self, tree: RedBlackTree[StableTreeNode], node: StableTreeNode) -> bool:
        if isinstance(node, StableNode):
            return self._sweep_node(node)
        assert isinstance(node, StableChain)
        for dup in list(node.dups):
            if not self._sweep_node(dup):
                return False
        tree.erase(node)
        self._state.stable_node_chains -= 1
        return True

    def _sweep_node(self, node: StableNode) -> bool:
        frame = self.get(node, Branch.STALE_MET_BY_SWEEP)
        if frame is None:
            return True
        if frame.mapcount:
            self._state.reached[Branch.SWEEP_STOPPED] += 1
            return False
        self._state.reached[Branch.SWEEP_FOUND_UNMAPPED] += 1
        frame.node = None
        self.destroy(node)
        return True
