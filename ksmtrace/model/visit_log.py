"""Page visits told step by step, for those who want to watch ksmd think."""

from __future__ import annotations

from typing import NamedTuple

from ksmtrace.model.memory import Frame
from ksmtrace.model.stable_tree import Busy
from ksmtrace.model.structures import RmapItem
from ksmtrace.model.unstable_tree import Twin
from ksmtrace.model.visit import Visit


class VisitRecord(NamedTuple):
    """One page that ksmd looked at: an mm's number, the address, and what it did, in order."""

    mm: int
    address: int
    steps: tuple[str, ...]


class LoggedVisit(Visit):
    """A Visit that keeps a record of every step; what it does is the same."""

    _steps: list[str]
    records: list[VisitRecord]

    def begin_log(self) -> None:
        """To be called once, before the first visit."""
        self.records = []
        self._steps = []
        inner = self.cmp_and_merge_page

        def logged(page: Frame, item: RmapItem) -> None:
            self._steps = []
            inner(page, item)
            if not self._steps:
                self._steps.append("already merged")
            self.records.append(VisitRecord(item.mm.id, item.address, tuple(self._steps)))

        self.cmp_and_merge_page = logged

    def skip(self, item: RmapItem) -> None:
        """See `Visit`."""
        more = item.remaining_skips
        again = f", and {more} times more" if more else ""
        self.records.append(VisitRecord(item.mm.id, item.address, (f"skipped{again}",)))
        super().skip(item)

    def _has_changed(self, page: Frame, item: RmapItem) -> bool:
        first = not item.oldchecksum
        changed = super()._has_changed(page, item)
        if not changed:
            self._steps.append(f"checksum {item.oldchecksum:08x} as before")
        else:
            why = "noted at first sight" if first else "is another: the page changed"
            self._steps.append(f"checksum {item.oldchecksum:08x} {why}; wait")
        return changed

    def _search_stable_tree(self, page: Frame) -> Frame | Busy | None:
        found = super()._search_stable_tree(page)
        if found is page:
            words = "is a KSM page itself"
        elif found is Busy.BUSY:
            words = "stable tree: equal page, but locked"
        else:
            words = (
                "stable tree: equal page" if found is not None else "stable tree: none with room"
            )
            if found is None and not self.stable.tree(self._state.nid_of(page.nid)).root:
                words = "stable tree: empty"
        self._steps.append(words)
        return found

    def _search_unstable_tree(self, page: Frame, item: RmapItem) -> Twin | None:
        twin = super()._search_unstable_tree(page, item)
        if twin is not None:
            self._steps.append("unstable tree: twin")
        elif item.tree is not None:
            self._steps.append("unstable tree: none equal; put in")
        else:
            self._steps.append("unstable tree: the way is blocked")
        return twin

    def _went_to_the_zero_page(self, page: Frame, item: RmapItem) -> bool:
        went = super()._went_to_the_zero_page(page, item)
        if went:
            self._steps.append("full of zeroes: mapped to the zero page")
        return went

    def _merge_with_ksm_page(
        self, item: RmapItem, page: Frame, ksm_page: Frame | None, held: Frame | None = None
    ) -> int:
        err = super()._merge_with_ksm_page(item, page, ksm_page, held)
        what = "become a KSM page" if ksm_page is None else "merge"
        self._steps.append(f"{what}: {'failed' if err else 'done'}")
        return err

    def remove_from_trees(self, item: RmapItem) -> None:
        """See `Visit`."""
        if item.head is not None:
            self._steps.append("no longer on its KSM page")
        super().remove_from_trees(item)
