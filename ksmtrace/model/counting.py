"""Counting what a scanner does, beside the algorithm: each class adds to `Work` what its base does.

Tree walks are counted where they look at a node's page, so a walk that starts again counts twice.
"""

from __future__ import annotations

from ksmtrace.model.branches import Branch
from ksmtrace.model.content import PAGE_SIZE, compared_bytes
from ksmtrace.model.memory import Frame
from ksmtrace.model.merging import Merging
from ksmtrace.model.stable_tree import StableTrees, Walked
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem, StableChain, StableNode, StableTreeNode
from ksmtrace.model.unstable_tree import Twin, UnstableTrees
from ksmtrace.model.visit import Visit
from ksmtrace.model.work import WARM_LEVELS, Work

_WALKS = (Branch.STALE_MET_BY_SEARCH, Branch.STALE_MET_BY_INSERT)


class CountedVisit(Visit):
    """A Visit that counts its work; what it does is the same."""

    def __init__(self, state: State, work: Work) -> None:
        super().__init__(state)
        self._work = work
        self.merging = _CountedMerging(state, work)
        self.stable = _CountedStableTrees(state, work)
        self.unstable = _CountedUnstableTrees(state, self.merging, work)
        jhash2 = state.behaviour.checksum == "jhash2"
        self._hashed = "jhash2_bytes" if jhash2 else "xxhash_bytes"
        inner = self.cmp_and_merge_page

        def counted(page: Frame, item: RmapItem) -> None:
            work.visits += 1
            inner(page, item)

        self.cmp_and_merge_page = counted

    def pass_zero_page(self) -> None:
        """See `Visit`."""
        self._work.absent += 1

    def skip(self, item: RmapItem) -> None:
        """See `Visit`."""
        self._work.skipped += 1
        super().skip(item)

    def _has_changed(self, page: Frame, item: RmapItem) -> bool:
        setattr(self._work, self._hashed, getattr(self._work, self._hashed) + PAGE_SIZE)
        return super()._has_changed(page, item)


class _CountedMerging(Merging):
    def __init__(self, state: State, work: Work) -> None:
        super().__init__(state)
        self._work = work

    def merge_one_page(
        self, item: RmapItem, page: Frame, onto: Frame | None, held: Frame | None = None
    ) -> int:
        err = super().merge_one_page(item, page, onto, held)
        if onto is None:
            self._work.ksm_pages += not err
        elif onto is not page:
            self._work.merges += not err
            if not err or page.content != onto.content:
                self._work.compared_bytes += compared_bytes(page.content, onto.content)
        return err

    def attempt(
        self, item: RmapItem, page: Frame, onto: Frame | None, held: Frame | None = None
    ) -> int:
        err = super().attempt(item, page, onto, held)
        self._work.failed += bool(err)
        return err

    def merge_with_zero_page(self, item: RmapItem, page: Frame) -> int:
        err = super().merge_with_zero_page(item, page)
        self._work.failed += bool(err)
        return err


class _CountedStableTrees(StableTrees):
    def __init__(self, state: State, work: Work) -> None:
        super().__init__(state)
        self._work = work
        self._walker: Frame | None = None
        self._depth = 0

    def _walk(self, frame: Frame, nid: int, *, prune: bool) -> Walked:
        self._walker = frame
        self._depth = 0
        found = super()._walk(frame, nid, prune=prune)
        self._walker = None
        return found

    def _meet(self, page: Frame | None) -> None:
        if page is not None and self._walker is not None:
            self._depth += 1
            self._work.stable_levels += 1
            self._work.cold_levels += self._depth > WARM_LEVELS
            self._work.compared_bytes += compared_bytes(self._walker.content, page.content)

    def get(self, node: StableNode, where: Branch) -> Frame | None:
        page = super().get(node, where)
        if where in _WALKS:
            self._meet(page)
        return page

    def _resolve(
        self, chain: StableChain, *, prune: bool
    ) -> tuple[StableNode | None, StableTreeNode | None, Frame | None]:
        found = super()._resolve(chain, prune=prune)
        self._meet(found[2])
        return found


class _CountedUnstableTrees(UnstableTrees):
    def __init__(self, state: State, merging: Merging, work: Work) -> None:
        super().__init__(state, merging)
        self._work = work
        self._walker: Frame | None = None
        self._depth = 0

    def search_or_insert(self, page: Frame, item: RmapItem) -> Twin | None:
        self._walker = page
        self._depth = 0
        return super().search_or_insert(page, item)

    def _page_of(self, item: RmapItem) -> Frame | None:
        page = super()._page_of(item)
        if page is not None:
            self._depth += 1
            self._work.unstable_levels += 1
            self._work.cold_levels += self._depth > WARM_LEVELS
            if page is not self._walker:
                assert self._walker is not None
                self._work.compared_bytes += compared_bytes(self._walker.content, page.content)
        return page
