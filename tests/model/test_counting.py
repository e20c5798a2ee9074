from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.model import KsmScanner, Memory, Mm, counting
from ksmtrace.model.content import PAGE_SIZE, compared_bytes, content_of, page_of
from ksmtrace.model.work import Work

START = 0x1000_0000
NEW, OLD, OLDEST = "6.18", "6.8", "2011"
PAGE = PAGE_SIZE


class Lab:
    """One process with pages of these contents, under a scanner that counts."""

    def __init__(self, contents: list[bytes], kernel: str = NEW, **knobs: object) -> None:
        if kernel == NEW:
            knobs = {"smart_scan": 0, **knobs}
        self.memory = Memory()
        self.scanner = KsmScanner(self.memory, kernel=kernel, knobs=knobs, count_work=True)
        self.mm: Mm = self.memory.spawn(1)
        self.memory.map(self.mm, START, len(contents))
        self.memory.madvise_mergeable(self.mm, START, START + len(contents) * PAGE)
        for number, content in enumerate(contents):
            self.write(number, content)

    def write(self, number: int, content: bytes) -> None:
        self.memory.write(self.mm, START + number * PAGE, content)

    def scan(self) -> dict[str, int]:
        """What one scan does; what it doesn't is left out."""
        before = asdict(self.scanner.work)
        self.scanner.scan()
        after = asdict(self.scanner.work)
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}


@pytest.mark.parametrize(
    ("kernel", "hashed"), [(NEW, "xxhash_bytes"), (OLD, "xxhash_bytes"), (OLDEST, "jhash2_bytes")]
)
def test_three_pages_of_their_own_are_hashed_and_put_into_a_tree(kernel: str, hashed: str) -> None:
    lab = Lab([b"b", b"a", b"c"], kernel)
    assert lab.scan() == {"visits": 3, hashed: 3 * PAGE, "wakeups": 1}
    # b is the root, a and c are held against it: one word each.
    again = {
        "visits": 3,
        hashed: 3 * PAGE,
        "wakeups": 1,
        "unstable_levels": 2,
        "compared_bytes": 16,
    }
    assert lab.scan() == again
    assert lab.scan() == again


@pytest.mark.parametrize("kernel", [NEW, OLD])
def test_two_equal_pages_are_compared_three_times(kernel: str) -> None:
    lab = Lab([b"x", b"x", b"y"], kernel)
    lab.scan()
    # Equal in the unstable tree, and again before the merge; y passes the new KSM page.
    assert lab.scan() == {
        "visits": 3, "xxhash_bytes": 3 * PAGE, "wakeups": 1, "ksm_pages": 1, "merges": 1,
        "unstable_levels": 1, "stable_levels": 1, "compared_bytes": 2 * PAGE + 8,
    }  # fmt: skip
    # What is merged is visited only.
    assert lab.scan() == {
        "visits": 3, "xxhash_bytes": PAGE, "wakeups": 1, "stable_levels": 1, "compared_bytes": 8,
    }  # fmt: skip


def test_a_page_that_changed_is_searched_for_by_old_kernels_only() -> None:
    done = {}
    for kernel in (NEW, OLD, OLDEST):
        lab = Lab([b"x", b"x", b"y"], kernel)
        lab.scan()
        lab.scan()
        lab.write(2, b"z")
        done[kernel] = lab.scan()
    assert done[NEW] == {"visits": 3, "xxhash_bytes": PAGE, "wakeups": 1}
    assert done[OLD] == {**done[NEW], "stable_levels": 1, "compared_bytes": 8}
    assert done[OLDEST] == {
        "visits": 3, "jhash2_bytes": PAGE, "wakeups": 1, "stable_levels": 1, "compared_bytes": 8,
    }  # fmt: skip


def test_a_chain_is_one_level_with_one_page_to_compare() -> None:
    lab = Lab([b"x"] * 4 + [b"y"], max_page_sharing=2)
    lab.scan()
    # Passed in the stable tree: by the third and fourth x, the second KSM page, and y.
    assert lab.scan() == {
        "visits": 5, "xxhash_bytes": 5 * PAGE, "wakeups": 1, "ksm_pages": 2, "merges": 2,
        "unstable_levels": 2, "stable_levels": 4,
        "compared_bytes": 2 * PAGE + 3 * PAGE + 8 + 2 * PAGE,
    }  # fmt: skip


def test_a_page_that_joins_a_ksm_page_is_compared_in_the_tree_and_before_the_merge() -> None:
    lab = Lab([b"x", b"x", b"y"])
    lab.scan()
    lab.scan()
    lab.write(2, b"x")
    lab.scan()
    assert lab.scan() == {
        "visits": 3, "xxhash_bytes": PAGE, "wakeups": 1, "stable_levels": 1, "merges": 1,
        "compared_bytes": 2 * PAGE,
    }  # fmt: skip


def test_zero_pages_are_merges_and_then_passed_over() -> None:
    lab = Lab([b""] * 7, use_zero_pages=1)
    lab.scan()
    assert lab.scan() == {
        "visits": 7, "xxhash_bytes": 7 * PAGE, "wakeups": 1, "merges": 7,
        "compared_bytes": 7 * PAGE,
    }  # fmt: skip
    assert lab.scan() == {"absent": 7, "wakeups": 1}


def test_what_smart_scan_leaves_out_is_counted_as_the_kernel_does() -> None:
    lab = Lab([b"%d" % number for number in range(13)], smart_scan=1)
    for _ in range(30):
        lab.scan()
    work, counters = lab.scanner.work, lab.scanner.counters
    assert work.skipped == counters["pages_skipped"] > 0
    assert work.visits == counters["pages_scanned"]


def test_an_attempt_that_fails_is_no_merge() -> None:
    lab = Lab([b"x", b"x"])
    lab.memory.pin(lab.mm, START)
    lab.scan()
    # The visited page becomes a KSM page, its pinned twin can't be mapped onto it.
    done = lab.scan()
    assert done["failed"] == 1
    assert "merges" not in done


def test_levels_below_the_warm_ones_are_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "WARM_LEVELS", 1)
    lab = Lab([b"b", b"a", b"c", b"d"])
    lab.scan()
    done = lab.scan()
    assert done["unstable_levels"] == 4
    assert done["cold_levels"] == 1


def test_each_batch_is_a_wakeup() -> None:
    lab = Lab([b"%d" % number for number in range(13)], pages_to_scan=5)
    # The end of a scan is found by looking for a fourteenth page.
    assert lab.scan()["wakeups"] == 3


def test_work_is_counted_only_where_asked_for() -> None:
    scanner = KsmScanner(Memory())
    with pytest.raises(ValueError, match="count_work"):
        _ = scanner.work
    with pytest.raises(ValueError, match="either logged or counted"):
        KsmScanner(Memory(), count_work=True, log_visits=True)


@given(
    st.lists(st.sampled_from([b"", b"a", b"b", b"c", b"d"]), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.sampled_from([b"", b"a", b"e"])), max_size=10),
    st.sampled_from([NEW, OLD]),
)
def test_counting_changes_nothing(
    contents: list[bytes], writes: list[tuple[int, bytes]], kernel: str
) -> None:
    seen = []
    for count_work in (False, True):
        memory = Memory()
        knobs = {"max_page_sharing": 3, "use_zero_pages": 1}
        scanner = KsmScanner(memory, kernel=kernel, knobs=knobs, count_work=count_work)
        mm = memory.spawn(1)
        memory.map(mm, START, len(contents))
        memory.madvise_mergeable(mm, START, START + len(contents) * PAGE)
        for number, content in enumerate(contents):
            memory.write(mm, START + number * PAGE, content)
        events = [scanner.scan(2)]
        for number, content in writes:
            memory.write(mm, START + number % len(contents) * PAGE, content)
        events.append(scanner.scan(3))
        seen.append(([batch.tolist() for batch in events], scanner.counters, scanner.reached))
    assert seen[0] == seen[1]


short = st.binary(max_size=40)


@given(short, short, short)
def test_a_comparison_reads_whole_words_up_to_the_first_that_differs(
    prefix: bytes, one: bytes, other: bytes
) -> None:
    pages = [page_of(prefix + one), page_of(prefix + other)]
    words = [[page[at : at + 8] for at in range(0, PAGE, 8)] for page in pages]
    same = [a == b for a, b in zip(*words, strict=True)]
    expected = PAGE if all(same) else 8 * same.index(False) + 8
    assert compared_bytes(*(content_of(page) for page in pages)) == expected


def test_the_price_of_work_is_the_sum_of_its_kinds() -> None:
    from ksmtrace.kernel.costs import DEFAULT

    work = Work(visits=3, xxhash_bytes=PAGE, merges=2, failed=1)
    expected = 3 * DEFAULT.visit_ns + PAGE * DEFAULT.xxhash_byte_ns + 2 * DEFAULT.merge_ns
    assert work.ns(DEFAULT) == pytest.approx(expected)
