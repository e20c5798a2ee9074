"""Samples held against events: what each counter can't be."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from support.batches import (
    Row,
    batch_of,
    event,
    joins_ksm_page,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)

from ksmtrace.events.registry import (
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
)
from ksmtrace.kernel.releases import profile
from ksmtrace.replay.conformance import Conformance, Finding

MM, TGID = 0xA, 71
SECOND = 1_000_000_000


def page(number: int) -> dict[str, int]:
    return {"item": 0x100 + number, "mm": MM, "addr": 0x7000_0000 + 4096 * number, "tgid": TGID}


def enters(mm: int = MM, *, fork: bool = False) -> Row:
    if fork:
        return event(KSM_ENTER, mm=mm, addr=TGID, arg=2)
    return event(KSM_ENTER, mm=mm, tgid=TGID, arg=1)


def host(scans: int, **changes: int) -> dict[str, int]:
    """Counters that fit after the second scan below: 3 of 11 pages are merged, 5 wait."""
    values = {
        "full_scans": scans,
        "pages_shared": 1,
        "pages_sharing": 2,
        "pages_unshared": 5,
        "pages_volatile": 3,
        "pages_scanned": 11 * scans,
        "pages_skipped": 0,
        "ksm_zero_pages": 0,
        "stable_node_chains": 0,
        "stable_node_dups": 0,
        "general_profit": 2 * 4096 - 11 * 64,
        "cow_ksm": 500,
        "ksmd_cpu_ns": 7 * SECOND,
    }
    return values | changes


def process(**changes: int) -> dict[str, int]:
    values = {
        "ksm_rmap_items": 11,
        "ksm_zero_pages": 0,
        "ksm_merging_pages": 3,
        "ksm_process_profit": 3 * 4096 - 11 * 64,
        "ksm_merge_any": 0,
        "ksm_mergeable": 1,
    }
    return values | changes


FIRST_SCAN = [enters(), scan_starts(0, 1), scan_stops(0, 1, 11)]
NOTHING_MERGED = host(
    1, pages_shared=0, pages_sharing=0, pages_unshared=0, pages_volatile=11, general_profit=-704
)
MERGES = [
    makes_ksm_page(7, **page(1)),
    joins_ksm_page(7, **page(0)),
    joins_ksm_page(7, **page(2)),
]
SECOND_SCAN = [scan_starts(1, 1, 11), *MERGES, scan_stops(1, 1, 11)]


class Stream:
    """A stream under way, fed bit by bit."""

    def __init__(self, kernel: str = "6.18", knobs: Mapping[str, str | None] | None = None) -> None:
        self.check = Conformance(
            profile(kernel), {"merge_across_nodes": "1", **(knobs or {})}, complete=True
        )

    def events(self, *rows: Row) -> Stream:
        self.check.events(batch_of(rows))
        return self

    def host(self, values: Mapping[str, int], ts: int = 1, until: int | None = None) -> Stream:
        self.check.counters(ts, values, until=until)
        return self

    def process(self, values: Mapping[str, int]) -> Stream:
        self.check.counters(1, values, tgid=TGID)
        return self

    def finish(self) -> Finding | None:
        return self.check.finish()


def merged(kernel: str = "6.18") -> Stream:
    """After the second scan."""
    return Stream(kernel).events(*FIRST_SCAN).host(NOTHING_MERGED).events(*SECOND_SCAN)


def next_scan(stream: Stream, seq: int = 2, items: int = 11) -> Finding | None:
    """Whether something was found once the next scan has started."""
    return stream.events(scan_starts(seq, 1, items)).check.finding


def test_what_fits_is_no_finding() -> None:
    stream = merged().host(host(2)).process(process())
    assert next_scan(stream) is None
    stream.host(host(2, pages_scanned=29))
    assert next_scan(stream.events(scan_stops(2, 1, 11)).host(host(3)), 3) is None


ALTERED = {
    "pages_shared": (-1, 1),
    "pages_sharing": (-1, 1),
    "pages_unshared": (-1, 1, 40),
    "pages_volatile": (-1, 1, 40),
    "pages_scanned": (-1, 1, 40),
    "pages_skipped": (1, 40),
    "full_scans": (-2, -1, 1),
    "stable_node_chains": (2,),
    "stable_node_dups": (3,),
    "general_profit": (-64, -1, 1, 64, 4096),
    "cow_ksm": (-1,),
    "ksmd_cpu_ns": (-1,),
}


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, all_ in ALTERED.items() for change in all_]
)
def test_a_counter_that_does_not_fit_is_found(name: str, change: int) -> None:
    stream = merged().host(host(2, **{name: host(2)[name] + change}))
    finding = next_scan(stream)
    if name in ("pages_scanned", "pages_skipped") and finding is None:
        # Somebody may have exited in mid-scan, and tell late.
        later = host(3, pages_scanned=33)
        stream.events(scan_stops(2, 1, 11)).host(later)
        finding = next_scan(stream, 3)
    assert finding is not None
    assert finding.rule == "counters"
    assert finding.message.startswith("counters before event")
    assert any(line.startswith("the sample: full_scans") for line in finding.state)


@pytest.mark.parametrize(
    "changes",
    [
        {"ksm_merging_pages": 4, "ksm_process_profit": 4 * 4096 - 11 * 64},
        {"ksm_merging_pages": 2, "ksm_process_profit": 2 * 4096 - 11 * 64},
        {"ksm_rmap_items": 12, "ksm_process_profit": 3 * 4096 - 12 * 64},
        {"ksm_rmap_items": 2, "ksm_process_profit": 3 * 4096 - 2 * 64},
        {"ksm_rmap_items": 10},
        {"ksm_zero_pages": 1},
        {"ksm_process_profit": 7},
        {"ksm_process_profit": 4 * 4096 - 11 * 64},
        {"ksm_merge_any": 2},
    ],
)
def test_a_process_s_counter_that_does_not_fit_is_found(changes: dict[str, int]) -> None:
    stream = merged().host(host(2)).process(process(**changes))
    for seq in (2, 3, 4):
        finding = next_scan(stream, seq)
        stream.events(scan_stops(seq, 1, 11))
    assert finding is not None
    assert finding.rule == "counters"


def test_who_opted_out_has_no_merged_page_left_after_the_next_scan() -> None:
    stream = merged().host(host(2)).process(process(ksm_mergeable=0))
    stream.events(scan_starts(2, 1, 11), scan_stops(2, 1, 11)).process(process())
    finding = next_scan(stream, 3)
    assert finding is not None
    assert "had opted out before scan 2" in finding.message


def test_while_everything_is_unmerged_counters_are_on_their_way() -> None:
    half = host(2, pages_sharing=1, pages_unshared=0)
    assert next_scan(merged().host(half), 0, 0) is None
    assert next_scan(merged().host(half), 2, 11) is not None


def test_after_run_2_everything_is_zero() -> None:
    nothing = dict.fromkeys(("pages_shared", "pages_sharing", "pages_unshared"), 0)
    unmerged = host(0, **nothing, pages_volatile=0, pages_scanned=22, general_profit=0)
    assert next_scan(merged().host(unmerged), 0, 0) is None
    assert next_scan(merged().host(unmerged), 2, 11) is not None
    finding = next_scan(merged().host(unmerged | {"pages_unshared": 1}), 2, 11)
    assert finding is not None


def test_a_sample_under_way_is_bounded_from_above() -> None:
    stream = Stream().events(*FIRST_SCAN).host(NOTHING_MERGED)
    stream.events(scan_starts(1, 1, 11), *MERGES[:2])
    assert stream.host(host(1, pages_sharing=1)).check.finding is None
    finding = stream.host(host(1, pages_sharing=2)).check.finding
    assert finding is not None
    assert "3 pages are merged, but no more than 2 can be" in finding.message


def test_a_sample_that_ksmd_went_on_during_is_taken_loosely() -> None:
    stream = Stream().events(*[{**row, "ts": 10} for row in FIRST_SCAN]).host(NOTHING_MERGED, 20)
    stream.host(host(1, pages_volatile=77), 30, until=50)
    stream.events(*[{**row, "ts": 40} for row in SECOND_SCAN])
    assert stream.finish() is None
    stream = Stream().events(*[{**row, "ts": 10} for row in FIRST_SCAN]).host(NOTHING_MERGED, 20)
    stream.host(host(1, pages_volatile=77), 30, until=35)
    stream.events(*[{**row, "ts": 40} for row in SECOND_SCAN])
    assert stream.check.finding is not None


def test_full_scans_may_lag_behind_its_event_for_a_moment() -> None:
    stream = Stream().events(*[{**row, "ts": 10} for row in FIRST_SCAN])
    lagging = NOTHING_MERGED | {"full_scans": 0}
    stream.host(lagging, 20, until=30).events(scan_starts(1, 40, 11))
    assert stream.check.finding is None


def test_a_merge_that_is_left_out_is_found_by_what_was_counted() -> None:
    stream = Stream().events(*FIRST_SCAN).host(NOTHING_MERGED)
    stream.events(scan_starts(1, 1, 11), *MERGES[:2], scan_stops(1, 1, 11)).host(host(2))
    finding = stream.finish()
    assert finding is not None
    assert "3 pages are merged" in finding.message


def test_a_failed_merge_told_as_a_success_is_found_by_what_was_not_counted() -> None:
    fewer = host(2, pages_sharing=1, pages_volatile=4, general_profit=4096 - 704)
    stream = merged().host(fewer)
    for seq in (2, 3, 4):
        finding = next_scan(stream, seq)
        stream.events(scan_stops(seq, 1, 11))
    assert finding is not None
    assert "but 3 were merged in scan 1 alone" in finding.message


def test_who_exits_in_mid_scan_takes_merged_pages_along() -> None:
    fewer = host(2, pages_shared=0, pages_sharing=0, pages_unshared=0, pages_volatile=0)
    stream = Stream().events(*FIRST_SCAN).host(NOTHING_MERGED)
    stream.events(scan_starts(1, 1, 11), *MERGES, event(KSM_EXIT, mm=MM, tgid=TGID))
    stream.events(
        event(KSM_REMOVE_RMAP_ITEM, pfn=7, **page(2)),
        event(KSM_REMOVE_RMAP_ITEM, pfn=7, **page(1)),
        event(KSM_REMOVE_KSM_PAGE, pfn=7),
        scan_stops(1, 1, 0),
    )
    stream.host(fewer | {"general_profit": 0})
    assert next_scan(stream, 2, 0) is None


def test_zero_pages_come_by_merges_and_by_forks_only() -> None:
    zero = event(KSM_MERGE_ONE_PAGE, pfn=9, **page(5))
    more = {"ksm_zero_pages": 1, "general_profit": 3 * 4096 - 704}
    stream = merged().host(host(2)).events(scan_starts(2, 1, 11), zero, scan_stops(2, 1, 11))
    assert next_scan(stream.host(host(3, **more)), 3) is None
    stream = merged().host(host(2)).events(enters(0xB, fork=True)).host(host(2, **more))
    assert next_scan(stream) is None
    stream = merged().host(host(2)).host(host(2, **more))
    for seq in (2, 3, 4):
        finding = next_scan(stream, seq)
        stream.events(scan_stops(seq, 1, 11))
    assert finding is not None
    assert "ksm_zero_pages is 1" in finding.message


def test_before_6_18_a_fork_s_zero_pages_are_not_counted() -> None:
    more = host(2, ksm_zero_pages=1, general_profit=3 * 4096 - 704)
    stream = merged("6.16").host(host(2)).host(more)
    assert stream.check.finding is not None


def test_chains_are_made_by_new_ksm_pages_and_shrink_by_their_deaths() -> None:
    chain = host(2, stable_node_chains=1, stable_node_dups=2)
    assert merged().host(chain).check.finding is None
    without = {"stable_node_chains": 1, "stable_node_dups": 1}
    finding = merged().host(host(2, **without)).check.finding
    assert finding is not None
    assert "only 0 KSM pages died" in finding.message
    unknown = Stream(knobs={"merge_across_nodes": None}).events(*FIRST_SCAN).host(NOTHING_MERGED)
    assert unknown.events(*SECOND_SCAN).host(host(2, **without)).check.finding is None


def test_one_thread_uses_one_cpu() -> None:
    stream = Stream().host(host(0), 0)
    finding = stream.host(host(0, ksmd_cpu_ns=10 * SECOND), SECOND).check.finding
    assert finding is not None
    assert "it is one thread" in finding.message


def test_what_a_kernel_lacks_is_not_judged() -> None:
    old = {"full_scans": 1, "pages_shared": 0, "pages_sharing": 0}
    assert next_scan(Stream("6.4").events(*FIRST_SCAN).host(old), 1) is None
    waiting = old | {"pages_unshared": 4, "pages_volatile": 6}
    assert next_scan(Stream("6.4").events(*FIRST_SCAN).host(waiting), 1) is not None


def test_a_scan_given_up_has_visited_a_page() -> None:
    stream = merged().host(host(2)).events(scan_starts(2, 1, 11), scan_starts(2, 1, 11))
    finding = stream.events(scan_stops(2, 1, 11)).host(host(3)).check.finding
    assert finding is not None
    assert "11 visits since the sample before" in finding.message
    stream = merged().host(host(2)).events(scan_starts(2, 1, 11), scan_starts(2, 1, 11))
    assert stream.events(scan_stops(2, 1, 11)).host(host(3, pages_scanned=35)).finish() is None
