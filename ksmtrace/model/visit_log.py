"""Page visits told step by step, for those who want to watch ksmd think."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ksmtrace.model.branches import Branch
from ksmtrace.model.decisions import Decision, Rule
from ksmtrace.model.memory import Frame
from ksmtrace.model.scene import content_at, key_of, way_down
from ksmtrace.model.stable_tree import Busy
from ksmtrace.model.structures import RmapItem
from ksmtrace.model.unstable_tree import Twin
from ksmtrace.model.visit import Visit


class VisitRecord(NamedTuple):
    """One page that ksmd looked at: an mm's number, the address, and what it did, in order."""

    mm: int
    address: int
    steps: tuple[Decision, ...]


class LoggedVisit(Visit):
    """A Visit that keeps a record of every step; what it does is the same.

    watch: called with each record when its visit is over, while the scan goes on; then none is
    kept. idle: nobody looks closely, so records have no steps.
    """

    idle = False

    _steps: list[Decision]
    records: list[VisitRecord]
    watch: Callable[[VisitRecord], None] | None = None

    def begin_log(self) -> None:
        """To be called once, before the first visit."""
        self.records = []
        self._steps = []
        inner = self.cmp_and_merge_page

        def logged(page: Frame, item: RmapItem) -> None:
            if self.idle:
                inner(page, item)
                self._pass(item)
                return
            self._steps = []
            inner(page, item)
            if not self._steps:
                self._tell(Rule.ALREADY_MERGED, "already merged")
            self._keep(item)

        self.cmp_and_merge_page = logged

    def skip(self, item: RmapItem) -> None:
        """See `Visit`."""
        if self.idle:
            super().skip(item)
            self._pass(item)
            return
        more = item.remaining_skips
        again = f", and {more} times more" if more else ""
        self._steps = [Decision(Rule.SKIPPED, f"skipped{again}")]
        super().skip(item)
        self._keep(item)

    def _keep(self, item: RmapItem) -> None:
        record = VisitRecord(item.mm.id, item.address, tuple(self._steps))
        if self.watch is None:
            self.records.append(record)
        else:
            self.watch(record)

    def _pass(self, item: RmapItem) -> None:
        assert self.watch is not None, "only who watches can look away"
        self.watch(VisitRecord(item.mm.id, item.address, ()))

    def _tell(self, rule: Rule, words: str, tree: str = "", path: tuple[str, ...] = ()) -> None:
        self._steps.append(Decision(rule, words, tree, path))

    def _has_changed(self, page: Frame, item: RmapItem) -> bool:
        first = not item.oldchecksum
        changed = super()._has_changed(page, item)
        if self.idle:
            return changed
        checksum = f"checksum {item.oldchecksum:08x}"
        if not changed:
            self._tell(Rule.UNCHANGED, f"{checksum} as before")
        elif first:
            self._tell(Rule.FIRST_SIGHT, f"{checksum} noted at first sight; wait")
        else:
            self._tell(Rule.CHANGED, f"{checksum} is another: the page changed; wait")
        return changed

    def _search_stable_tree(self, page: Frame) -> Frame | Busy | None:
        if self.idle:
            return super()._search_stable_tree(page)
        root = self.stable.tree(self._state.nid_of(page.nid)).root
        way = list(way_down(root, page.content))
        path = tuple(key_of(node) for node in way)
        full = bool(way) and content_at(way[-1]) == page.content
        found = super()._search_stable_tree(page)
        if found is page:
            self._tell(Rule.STABLE_ITSELF, "is a KSM page itself")
        elif found is Busy.BUSY:
            self._tell(Rule.STABLE_BUSY, "stable tree: equal page, but locked", "stable", path)
        elif found is not None:
            self._tell(Rule.STABLE_EQUAL, "stable tree: equal page", "stable", path)
        else:
            words = "none equal" if root else "empty"
            words = f"stable tree: {'equal page, but full or dead' if full else words}"
            self._tell(Rule.STABLE_NONE, words, "stable", path)
        return found

    def _search_unstable_tree(self, page: Frame, item: RmapItem) -> Twin | None:
        if self.idle:
            return super()._search_unstable_tree(page, item)
        root = self.unstable.tree(self._state.nid_of(page.nid)).root
        path = tuple(key_of(node) for node in way_down(root, page.content))
        twin = super()._search_unstable_tree(page, item)
        if twin is not None:
            self._tell(Rule.UNSTABLE_TWIN, "unstable tree: twin", "unstable", path)
        elif item.tree is not None:
            words = "unstable tree: none equal; put in"
            self._tell(Rule.UNSTABLE_INSERTED, words, "unstable", path)
        else:
            words = "unstable tree: the way is blocked"
            self._tell(Rule.UNSTABLE_BLOCKED, words, "unstable", path)
        return twin

    def _went_to_the_zero_page(self, page: Frame, item: RmapItem) -> bool:
        failed = self._state.reached[Branch.ZERO_FAILED]
        went = super()._went_to_the_zero_page(page, item)
        if self.idle:
            return went
        if item.mm.pages.get(item.address) is self._state.memory.zero_frame:
            self._tell(Rule.ZERO_PAGE, "full of zeroes: mapped to the zero page")
        elif went:
            self._tell(Rule.FAILED, "full of zeroes, but its region is not mergeable any more")
        elif self._state.reached[Branch.ZERO_FAILED] != failed:
            self._tell(Rule.FAILED, "map to the zero page: failed")
        return went

    def _merge_with_ksm_page(
        self, item: RmapItem, page: Frame, ksm_page: Frame | None, held: Frame | None = None
    ) -> int:
        err = super()._merge_with_ksm_page(item, page, ksm_page, held)
        what = "become a KSM page" if ksm_page is None else "merge"
        rule = Rule.BECAME_KSM_PAGE if ksm_page is None else Rule.MERGED
        self._tell(Rule.FAILED if err else rule, f"{what}: {'failed' if err else 'done'}")
        return err

    def remove_from_trees(self, item: RmapItem) -> None:
        """See `Visit`."""
        if item.head is not None:
            self._tell(Rule.LEFT_KSM_PAGE, "no longer on its KSM page")
        super().remove_from_trees(item)
