"""Faults found on the real ksmd, at their smallest."""

from __future__ import annotations

from typing import Any

from ksmtrace.events.registry import (
    COW_BREAK,
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    LEFT_DISCARD,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    VIA_EXEC,
    VIA_FORK,
    VIA_SELF,
)
from tests.support.batches import batch_of, event, scan_starts, scan_stops
from tests.support.recordings import BEGIN, SECOND, host_sample
from tests.support.timelines import timeline_in_memory

COW = {"cow": {"seen_by": ["page_fault_user"], "obstacles": []}}


def sample(
    seconds: float, reason: str, *, zero: int = 0, scans: int = 0, run: str = "1", **counters: int
) -> dict[str, Any]:
    ts = BEGIN + int(seconds * SECOND)
    told = {"pages_shared": 0, "pages_sharing": 0, "cow_ksm": 0, **counters}
    row = host_sample(ts, reason, ksm_zero_pages=zero, full_scans=scans, **told)
    return {**row, "knob_run": run}


def test_a_zero_page_that_run_2_ended_is_not_ended_again_by_its_process() -> None:
    at = {"mm": 7, "tgid": 70, "addr": 0x1000}
    rows = [
        event(KSM_ENTER, BEGIN + 1, mm=7, tgid=70, arg=VIA_SELF),
        scan_starts(0, BEGIN + 10),
        event(KSM_MERGE_ONE_PAGE, BEGIN + 20, pfn=9, item=5, **at),
        scan_stops(0, BEGIN + 30, 1),
        scan_starts(0, BEGIN + 3 * SECOND),
        scan_stops(0, BEGIN + 3 * SECOND + 10, 1),
        event(RANGE_LEFT, BEGIN + 4 * SECOND, arg=1, err=LEFT_UNMERGEABLE, **at),
    ]
    samples = [
        sample(0, "start"),
        sample(1, "interval", zero=1, scans=1),
        sample(2, "interval", run="2", cow_ksm=5),
        sample(3.5, "interval", scans=1, cow_ksm=5),
        sample(5, "end", scans=1, cow_ksm=5),
    ]
    told = timeline_in_memory([batch_of(rows)], tables={"counters": samples}, facts=COW)
    (row,) = told.pages.to_dict("records")
    assert row["ended_after_ns"] <= row["ended_before_ns"]
    assert (told.accounts["zero_residual"] == 0).all()


def test_zero_pages_are_counted_until_the_exiting_process_has_dropped_them() -> None:
    rows = [
        event(KSM_ENTER, BEGIN + 1, mm=7, tgid=70, arg=VIA_SELF),
        scan_starts(0, BEGIN + 10),
        *(
            event(
                KSM_MERGE_ONE_PAGE, BEGIN + 20 + n,
                pfn=9, item=5 + n, mm=7, tgid=70, addr=0x1000 * (1 + n),
            )
            for n in range(3)
        ),
        scan_stops(0, BEGIN + 30, 3),
        event(KSM_ENTER, BEGIN + 40, mm=8, addr=70, arg=VIA_FORK),
        event(KSM_EXIT, BEGIN + SECOND - 450_000, mm=8, tgid=80),
        event(KSM_EXIT, BEGIN + 2 * SECOND - 450_000, mm=7, tgid=70),
    ]  # fmt: skip
    samples = [
        sample(0, "start"),
        sample(0.5, "interval", zero=6, scans=1),
        sample(1, "interval", zero=6, scans=1),
        sample(2, "interval", zero=3, scans=1),
        sample(3, "end", scans=1),
    ]
    told = timeline_in_memory(
        [batch_of(rows)], tables={"counters": samples}, facts={"kernel": "6.18.44"}
    )
    assert told.accounts["zero_residual"].tolist() == [0] * 5


def test_a_prctl_that_may_have_unmerged_nothing_proves_nothing() -> None:
    pages = [{"mm": 7, "tgid": 70, "item": 5 + n, "addr": 0x1000 * (1 + n)} for n in range(2)]
    rows = [
        event(KSM_ENTER, BEGIN + 1, mm=7, tgid=70, arg=VIA_SELF),
        scan_starts(0, BEGIN + 10),
        event(KSM_MERGE_WITH_KSM_PAGE, BEGIN + 20, pfn=9, **pages[0]),
        event(KSM_MERGE_WITH_KSM_PAGE, BEGIN + 21, pfn=9, arg=INTO_EXISTING | 2 << 8, **pages[1]),
        scan_stops(0, BEGIN + 30, 2),
        event(RANGE_LEFT, BEGIN + SECOND, mm=7, tgid=70, arg=0xFFFFFFFF, err=LEFT_PRCTL),
        scan_starts(1, BEGIN + 2 * SECOND),
        scan_stops(1, BEGIN + 2 * SECOND + 10, 2),
    ]
    samples = [
        sample(0, "start"),
        sample(0.5, "interval", scans=1, pages_shared=1, pages_sharing=1),
        sample(3, "end", scans=2, pages_shared=1, pages_sharing=1),
    ]
    told = timeline_in_memory([batch_of(rows)], tables={"counters": samples}, facts=COW)
    assert told.accounts["residual"].tolist() == [0] * 3
    assert told.pages["end"].tolist() == ["unmerged"] * 2
    assert not told.pages["proven"].any()


def test_who_only_shared_a_frame_that_became_a_ksm_page_was_never_merged() -> None:
    rows = [
        scan_starts(1, BEGIN + 10),
        event(KSM_MERGE_WITH_KSM_PAGE, BEGIN + 20, pfn=9, item=5, mm=7, tgid=70, addr=0x2000),
        event(
            KSM_MERGE_WITH_KSM_PAGE, BEGIN + 30, pfn=9, item=4, mm=7, tgid=70, addr=0x1000,
            arg=INTO_EXISTING,
        ),
        scan_stops(1, BEGIN + 40, 2),
        event(COW_BREAK, BEGIN + 50, pfn=9, mm=8, tgid=80, addr=0x2000),
        event(COW_BREAK, BEGIN + 60, pfn=3, mm=8, tgid=80, addr=0x3000),
    ]  # fmt: skip
    samples = [sample(0, "start", scans=1), sample(1, "end", scans=2, cow_ksm=2)]
    told = timeline_in_memory([batch_of(rows)], tables={"counters": samples}, facts=COW)
    told_of = told.pages[["tgid", "addr", "how"]].sort_values(["tgid", "addr"])
    assert told_of.astype(object).to_numpy().tolist() == [
        [70, 0x1000, "partner"],
        [70, 0x2000, "created"],
        # Of a KSM page that was there before nobody knows better.
        [80, 0x3000, "before"],
    ]


def test_an_exec_is_no_moment_at_which_ksmd_notices_what_was_given_up_before() -> None:
    mine = {"mm": 7, "tgid": 70}
    census = [
        {"ts": BEGIN, "reason": "start", "tgid": 70, "addr": 0x1000 * n, "pfn": 9} for n in (1, 2)
    ]
    rows = [
        event(RANGE_LEFT, BEGIN + SECOND, addr=0x1000, arg=2, err=LEFT_DISCARD, **mine),
        event(KSM_ENTER, BEGIN + 2 * SECOND, mm=8, tgid=70, arg=VIA_EXEC),
        event(KSM_EXIT, BEGIN + 2 * SECOND + 1, **mine),
        scan_starts(5, BEGIN + 4 * SECOND),
        event(KSM_REMOVE_RMAP_ITEM, BEGIN + 4 * SECOND + 1, pfn=9, item=6, addr=0x2000, **mine),
        event(KSM_REMOVE_KSM_PAGE, BEGIN + 4 * SECOND + 2, pfn=9),
        scan_stops(5, BEGIN + 4 * SECOND + 3, 2),
    ]
    there = {"pages_shared": 1, "pages_sharing": 1}
    samples = [
        sample(0, "start", scans=5, **there),
        sample(3, "interval", scans=5, **there),
        sample(5, "end", scans=6),
    ]
    told = timeline_in_memory(
        [batch_of(rows)], tables={"counters": samples, "census": census}, facts=COW
    )
    assert told.pages["end"].tolist() == ["unmapped"] * 2
    assert told.accounts["merged_most"].tolist() == [2, 2, 0]
    assert told.accounts["residual"].tolist() == [0] * 3


def test_a_childs_mapping_that_ksmd_never_met_is_not_what_the_kernel_counted() -> None:
    child = {"mm": 8, "tgid": 80}
    rows = [
        # Of the five that the kernel counts these may be two, or none.
        event(COW_BREAK, BEGIN + SECOND, pfn=9, addr=0x1000, **child),
        event(COW_BREAK, BEGIN + SECOND, pfn=9, addr=0x2000, **child),
        scan_starts(5, BEGIN + 2 * SECOND),
        event(
            KSM_MERGE_WITH_KSM_PAGE, BEGIN + 2 * SECOND + 1, pfn=9, item=3, addr=0x3000,
            arg=INTO_EXISTING | FIRST_SIGHT, **child,
        ),
        scan_stops(5, BEGIN + 2 * SECOND + 2, 6),
    ]  # fmt: skip

    def residual(last: int) -> list[int]:
        samples = [
            sample(0, "start", scans=5, pages_shared=1, pages_sharing=4),
            sample(1.5, "interval", scans=5, pages_shared=1, pages_sharing=4, cow_ksm=2),
            sample(3, "end", scans=6, pages_shared=1, pages_sharing=last - 1, cow_ksm=2),
        ]
        told = timeline_in_memory([batch_of(rows)], tables={"counters": samples}, facts=COW)
        found: list[int] = told.accounts["residual"].tolist()
        return found

    assert [residual(4), residual(6)] == [[0] * 3, [0] * 3]
    assert residual(7) == [0, 0, 1]
