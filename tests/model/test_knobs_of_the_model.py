"""Which knobs and counters each release has, and how it takes what is written to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.registry import KSM_START_SCAN
from ksmtrace.kernel.releases import RELEASES, parse_release
from ksmtrace.model.ksm import KnobRefused, KsmScanner
from ksmtrace.model.memory import Memory, Mm

PAGE = 4096
HIGH = 1 << 20
ALL = 1 << 20

# The specification's tables 5.1 to 5.3 and 7.2: what came with which release.
KNOBS = {
    "2.6.38": {"run", "pages_to_scan", "sleep_millisecs"},
    "3.9": {"merge_across_nodes"},
    "4.11": {"use_zero_pages"},
    "4.13": {"max_page_sharing", "stable_node_chains_prune_millisecs"},
    "6.7": {"smart_scan"},
    "6.8": {"advisor_mode", "advisor_max_cpu", "advisor_min_pages_to_scan",
            "advisor_max_pages_to_scan", "advisor_target_scan_time"},
}  # fmt: skip
COUNTERS = {
    "2.6.38": {"full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"},
    "4.13": {"stable_node_chains", "stable_node_dups"},
    "5.19": {"cow_ksm", "ksm_swpin_copy"},
    "6.4": {"general_profit"},
    "6.6": {"pages_scanned", "ksm_zero_pages"},
    "6.7": {"pages_skipped"},
}
OF_A_PROCESS = {
    "5.19": {"ksm_merging_pages"},
    "6.1": {"ksm_rmap_items"},
    "6.4": {"ksm_process_profit"},
    "6.6": {"ksm_zero_pages"},
    "6.14": {"ksm_merge_any", "ksm_mergeable"},
}
DEFAULTS = {
    "run": "0", "pages_to_scan": "100", "sleep_millisecs": "20", "merge_across_nodes": "1",
    "max_page_sharing": "256", "stable_node_chains_prune_millisecs": "2000", "use_zero_pages": "0",
    "smart_scan": "1", "advisor_mode": "none", "advisor_max_cpu": "70",
    "advisor_min_pages_to_scan": "500", "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
}  # fmt: skip


def there(table: dict[str, set[str]], release: str) -> set[str]:
    """Everything that came with a release or before."""
    since = parse_release(release)
    return {n for first, names in table.items() if parse_release(first) <= since for n in names}


def machine(kernel: str = "6.18.44", **knobs: object) -> tuple[Memory, KsmScanner]:
    memory = Memory()
    knobs = {"pages_to_scan": ALL, **knobs}
    return memory, KsmScanner(memory, kernel=kernel, knobs=knobs, check_invariants=True)


def process(memory: Memory, contents: list[bytes], tgid: int = 7, start: int = 0) -> Mm:
    mm = memory.spawn(tgid)
    memory.map(mm, start, len(contents))
    memory.madvise_mergeable(mm, start, start + len(contents) * PAGE)
    for number, content in enumerate(contents):
        memory.write(mm, start + number * PAGE, content)
    return mm


def told(scanner: KsmScanner) -> list[str]:
    names = {
        1: "ENTER",
        2: "EXIT",
        3: "START",
        4: "STOP",
        5: "ZERO",
        6: "MERGE",
        7: "DROP",
        8: "GONE",
    }
    return [names.get(int(kind), str(kind)) for kind in scanner.take_events()["kind"]]


# What there is.


@pytest.mark.parametrize("release", [release.version for release in RELEASES])
def test_each_release_has_the_knobs_and_counters_of_its_time(release: str) -> None:
    memory, scanner = machine(release)
    mm = process(memory, [b"a"])
    assert set(scanner.knobs) == there(KNOBS, release)
    assert set(scanner.counters) == there(COUNTERS, release)
    assert set(scanner.ksm_stat(mm)) == there(OF_A_PROCESS, release)


def test_the_defaults_are_the_kernel_s() -> None:
    assert KsmScanner(Memory(), kernel="6.18").knobs == DEFAULTS


def test_a_knob_that_a_release_lacks_is_refused_with_the_release_that_brought_it() -> None:
    _, scanner = machine("6.6")
    with pytest.raises(KsmtraceError, match=r"6\.6 has no knob 'smart_scan'") as error:
        scanner.set_knob("smart_scan", 1)
    assert error.value.exit_code == Exit.USAGE
    assert "6.7" in str(error.value.hint)


def test_a_knob_that_nobody_knows_is_refused_with_a_list() -> None:
    with pytest.raises(KsmtraceError) as error:
        KsmScanner(Memory(), knobs={"pages_to_scam": 1})
    assert "pages_to_scan" in str(error.value.hint)


# EINVAL.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", 3), ("run", -1), ("run", "on"), ("pages_to_scan", -1), ("pages_to_scan", "many"),
        ("pages_to_scan", 1 << 32), ("max_page_sharing", 1), ("max_page_sharing", 0),
        ("merge_across_nodes", 2), ("use_zero_pages", 2), ("use_zero_pages", "maybe"),
        ("smart_scan", 2), ("advisor_target_scan_time", 0), ("advisor_mode", "cpu-time"),
        ("sleep_millisecs", 1 << 32),
    ],
)  # fmt: skip
def test_a_bad_value_is_invalid_and_changes_nothing(name: str, value: object) -> None:
    _, scanner = machine()
    before = scanner.knobs
    with pytest.raises(KnobRefused, match="EINVAL"):
        scanner.set_knob(name, value)
    assert scanner.knobs == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("y", "1"),
        ("Y", "1"),
        ("0", "0"),
        ("n", "0"),
        ("N", "0"),
        ("on", "1"),
        ("oFf", "0"),
    ],
)
def test_boolean_knobs_take_words(text: str, value: str) -> None:
    _, scanner = machine()
    for name in ("use_zero_pages", "smart_scan"):
        scanner.set_knob(name, text)
        assert scanner.knobs[name] == value


@given(st.integers(0, (1 << 32) - 1))
def test_any_number_of_32_bits_is_a_number_of_pages(pages: int) -> None:
    _, scanner = machine()
    scanner.set_knob("pages_to_scan", pages)
    assert scanner.knobs["pages_to_scan"] == str(pages)


def test_the_advisor_owns_pages_to_scan() -> None:
    _, scanner = machine(advisor_min_pages_to_scan=701)
    scanner.set_knob("advisor_mode", "scan-time")
    assert scanner.knobs["pages_to_scan"] == "701"
    with pytest.raises(KnobRefused, match="EINVAL"):
        scanner.set_knob("pages_to_scan", 100)
    scanner.set_knob("advisor_mode", "none")
    assert scanner.knobs["pages_to_scan"] == "100"
    scanner.set_knob("pages_to_scan", 113)
    scanner.set_knob("advisor_mode", "none")
    assert scanner.knobs["pages_to_scan"] == "113", "the mode was not switched"


# EBUSY.

NEEDY = ("max_page_sharing", "merge_across_nodes")
OTHER = {"max_page_sharing": 3, "merge_across_nodes": 0}


@pytest.mark.parametrize("name", NEEDY)
def test_some_knobs_are_busy_while_pages_are_merged(name: str) -> None:
    memory, scanner = machine()
    mm = process(memory, [b"a", b"a"])
    scanner.set_knob(name, OTHER[name])
    scanner.set_knob(name, DEFAULTS[name])
    scanner.scan(2)
    with pytest.raises(KnobRefused, match="EBUSY"):
        scanner.set_knob(name, OTHER[name])
    assert scanner.knobs[name] == DEFAULTS[name]
    scanner.set_knob(name, DEFAULTS[name])

    memory.discard(mm, 0, 2 * PAGE)
    with pytest.raises(KnobRefused, match="EBUSY"):
        scanner.set_knob(name, OTHER[name])  # nobody has noticed that the KSM page is dead
    scanner.scan(1)
    scanner.set_knob(name, OTHER[name])
    assert scanner.knobs[name] == str(OTHER[name])


@pytest.mark.parametrize("name", NEEDY)
def test_a_ksm_page_mapped_outside_of_mergeable_regions_keeps_them_busy(name: str) -> None:
    """T48's node: nothing is counted as shared, but it is still mapped."""
    memory, scanner = machine()
    mm = process(memory, [b"a"])
    child = memory.fork(mm, 11)
    memory.madvise_unmergeable(mm, 0, PAGE)
    memory.map(child, HIGH, 1)
    memory.madvise_mergeable(child, HIGH, HIGH + PAGE)
    memory.write(child, HIGH, b"a")
    scanner.scan(1)
    # The one seen last becomes the KSM page; it has to be the one that the parent shares.
    memory.remap(child, 0, PAGE, 2 * HIGH)
    scanner.scan(2)
    assert mm.pages[0].ksm
    scanner.set_knob("run", 2)
    assert scanner.counters["pages_shared"] == 0
    with pytest.raises(KnobRefused, match="EBUSY"):
        scanner.set_knob(name, OTHER[name])
    scanner.take_events()
    memory.exit(mm)
    scanner.set_knob(name, OTHER[name])
    assert told(scanner) == ["GONE"]


@pytest.mark.parametrize("name", NEEDY)
def test_a_dead_ksm_page_that_is_only_pinned_is_removed(name: str) -> None:
    memory, scanner = machine()
    mm = process(memory, [b"a", b"a"])
    scanner.scan(2)
    pin = memory.pin(mm, 0)
    memory.discard(mm, 0, 2 * PAGE)
    scanner.scan(1)
    assert scanner.counters["pages_shared"] == 0
    scanner.take_events()
    scanner.set_knob(name, OTHER[name])
    assert told(scanner) == ["GONE"]
    memory.unpin(pin)


# run.


def test_run_2_unmerges_everything_and_counts_scans_anew() -> None:
    memory, scanner = machine()
    mm = process(memory, [b"a", b"a", b"b"])
    scanner.scan(3)
    kept = {name: scanner.counters[name] for name in ("pages_scanned", "pages_skipped")}
    scanner.take_events()
    scanner.set_knob("run", 2)
    assert told(scanner) == ["DROP", "GONE"]
    now = scanner.counters
    for name in ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"):
        assert now[name] == 0
    assert now["cow_ksm"] == 2
    assert {name: now[name] for name in kept} == kept
    assert scanner.ksm_stat(mm)["ksm_rmap_items"] == 0
    assert mm.slot is not None, "the process stays on the list"

    scanner.set_knob("run", 2)
    assert scanner.counters == now, "the value it has already"
    scanner.scan(2)
    assert scanner.counters["pages_sharing"] == 1
    assert scanner.counters["full_scans"] == 2


def test_run_2_frees_those_who_have_exited() -> None:
    memory, scanner = machine()
    mm = process(memory, [b"a"])
    scanner.scan(1)
    memory.exit(mm)
    assert mm.slot is not None
    scanner.set_knob("run", 2)
    assert mm.slot is None
    scanner.take_events()
    scanner.finish_scan()
    assert told(scanner) == []


def test_run_2_in_mid_scan_starts_the_next_scan_from_the_beginning() -> None:
    memory, scanner = machine()
    process(memory, [b"a", b"b", b"c"])
    begun = scanner.batch(2)
    scanner.set_knob("run", 2)
    assert begun["kind"][-1] == KSM_START_SCAN.id
    assert scanner.counters["pages_volatile"] == 0
    scanner.take_events()
    scanner.finish_scan()
    assert told(scanner) == ["START", "STOP"]


# Counters that depend on knobs and releases.


def test_with_pages_to_scan_0_nothing_happens_ever() -> None:
    memory, scanner = machine(pages_to_scan=0)
    process(memory, [b"a"])
    scanner.take_events()
    assert not len(scanner.batch())
    with pytest.raises(KsmtraceError, match="never finishes") as error:
        scanner.scan(1)
    assert error.value.hint


def test_with_nobody_registered_nothing_happens() -> None:
    _, scanner = machine()
    assert not len(scanner.scan(3))
    assert scanner.counters["full_scans"] == 0


@pytest.mark.parametrize(
    ("kernel", "scanned"),
    # T35, five pages in batches of two: the bug counts a full batch as three, others as none.
    [("6.6", [3, 6, 6, 9, 12, 12]), ("6.9", [3, 6, 6, 9, 12, 12]), ("6.10", [2, 4, 5, 7, 9, 10])],
)
def test_pages_scanned_counts_pages_since_6_10_only(kernel: str, scanned: list[int]) -> None:
    memory, scanner = machine(kernel)
    process(memory, [b"a", b"b", b"c", b"d", b"e"])
    seen = []
    for _ in scanned:
        scanner.batch(2)
        seen.append(scanner.counters["pages_scanned"])
    assert seen == scanned


@pytest.mark.parametrize(("kernel", "saved"), [("6.4", 2), ("6.5", 2), ("6.6", 5), ("6.18", 5)])
def test_profit_counts_zero_pages_since_6_6(kernel: str, saved: int) -> None:
    memory, scanner = machine(kernel, use_zero_pages=1)
    mm = process(memory, [b"a"] * 3 + [b""] * 3 + [b"b"])
    scanner.scan(2)
    assert scanner.counters["general_profit"] == saved * PAGE - 7 * 64
    # Of a process each merged page counts, the one that is shared too.
    assert scanner.ksm_stat(mm)["ksm_process_profit"] == (saved + 1) * PAGE - 7 * 64


def test_profit_may_be_a_loss() -> None:
    memory, scanner = machine()
    process(memory, [b"a", b"b", b"c"])
    scanner.scan(1)
    assert scanner.counters["general_profit"] == -3 * 64


def test_ksm_stat_says_how_the_process_opted_in() -> None:
    memory, scanner = machine()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    seen = [scanner.ksm_stat(mm)]
    memory.madvise_mergeable(mm, 0, PAGE)
    seen.append(scanner.ksm_stat(mm))
    memory.prctl_merge(mm, on=True)
    seen.append(scanner.ksm_stat(mm))
    assert [(s["ksm_merge_any"], s["ksm_mergeable"]) for s in seen] == [(0, 0), (0, 1), (1, 1)]
