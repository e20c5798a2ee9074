from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.sampled import digest_of, made_up, sample_of

from ksmtrace.inspect.estimate import grouping
from ksmtrace.inspect.estimate.part import is_sampled
from ksmtrace.inspect.estimate.sample import MemorySample
from ksmtrace.inspect.estimate.savings import Savings, Terms, ksm_pages_of, pages_saved, reckon
from ksmtrace.model import KsmScanner, Memory
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import HUGE_PAGES

HEAP, HUGE = 0x1000_0000_0000, 0x2000_0000_0000
TERMS = Terms(False, 256, 64, 4096)


@dataclass
class Host:
    """processes: contents of each one's pages. forked: which are forked then, before ksmd runs."""

    processes: list[list[int]]
    forked: list[int]
    rewritten: list[int]


def content(number: int) -> bytes:
    return b"" if number == 0 else b"content %d" % number


def memory_of(host: Host, zero_pages: int, limit: int) -> tuple[Memory, KsmScanner]:
    memory = Memory()
    knobs = {
        "smart_scan": 0,
        "use_zero_pages": zero_pages,
        "max_page_sharing": limit,
        "pages_to_scan": 1 << 20,
    }
    scanner = KsmScanner(memory, kernel="6.18.2", knobs=knobs)
    for number, pages in enumerate(host.processes):
        mm = memory.spawn(2 + number)
        if pages:
            memory.map(mm, HEAP, len(pages))
            memory.madvise_mergeable(mm, HEAP, HEAP + len(pages) * PAGE_SIZE)
        for at, word in enumerate(pages):
            memory.write(mm, HEAP + at * PAGE_SIZE, content(word))
    parents = list(memory.mms)
    for number, parent in enumerate(host.forked):
        child = memory.fork(parents[parent % len(parents)], 101 + number)
        addresses = list(child.pages)
        for at in host.rewritten[number::2]:
            if addresses:
                address = addresses[at % len(addresses)]
                memory.write(child, address, child.pages[address].content)
    return memory, scanner


def converged(scanner: KsmScanner) -> int:
    """Let ksmd run until it saves no more; pages saved."""
    before = -1
    for _ in range(23):
        scanner.scan(3)
        saved = scanner.counters["pages_sharing"] + scanner.counters["ksm_zero_pages"]
        if saved == before:
            return saved
        before = saved
    raise AssertionError("it did not converge")


def hosts(*, forked: bool) -> st.SearchStrategy[Host]:
    pages = st.lists(st.integers(0, 7), max_size=31)
    return st.builds(
        Host,
        st.lists(pages, min_size=1, max_size=4),
        st.lists(st.integers(0, 3), max_size=3) if forked else st.just([]),
        st.lists(st.integers(0, 30), max_size=7),
    )


LIMITS = st.sampled_from([2, 3, 5, 7, 11, 256])


@settings(max_examples=211, deadline=None)
@given(hosts(forked=False), st.integers(0, 1), LIMITS)
@example(Host([[1] * 7, [1] * 4], [], []), 0, 2)
@example(Host([[0]], [], []), 1, 256)
def test_without_forks_the_estimate_is_what_the_reference_scanner_reaches(
    host: Host, zero_pages: int, limit: int
) -> None:
    memory, scanner = memory_of(host, zero_pages, limit)
    savings = reckon(sample_of(memory), replace(TERMS, use_zero_pages=bool(zero_pages),
                                                max_page_sharing=limit))  # fmt: skip
    frames = frames_in_use(memory)
    assert savings.saved == converged(scanner)
    assert savings.ksm_pages == scanner.counters["pages_shared"]
    assert savings.net_profit_bytes == scanner.counters["general_profit"]
    assert savings.freed == frames - frames_in_use(memory)


def frames_in_use(memory: Memory) -> int:
    return len(
        {f.pfn for mm in memory.mms for f in mm.pages.values() if f is not memory.zero_frame}
    )


@settings(max_examples=211, deadline=None)
@given(hosts(forked=True), st.integers(0, 1))
@example(Host([[1, 2]], [0], []), 0)
@example(Host([[1, 1]], [0, 0], []), 0)
@example(Host([[0, 0]], [0], []), 1)
@example(Host([[0]], [0], []), 0)
def test_pages_that_fork_shares_are_saved_only_if_another_page_holds_the_same(
    host: Host, zero_pages: int
) -> None:
    memory, scanner = memory_of(host, zero_pages, 256)
    savings = reckon(sample_of(memory), replace(TERMS, use_zero_pages=bool(zero_pages)))
    frames = frames_in_use(memory)
    assert savings.saved == converged(scanner)
    assert savings.ksm_pages == scanner.counters["pages_shared"]
    assert savings.freed == frames - frames_in_use(memory)


@settings(max_examples=101, deadline=None)
@given(hosts(forked=True), LIMITS)
def test_with_forks_the_limit_may_be_passed_by_as_many_pages_as_fork_shares(
    host: Host, limit: int
) -> None:
    # A KSM page takes all mappings that its own page has, however many.
    memory, scanner = memory_of(host, 0, limit)
    sample = sample_of(memory)
    savings = reckon(sample, replace(TERMS, max_page_sharing=limit))
    unlimited = reckon(sample, replace(TERMS, max_page_sharing=None))
    inherited = len(sample.digests) - frames_in_use(memory)
    reached = converged(scanner)
    assert reached <= unlimited.saved
    assert abs(reached - savings.saved) <= inherited


@settings(max_examples=101, deadline=None)
@given(hosts(forked=True), st.integers(0, 1))
def test_what_is_merged_already_is_reckoned_as_what_is_not(host: Host, zero_pages: int) -> None:
    memory, scanner = memory_of(host, zero_pages, 256)
    terms = replace(TERMS, use_zero_pages=bool(zero_pages))
    before = reckon(sample_of(memory), terms)
    converged(scanner)
    after = reckon(sample_of(memory), terms)
    assert after.saved == before.saved
    assert after.freed == 0


@settings(max_examples=23, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=2),
    st.lists(st.integers(0, 3), max_size=7),
    st.integers(0, 1),
)
@example([0, 1], [0], 0)
@example([0, 0], [], 1)
@example([0], [], 1)
def test_zero_filled_pages_of_huge_pages_leave_uncounted(
    huge: list[int], small: list[int], zero_pages: int
) -> None:
    memory, scanner = memory_of(Host([small], [], []), zero_pages, 1 << 20)
    mm = memory.mms[0]
    memory.map(mm, HUGE, HUGE_PAGES * len(huge))
    memory.madvise_mergeable(mm, HUGE, HUGE + HUGE_PAGES * PAGE_SIZE * len(huge))
    for number, word in enumerate(huge):
        memory.map_huge(mm, HUGE + number * HUGE_PAGES * PAGE_SIZE, content(word))
    terms = Terms(bool(zero_pages), 1 << 20, 64, 4096, splits_off_zeroes=True)
    savings = reckon(sample_of(memory), terms)
    frames = frames_in_use(memory)
    assert savings.saved == converged(scanner)
    assert savings.freed == frames - frames_in_use(memory)
    assert savings.split_off == HUGE_PAGES * huge.count(0)
    assert savings.net_profit_bytes == scanner.counters["general_profit"]


regions = st.lists(st.lists(st.integers(0, 9), max_size=23), min_size=1, max_size=5)


@settings(max_examples=101)
@given(regions, st.data(), st.booleans(), LIMITS)
def test_shares_of_processes_and_regions_add_up(
    contents: list[list[int]], data: st.DataObject, zero_pages: bool, limit: int
) -> None:
    owners = [data.draw(st.integers(0, 2)) for _ in contents]
    terms = replace(TERMS, use_zero_pages=zero_pages, max_page_sharing=limit)
    savings = reckon(made_up(contents, owners), terms)
    for process in savings.processes:
        assert process.saved == pytest.approx(sum(region.saved for region in process.regions))
        assert process.zero == sum(region.zero for region in process.regions)
        assert process.pages == sum(region.pages for region in process.regions)
    assert savings.saved == pytest.approx(sum(process.saved for process in savings.processes))
    assert savings.zero == sum(process.zero for process in savings.processes)
    assert savings.candidates == sum(process.pages for process in savings.processes)


@settings(max_examples=101)
@given(regions, st.data(), st.booleans(), LIMITS)
def test_within_is_the_sum_of_what_each_process_saves_by_itself(
    contents: list[list[int]], data: st.DataObject, zero_pages: bool, limit: int
) -> None:
    owners = [data.draw(st.integers(0, 2)) for _ in contents]
    terms = replace(TERMS, use_zero_pages=zero_pages, max_page_sharing=limit)
    savings = reckon(made_up(contents, owners), terms)
    alone = []
    for number, process in enumerate(savings.processes):
        own = [c for c, owner in zip(contents, owners, strict=True) if owner == number]
        alone.append(reckon(made_up(own, [0] * len(own)), terms).saved if own else 0)
        assert process.alone == alone[-1]
    assert savings.within == sum(alone)
    assert savings.across >= 0


def figures(savings: Savings) -> list[float]:
    found = [savings.saved, savings.within, savings.ksm_pages, savings.freed or 0.0, savings.zero]
    for process in savings.processes:
        found += [process.saved, process.alone, process.zero]
        found += [region.saved for region in process.regions]
    return [*found, savings.split_off]


@settings(max_examples=61)
@given(regions, st.sampled_from([1, 2, 3, 7]), st.booleans())
def test_how_pages_are_taken_in_chunks_makes_no_difference(
    contents: list[list[int]], at_once: int, zero_pages: bool
) -> None:
    terms = replace(TERMS, use_zero_pages=zero_pages, max_page_sharing=5, splits_off_zeroes=True)
    sample = made_up(contents, list(range(len(contents))))
    sample.kinds = (np.arange(len(sample.kinds)) % 4).astype(np.uint8)
    sample.frames = np.arange(len(sample.kinds), dtype=np.uint32) // 2
    whole = reckon(sample, terms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_PAGES_AT_ONCE", at_once)
        parts = reckon(sample, terms)
    assert figures(parts) == pytest.approx(figures(whole))


@given(st.integers(0, 10**6), st.one_of(st.none(), st.integers(2, 1000)))
def test_equal_pages_become_full_ksm_pages_and_at_most_one_that_is_not(
    pages: int, limit: int | None
) -> None:
    number = np.array([pages])
    saved = int(pages_saved(number, limit)[0])
    ksm_pages = int(ksm_pages_of(number, limit)[0])
    left_alone = pages - saved - ksm_pages
    assert 0 <= left_alone <= 1
    assert limit is None or saved + ksm_pages <= ksm_pages * limit


@settings(max_examples=31)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.sampled_from([1, 2, 5, 1 << 20]))
def test_counting_different_frames_in_parts_gives_the_same(values: list[int], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_PAGES_AT_ONCE", step)
        assert grouping.distinct(np.array(values, np.uint32)) == len(set(values))


def sampled(digests: np.ndarray, fraction: float) -> MemorySample:
    """What sampling some contents would have kept."""
    whole = made_up([[1] * len(digests)], [0], fraction=fraction)
    whole.digests = digests[is_sampled(digests, fraction)]
    kept = len(whole.digests)
    whole.frames, whole.kinds = np.arange(kept, dtype=np.uint32), np.zeros(kept, np.uint8)
    whole.bounds = np.array([0, kept])
    return whole


def with_sizes(random: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
    return np.repeat(random.integers(1, 1 << 64, len(sizes), np.uint64), sizes)


def coverage(runs: list[Savings], truth: float) -> float:
    return float(np.mean([run.low <= truth <= run.high for run in runs]))


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.37])
def test_the_interval_of_a_sample_holds_the_truth_95_times_of_100(fraction: float) -> None:
    random = np.random.default_rng(7)
    sizes = random.geometric(0.3, 1511)
    truth = float((sizes - 1).sum())
    runs = [reckon(sampled(with_sizes(random, sizes), fraction), TERMS) for _ in range(499)]
    assert 0.92 <= coverage(runs, truth) <= 0.985
    mean = np.mean([run.saved for run in runs])
    assert mean == pytest.approx(truth, rel=0.02)


def test_having_seen_no_duplicate_in_a_sample_is_no_certainty() -> None:
    random = np.random.default_rng(11)
    sizes = np.array([2] * 5 + [1] * 1009)
    runs = [reckon(sampled(with_sizes(random, sizes), 0.1), TERMS) for _ in range(499)]
    assert coverage(runs, 5) >= 0.9


def test_zero_filled_pages_are_known_exactly_in_a_sample() -> None:
    digests = np.array([digest_of(0)] * 211 + [digest_of(n) for n in range(1, 1010)], np.uint64)
    savings = reckon(sampled(digests, 0.01), replace(TERMS, use_zero_pages=True))
    assert savings.zero == 211
    assert savings.low == 211
    assert savings.low <= savings.saved <= savings.high


def test_all_that_was_read_leaves_no_interval() -> None:
    savings = reckon(made_up([[1, 1, 2]], [0]), TERMS)
    assert (savings.low, savings.saved, savings.high) == (1, 1, 1)


@given(st.lists(st.integers(0, 99), max_size=97), st.floats(0.01, 1))
def test_a_sample_has_all_pages_of_a_content_or_none(contents: list[int], fraction: float) -> None:
    digests = np.array([digest_of(c) for c in contents], np.uint64)
    kept = is_sampled(digests, fraction)
    there = Counter(np.array(contents)[kept].tolist())
    assert all(contents.count(c) == n for c, n in there.items())
    assert contents.count(0) == there[0]


def test_where_frames_are_hidden_nobody_says_what_would_be_freed() -> None:
    sample = made_up([[1, 1, 0]], [0])
    sample.frames = None
    sample.processes[0].ksm_zero_pages = 7  # They were read as pages full of zeroes.
    savings = reckon(sample, TERMS)
    assert savings.saved == 1
    assert savings.freed is None


def test_memory_without_any_page_saves_nothing() -> None:
    savings = reckon(made_up([[]], [0]), TERMS)
    assert (savings.saved, savings.candidates, savings.freed) == (0, 0, 0)
    assert savings.net_profit_bytes == 0
