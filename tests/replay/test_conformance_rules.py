"""Each rule of the conformance check: what breaks it, and what looks as if it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
)
from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide
from ksmtrace.kernel.releases import profile
from ksmtrace.replay.conformance import RULES, Conformance, Finding

EFAULT = -14
FIRST, SECOND = 0xA, 0xB
TGIDS = {FIRST: 71, SECOND: 73}
ZERO_FRAME = 0x9


def page(number: int, mm: int = FIRST) -> dict[str, int]:
    """A page's slots."""
    return {
        "item": 0x1000 * mm + number,
        "mm": mm,
        "addr": 0x7000_0000 + 4096 * number,
        "tgid": TGIDS[mm],
    }


def enters(mm: int = FIRST) -> Row:
    return event(KSM_ENTER, mm=mm, tgid=TGIDS[mm], arg=1)


def exits(mm: int = FIRST) -> Row:
    return event(KSM_EXIT, mm=mm, tgid=TGIDS[mm])


def new(pfn: int, number: int, mm: int = FIRST, **slots: int) -> Row:
    return makes_ksm_page(pfn, **page(number, mm), **slots)


def add(pfn: int, number: int, mm: int = FIRST, **slots: int) -> Row:
    return joins_ksm_page(pfn, **{**page(number, mm), **slots})


def inherits(pfn: int, number: int, mm: int = FIRST) -> Row:
    return joins_ksm_page(pfn, first_sight=True, **page(number, mm))


def zero(number: int, pfn: int = ZERO_FRAME, **slots: int) -> Row:
    return event(KSM_MERGE_ONE_PAGE, pfn=pfn, **page(number), **slots)


def leaves(pfn: int, number: int, mm: int = FIRST, **slots: int) -> Row:
    return event(KSM_REMOVE_RMAP_ITEM, pfn=pfn, **{**page(number, mm), **slots})


def gone(pfn: int) -> Row:
    return event(KSM_REMOVE_KSM_PAGE, pfn=pfn)


BEGIN = [enters(), enters(SECOND), scan_starts(0, 1), scan_stops(0, 1, 11), scan_starts(1, 1, 11)]
"""Two processes, scanned once; the second scan is under way."""
MERGED = [*BEGIN, new(7, 1), add(7, 0), add(7, 2)]
"""Pages 0 to 2 of the first are on KSM page 7, page 0 being the oldest."""
THEN = [scan_stops(1, 1, 11), scan_starts(2, 1, 11)]
"""The next scan."""


def goes_on(seq: int, items: int = 11) -> list[Row]:
    """The scan under way ends, and two others follow: time enough for a task to tell."""
    rows = []
    for later in range(seq, seq + 3):
        rows += [scan_stops(later, 1, items), scan_starts(later + 1, 1, items)]
    return rows


def judged(
    rows: Sequence[Row],
    *,
    kernel: str = "6.18",
    complete: bool = True,
    knobs: Mapping[str, str | None] | None = None,
) -> Finding | None:
    conformance = Conformance(profile(kernel), knobs, complete=complete)
    conformance.events(batch_of(rows))
    return conformance.finish()


BROKEN: dict[str, tuple[str, list[Row], str]] = {
    "ksmd goes back in time": (
        "time",
        [scan_starts(0, 5000), scan_stops(0, 3000)],
        "2000 ns before",
    ),
    "a kind that there is none of": ("kind", [{"kind": 77, "ts": 1}], "no event of kind 77"),
    "an error that ksmd does not give": ("value", [*BEGIN, new(7, 1, err=-12)], "end with -12"),
    "a merge between two scans": ("scan order", [*MERGED, THEN[0], add(7, 3)], "no scan"),
    "a merge before any scan": ("scan order", [enters(), add(7, 3)], "no scan"),
    "a stop of no scan": ("scan order", [*MERGED, THEN[0], THEN[0]], "none was under way"),
    "the advisor between scans": (
        "scan order",
        [*MERGED, THEN[0], event(KSM_ADVISOR, err=1, addr=500, arg=1)],
        "the advisor decided",
    ),
    "a scan left out": ("scan number", [*MERGED, THEN[0], scan_starts(3, 1, 11)], "after scan 1"),
    "a scan that starts before the other stops": (
        "scan number",
        [*MERGED, scan_starts(2, 1, 11)],
        "scan 1 had not stopped",
    ),
    "a stop with another number": ("scan number", [*MERGED, scan_stops(2, 1, 11)], "scan 2"),
    "rmap_items from nowhere": (
        "rmap_entries",
        [*MERGED, THEN[0], scan_starts(2, 1, 12)],
        "more than the 11",
    ),
    "rmap_items after run=2": (
        "rmap_entries",
        [*MERGED, THEN[0], scan_starts(0, 1, 11)],
        "run=2 frees them all",
    ),
    "fewer rmap_items than were visited": (
        "rmap_entries",
        [*MERGED, *goes_on(1, items=2)],
        "3 were visited",
    ),
    "a lower address later": ("visit order", [*MERGED, add(7, 1)], "went back"),
    "a process twice in a scan": (
        "visit order",
        [*MERGED, add(7, 0, SECOND), add(7, 3)],
        "came to process 71 twice",
    ),
    "processes in another order": (
        "visit order",
        [*MERGED, add(7, 0, SECOND), *THEN, add(7, 1, SECOND), add(7, 3), *goes_on(2)],
        "before process 71, other than",
    ),
    "a page twice in a scan": ("once a scan", [*MERGED, add(7, 2)], "visited twice"),
    "a page merged as another's twin, too": (
        "once a scan",
        [*MERGED, new(8, 3), add(8, 2)],
        "after its own try",
    ),
    "a first half alone": ("two halves", [*BEGIN, new(7, 1), add(8, 0)], "mapped onto it next"),
    "a first half at the end of the scan": (
        "two halves",
        [*BEGIN, new(7, 1), THEN[0]],
        "mapped onto it next",
    ),
    "a page as its own twin": ("two halves", [*BEGIN, new(7, 1), add(7, 1)], "its own twin"),
    "a twin that ksmd has not come to": (
        "unstable tree",
        [*BEGIN, new(7, 1), add(7, 2)],
        "only at 0x70001000",
    ),
    "twins, one without a checksum": (
        "first sight",
        [*BEGIN, new(7, 1), inherits(7, 0)],
        "only one of them",
    ),
    "a first sight after another": (
        "first sight",
        [*MERGED, *THEN, inherits(7, 2)],
        "had a checksum before",
    ),
    "another rmap_item at the same page": (
        "identity",
        [*MERGED, *THEN, add(7, 2, item=0x55)],
        "another rmap_item",
    ),
    "a rmap_item of two pages": (
        "identity",
        [*MERGED, add(7, 3, item=page(2)["item"])],
        "is that of page 0x70002000",
    ),
    "a page with two rmap_items": (
        "identity",
        [*BEGIN, zero(3, err=EFAULT), add(7, 3, item=0x55)],
        "two rmap_items",
    ),
    "an owner that comes back": (
        "owner",
        [*MERGED, add(7, 3, tgid=79), add(7, 4)],
        "back to process 71",
    ),
    "a stranger's merge": (
        "registration",
        [*BEGIN[1:], new(7, 1), add(7, 0), *goes_on(1)],
        "never entered",
    ),
    "a merge after the exit": (
        "registration",
        [*MERGED, THEN[0], exits(), THEN[1], add(7, 3), *goes_on(2)],
        "after it has exited",
    ),
    "an exit without an entry": ("registration", [exits()], "without ever having entered"),
    "two exits": ("registration", [*MERGED, exits(), exits()], "exited twice"),
    "two entries at one moment": ("registration", [enters(), enters()], "entered twice"),
    "a KSM page that was never made": ("ksm page", [*BEGIN, add(7, 1)], "never made"),
    "the death of a page that was never made": ("ksm page", [*BEGIN, gone(7)], "none that"),
    "a page that dies twice": (
        "ksm page",
        [*BEGIN, new(7, 1), add(7, 0), *THEN, gone(7), gone(7)],
        "none that",
    ),
    "a rmap_item that was never put there": (
        "removal",
        [*MERGED, *THEN, leaves(7, 5), gone(7)],
        "never put on one",
    ),
    "a rmap_item that left before": (
        "removal",
        [*MERGED, *THEN, leaves(7, 2), leaves(7, 2), gone(7)],
        "was on none",
    ),
    "rmap_items that leave oldest first": (
        "removal",
        [*MERGED, *THEN, leaves(7, 1), leaves(7, 2), gone(7)],
        "newest first",
    ),
    "the oldest, with an event": (
        "removal",
        [*MERGED, *THEN, leaves(7, 2), leaves(7, 1), leaves(7, 0), gone(7)],
        "the oldest never",
    ),
    "rmap_items, and then not the page": (
        "removal",
        [*MERGED, *THEN, leaves(7, 2), add(7, 3)],
        "the page was not removed next",
    ),
    "rmap_items of one page, and another": (
        "removal",
        [*MERGED, *THEN, leaves(7, 2), gone(8)],
        "the page was not removed next",
    ),
    "rmap_items of two pages": (
        "removal",
        [*MERGED, new(8, 5), add(8, 4), *THEN, leaves(7, 5), leaves(7, 2), gone(7)],
        "was not put on it",
    ),
    "one that must have been there, left out": (
        "removal",
        [*MERGED, leaves(7, 1), gone(7), *goes_on(1)],
        "did not leave it with the others",
    ),
    "another's rmap_item": (
        "removal",
        [*MERGED, *THEN, leaves(7, 2, addr=page(5)["addr"]), gone(7)],
        "is that of page 0x70002000",
    ),
    "the zero page in two frames": (
        "zero page",
        [*BEGIN, zero(1), zero(2, ZERO_FRAME + 1)],
        "frame 0x9 and now 0xa",
    ),
    "the zero page as a KSM page": (
        "ksm page",
        [*BEGIN, zero(1), new(ZERO_FRAME, 2)],
        "became a KSM page",
    ),
    "advice that is not the scan's last": (
        "advisor",
        [*BEGIN, event(KSM_ADVISOR, err=1, addr=500, arg=1), new(7, 1)],
        "did not stop next",
    ),
    "a scan of no time": (
        "advisor",
        [*BEGIN, event(KSM_ADVISOR, err=0, addr=500, arg=1), THEN[0]],
        "never below 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_is_found(name: str) -> None:
    rule, rows, words = BROKEN[name]
    finding = judged(rows)
    assert finding is not None
    assert (finding.rule, words in finding.message) == (rule, True), finding
    assert finding.message.startswith(f"event {finding.index}: ")
    assert finding.state


def test_every_rule_is_broken_somewhere() -> None:
    elsewhere = {"limit", "counters"}
    assert {rule for rule, _, _ in BROKEN.values()} | elsewhere == set(RULES)


LEGAL: dict[str, list[Row]] = {
    "merged": MERGED,
    "a second half that fails": [*BEGIN, new(7, 1), add(7, 0, err=EFAULT), new(8, 2), add(8, 0)],
    "a first half that fails": [*BEGIN, new(7, 1, err=EFAULT), new(8, 2), add(8, 0)],
    "an interrupted pair at the end": [*BEGIN, new(7, 1)],
    "the zero page in vain, then a twin": [*BEGIN, zero(1, err=EFAULT), new(7, 1), add(7, 0)],
    "a dead page": [*MERGED, *THEN, leaves(7, 2), leaves(7, 1), gone(7)],
    "a dead page that some have left": [*MERGED, *THEN, leaves(7, 1), gone(7)],
    "a dead page that all but one have left": [*MERGED, *THEN, gone(7)],
    "a page that merges again": [*MERGED, *THEN, add(7, 1)],
    "a frame used again before its dead page is found": [
        *MERGED, *THEN, new(7, 5), add(7, 4), leaves(7, 2), leaves(7, 1), gone(7),
    ],
    "a page moved to another frame": [*MERGED, *THEN, add(8, 5), *[
        leaves(9, 5), leaves(9, 2), gone(9)],
    ],
    "unmerged between scans": [
        *MERGED, THEN[0], leaves(7, 2), leaves(7, 1), gone(7), scan_starts(0, 1),
    ],
    "unmerged in mid-scan": [*MERGED, gone(7), scan_starts(0, 1)],
    "unmerged in mid-scan, with some who had left": [
        *MERGED, leaves(7, 1), gone(7), scan_starts(0, 1), scan_stops(0, 1, 11),
    ],
    "unmerged, but interrupted": [*MERGED, THEN[0], scan_starts(2, 1, 4)],
    "a list that became empty": [scan_starts(0, 1), scan_starts(0, 1)],
    "a pointer used again two scans later": [
        *MERGED, *THEN, scan_stops(2, 1, 11), scan_starts(3, 1, 11),
        add(7, 4, SECOND, item=page(2)["item"]),
    ],
    "a process that exits while ksmd is at its page": [
        *MERGED, exits(), add(7, 3), *goes_on(1, items=0),
    ],
    "an exited process that is cleaned up": [
        *MERGED, exits(), *THEN, leaves(7, 2), leaves(7, 1), gone(7),
    ],
    "an address space used again": [
        *MERGED, exits(), THEN[0], scan_starts(2, 1, 11), scan_stops(2, 1, 0),
        {**enters(), "tgid": 79}, scan_starts(3, 1), scan_stops(3, 1, 5), scan_starts(4, 1, 5),
        new(8, 5) | {"tgid": 79}, add(8, 4, tgid=79),
    ],
    "a late entry": [
        enters(SECOND), scan_starts(0, 1), scan_stops(0, 1, 11), scan_starts(1, 1, 11),
        new(7, 1), add(7, 0), enters(), *goes_on(1),
    ],
    "two dead pages on one frame": [
        *MERGED, *THEN, new(7, 5), add(7, 4), scan_stops(2, 1, 11), scan_starts(3, 1, 11),
        gone(7), gone(7),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_what_only_looks_impossible_is_no_finding(name: str) -> None:
    assert judged(LEGAL[name]) is None


def test_what_was_before_the_stream_is_not_known() -> None:
    rows = [scan_starts(5, 1, 11), add(7, 1), leaves(8, 5), leaves(8, 4), gone(8), gone(9)]
    assert judged(rows, complete=False) is None
    assert judged(rows) is not None


def test_a_stream_may_begin_in_mid_scan_even_with_a_second_half() -> None:
    rows = [add(7, 9), add(8, 3), leaves(8, 5), gone(8), scan_stops(5, 1, 11)]
    assert judged(rows, complete=False) is None


def test_a_stream_that_begins_without_rmap_items_knows_everything_from_there() -> None:
    rows = [scan_starts(5, 1, 0), scan_stops(5, 1, 11), scan_starts(6, 1, 11), leaves(7, 1)]
    finding = judged(rows, complete=False)
    assert finding is not None
    assert "never put on one" in finding.message


def test_before_6_11_the_stable_tree_comes_before_the_zero_page() -> None:
    rows = [*MERGED, zero(4, err=EFAULT), add(7, 4)]
    assert judged(rows) is None
    finding = judged(rows, kernel="6.10")
    assert finding is not None
    assert finding.rule == "visit order"


def test_the_advisor_came_with_6_8() -> None:
    rows = [*BEGIN, event(KSM_ADVISOR, err=1, addr=500, arg=1), THEN[0]]
    assert judged(rows) is None
    finding = judged(rows, kernel="6.7")
    assert finding is not None
    assert finding.message == "event 5: there is no ksm_advisor in Linux 6.7"


def test_the_zero_page_is_used_only_if_the_knob_says_so() -> None:
    rows = [*BEGIN, zero(1)]
    assert judged(rows, knobs={"use_zero_pages": "1"}) is None
    assert judged(rows, knobs={"use_zero_pages": None}) is None
    finding = judged(rows, knobs={"use_zero_pages": "0"})
    assert finding is not None
    assert finding.rule == "zero page"


def test_a_ksm_page_takes_max_page_sharing_mappings_but_for_those_of_forks() -> None:
    full = [*BEGIN, new(7, 1), add(7, 0, mapcount=2), add(7, 2, mapcount=3)]
    rows = [*full, add(7, 3, mapcount=4)]
    assert judged(rows, knobs={"max_page_sharing": "4"}) is None
    finding = judged(rows, knobs={"max_page_sharing": "3"})
    assert finding is not None
    assert finding.rule == "limit"
    shared_by_fork = [*full, add(7, 3, mapcount=3)]
    assert judged(shared_by_fork, knobs={"max_page_sharing": "3"}) is None


def advice(scans: int, *, wrong: int | None = None) -> list[Row]:
    """Scans of 11 s each with what the advisor decides after each."""
    rows: list[Row] = [enters()]
    state, pages = AdvisorState(), 500
    for seq in range(scans):
        begin = 20_000_000_000 * (seq + 1)
        end = begin + 11_000_000_000
        cpu_ns = state.cpu_ns + 1_300_000_000
        decision = decide(
            state, AdvisorKnobs(), pages_to_scan=pages, scan_ns=end - begin, ksmd_cpu_ns=cpu_ns
        )
        state, pages = decision.state, decision.pages_to_scan
        told = pages + (seq == wrong)
        rows += [
            scan_starts(seq, begin, 11 if seq else 0),
            event(KSM_ADVISOR, end, err=11, addr=told, arg=decision.cpu_percent),
            scan_stops(seq, end, 11),
        ]
    return rows


SCAN_TIME = {
    "advisor_mode": "scan-time", "advisor_max_cpu": "70", "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
}  # fmt: skip


def test_the_advisor_follows_its_formula() -> None:
    assert judged(advice(11), knobs=SCAN_TIME) is None
    finding = judged(advice(11, wrong=7), knobs=SCAN_TIME)
    assert finding is not None
    assert finding.rule == "advisor"
    assert judged(advice(11, wrong=7), knobs={**SCAN_TIME, "advisor_max_cpu": None}) is None


def test_the_advisor_does_not_forget_a_scan() -> None:
    rows = advice(5)
    del rows[8]
    finding = judged(rows, knobs=SCAN_TIME)
    assert finding is not None
    assert "stopped without the advisor's decision" in finding.message


def test_the_finding_is_told_with_what_was_before_it() -> None:
    conformance = Conformance(
        profile("6.18"), None, complete=True, names={71: "python", 73: "qemu"}
    )
    conformance.events(batch_of([*MERGED, add(7, 2)]))
    finding = conformance.finding
    assert finding is not None
    assert (finding.index, finding.rule) == (8, "once a scan")
    assert finding.message == (
        "event 8: page 0x70002000 of process 71 (python) was visited twice in scan 1"
    )
    onto = "onto KSM page 0x7: ok"
    told = [
        f"event 5: ksm_merge_with_ksm_page: page {pages(1)} became KSM page 0x7: ok",
        f"event 6: ksm_merge_with_ksm_page: page {pages(0)} {onto}",
        f"event 7: ksm_merge_with_ksm_page: page {pages(2)} {onto}",
        f"event 8: ksm_merge_with_ksm_page: page {pages(2)} {onto}",
        "ksmd: scanning, scan 1",
    ]
    assert list(finding.state) == told


def pages(number: int) -> str:
    slots = page(number)
    return f"{slots['addr']:#x} of process {slots['tgid']} (rmap_item {slots['item']:#x})"
