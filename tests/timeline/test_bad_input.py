"""Timelines of bad input and hard cases: right tables, bounded memory, no exception."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
)
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, stream_of, timeline_of
from ksmtrace.timeline.live import RowsInMemory
from tests.support.batches import (
    Row,
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)
from tests.support.hard_streams import (
    CUT_BY_A_LOSS,
    EFAULT,
    END,
    IDLE,
    IMPORTED,
    MS,
    PAGE,
    A,
    B,
    as_imported,
    at,
    counted,
    execs,
    in_time,
    life_after,
    mm_used_again,
    on_two_clocks,
    one_a_ms,
    only_of_11,
    pairs,
    pid_used_again,
    scan_of,
)
from tests.support.recordings import (
    BEGIN,
    FACTS,
    FINAL,
    SECOND,
    host_sample,
    make_recording,
    open_writer,
)
from tests.support.timelines import timeline_in_memory

EMPTY_TABLES = ("scans", "pages", "stable_pages", "processes", "process_history", "region_ledger",
                "region_history", "breaks", "advisor")  # fmt: skip


def expect_sound(timeline: Timeline) -> None:
    """What holds for any input."""
    pages = timeline.pages
    over = pages[pages["ended_before_ns"].notna()]
    assert not (over["ended_after_ns"] > over["ended_before_ns"]).any()
    assert not (over["merged_ns"] > over["ended_before_ns"]).any()
    assert not (timeline.scans["duration_s"] < 0).any()
    for table in (timeline.processes, timeline.region_ledger):
        assert (table["merged_last"] <= table["merged_peak"]).all()
    for name in EMPTY_TABLES:
        table = getattr(timeline, name)
        for column in table.select_dtypes("number"):
            assert not (table[column] < 0).any(), (name, column)


def ways(timeline: Timeline) -> dict[str, int]:
    return {how: n for how, n in timeline.pages["how"].value_counts().items() if n}


def ends(timeline: Timeline) -> dict[str, int]:
    return {end: n for end, n in timeline.pages["end"].value_counts().items() if n}


def residuals(timeline: Timeline) -> list[Any]:
    return timeline.accounts["residual"].tolist()


def test_lives_that_a_loss_cuts_are_marked_and_none_is_invented(tmp_path: Path) -> None:
    path = make_recording(
        tmp_path / "a.ksm", [one_a_ms(CUT_BY_A_LOSS)], tables={"counters": counted(4, 4)}
    )
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    # With a second half is lost whether a fork shared that frame.
    assert ways(timeline) == {"created": 3, "partner": 2, "joined_or_inherited": 1}
    assert timeline.pages["addr"].tolist() == [n * PAGE for n in (1, 1, 2, 3, 4, 4)]
    of_b = timeline.pages[timeline.pages["tgid"] == 13]
    assert of_b["end"].tolist() == ["exit"] * 3
    assert not of_b["proven"].any()
    # Only for the first is it possible that another life came and went unseen.
    assert of_b["ended_after_ns"].tolist() == [at(3), at(6), at(8)]
    assert of_b["ended_before_ns"].tolist() == [at(10)] * 3
    assert timeline.scans["lost"].tolist() == [500]
    assert timeline.accounts["lost"].tolist() == [500, 500]
    assert residuals(timeline) == [0, 0]


def test_what_was_merged_before_the_recording_is_a_class_of_its_own(tmp_path: Path) -> None:
    events = [
        scan_starts(5, 0),
        joins_ksm_page(7, addr=0x9000, item=9, mapcount=4, **A),
        event(KSM_REMOVE_RMAP_ITEM, pfn=13, addr=0x6000, item=4, **A),
        event(KSM_REMOVE_KSM_PAGE, pfn=13),
        event(KSM_REMOVE_KSM_PAGE, pfn=17),
        scan_stops(5, 0),
        event(KSM_EXIT, **B),
    ]
    census = [
        {"ts": BEGIN, "reason": "start", "tgid": tgid, "addr": addr, "pfn": pfn}
        for tgid, addr, pfn in ((11, 0x5000, 7), (13, 0x5000, 7), (13, 0x8000, 13))
    ]
    samples = [
        host_sample(BEGIN - SECOND, "start", pages_shared=3, pages_sharing=3, full_scans=5),
        host_sample(END, "end", pages_shared=1, pages_sharing=1, full_scans=6),
    ]
    path = make_recording(
        tmp_path / "a.ksm", [one_a_ms(events)], tables={"counters": samples, "census": census}
    )
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    lives = {
        (tgid, addr): (how, merged, end)
        for tgid, addr, how, merged, end in timeline.pages[
            ["tgid", "addr", "how", "merged_ns", "end"]
        ].itertuples(index=False)
    }
    assert lives == {
        (11, 0x9000): ("joined_or_inherited", at(2), "still_merged"),
        (11, 0x6000): ("before", pd.NA, "stale"),
        (11, 0x5000): ("before", pd.NA, "still_merged"),
        (13, 0x5000): ("before", pd.NA, "exit"),
        (13, 0x8000): ("before", pd.NA, "stale"),
    }
    assert timeline.stable_pages["pfn"].tolist() == [7, 13, 17]
    assert timeline.stable_pages["born_ns"].isna().all()
    assert timeline.stable_pages["end"].tolist() == ["alive", "stale", "stale"]
    assert timeline.accounts["before"].tolist() == [2, 2]
    assert residuals(timeline) == [0, 0]


@pytest.mark.parametrize("skew", [0, 50 * MS])
def test_clocks_of_two_cpus_50_ms_apart_change_no_order(tmp_path: Path, skew: int) -> None:
    samples = counted(300, 300, ts=BEGIN + 10 * SECOND, scans=3)
    batch = on_two_clocks(skew)
    path = make_recording(tmp_path / "a.ksm", [batch], tables={"counters": samples})
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    assert ways(timeline) == {"created": 300, "partner": 300}
    assert ends(timeline) == {"still_merged": 300, "exit": 300}
    assert timeline.scans["merges"].tolist() == [200, 200, 200]
    assert timeline.processes["merged_peak"].tolist() == [300, 300]
    assert timeline.processes["merged_last"].tolist() == [300, 0]
    assert residuals(timeline) == [0, 0]
    merged = timeline.pages["merged_ns"]
    assert merged.is_monotonic_increasing
    told = batch["ts"][batch["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert (merged - told.astype(np.int64)).between(0, skew).all()


def test_5000_processes_keep_their_pages_apart() -> None:
    processes, scans, each = 5000, 7, 2000
    mms = 0x100000 + PAGE * np.arange(processes)
    enters = np.zeros(processes, EVENT)
    enters["kind"], enters["mm"], enters["tgid"] = KSM_ENTER.id, mms, 100 + np.arange(processes)
    parts, random = [enters], np.random.default_rng(7)
    owners = random.integers(0, processes, (scans, 2 * each))
    for seq in range(scans):
        body = pairs(each, 1000 + each * seq, 0x60000000 + PAGE * each * seq)
        body["mm"], body["tgid"] = mms[owners[seq]], 100 + owners[seq]
        parts += scan_of(seq, body)
    timeline = timeline_in_memory([in_time(parts)])
    expect_sound(timeline)
    expected = np.bincount(owners.ravel(), minlength=processes)
    assert timeline.processes["tgid"].tolist() == list(range(100, 100 + processes))
    assert timeline.processes["merges"].tolist() == expected.tolist()
    of_scan = [np.bincount(row, minlength=processes) for row in owners]
    assert len(timeline.process_history) == sum(int((row > 0).sum()) for row in of_scan)
    history = timeline.process_history.groupby(["process", "scan"], observed=True)["merges"].sum()
    assert history.loc[3].to_dict() == {
        seq: n for seq, row in enumerate(of_scan, 1) if (n := int(row[3]))
    }


@pytest.mark.parametrize(
    ("between", "again", "exit_ms"),
    [
        (pid_used_again(), {"mm": 0xD000, "tgid": 11}, 7),
        (mm_used_again(), {"mm": 0xA000, "tgid": 19}, 7),
        (execs(), {"mm": 0xD000, "tgid": 11}, 8),
    ],
    ids=["pid", "mm", "exec"],
)
def test_a_pid_or_an_mm_used_again_is_another_process(
    tmp_path: Path, between: list[Row], again: dict[str, int], exit_ms: int
) -> None:
    path = make_recording(
        tmp_path / "a.ksm",
        [one_a_ms(life_after(between, again))],
        tables={
            "counters": counted(1, 2, scans=2),
            "identities": [
                {"ts": at(1), "what": "enter", "tgid": 17, "comm": "other"},
                {"ts": at(2), "what": "enter", "tgid": 11, "comm": "first"},
                {"ts": at(9), "what": "enter", "tgid": again["tgid"], "comm": "second"},
            ],
        },
    )
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    processes = timeline.processes
    assert processes["tgid"].tolist() == [17, 11, again["tgid"]]
    assert processes["comm"].tolist() == ["other", "first", "second"]
    assert processes["exited_ns"].tolist() == [pd.NA, at(exit_ms), pd.NA]
    assert processes["merges"].tolist() == [1, 1, 2]
    assert processes["merged_last"].tolist() == [1, 0, 2]
    assert timeline.pages["process"].tolist() == [1, 0, 2, 2]
    assert timeline.pages["how"].tolist() == ["created", "partner", "joined", "joined"]
    assert ends(timeline) == {"exit": 1, "still_merged": 3}
    assert timeline.pages["ended_before_ns"].tolist()[0] == at(exit_ms)
    assert timeline.stable_pages[["sharers_peak", "processes"]].to_numpy().tolist() == [[3, 3]]
    assert residuals(timeline) == [0, 0]


def test_an_mm_used_again_is_another_process_even_where_exit_and_enter_are_lost() -> None:
    rows = life_after([loses(2)], {"mm": 0xA000, "tgid": 19})
    timeline = timeline_in_memory([one_a_ms(rows)], tables={"counters": counted(1, 2, scans=2)})
    expect_sound(timeline)
    assert timeline.processes["tgid"].tolist() == [17, 11, 19]
    assert timeline.processes["entered_ns"].tolist() == [at(1), at(2), pd.NA]
    assert timeline.pages["process"].tolist() == [1, 0, 2, 2]
    assert not timeline.pages["proven"].any()
    assert residuals(timeline) == [0, 0]


def test_a_page_merged_and_broken_10000_times_among_100000_others() -> None:
    times, others = 10_000, 100_000
    again = [
        scan_starts(0, 0),
        event(KSM_REMOVE_RMAP_ITEM, pfn=7, addr=0x7000, item=2, **B),
        event(KSM_REMOVE_KSM_PAGE, pfn=7),
        makes_ksm_page(7, addr=0x5000, item=1, **A),
        joins_ksm_page(7, addr=0x7000, item=2, mapcount=2, **B),
        scan_stops(0, 0),
    ]
    first = [again[0], *again[3:]]
    rest = np.tile(batch_of(again), times - 1)
    border = (rest["kind"] == KSM_START_SCAN.id) | (rest["kind"] == KSM_STOP_SCAN.id)
    rest["addr"][border] = np.repeat(np.arange(2, times + 1), 2)
    stream = [*scan_of(0, pairs(others // 2, 1000, 0x60000000)), batch_of(first), rest]
    stream[3]["addr"][[0, -1]] = 1
    samples = counted(50_001, 50_001, scans=times + 1)
    timeline = timeline_in_memory([in_time(stream)], tables={"counters": samples})
    expect_sound(timeline)
    pages = timeline.pages
    of_page = pages[(pages["tgid"] == 13) & (pages["addr"] == 0x7000)]
    assert len(of_page) == times
    assert of_page["scan"].tolist() == list(range(2, times + 2))
    assert of_page["end"].tolist() == ["stale"] * (times - 1) + ["still_merged"]
    assert ends(timeline) == {"still_merged": others + 2, "stale": 2 * (times - 1)}
    # Each life ended after it began and before the next one.
    before = of_page["ended_before_ns"].iloc[:-1].to_numpy(np.int64)
    assert (before > of_page["merged_ns"].iloc[:-1].to_numpy(np.int64)).all()
    assert (before < of_page["merged_ns"].iloc[1:].to_numpy(np.int64)).all()
    assert len(timeline.stable_pages) == others // 2 + times
    assert timeline.processes["merged_last"].tolist() == [50_001, 50_001]
    assert timeline.processes["merged_peak"].tolist() == [50_001, 50_001]
    assert residuals(timeline) == [0, 0]


@pytest.mark.parametrize("samples", [[], IDLE], ids=["without samples", "with samples"])
def test_an_empty_recording_has_empty_tables(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    path = make_recording(tmp_path / "a.ksm", tables={"counters": samples})
    timeline = timeline_of(StoredRecording(path))
    assert [len(getattr(timeline, name)) for name in EMPTY_TABLES] == [0] * len(EMPTY_TABLES)
    # All that is merged was before, and nothing happened.
    assert timeline.accounts["before"].tolist() == [37] * len(samples)
    assert residuals(timeline) == [0] * len(samples)


def failures(count: int) -> Iterator[EventBatch]:
    """Tries that failed, of a thousand pages again and again."""
    size = 1 << 17
    batch = np.zeros(size, EVENT)
    number = np.arange(size)
    batch["kind"], batch["err"], batch["arg"] = KSM_MERGE_WITH_KSM_PAGE.id, EFAULT, INTO_EXISTING
    batch["pfn"], batch["addr"] = 1 + number % 997, PAGE * (number % 1009)
    batch["mm"], batch["tgid"] = A["mm"], A["tgid"]
    for begin in range(0, count, size):
        batch["ts"] = BEGIN + begin + number
        yield batch[: count - begin].copy()


def peak_bytes(count: int) -> int:
    """The most memory that aggregating `failures` takes."""
    stored = RowsInMemory({**FACTS, **FINAL, "ended": "duration"})
    tracemalloc.start()
    try:
        timeline = Timeline(stored, stream_of(stored, failures(count)))
        assert timeline.processes["failed_merges"].tolist() == [count]
        assert len(timeline.pages) == 0
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_millions_of_failed_merges_are_counted_and_take_no_memory() -> None:
    assert peak_bytes(4_000_000) < 1.2 * peak_bytes(1_000_000)


def test_a_recording_that_was_cut_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    body = pairs(100_000, 1000, 0x60000000)
    stream = in_time([batch_of([scan_starts(0, 0)]), body])
    # Two chunks on the disk, of which the last is not whole.
    for part in (stream[:150_000], stream[150_000:]):
        writer.events(part)
    writer.flush_if_due()
    writer.abandon("killed")
    cut = tmp_path / "a.ksm" / "events.arrow"
    cut.write_bytes(cut.read_bytes()[:-1_000_000])
    timeline = timeline_of(StoredRecording(tmp_path / "a.ksm"))
    expect_sound(timeline)
    assert ways(timeline) == {"created": 75_000, "partner": 74_999}
    assert ends(timeline) == {"still_merged": 149_999}
    assert timeline.scans["end_ns"].isna().tolist() == [True]
    assert len(timeline.accounts) == 0


def test_without_addresses_pages_are_told_by_their_rmap_items(tmp_path: Path) -> None:
    rows = life_after(mm_used_again(), {"mm": 0xA000, "tgid": 19})
    path = make_recording(
        tmp_path / "a.ksm", [as_imported(one_a_ms(rows))], facts=IMPORTED,
        final={"duration_s": None},
    )  # fmt: skip
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    either = "joined_or_inherited"
    assert timeline.pages["how"].tolist() == ["created", "partner", either, either]
    assert timeline.pages["process"].tolist() == [1, 0, 2, 2]
    assert timeline.pages["tgid"].tolist() == [0] * 4
    assert timeline.pages["addr"].tolist() == [0] * 4
    assert ends(timeline) == {"exit": 1, "still_merged": 3}
    assert len(timeline.accounts) == 0


def test_of_one_process_alone_no_partner_is_made_up_nor_its_pages_held_against_the_kernels(
    tmp_path: Path,
) -> None:
    path = make_recording(
        tmp_path / "a.ksm", [only_of_11()], tables={"counters": counted(1, 2, scans=2)},
        facts={"only_pids": [11]},
    )  # fmt: skip
    timeline = timeline_of(StoredRecording(path))
    expect_sound(timeline)
    # The twin was another process's: what comes in the next scan is no second half.
    assert timeline.pages["how"].tolist() == ["created", "joined", "joined"]
    assert residuals(timeline) == [pd.NA, pd.NA]
    assert timeline.accounts["merged_kernel"].tolist() == [0, 3]


def test_a_failure_in_another_scan_undoes_no_ksm_page() -> None:
    fails = joins_ksm_page(7, addr=0x6000, item=3, err=EFAULT, **A)
    rows = [scan_starts(0, 0), makes_ksm_page(7, addr=0x5000, item=1, **A), scan_stops(0, 0),
            scan_starts(1, 0), fails, scan_stops(1, 0)]  # fmt: skip
    timeline = timeline_in_memory([one_a_ms(rows)], facts={"only_pids": [11]})
    assert ways(timeline) == {"created": 1}
    assert timeline.processes["failed_merges"].tolist() == [1]


def test_what_is_told_after_a_run_2_is_of_another_life_whose_begin_was_lost() -> None:
    rows = [
        scan_starts(7, 0),
        makes_ksm_page(7, addr=0x5000, item=1, **A),
        joins_ksm_page(7, addr=0x5000, item=2, mapcount=2, **B),
        scan_stops(7, 0),
        scan_starts(0, 0),
        scan_stops(0, 0),
        loses(2),
        scan_starts(1, 0),
        scan_stops(1, 0),
        event(KSM_REMOVE_RMAP_ITEM, pfn=11, addr=0x5000, item=3, **B),
    ]
    timeline = timeline_in_memory([one_a_ms(rows)])
    expect_sound(timeline)
    assert ends(timeline) == {"unmerged": 2}
    assert timeline.pages["ended_after_ns"].tolist() == [at(2), at(3)]
    assert timeline.pages["ended_before_ns"].tolist() == [at(5), at(5)]


def test_counters_beyond_what_a_float_holds_exactly_are_read() -> None:
    samples = counted(1, 1)
    samples[1]["general_profit"] = (1 << 62) + 1
    rows = [makes_ksm_page(7, addr=0x1000, **A), joins_ksm_page(7, addr=0x1000, mapcount=2, **B)]
    timeline = timeline_in_memory([one_a_ms(rows)], tables={"counters": samples})
    assert residuals(timeline) == [0, 0]
