"""What ksmd does with one page: cmp_and_merge_page (mm/ksm.c).

Three orders of the same steps have existed; each is a method here that reads like its description
(docs/model.md#visit), and a release names the one it has.
"""

from __future__ import annotations

from collections.abc import Callable

from ksmtrace.model.branches import Branch
from ksmtrace.model.content import CHECKSUMS, ZERO
from ksmtrace.model.memory import Frame
from ksmtrace.model.merging import Merging
from ksmtrace.model.stable_tree import Busy, StableTrees
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem, StableNode
from ksmtrace.model.unstable_tree import Twin, UnstableTrees


class Visit:
    """Both trees, and what happens when a page is held against them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._checksum_function = CHECKSUMS[state.behaviour.checksum]
        self._checksums: dict[bytes, int] = {}
        self._zero_checksum = self._checksum_function(ZERO)
        self.merging = Merging(state)
        self.stable = StableTrees(state)
        self.unstable = UnstableTrees(state, self.merging)
        orders: dict[str, Callable[[Frame, RmapItem], None]] = {
            "checksum_first": self._checksum_first,
            "stable_first": self._stable_first,
            "own_item_first": self._own_item_first,
        }
        self.cmp_and_merge_page = orders[state.behaviour.visit_order]

    def _checksum_first(self, page: Frame, item: RmapItem) -> None:
        """Since 6.11 (d58a361b0350): a page that just changed is not searched for."""
        stable_node = self._stable_node_of(page)
        if stable_node is not None:
            if self._is_settled(item, stable_node):
                return
        else:
            self.remove_from_trees(item)
            if self._has_changed(page, item):
                return
            if self._went_to_the_zero_page(page, item):
                return
        ksm_page = self._search_stable_tree(page)
        if ksm_page is page and stable_node is not None and item.head is stable_node:
            return
        self.remove_from_trees(item)
        if ksm_page is Busy.BUSY:
            return
        if ksm_page is not None:
            self._join(page, item, ksm_page)
            return
        self._find_twin(page, item)

    def _stable_first(self, page: Frame, item: RmapItem) -> None:
        """3.9 to 6.10: the stable tree is searched before anything else."""
        stable_node = self._stable_node_of(page)
        if stable_node is not None and self._is_settled(item, stable_node):
            return
        ksm_page = self._search_stable_tree(page)
        if ksm_page is page and stable_node is not None and item.head is stable_node:
            return
        self.remove_from_trees(item)
        if ksm_page is Busy.BUSY:
            return
        if ksm_page is not None:
            self._join(page, item, ksm_page)
            return
        if self._has_changed(page, item):
            return
        if self._went_to_the_zero_page(page, item):
            return
        self._find_twin(page, item)

    def _own_item_first(self, page: Frame, item: RmapItem) -> None:
        """2.6.38 to 3.8: a merged page is left alone, whatever KSM page it is on."""
        if page.ksm and item.head is not None:
            self._state.reached[Branch.ALREADY_MERGED] += 1
            return
        self.remove_from_trees(item)
        ksm_page = self._search_stable_tree(page)
        assert ksm_page is not Busy.BUSY, "no kernel of that age gives up on a locked page"
        if ksm_page is not None:
            self._join(page, item, ksm_page)
            return
        if self._has_changed(page, item):
            return
        self._find_twin(page, item)

    # What is no visit.

    def skip(self, item: RmapItem) -> None:
        """Smart scan leaves a page out."""
        self.remove_from_trees(item)

    def pass_zero_page(self) -> None:
        """The cursor passes a page that is mapped to the zero page."""

    # The steps.

    def _stable_node_of(self, page: Frame) -> StableNode | None:
        if not page.ksm:
            return None
        node = page.node
        if node is None:
            self._state.reached[Branch.ORPHAN] += 1
            return None
        assert isinstance(node, StableNode)
        return node

    def _is_settled(self, item: RmapItem, node: StableNode) -> bool:
        """Whether the page is merged already, and its item is counted there."""
        state = self._state
        if not node.migrating and state.nid_of(node.frame.nid) != node.nid:
            self.stable.left_its_node(node)
        if item.head is node and not node.migrating:
            state.reached[Branch.ALREADY_MERGED] += 1
            return True
        return False

    def _has_changed(self, page: Frame, item: RmapItem) -> bool:
        """Whether this is the first sight of the content; then it must stay for another scan."""
        content = page.content
        checksum = self._checksums.get(content)
        if checksum is None:
            checksum = self._checksums[content] = self._checksum_function(content)
        if item.oldchecksum == checksum:
            return False
        item.oldchecksum = checksum
        self._state.reached[Branch.VOLATILE] += 1
        return True

    def _went_to_the_zero_page(self, page: Frame, item: RmapItem) -> bool:
        """use_zero_pages (4.11): a page full of zeroes is mapped to the zero page instead."""
        state = self._state
        if (
            not state.settings.use_zero_pages
            or state.behaviour.zero_pages == "absent"
            or item.oldchecksum != self._zero_checksum
        ):
            return False
        if self.merging.mergeable_vma(item) is None:
            state.reached[Branch.ZERO_NOT_MERGEABLE] += 1
            return True
        err = self.merging.merge_with_zero_page(item, page)
        state.stream.merge_one_page(state.memory.zero_frame, item, err)
        state.reached[Branch.ZERO_FAILED if err else Branch.ZERO_MERGED] += 1
        return err == 0

    def _search_stable_tree(self, page: Frame) -> Frame | Busy | None:
        return self.stable.search(page)

    def _search_unstable_tree(self, page: Frame, item: RmapItem) -> Twin | None:
        return self.unstable.search_or_insert(page, item)

    def _join(self, page: Frame, item: RmapItem, ksm_page: Frame) -> None:
        """Map the page onto an existing KSM page; if that fails it waits for the next visit."""
        reached = self._state.reached
        inherited = ksm_page is page
        if self._merge_with_ksm_page(item, page, ksm_page):
            reached[Branch.INTO_EXISTING_FAILED] += 1
            return
        node = ksm_page.node
        assert isinstance(node, StableNode)
        reached[Branch.INHERITED if inherited else Branch.MERGED_INTO_EXISTING] += 1
        limit = self._state.settings.max_page_sharing
        if self._state.behaviour.chains != "absent" and len(node.items) >= limit:
            reached[Branch.OVER_LIMIT] += 1
        self.stable.append(item, node)

    def _find_twin(self, page: Frame, item: RmapItem) -> None:
        """Look for a twin in the unstable tree; two pages with one content become a KSM page."""
        twin = self._search_unstable_tree(page, item)
        if twin is None:
            return
        both_of = page.huge if page.huge is not None and page.huge is twin.page.huge else None
        if self._merge_two_pages(page, item, twin):
            node = self.stable.insert(page)
            if node is None:
                self.merging.break_cow(twin.item)
                self.merging.break_cow(item)
                return
            self._state.reached[Branch.NEW_KSM_PAGE] += 1
            self.stable.append(twin.item, node)
            self.stable.append(item, node)
        elif both_of is not None and self._state.behaviour.same_huge_page_splits:
            # The twin's reference, which made the first try fail, is dropped by now.
            self.merging.split(both_of)

    def _merge_two_pages(self, page: Frame, item: RmapItem, twin: Twin) -> bool:
        """Turn the visited page into a KSM page and map its twin onto it."""
        reached = self._state.reached
        if self._merge_with_ksm_page(item, page, None, held=twin.page):
            reached[Branch.FIRST_HALF_FAILED] += 1
            return False
        if self._merge_with_ksm_page(twin.item, twin.page, page):
            reached[Branch.HALF_MERGE_UNDONE] += 1
            self.merging.break_cow(item)
            return False
        return True

    def _merge_with_ksm_page(
        self, item: RmapItem, page: Frame, ksm_page: Frame | None, held: Frame | None = None
    ) -> int:
        """One attempt, with its event (try_to_merge_with_ksm_page). Returns 0 or FAILED."""
        err = self.merging.attempt(item, page, ksm_page, held)
        if err == 0:
            self.remove_from_trees(item)
        pfn = page.pfn if ksm_page is None else ksm_page.pfn
        self._state.stream.merge_with_ksm_page(ksm_page, pfn, item, err)
        return err

    def remove_from_trees(self, item: RmapItem) -> None:
        """Take an rmap_item out of whichever tree it is in."""
        if item.head is not None:
            self.stable.detach(item)
        elif item.tree is not None:
            self.unstable.remove(item)
