"""What KSM would save, from digests: pure.

Reckoned as ksmd does it (mm/ksm.c, 6.12): k pages of one content that held still become one KSM
page for every max_page_sharing of them, and a last one alone stays unmerged; either way one page
is saved for each but the first of a KSM page. Zero-filled pages are all saved where use_zero_pages
is set. What is counted as saved is what the kernel counts: mappings, also of pages that fork
shared already, if there is another page that holds the same. Where all mappings are of one page,
ksmd finds no twin for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.estimate.grouping import (
    Contents,
    Counts,
    by_content,
    distinct,
    many_contents,
    one_content,
    pages_by_region,
)
from ksmtrace.inspect.estimate.sample import (
    IS_HUGE,
    MemorySample,
    SampledProcess,
    SampledRegion,
    Tally,
)
from ksmtrace.processes.memory import ZERO_DIGEST

Numbers = npt.NDArray[np.float64]
_SIGMAS = 1.96
"""Of a normal distribution 95 % lie within."""


@dataclass(frozen=True)
class Terms:
    """What the host does. max_page_sharing: None: no limit. rmap_item_bytes: None: not known.

    splits_off_zeroes: splitting a huge page maps its zero-filled pages to the zero page (6.12),
    which no counter of KSM tells.
    """

    use_zero_pages: bool
    max_page_sharing: int | None
    rmap_item_bytes: int | None
    page_bytes: int
    splits_off_zeroes: bool = False


@dataclass
class RegionSavings:
    """One region. pages: candidates. saved: its share of pages saved. changed: pages that moved.

    zero: zero-filled pages.
    """

    region: SampledRegion
    pages: int
    saved: float
    changed: float
    zero: int


@dataclass
class ProcessSavings:
    """One process. alone: pages saved if only this process were registered.

    already: saved in it now, by ksm_stat (merging pages count KSM pages themselves too).
    """

    process: SampledProcess
    tally: Tally
    pages: int
    saved: float
    alone: float
    changed: float
    zero: int
    regions: list[RegionSavings]


@dataclass
class Savings:
    """All together, in pages unless the name says bytes.

    saved: as the kernel would count (pages_sharing + ksm_zero_pages). low, high: its 95 %
    confidence interval where contents were sampled; equal to saved where all were read. within:
    saved if each process were merged only with itself. ksm_pages: KSM pages there would be.
    freed: frames that would really become free; None where frames are hidden. zero: zero-filled
    candidates; split_off: those among them that leave when ksmd splits their huge pages, and are
    freed but not counted as saved. placed_zero: zero pages that ksmd has placed already, part of
    saved. changed: candidates that would not merge.
    """

    terms: Terms
    candidates: int
    saved: float
    low: float
    high: float
    within: float
    zero: int
    split_off: int
    placed_zero: int
    ksm_pages: float
    freed: float | None
    changed: float
    processes: list[ProcessSavings] = field(default_factory=list)

    @property
    def across(self) -> float:
        """Saved only because processes are merged with each other."""
        return self.saved - self.within

    @property
    def bytes_saved(self) -> float:
        """Saved, in bytes."""
        return self.saved * self.terms.page_bytes

    @property
    def rmap_bytes(self) -> int | None:
        """Memory of the rmap_items: one for every page that ksmd goes on looking at.

        Mappings of the zero page lose theirs at the next scan.
        """
        size = self.terms.rmap_item_bytes
        gone = self.zero if self.terms.use_zero_pages else self.split_off
        return None if size is None else size * (self.candidates - gone)

    @property
    def net_profit_bytes(self) -> float | None:
        """As general_profit: saved less the memory of rmap_items."""
        return None if self.rmap_bytes is None else self.bytes_saved - self.rmap_bytes


def reckon(sample: MemorySample, terms: Terms) -> Savings:
    """What merging everything that was sampled would save."""
    reckoner = _Reckoner(sample, terms)
    for order in by_content(sample.digests):
        reckoner.take(order)
    return reckoner.result()


def pages_saved(pages: Counts, limit: int | None) -> Counts:
    """How many of so many equal pages KSM saves."""
    if limit is None:
        return np.maximum(pages - 1, 0)
    return pages - -(-pages // limit)


def ksm_pages_of(pages: Counts, limit: int | None) -> Counts:
    """How many KSM pages so many equal pages become; one alone stays as it is."""
    if limit is None:
        return np.minimum(pages // 2, 1)
    return pages // limit + (pages % limit > 1)


class _Reckoner:
    def __init__(self, sample: MemorySample, terms: Terms) -> None:
        self._sample = sample
        self._terms = terms
        self._owner = np.array([r.process for r in sample.regions], np.int64)
        self._region_saved = np.zeros(len(sample.regions))
        self._region_zero = np.zeros(len(sample.regions), np.int64)
        self._alone = np.zeros(len(sample.processes))
        self._saved = self._seen = self._ksm_pages = self._freed = self._variance = 0.0
        self._saving_contents = self._split_off = 0

    def take(self, order: Counts) -> None:
        """Reckon with some contents, all pages of each."""
        first, last = self._sample.digests[order[[0, -1]]]
        if first == last:
            order = self._without_split_off(order)
            if len(order):
                self._reckon(one_content(self._sample, order))
            return
        digests = self._sample.digests[order]
        begin, end = np.searchsorted(digests, np.uint64(ZERO_DIGEST) + np.array([0, 1], np.uint64))
        if begin < end:
            self.take(order[begin:end])
            order, digests = (
                np.delete(order, np.s_[begin:end]),
                np.delete(digests, np.s_[begin:end]),
            )
        self._reckon(many_contents(self._sample, order, digests))

    def _without_split_off(self, order: Counts) -> Counts:
        """Pages of one content, less those that splitting a huge page maps to the zero page."""
        sample = self._sample
        if sample.digests[order[0]] != np.uint64(ZERO_DIGEST):
            return order
        self._region_zero += pages_by_region(sample, order)
        # One that is alone gives ksmd no reason to split anything.
        if not self._terms.splits_off_zeroes or not (self._terms.use_zero_pages or len(order) > 1):
            return order
        leaving = (sample.kinds[order] & IS_HUGE) != 0
        if not leaving.any():
            return order
        self._split_off += int(leaving.sum())
        if sample.frames is not None:
            self._freed += distinct(sample.frames[order[leaving]])
        stay: Counts = order[~leaving]
        return stay

    def _reckon(self, contents: Contents) -> None:
        sizes = contents.sizes
        # A content other than zero stands for all those that were not sampled.
        weight = np.where(contents.is_zero, 1.0, 1 / self._sample.fraction)
        to_zero_page = contents.is_zero & self._terms.use_zero_pages
        limit = self._terms.max_page_sharing
        has_twin = (
            np.ones(len(sizes), np.bool_)
            if contents.frames is None
            else (contents.frames > 1) | contents.merged_now
        )
        merged = np.where(has_twin, pages_saved(sizes, limit), 0)
        saved = np.where(to_zero_page, sizes, merged)
        ksm_pages = np.where(to_zero_page | ~has_twin, 0, ksm_pages_of(sizes, limit))
        self._saved += float((saved * weight).sum())
        self._seen += float(saved.sum())
        self._saving_contents += int((saved[weight > 1] > 0).sum())
        self._ksm_pages += float((ksm_pages * weight).sum())
        self._variance += float((saved.astype(float) ** 2 * weight * (weight - 1)).sum())
        if contents.frames is not None:
            freed = np.maximum(contents.frames - (sizes - saved), 0)
            self._freed += float((np.where(saved > 0, freed, 0) * weight).sum())
        share = (saved * weight / sizes)[contents.of_content] * contents.pages
        count = len(self._sample.regions)
        self._region_saved += np.bincount(contents.of_region, weights=share, minlength=count)
        self._take_alone(contents, to_zero_page, weight)

    def _take_alone(
        self, contents: Contents, to_zero_page: npt.NDArray[np.bool_], weight: Numbers
    ) -> None:
        """What each process would save merged only with itself."""
        processes = len(self._alone)
        key = contents.of_content * processes + self._owner[contents.of_region]
        pairs, where = np.unique(key, return_inverse=True)
        pages = np.bincount(where, weights=contents.pages).astype(np.int64)
        content, process = pairs // processes, pairs % processes
        merged = pages_saved(pages, self._terms.max_page_sharing)
        saved = np.where(to_zero_page[content], pages, merged) * weight[content]
        self._alone += np.bincount(process, weights=saved, minlength=processes)

    def _half_interval(self) -> float:
        """How far the truth may lie away, 95 of 100 times.

        As if one content more had been seen to save as much as the others do: having seen few of
        them, or none, is no certainty.
        """
        weight = 1 / self._sample.fraction
        if weight <= 1:
            return 0.0
        typical = max(self._variance / (weight * (weight - 1)) / max(self._saving_contents, 1), 1.0)
        return float(_SIGMAS * (self._variance + typical * weight * (weight - 1)) ** 0.5)

    def result(self) -> Savings:
        """All that was taken, put together."""
        sample = self._sample
        placed = sum(self._placed(process) for process in sample.processes)
        off = self._half_interval()
        # A changed page of the sample stands for as many others as any.
        scale = 1 / sample.fraction
        changed = sum(region.changed for region in sample.regions) * scale
        return Savings(
            terms=self._terms,
            candidates=sample.tally().candidates,
            saved=self._saved + placed,
            low=max(self._saved - off, self._seen) + placed,
            high=self._saved + off + placed,
            within=float(self._alone.sum()) + placed,
            zero=int(self._region_zero.sum()),
            split_off=self._split_off,
            placed_zero=placed,
            ksm_pages=self._ksm_pages,
            freed=None if sample.frames is None else self._freed,
            changed=changed,
            processes=[self._process(number, scale) for number in range(len(sample.processes))],
        )

    def _placed(self, process: SampledProcess) -> int:
        # Where frames are hidden, pages that ksmd has placed were read as pages full of zeroes.
        return 0 if self._sample.frames is None else process.ksm_zero_pages or 0

    def _process(self, number: int, scale: float) -> ProcessSavings:
        process = self._sample.processes[number]
        tally = Tally()
        regions = []
        for position in np.flatnonzero(self._owner == number).tolist():
            region = self._sample.regions[position]
            tally.add(region.tally)
            regions.append(
                RegionSavings(
                    region=region,
                    pages=region.tally.candidates,
                    saved=float(self._region_saved[position]),
                    changed=region.changed * scale,
                    zero=int(self._region_zero[position]),
                )
            )
        placed = self._placed(process)
        return ProcessSavings(
            process=process,
            tally=tally,
            pages=tally.candidates,
            saved=sum(region.saved for region in regions) + placed,
            alone=float(self._alone[number]) + placed,
            changed=sum(region.changed for region in regions),
            zero=sum(region.zero for region in regions),
            regions=regions,
        )
