from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import (
    Row,
    batch_of,
    borders,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
    split,
)
from support.recordings import (
    BEGIN,
    FACTS,
    SECOND,
    change_manifest,
    host_sample,
    make_recording,
    open_writer,
)

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    VIA_EXEC,
    VIA_FORK,
)
from ksmtrace.processes.census import CENSUS
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, stream_of, timeline_of
from ksmtrace.timeline.summary import Summary, summarise

_NAMES = itertools.count()


def summed_up(path: Path) -> Summary:
    return summarise(timeline_of(StoredRecording(path)))


def summed_up_in_pieces(path: Path, batches: Sequence[EventBatch]) -> Summary:
    recording = StoredRecording(path)
    return summarise(Timeline(recording, stream_of(recording, batches)))


def summary_of(
    folder: Path,
    rows: Sequence[Row] = (),
    *,
    counters: Sequence[Mapping[str, Any]] = (host_sample(BEGIN, "start", pages_shared=0),),
    identities: Sequence[Mapping[str, Any]] = (),
    **rest: Any,
) -> Summary:
    tables = {"counters": counters, "identities": identities}
    path = folder / f"{next(_NAMES)}.ksm"
    return summed_up(make_recording(path, [batch_of(rows)], tables=tables, **rest))


def at(seconds: float) -> int:
    return BEGIN + int(seconds * SECOND)


def test_an_empty_recording_is_all_zeros(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, counters=())
    assert (summary.events, summary.lost, summary.totals.merges) == (0, 0, 0)
    assert summary.totals.inherited == 0
    assert [*summary.scans, *summary.processes, *summary.advisor] == []
    assert summary.ksmd_cpu_s is None
    assert summary.ended == "duration"
    json.dumps(summary.as_dict())


def test_the_totals_count_what_stood(tmp_path: Path) -> None:
    rows = [
        makes_ksm_page(7, at(1), tgid=11),
        joins_ksm_page(7, at(1), tgid=13, mapcount=2),
        joins_ksm_page(7, at(1), tgid=13, mapcount=3, first_sight=True),
        makes_ksm_page(17, at(2), tgid=11),
        joins_ksm_page(17, at(2), tgid=11, err=-14),
        joins_ksm_page(7, at(2), tgid=11, err=-14),
        event(KSM_MERGE_ONE_PAGE, at(2), tgid=13),
        event(KSM_MERGE_ONE_PAGE, at(2), tgid=13),
        event(KSM_MERGE_ONE_PAGE, at(2), tgid=13, err=-12),
        event(KSM_REMOVE_KSM_PAGE, at(3), pfn=7),
        event(KSM_REMOVE_RMAP_ITEM, at(3), pfn=7),
        loses(5, at(3)),
    ]
    summary = summary_of(tmp_path, rows)
    totals = summary.totals
    assert totals.merges == 3
    assert totals.inherited == 1
    assert totals.stable_pages_created == 1
    assert totals.zero_merges == 2
    assert totals.failed_merges == 3
    assert summary.stable_pages_removed == 1
    assert summary.lost == 5
    assert summary.events == 12
    assert summary.events_by_kind == {
        "ksm_merge_with_ksm_page": 6,
        "ksm_merge_one_page": 3,
        "ksm_remove_ksm_page": 1,
        "ksm_remove_rmap_item": 1,
        "lost": 1,
    }
    assert summary.failures == {
        "ksm_merge_with_ksm_page": {-14: 2},
        "ksm_merge_one_page": {-12: 1},
    }


def test_each_process_has_its_own_tally_most_merges_first(tmp_path: Path) -> None:
    rows = [
        makes_ksm_page(7, at(1), tgid=11, mm=0x11),
        joins_ksm_page(7, at(1), tgid=13, mm=0x13),
        joins_ksm_page(7, at(1), tgid=13, mm=0x13),
        event(KSM_MERGE_ONE_PAGE, at(1), tgid=13, mm=0x13),
        joins_ksm_page(7, at(1), mm=0x17),
    ]
    identities = [
        {"ts": 1, "what": "present", "tgid": 11, "comm": "old", "cgroup": "/a"},
        {"ts": 2, "what": "comm", "tgid": 11, "comm": "new", "cgroup": "/a", "vm": "web1"},
        {"ts": 3, "what": "exit", "tgid": 11},
        {"ts": 3, "what": "enter", "tgid": 17, "comm": "idle"},
    ]
    counters = [
        host_sample(BEGIN, "start", pages_shared=0),
        {"ts": 5, "reason": "start", "tgid": 13, "ksm_merging_pages": 1, "ksm_rmap_items": 5},
        {"ts": 6, "reason": "end", "tgid": 13, "ksm_merging_pages": 3, "ksm_process_profit": -64,
         "ksm_zero_pages": 5},
    ]  # fmt: skip
    summary = summary_of(tmp_path, rows, identities=identities, counters=counters)
    assert [p.tgid for p in summary.processes] == [13, 0, 11, 17]
    first, unknown, second, idle = summary.processes
    assert (first.merges, first.zero_merges, first.comm) == (2, 1, None)
    assert (first.ksm_merging_pages, first.ksm_process_profit) == (3, -64)
    assert first.ksm_rmap_items is None
    assert first.saved_bytes(4096) == (3 + 5) * 4096
    assert (unknown.merges, unknown.saved_bytes(4096)) == (1, None)
    assert (second.comm, second.vm, second.cgroup) == ("new", "web1", "/a")
    assert second.stable_pages_created == 1
    assert (idle.comm, idle.merges) == ("idle", 0)


@pytest.mark.parametrize(("kernel", "known"), [("6.12.116", False), ("6.12.117", True)])
def test_a_forked_child_s_counts_are_its_own_only_where_the_kernel_clears_them(
    tmp_path: Path, kernel: str, known: bool
) -> None:
    rows = [
        event(KSM_ENTER, at(1), tgid=11, mm=0x11),
        makes_ksm_page(7, at(1), tgid=11, mm=0x11),
        event(KSM_ENTER, at(2), addr=11, mm=0x13, arg=VIA_FORK),
        joins_ksm_page(7, at(3), tgid=13, mm=0x13),
    ]
    told = {"ksm_merging_pages": 5, "ksm_rmap_items": 7, "ksm_process_profit": 9}
    counters = [
        host_sample(BEGIN, "start", pages_shared=0),
        *({"ts": at(4), "reason": "end", "tgid": tgid, "ksm_zero_pages": 3, **told}
          for tgid in (11, 13)),
    ]  # fmt: skip
    tables = {"counters": counters}
    path = make_recording(
        tmp_path / "a.ksm", [batch_of(rows)], tables=tables, facts={"kernel": kernel}
    )
    timeline = timeline_of(StoredRecording(path))
    summary = summarise(timeline)
    parent, child = summary.processes
    assert (parent.tgid, child.tgid) == (11, 13)
    assert (parent.ksm_merging_pages, parent.saved_bytes(4096)) == (5, 8 * 4096)
    own = dict.fromkeys(told) if not known else told
    assert {name: getattr(child, name) for name in told} == own
    assert child.ksm_zero_pages == 3
    assert child.saved_bytes(4096) == (8 * 4096 if known else None)
    assert [note for note in summary.as_dict()["notes"] if "parent's numbers" in note] == (
        summary.notes if not known else []
    )
    assert bool(summary.notes) is not known
    table = timeline.processes.set_index("tgid")
    assert table.loc[11, "ksm_merging_pages"] == 5
    assert table.loc[13, "ksm_zero_pages"] == 3
    sampled = table.loc[13, ["ksm_merging_pages", "ksm_rmap_items", "profit_bytes"]]
    assert sampled.notna().tolist() == [known] * 3
    profits = timeline.process_history.set_index("process")["profit_bytes"]
    assert profits.notna().to_dict() == {0: True, 1: known}


def test_owners_that_are_not_known_are_no_row_if_nothing_was_merged(tmp_path: Path) -> None:
    rows = [event(KSM_REMOVE_RMAP_ITEM, at(1), mm=0x17, addr=0x1000, pfn=7)]
    assert summary_of(tmp_path, rows).processes == []


def test_a_source_that_knows_no_owners_counts_them_as_unknown(tmp_path: Path) -> None:
    summary = summary_of(
        tmp_path,
        [makes_ksm_page(7, at(1)), joins_ksm_page(7, at(1)), joins_ksm_page(7, at(2))],
        facts={"fields_unknown": ["addr", "tgid", "first_sight", "mapcount"]},
    )
    assert [(p.tgid, p.merges) for p in summary.processes] == [(0, 3)]
    assert summary.totals.inherited is None


@pytest.mark.parametrize(("kernel", "inherited"), [("6.10.3", None), ("6.11.0", 1)])
def test_inheritance_can_be_told_since_6_11(
    tmp_path: Path, kernel: str, inherited: int | None
) -> None:
    rows = [joins_ksm_page(7, at(1), first_sight=True, mapcount=3)]
    assert summary_of(tmp_path, rows, facts={"kernel": kernel}).totals.inherited == inherited


def test_ksm_pages_of_before_the_recording_leave_inheritance_untold(tmp_path: Path) -> None:
    born = [
        makes_ksm_page(11, at(1), tgid=11, mm=0x11),
        joins_ksm_page(11, at(1), tgid=11, mm=0x11, addr=0x1000, mapcount=2),
        joins_ksm_page(11, at(1), tgid=13, mm=0x13, mapcount=3),
    ]
    older = joins_ksm_page(7, at(1), tgid=17, mm=0x17, mapcount=3)
    assert summary_of(tmp_path, born).totals.inherited == 0
    summary = summary_of(tmp_path, [*born, older])
    assert summary.totals.inherited is None
    assert {p.tgid: p.inherited for p in summary.processes} == {11: 0, 13: 0, 17: None}


def test_pages_of_all_censuses_are_counted(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.census(BEGIN, "start", np.zeros(3, CENSUS))
    writer.census(BEGIN + SECOND, "end", np.zeros(2, CENSUS))
    writer.finish("duration", {})
    assert summed_up(tmp_path / "a.ksm").census_pages == 5


def test_an_exec_and_a_pid_used_again_are_one_row(tmp_path: Path) -> None:
    rows = [
        joins_ksm_page(7, at(1), tgid=11, mm=0x11),
        event(KSM_MERGE_ONE_PAGE, at(1), tgid=11, mm=0x11, err=-14),
        event(KSM_EXIT, at(2), tgid=11, mm=0x11),
        event(KSM_ENTER, at(3), tgid=11, mm=0x13, arg=VIA_EXEC),
        joins_ksm_page(7, at(4), tgid=11, mm=0x13),
        joins_ksm_page(7, at(4), tgid=11, mm=0x13, addr=0x1000, err=-14),
    ]
    (process,) = summary_of(tmp_path, rows).processes
    assert (process.tgid, process.merges, process.failed_merges) == (11, 2, 2)


def scans_of(summary: Summary) -> list[tuple[int, int | None, int | None, int]]:
    return [(s.seq, s.start_ns, s.end_ns, s.merges) for s in summary.scans]


def test_a_full_scan_has_its_merges_and_its_duration(tmp_path: Path) -> None:
    rows = [
        scan_starts(3, at(1), items=101),
        makes_ksm_page(7, at(1.5)),
        joins_ksm_page(7, at(1.5), err=0),
        event(KSM_MERGE_ONE_PAGE, at(1.5)),
        scan_stops(3, at(2.5), items=103),
        scan_starts(4, at(3)),
        joins_ksm_page(7, at(3.5), err=-14),
        scan_stops(4, at(5), items=107),
    ]
    summary = summary_of(tmp_path, rows)
    first, second = summary.scans
    assert (first.seq, first.duration_s, first.rmap_items) == (3, 1.5, 103)
    assert (first.merges, first.zero_merges, first.merges_per_s) == (2, 1, 2.0)
    assert (second.merges, second.failed_merges, second.merges_per_s) == (0, 1, 0.0)


def test_scans_cut_at_either_end_are_partly_known(tmp_path: Path) -> None:
    rows = [
        joins_ksm_page(7, at(0.5)),
        scan_stops(3, at(1)),
        scan_starts(4, at(2)),
        joins_ksm_page(7, at(2.5)),
        scan_stops(4, at(3)),
        scan_starts(5, at(4)),
        joins_ksm_page(7, at(4.5)),
        joins_ksm_page(7, at(4.6)),
    ]
    summary = summary_of(tmp_path, rows)
    assert scans_of(summary) == [
        (3, None, at(1), 1),
        (4, at(2), at(3), 1),
        (5, at(4), None, 2),
    ]
    assert [s.duration_s for s in summary.scans] == [None, 1.0, None]
    assert [s.merges_per_s for s in summary.scans] == [None, 1.0, None]


def test_after_run_2_scans_count_from_zero_again(tmp_path: Path) -> None:
    rows = [
        scan_starts(7, at(1)),
        scan_stops(7, at(2)),
        scan_starts(8, at(2.1)),
        joins_ksm_page(7, at(2.2)),
        # run=2, run=1
        scan_starts(0, at(3)),
        joins_ksm_page(7, at(3.5)),
        scan_stops(0, at(4)),
        scan_starts(1, at(5)),
        scan_stops(1, at(6)),
    ]
    summary = summary_of(tmp_path, rows)
    assert scans_of(summary) == [
        (7, at(1), at(2), 0),
        (8, at(2.1), None, 1),
        (0, at(3), at(4), 1),
        (1, at(5), at(6), 0),
    ]


def test_a_start_that_was_lost_leaves_the_scan_before_alone(tmp_path: Path) -> None:
    rows = [
        scan_starts(3, at(1)),
        joins_ksm_page(7, at(1.5)),
        joins_ksm_page(7, at(1.6)),
        scan_stops(3, at(2)),
        loses(1009, at(2.5)),
        scan_stops(4, at(3)),
        scan_starts(5, at(4)),
        joins_ksm_page(7, at(4.5)),
        scan_stops(5, at(5)),
    ]
    summary = summary_of(tmp_path, rows)
    assert [(s.seq, s.merges) for s in summary.scans] == [(3, 2), (4, 0), (5, 1)]


def test_a_stop_is_not_taken_for_the_end_of_another_scan(tmp_path: Path) -> None:
    # What lay between was lost.
    rows = [scan_starts(3, at(1)), loses(1009, at(2)), scan_stops(5, at(7))]
    summary = summary_of(tmp_path, rows)
    assert [(s.seq, s.start_ns, s.end_ns) for s in summary.scans] == [
        (3, at(1), None),
        (5, None, at(7)),
    ]


def scan_sample(seconds: float, seq: int, **counters: int) -> dict[str, Any]:
    return {**host_sample(at(seconds), "scan", **counters), "seq": seq}


def test_pages_saved_are_the_change_up_to_the_sample_after_a_scan(tmp_path: Path) -> None:
    rows = [row for n in (1, 2, 3) for row in (scan_starts(n, at(n)), scan_stops(n, at(n + 0.5)))]
    counters = [
        host_sample(at(0), "start", pages_sharing=100, pages_shared=0),
        scan_sample(1.6, 1, pages_sharing=150, ksm_zero_pages=7),
        host_sample(at(1.9), "interval", pages_sharing=160),
        scan_sample(2.6, 2, pages_sharing=151, ksm_zero_pages=7),
    ]
    summary = summary_of(tmp_path, rows, counters=counters)
    assert [s.pages_saved for s in summary.scans] == [57, 1, None]


def test_further_samples_after_a_scan_do_not_hide_what_it_saved(tmp_path: Path) -> None:
    rows = [row for n in (1, 2) for row in (scan_starts(n, at(n)), scan_stops(n, at(n + 0.5)))]
    counters = [
        host_sample(at(0), "start", pages_sharing=100),
        scan_sample(1.6, 1, pages_sharing=150),
        scan_sample(1.7, 1, pages_sharing=151),
        scan_sample(1.8, 1, pages_sharing=151),
        scan_sample(2.6, 2, pages_sharing=140),
        {**host_sample(at(2.7), "scan"), "seq": 2},
    ]
    summary = summary_of(tmp_path, rows, counters=counters)
    assert [s.pages_saved for s in summary.scans] == [51, -11]


def test_what_a_step_unmerges_after_a_scan_is_not_the_scan_s_doing(tmp_path: Path) -> None:
    rows = [row for n in (1, 2) for row in (scan_starts(n, at(n)), scan_stops(n, at(n + 0.5)))]
    counters = [
        host_sample(at(0), "start", pages_sharing=0),
        host_sample(at(1.6), "step", pages_sharing=101),
        host_sample(at(1.7), "step", pages_sharing=0),
        scan_sample(2.6, 2, pages_sharing=7),
        host_sample(at(2.7), "step", pages_sharing=3),
    ]
    summary = summary_of(tmp_path, rows, counters=counters)
    assert [s.pages_saved for s in summary.scans] == [101, -94]


def test_a_scan_without_a_sample_leaves_what_it_saved_to_the_next(tmp_path: Path) -> None:
    rows = [row for n in (1, 2, 3) for row in (scan_starts(n, at(n)), scan_stops(n, at(n + 0.5)))]
    counters = [
        host_sample(at(0), "start", pages_sharing=100),
        scan_sample(1.6, 1, pages_sharing=150),
        scan_sample(3.6, 3, pages_sharing=140),
    ]
    summary = summary_of(tmp_path, rows, counters=counters)
    assert [s.pages_saved for s in summary.scans] == [50, None, -10]


def test_pages_saved_belong_to_the_scan_that_ended_though_another_has_begun(
    tmp_path: Path,
) -> None:
    rows = [
        scan_starts(1, at(1)),
        scan_stops(1, at(2)),
        scan_starts(2, at(3)),
        scan_stops(2, at(4)),
        scan_starts(3, at(5)),
    ]
    counters = [
        host_sample(at(0), "start", pages_sharing=100),
        scan_sample(2.1, 1, pages_sharing=150),
        scan_sample(4.1, 2, pages_sharing=167),
        host_sample(at(6), "end", pages_sharing=167),
    ]
    summary = summary_of(tmp_path, rows, counters=counters)
    assert [(s.seq, s.pages_saved) for s in summary.scans] == [(1, 50), (2, 17), (3, None)]


def test_the_advisors_decisions_are_listed(tmp_path: Path) -> None:
    rows = [event(KSM_ADVISOR, at(1), err=7, addr=5003, arg=61), event(KSM_ADVISOR, at(2))]
    assert summary_of(tmp_path, rows).advisor == [
        {"scan_time": 7, "pages_to_scan": 5003, "cpu_percent": 61, "ts_ns": at(1)},
        {"scan_time": 0, "pages_to_scan": 0, "cpu_percent": 0, "ts_ns": at(2)},
    ]


def test_counters_that_the_kernel_lacks_are_unknown_and_never_zero(tmp_path: Path) -> None:
    counters = [
        host_sample(at(0), "start", pages_shared=3, ksmd_cpu_ns=SECOND),
        {"ts": at(1), "reason": "end", "tgid": 7, "ksm_merging_pages": 5},
        host_sample(at(4), "end", pages_shared=11, ksmd_cpu_ns=3 * SECOND),
    ]
    summary = summary_of(tmp_path, counters=counters)
    assert (summary.counters_first["pages_shared"], summary.counters_last["pages_shared"]) == (
        3,
        11,
    )
    assert summary.counters_last["pages_skipped"] is None
    assert "ksm_merging_pages" not in summary.counters_last
    assert summary.ksmd_cpu_s == 2.0
    ksmd = summary.as_dict()["ksmd"]
    # Two seconds of CPU in the four seconds between the samples.
    assert ksmd["percent_of_one_core"] == pytest.approx(50)
    assert ksmd["percent_of_host"] == pytest.approx(50 / 3)


def test_the_json_has_everything_and_is_json(tmp_path: Path) -> None:
    rows = [
        scan_starts(3, at(1)),
        makes_ksm_page(7, at(1.5), tgid=11),
        joins_ksm_page(7, at(1.5), tgid=13, err=-14),
        scan_stops(3, at(2)),
        event(KSM_ADVISOR, at(2), err=7, addr=5003, arg=61),
    ]
    told = json.loads(json.dumps(summary_of(tmp_path, rows).as_dict()))
    assert told["totals"]["merges"] == 0
    assert told["totals"]["failed_merges"] == 1
    assert told["scans"][0]["duration_s"] == 1.0
    assert told["failures_by_errno"] == {"ksm_merge_with_ksm_page": {"-14": 1}}
    assert told["kernel"] == FACTS["kernel"]
    assert {p["tgid"] for p in told["processes"]} == {11, 13}


def cut_recording(folder: Path, rows: Sequence[Row], **options: Any) -> Path:
    """As a killed recorder leaves it, a census and regions already written."""
    writer = open_writer(folder / "live.ksm", **options)
    writer.events(batch_of(rows))
    for name in ("counters", "identities", "regions"):
        writer.table(name, [{"ts": BEGIN, "tgid": None if name == "counters" else 7}])
    writer.census(BEGIN, "start", np.zeros(1, CENSUS))
    writer._flush_all()
    shutil.copytree(folder / "live.ksm", folder / "killed.ksm")
    writer.abandon("error: the test is over")
    return folder / "killed.ksm"


def test_a_killed_recording_is_cut_and_lasts_until_its_last_event(tmp_path: Path) -> None:
    path = cut_recording(tmp_path, [scan_starts(3, at(1)), scan_stops(3, at(7))])
    summary = summed_up(path)
    assert summary.ended == "cut"
    assert summary.duration_s == pytest.approx(7)
    assert len(summary.scans) == 1


def test_a_recording_killed_before_its_first_census_is_reported(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "live.ksm")
    writer.events(batch_of([scan_stops(3, at(1))]))
    writer.table("counters", [host_sample(BEGIN, "start")])
    writer._flush_all()
    shutil.copytree(tmp_path / "live.ksm", tmp_path / "killed.ksm")
    writer.abandon("error: the test is over")
    summary = summed_up(tmp_path / "killed.ksm")
    assert (summary.ended, len(summary.scans)) == ("cut", 1)


def test_an_abandoned_recording_says_why_it_ended(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.events(batch_of([scan_stops(3, at(1))]))
    writer.table("counters", [host_sample(at(0), "start"), host_sample(at(2), "end")])
    writer.abandon("error: no space left")
    summary = summed_up(tmp_path / "a.ksm")
    assert summary.ended == "error: no space left"
    assert summary.duration_s == pytest.approx(2)


@pytest.mark.parametrize("key", [*FACTS, "lost", "ended", "tables", "duration_s", "notes"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_manifest_without_a_key_is_summed_up_or_refused(
    tmp_path: Path, key: str, killed: bool
) -> None:
    rows = [scan_starts(3, at(1)), joins_ksm_page(7, at(2)), scan_stops(3, at(3))]
    if killed:
        path = cut_recording(tmp_path, rows)
    else:
        path = make_recording(tmp_path / "a.ksm", [batch_of(rows)])
    change_manifest(path, {}, without=[key])
    try:
        json.dumps(summed_up(path).as_dict())
    except KsmtraceError as error:
        assert error.exit_code == 4  # noqa: PT017 either is right


TGIDS = st.sampled_from([0, 11, 13])
EVENTS = st.one_of(
    st.builds(makes_ksm_page, st.just(7), tgid=TGIDS),
    st.builds(
        joins_ksm_page, st.just(7), tgid=TGIDS, err=st.sampled_from([0, 0, -14]), mapcount=TGIDS
    ),
    st.builds(lambda tgid: event(KSM_MERGE_ONE_PAGE, tgid=tgid), TGIDS),
    st.just(event(KSM_EXIT, tgid=11)),
    st.just(event(KSM_REMOVE_KSM_PAGE, pfn=7)),
    st.just(event(KSM_ADVISOR, addr=5003)),
    st.just(loses(3)),
    st.just("border"),
)


@st.composite
def streams(draw: st.DrawFn) -> EventBatch:
    """Events between the borders of scans; recording may begin and end within a scan."""
    seq, inside = draw(st.integers(0, 5)), draw(st.booleans())
    rows: list[Row] = []
    for number, drawn in enumerate(draw(st.lists(EVENTS, max_size=41))):
        ts = at(number + 1)
        if isinstance(drawn, dict):
            rows.append({**drawn, "ts": ts})
            continue
        rows.append(scan_stops(seq, ts) if inside else scan_starts(seq, ts))
        seq += inside
        inside = not inside
    return batch_of(rows)


@pytest.fixture(name="place", scope="module")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counters = [host_sample(BEGIN, "start", pages_shared=0)]
    folder = tmp_path_factory.mktemp("split")
    return make_recording(folder / "a.ksm", tables={"counters": counters})


@settings(max_examples=307)
@given(stream=streams(), where=borders())
def test_any_split_of_a_stream_gives_the_same_summary(
    place: Path, stream: EventBatch, where: list[int]
) -> None:
    whole = summed_up_in_pieces(place, [stream]).as_dict()
    assert summed_up_in_pieces(place, split(stream, where)).as_dict() == whole


@given(stream=streams(), where=borders())
def test_what_the_scans_and_the_processes_count_is_the_total(
    place: Path, stream: EventBatch, where: list[int]
) -> None:
    summary = summed_up_in_pieces(place, split(stream, where))
    for name in ("merges", "zero_merges", "failed_merges", "stable_pages_created"):
        total = getattr(summary.totals, name)
        assert sum(getattr(process, name) for process in summary.processes) == total
        assert sum(getattr(scan, name) for scan in summary.scans) <= total
