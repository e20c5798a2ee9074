"""Which merge events are merges: attachments that stood, apart from failures and inheritance.

A new KSM page is two events, and the first is undone without a word if the second fails. A page
that a fork already shared is reported like a merge. Both are told apart here, once for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EventBatch, empty, of_kind
from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_MERGE_WITH_KSM_PAGE,
    MAPCOUNT_SHIFT,
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassifiedMerges:
    """ksm_merge_with_ksm_page events and what became of each; masks are of the same length.

    stood: attached to a KSM page, inheritances among them. failed: err < 0. undone: the first half
    of a pair whose second half failed. created: a new KSM page, a first half that stood.
    inherited: a fork already shared the page. untold: it can't be told whether it is inherited.
    """

    events: EventBatch
    stood: Mask
    failed: Mask
    undone: Mask
    created: Mask
    inherited: Mask
    untold: Mask


class MergeClassifier:
    """Classifies a stream batch by batch; any batching gives the same.

    first_sight_known: the source says `first_sight` and `mapcount`, and ksmd compares checksums
    before it searches (6.11), so that a page attached at first sight can only be inherited.
    preexisting: KSM frames of before the recording, sorted; None if that is not known.
    """

    def __init__(
        self, *, first_sight_known: bool, preexisting: npt.NDArray[np.uint64] | None
    ) -> None:
        self._first_sight_known = first_sight_known
        self._preexisting = preexisting
        self._held = empty()
        # KSM pages made of a frame that a fork shared: last mapcount seen, by pfn.
        self._shared_births: dict[int, int] = {}

    def feed(self, batch: EventBatch) -> ClassifiedMerges:
        """Classify a batch's merge events. One that may still be undone is held back."""
        merges = np.concatenate((self._held, batch[of_kind(batch, KSM_MERGE_WITH_KSM_PAGE)]))
        open_end = len(merges) > 0 and bool(_first_half(merges[-1:])[0])
        self._held = merges[-1:] if open_end else empty()
        return (
            self._classify(merges[:-1], merges[1:])
            if open_end
            else self._classify(merges, merges[1:])
        )

    def finish(self) -> ClassifiedMerges:
        """What was held back; without a second half it counts as having stood."""
        held, self._held = self._held, empty()
        return self._classify(held, empty())

    def _classify(self, merges: EventBatch, following: EventBatch) -> ClassifiedMerges:
        count = len(merges)
        first = _first_half(merges)
        partner = np.zeros(count, bool)
        n = min(count, len(following))
        later = following[:n]
        partner[:n] = (
            first[:n] & ((later["arg"] & INTO_EXISTING) != 0) & (later["pfn"] == merges["pfn"][:n])
        )
        undone = np.zeros(count, bool)
        undone[:n] = partner[:n] & (later["err"] < 0)
        failed: Mask = merges["err"] < 0
        stood = ~failed & ~undone
        # The second half of a pair maps a frame of its own: never inherited.
        second = np.concatenate(([False], partner[:-1])) if count else partner
        inherited, untold = self._inheritance(merges, stood & ~first, second)
        return ClassifiedMerges(merges, stood, failed, undone, stood & first, inherited, untold)

    def _inheritance(self, merges: EventBatch, attached: Mask, second: Mask) -> tuple[Mask, Mask]:
        nothing = np.zeros(len(merges), bool)
        joined = attached & ~second
        if not self._first_sight_known:
            return nothing, joined
        inherited = joined & ((merges["arg"] & FIRST_SIGHT) != 0)
        open_question = joined & ~inherited
        if self._preexisting is None:
            untold = open_question
        else:
            untold = open_question & np.isin(merges["pfn"], self._preexisting)
        self._shared_before(merges, attached, second, open_question & ~untold, inherited, untold)
        return inherited, untold

    def _shared_before(
        self,
        merges: EventBatch,
        attached: Mask,
        second: Mask,
        open_question: Mask,
        inherited: Mask,
        untold: Mask,
    ) -> None:
        """Settle the pages whose frame was shared by fork when it became a KSM page.

        Their other mappings are attached later without being new ones: the mapcount stays.
        """
        mapcount = merges["arg"] >> MAPCOUNT_SHIFT
        shared_birth = second & attached & (mapcount > 2)
        if not self._shared_births and not shared_birth.any():
            return
        known = np.fromiter(self._shared_births, np.uint64, len(self._shared_births))
        concerned = np.union1d(known, merges["pfn"][shared_birth])
        for row in np.flatnonzero(attached & np.isin(merges["pfn"], concerned)).tolist():
            pfn, now = int(merges["pfn"][row]), int(mapcount[row])
            if second[row]:
                self._shared_births.pop(pfn, None)
                if shared_birth[row]:
                    self._shared_births[pfn] = now
                continue
            before = self._shared_births.get(pfn)
            if before is None:
                continue
            if open_question[row]:
                inherited[row] = now == before
                untold[row] = now not in (before, before + 1)
            self._shared_births[pfn] = now


def _first_half(merges: EventBatch) -> Mask:
    """Successful events that turn the scanned page itself into a KSM page."""
    mask: Mask = (merges["err"] == 0) & ((merges["arg"] & INTO_EXISTING) == 0)
    return mask
