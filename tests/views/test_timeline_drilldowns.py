from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ksmtrace.timeline.breaks import BreakTables, break_accounts, top_writers
from ksmtrace.timeline.tables import HOW
from ksmtrace.views.timeline_accounts import accounts_view
from ksmtrace.views.timeline_advisor import advisor_view
from ksmtrace.views.timeline_ksm_page import ksm_page_view
from ksmtrace.views.timeline_page import page_view
from ksmtrace.views.timeline_parts import Run, View
from ksmtrace.views.timeline_process import process_view, processes_view
from ksmtrace.views.timeline_regions import regions_view
from ksmtrace.views.timeline_scan import scan_view
from ksmtrace.views.timeline_scans import scans_view
from ksmtrace.views.timeline_sharing import sharing_view
from ksmtrace.views.timeline_writers import breaks_view
from tests.support.recordings import host_sample
from tests.support.timeline_frames import at, run_by_hand, shown
from tests.support.timelines import timeline_in_memory

PROCESSES = [
    {"process": 0, "tgid": 1234, "comm": "python3", "cgroup": "/a", "merges": 11,
     "merged_last": 3, "merged_peak": 7, "time_to_50_s": 0.5, "time_to_90_s": 1.5},
    {"process": 1, "tgid": 1235, "comm": "qemu", "vm": "guest-7", "cgroup": "/b", "merges": 5,
     "parent_tgid": 1234, "entered_ns": at(0.25), "exited_ns": at(4.5)},
]  # fmt: skip
PAGES: list[dict[str, Any]] = [
    {"process": 0, "tgid": 1234, "addr": 0x7000, "region": 0, "ksm_page": 0, "how": "created",
     "merged_ns": at(1), "scan": 2, "scans_waited": 1, "end": "cow_break", "proven": True,
     "ended_after_ns": at(2), "ended_before_ns": at(2)},
    {"process": 1, "tgid": 1235, "addr": 0x9000, "ksm_page": 0, "how": "partner",
     "merged_ns": at(1), "scan": 2},
    {"process": 0, "tgid": 1234, "addr": 0x8000, "ksm_page": 0, "how": "joined",
     "merged_ns": at(1.5), "scan": 2, "end": "unmapped", "ended_after_ns": at(3),
     "ended_before_ns": at(4)},
    {"process": 0, "tgid": 1234, "addr": 0x7000, "region": 0, "how": "zero_page",
     "merged_ns": at(3), "scan": 3},
    {"process": 1, "tgid": 1235, "addr": 0xA000, "ksm_page": 1, "how": "before"},
]  # fmt: skip
REGIONS = [
    {"process": 0, "tgid": 1234, "start": 0x7000, "end": 0xB000, "name": "[heap]", "pages": 4,
     "merges": 2, "zero_merges": 1, "merged_last": 1},
    {"process": 1, "tgid": 1235, "start": 0x9000, "end": 0xB000, "pages": 2, "merges": 1},
]  # fmt: skip
SCANS = [
    {"scan": 2, "seq": 41, "start_ns": at(0.5), "end_ns": at(1.75), "duration_s": 1.25,
     "items_before": 13, "items_after": 17, "merges": 3, "inherited": 0, "failed_merges": 7,
     "failed_efault": 5, "failed_other": 2, "ksm_pages_new": 1, "pages_saved": 2,
     "saved_bytes": 8192, "pages_scanned": 19},
    {"scan": 3, "start_ns": at(2.5)},
]  # fmt: skip
ACCOUNTS = [
    {"ts_ns": at(1.75), "reason": "scan", "scan": 2, "merged_kernel": 3, "merged_least": 3,
     "merged_most": 5, "residual": 0, "unnoticed": 2},
    {"ts_ns": at(2.25), "reason": "interval", "scan": 2, "merged_kernel": 2, "merged_least": 2,
     "merged_most": 2, "residual": 0},
]  # fmt: skip
DECISION = {
    "ts_ns": at(1.7), "scan": 2, "scan_time_s": 3, "cpu_percent": 11, "pages_before": 500,
    "pages_to_scan": 700, "target_scan_time_s": 5, "max_cpu_percent": 70, "computed": 700,
    "agrees": True,
}  # fmt: skip
BREAKS = [
    {"ts_ns": at(2), "scan": 2, "process": 0, "tgid": 1234, "addr": 0x7000, "page": 0,
     "file": "/usr/bin/python3", "offset": 0x1234},
    {"ts_ns": at(3), "process": 0, "tgid": 1234, "file": "/usr/bin/python3", "offset": 0x1234},
    {"ts_ns": at(3), "process": 1, "tgid": 1235, "file": "[kernel]", "symbol": "copy_to_user",
     "offset": 8, "kernel_mode": True},
]  # fmt: skip


def run(manifest: dict[str, Any] | None = None, **changes: Any) -> Run:
    tables: dict[str, Any] = {
        "processes": PROCESSES, "pages": PAGES, "region_ledger": REGIONS, "scans": SCANS,
        "accounts": ACCOUNTS, "stable_pages": [{"pfn": 0x51, "born_ns": at(1), "born_scan": 2,
        "merges": 3, "sharers_peak": 3, "sharers_last": 1, "processes": 2}, {}],
    }  # fmt: skip
    return run_by_hand(manifest, **{**tables, **changes})


def words(view: View) -> str:
    """What is shown, as one line."""
    text = shown(view)
    assert all(len(line) <= 80 for line in text.splitlines())
    return " ".join(text.split())


def page(rows: list[int], **changes: Any) -> str:
    return words(page_view(run(**changes), np.array(rows), 0x7000))


def test_a_page_is_told_life_by_life() -> None:
    text = page([0, 3])
    assert text.startswith("page 0x7000 of python3 1234, region [heap]: merged 2 times")
    assert "1. In scan 2, at 1.000 s, it became KSM page 0, the first of two equal pages." in text
    assert "ksmd needed 1 full scan since it could first see it." in text
    assert "The other was 0x9000 of guest-7 1235." in text
    assert "It ended at 2.000 s: a write broke it." in text
    assert "2. In scan 3, at 3.000 s, it was mapped onto the zero page." in text
    assert text.endswith("It was still merged at the end, as far as is known.")


def test_a_write_that_was_seen_is_told_with_its_place_in_the_code() -> None:
    assert "a write broke it, from /usr/bin/python3+0x1234." in page([0], breaks=BREAKS)


def test_an_end_that_nothing_proves_is_told_with_its_bounds_and_the_doubt() -> None:
    text = page([2])
    assert "It ended between 3.000 s and 4.000 s: it was given up" in text
    assert "if not something unseen did before" in text


def test_a_page_is_told_with_those_that_were_on_its_ksm_page_then() -> None:
    assert "2 other pages were on it then: python3 1234 (1), guest-7 1235 (1)." in page([2])
    gone = [{**PAGES[0], "end": "stale", "ended_before_ns": at(1.25)}, *PAGES[1:]]
    assert "1 other page was on it then: guest-7 1235 (1)." in page([2], pages=gone)


def test_a_page_merged_before_the_recording_is_said_to_be() -> None:
    assert "1. Already merged with KSM page 1 when the recording began." in page([4])


def test_of_ten_thousand_lives_the_first_and_the_last_are_told() -> None:
    lives = [{**PAGES[2], "ksm_page": None, "how": "zero_page"}] * 10_007
    text = page(list(range(10_007)), pages=lives)
    assert "merged 10,007 times" in text
    assert "5. In scan" in text
    assert "… 9,997 more lives; --csv has all 10003. In scan" in text
    view = page_view(run(pages=lives), np.arange(10_007), 0x7000)
    assert len(view.as_csv().splitlines()) == 10_008


def test_all_scans_are_listed_with_what_each_visited_and_skipped() -> None:
    scans = [{**SCANS[0], "pages_skipped": 1009}, SCANS[1]]
    lines = shown(scans_view(run(scans=scans))).splitlines()
    assert lines[0].strip() == "full scans (2)"
    assert lines[2].split() == ["2", "41", "0.500", "s", "1.25", "s", "17", "19", "1,009", "3", "0",
                                "7", "2"]  # fmt: skip
    assert lines[3].split() == ["3", "–", "2.500", "s", "–", "–", "–", "–", "0", "0", "0", "–"]
    assert "No full scan" in words(scans_view(run(scans=[])))


def test_of_very_many_scans_the_first_are_listed_and_csv_has_all() -> None:
    view = scans_view(run(scans=[{**SCANS[0], "scan": 10_000 + n} for n in range(1009)]))
    assert words(view).startswith("full scans (1,009), the first 60; --csv has all")
    assert len(view.as_csv().splitlines()) == 1010


def test_a_scan_is_spelt_out_with_those_it_merged() -> None:
    text = words(scan_view(run(advisor=[DECISION]), 0))
    assert "scan 2, the kernel's number 41" in text
    assert "0.500 s to 1.750 s: 1.25 s" in text
    assert "13 at its start, 17 at its end" in text
    assert "failed 7: 5 with EFAULT, 2 others" in text
    assert "saved 2 pages, 8.0 KiB after it" in text
    assert "merged in it pages created partner joined" in text
    assert "python3 1234 2 1 0 1 guest-7 1235 1 0 1 0" in text
    assert "set pages_to_scan from 500 to 700: as the formula gives" in text
    assert "1.750 s scan 3 3 to 5 2 0 –" in text


def test_a_scan_that_never_ended_says_so() -> None:
    text = words(scan_view(run(pages=PAGES[:3]), 1))
    assert "2.500 s to end not recorded: –" in text
    assert "Nothing was merged in it." in text
    assert "No sample of the counters belongs to it." in text


def test_the_csv_of_a_scan_is_who_was_merged_and_how() -> None:
    told = scan_view(run(), 0).csv
    assert told["merged"].tolist() == [2, 1]
    assert told["comm"].tolist() == ["python3", "qemu"]
    assert told[list(HOW)].to_numpy().sum() == 3


def test_a_process_is_told_by_how_its_pages_merged_and_ended() -> None:
    text = words(process_view(run(), 0))
    assert text.startswith("process python3 1234 (@0)")
    assert "converged 50 % in 500 ms, 90 % in 1.50 s, 99 % in –" in text
    assert "still cow break unmapped all" in text
    assert "created 0 1 0 1" in text
    assert "joined 0 0 1 1" in text
    assert "zero page 1 0 0 1" in text
    assert "@0 [heap]" in text
    assert "partner" not in text


def test_a_child_is_told_with_its_parent_and_its_life() -> None:
    text = words(process_view(run(), 1))
    assert "vm guest-7" in text
    assert "0.250 s, forked by 1234, exited at 4.500 s" in text
    assert "last sample –" in text


def test_processes_are_listed_with_their_rows() -> None:
    text = words(processes_view(run()))
    assert "@0 python3 1234 11" in text
    assert "@1 guest-7 1235 5" in text
    assert words(processes_view(run_by_hand())) == "No process is in this recording."


def test_a_ksm_page_is_told_by_its_sharers_in_time() -> None:
    view = ksm_page_view(run(), 0)
    text = words(view)
    assert "KSM page 0, frame 0x51" in text
    assert "born 1.000 s, in scan 2" in text
    assert "alive at the end, as far as is known" in text
    assert "3 pages at most, 1 at the end, 3 ever" in text
    assert "2 address spaces in 2 cgroups, 1 VM" in text
    assert "python3 1234 /a 2 0 guest-7 1235 /b 1 1" in text
    sharers = next(line for line in shown(view).splitlines() if line.startswith("sharers   "))
    strip = next(line for line in shown(view).splitlines() if line.endswith("0..3 pages"))
    assert strip[13] == "▁"
    assert strip[13 + 30] > strip[13 + 45] > strip[13]
    assert sharers


def test_regions_are_a_ledger_and_one_of_them_is_shown_in_time() -> None:
    ledger = words(regions_view(run(), np.array([0, 1])))
    assert "regions (2) row region process pages merges zero ended merged saved" in ledger
    assert "@0 [heap] python3 1234 4 2 1 0 1 4.0 KiB" in ledger
    assert "@1 at 9000 guest-7 1235 2 1 0 0 0 0 B" in ledger
    history = [{"region": 0, "scan": 2, "merged": 1}, {"region": 1, "scan": 2, "merged": 7}]
    one = regions_view(run(region_history=history), np.array([0]))
    assert "0..1 pages" in shown(one)
    assert one.csv["merged"].tolist() == [1]
    assert words(regions_view(run_by_hand(), np.array([], np.int64))).startswith("No region")


def matrix(rows: list[list[int]], names: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=names, columns=names)


def test_who_shares_with_whom_is_a_matrix() -> None:
    view = sharing_view(run(), matrix([[7, 3], [3, 1_009]], [0, 1]), "process")
    text = words(view)
    assert "KSM pages shared by processes (2) 1 2" in text
    assert "1 guest-7 1235 1,009 3 2 python3 1234 3 7" in text
    assert "others" not in text
    told = json.loads(view.as_json())
    assert told["names"] == ["python3 1234", "guest-7 1235"]
    assert told["ksm_pages_shared"] == [[7, 3], [3, 1009]]
    assert view.as_csv().splitlines()[1] == "python3 1234,7,3"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_those_that_do_not_fit_are_summed_and_it_says_so(width: int) -> None:
    names = [f"/machine.slice/a-name-much-too-long-for-a-table-{n}" for n in range(97)]
    shared = np.full((97, 97), 11) + np.eye(97, dtype=int) * 2
    text = shown(sharing_view(run(), matrix(shared.tolist(), list(names)), "cgroup"), width)
    assert all(len(line) <= width for line in text.splitlines())
    first = next(line for line in text.splitlines() if line.startswith("1 ")).split()
    shown_ones = [int(cell) for cell in first[2:-1]]
    assert shown_ones == [13] + [11] * (len(shown_ones) - 1)
    assert int(first[-1].replace(",", "")) == 11 * (97 - len(shown_ones))
    assert f"the sum over the {97 - len(shown_ones)} cgroups that don't" in " ".join(text.split())


def test_two_processes_of_one_name_and_id_are_told_apart() -> None:
    again = [PROCESSES[0], {**PROCESSES[0], "process": 1}]
    view = sharing_view(run(processes=again), matrix([[7, 3], [3, 5]], [0, 1]), "process")
    assert view.csv.columns.tolist() == ["process", "python3 1234 @0", "python3 1234 @1"]


def test_nobody_shares_in_an_empty_recording() -> None:
    assert "Nobody" in words(sharing_view(run(), matrix([], []), "vm"))


def test_writers_are_told_with_what_became_of_all_copies() -> None:
    known = {"ksm_zero_pages": 0, "knob_run": "1"}
    counters = [
        host_sample(at(0), cow_ksm=0, full_scans=0, pages_shared=0, pages_sharing=0, **known),
        host_sample(at(5), cow_ksm=7, full_scans=3, pages_shared=1, pages_sharing=2, **known),
    ]
    timeline = timeline_in_memory([], tables={"counters": counters})
    tables = BreakTables(break_accounts(timeline, []), top_writers(timeline))
    view = breaks_view(run(breaks=BREAKS), tables)
    text = words(view)
    assert "copied 7" in text
    assert "unseen 7" in text
    assert "python3 1234 /usr/bin/python3+0x1234 2 0 0" in text
    assert "guest-7 1235 [kernel] copy_to_user+0x8 1 1 0" in text
    assert json.loads(view.as_json())["totals"]["unseen"] == 7
    assert view.csv["writes"].tolist() == [2, 1]


def test_decisions_are_told_beside_the_formula() -> None:
    other = {**DECISION, "ts_ns": at(3), "computed": 701, "agrees": False}
    unknown = {**DECISION, "ts_ns": at(4), "computed": None, "agrees": None}
    text = words(advisor_view(run(advisor=[DECISION, other, unknown])))
    assert "1 of 2 decisions are what the formula gives; of 1 it can't be told." in text
    assert "3.000 s 2 3 11 5 500 700 701" in text
    assert "4.000 s 2 3 11 5 500 700 –" in text
    assert "All 1 decisions" in words(advisor_view(run(advisor=[DECISION])))
    assert "decided nothing" in words(advisor_view(run()))


def test_an_advisor_s_first_measure_of_all_cpu_since_boot_does_not_flatten_its_chart() -> None:
    first = {**DECISION, "cpu_percent": 87_118, "ts_ns": at(0.5)}
    (line,) = [
        line
        for line in shown(advisor_view(run(advisor=[first, DECISION]))).splitlines()
        if line.startswith("ksmd CPU")
    ]
    assert line.endswith("0..11 %")
    assert "█" in line
    (alone,) = [
        line
        for line in shown(advisor_view(run(advisor=[first]))).splitlines()
        if "ksmd CPU" in line
    ]
    assert alone.endswith(" %")


def test_accounts_show_the_worst_samples_among_many() -> None:
    many = [
        {**ACCOUNTS[0], "ts_ns": at(n / 1000), "residual": -n if n in (503, 701) else 0}
        for n in range(1009)
    ]
    view = accounts_view(run(accounts=many))
    text = words(view)
    assert "up to 701 merged pages remain unexplained, in 2 of 1,009 samples" in text
    assert "-503" in text
    assert "-701" in text
    assert "--csv has all" in text
    assert len(view.as_csv().splitlines()) == 1010
    assert "nothing to compare" in words(accounts_view(run(accounts=[])))


def test_no_digit_is_cut_off_where_numbers_are_too_wide() -> None:
    big = 123_456_789_123
    row = {
        **ACCOUNTS[0],
        **dict.fromkeys(("silent", "unnoticed", "open", "before", "lost"), big),
        **dict.fromkeys(("merged_kernel", "zero_kernel", "residual", "zero_residual"), big),
        "merged_most": big,
    }
    view = accounts_view(run(accounts=[row]))
    words(view)
    table = shown(view).partition("samples (1)")[2]
    assert "…" not in table
    assert sum(map(str.isdigit, table)) == 12 * 10 + len("1750") + len("3")
