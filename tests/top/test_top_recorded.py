from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ksmtrace
from ksmtrace.events.batch import concatenate, empty
from ksmtrace.events.registry import COW_BREAK, KSM_ENTER, KSM_EXIT, VIA_EXEC, VIA_SELF
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.top.noted import CODES
from ksmtrace.top.recorded import RecordedSource
from ksmtrace.top.state import MERGES, Burst, TopState
from ksmtrace.top.sums import TopSums
from ksmtrace.top.ui import Jump
from tests.support.batches import (
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    random_batch,
    scan_starts,
    scan_stops,
    split,
)
from tests.support.recordings import BEGIN, SECOND, host_sample, make_recording

LIBRARY = sorted((Path(__file__).parents[2] / "recordings").glob("*.ksm"))
ANALYSIS = next(path for path in LIBRARY if path.name == "analysis.ksm")
MS = SECOND // 1000


@cache
def source(path: Path) -> RecordedSource:
    return RecordedSource(path)


def plain(state: TopState) -> dict[str, Any]:
    """All of a state as what can be compared; NaN as a word."""
    rows = state.rows
    told = {**vars(state), "rows": None}
    if rows is not None:
        told["rows"] = (
            rows.tgid.tolist(),
            {n: ["?" if np.isnan(v) else v for v in c] for n, c in rows.columns.items()},
            {n: [lab.words[c] if c >= 0 else None for c in lab.codes.tolist()]
             for n, lab in rows.labels.items()},
        )  # fmt: skip
    return told


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_figures_are_those_of_the_last_sample_before(path: Path) -> None:
    counters = ksmtrace.open(path).counters
    host = counters[counters["tgid"].isna()].sort_values("ts")
    here = source(path)
    for share in (0.11, 0.37, 0.59, 0.83, 1.0):
        ns = here.begin_ns + int(share * (here.end_ns - here.begin_ns))
        figures = here.state(ns).figures
        before = host[host["ts"] <= ns]
        if before.empty:
            assert figures["saved_bytes"] is None
            continue
        last = before.iloc[-1]
        saved = last[["pages_sharing", "ksm_zero_pages"]].fillna(0).sum() * 4096
        assert figures["saved_bytes"] == saved
        assert figures["pages_shared"] == last["pages_shared"]
        assert figures["pages_volatile"] == last["pages_volatile"]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_at_the_end_each_process_has_the_merges_and_breaks_of_the_timeline(path: Path) -> None:
    recording = ksmtrace.open(path)
    table = recording.processes
    told = (table["merges"] + table["zero_merges"]).groupby(table["tgid"]).sum()
    here = source(path)
    rows = here.state(here.end_ns).rows
    assert rows is not None
    merges: dict[int, float] = {}
    for tgid, count in zip(rows.tgid.tolist(), rows.columns["merges"].tolist(), strict=True):
        merges[tgid] = merges.get(tgid, 0) + count
    assert {t: c for t, c in merges.items() if c} == {t: c for t, c in told.items() if c}
    if here.cow:
        broken = table["breaks"].groupby(table["tgid"]).sum()
        assert rows.columns["breaks"].sum() == broken.sum() > 0


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_merges_up_to_a_moment_are_those_of_the_lives_begun_by_then(path: Path) -> None:
    pages = ksmtrace.open(path).pages
    begun = pages["merged_ns"].dropna().astype("int64").sort_values().to_numpy()
    here = source(path)
    for share in (0.2, 0.5, 0.8):
        ns = here.begin_ns + int(share * (here.end_ns - here.begin_ns))
        rows = here.state(ns).rows
        count = 0.0 if rows is None else rows.columns["merges"].sum()
        assert count == np.searchsorted(begun, ns, "right")


@settings(max_examples=23)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=7))
def test_by_whatever_way_one_comes_to_a_moment_it_is_the_same(shares: list[float]) -> None:
    wandered = source(ANALYSIS)
    length = wandered.end_ns - wandered.begin_ns
    for share in shares:
        state = wandered.state(wandered.begin_ns + int(share * length))
    fresh = RecordedSource(ANALYSIS)
    assert plain(fresh.state(state.moment.ns)) == plain(state)


def sums_of(path: Path, cuts: list[int], bucket_ns: int) -> TopSums:
    events = concatenate(list(StoredRecording(path).event_batches()))
    sums = TopSums(bucket_ns)
    sums.attachments.first_sight_known = path.stem != "linux-6.1"
    for part in split(events, [cut % (len(events) + 1) for cut in cuts]):
        if len(part):
            sums.take(part)
    sums.take(empty())
    return sums


def unnamed(bursts: list[Burst]) -> list[Burst]:
    return [replace(burst, name=None) for burst in bursts]


@settings(max_examples=13)
@given(st.sampled_from(LIBRARY), st.lists(st.integers(0, 1 << 20), max_size=5))
def test_what_a_live_capture_shows_a_recording_of_it_shows(path: Path, cuts: list[int]) -> None:
    here = source(path)
    state = here.state(here.end_ns)
    live = sums_of(path, cuts, here.cell_ns)
    # Of one moment the order is not told.
    key: Callable[[Burst], Any] = lambda b: (-b.ns, b.what, b.tgid)  # noqa: E731
    assert (
        sorted(unnamed(live.recent(29)), key=key)[:17]
        == sorted(unnamed(list(state.recent[:29])), key=key)[:17]
    )
    assert live.decisions()[:5] == list(state.decisions[:5])
    assert live.totals().of("lost") == (state.lost or 0)


@given(random_batch())
def test_any_stream_is_summed_without_a_word(batch: np.ndarray[Any, Any]) -> None:
    sums = TopSums()
    sums.take(batch)
    sums.take(empty())
    assert sums.totals().of("lost") >= 0
    sums.recent(48)


def test_a_step_lands_where_a_scan_ends_and_back_where_the_one_before_did() -> None:
    here = source(ANALYSIS)
    ends = ksmtrace.open(ANALYSIS).scans["end_ns"].dropna().astype("int64").tolist()
    at, seen = here.begin_ns, []
    for _ in range(7):
        at = here.jumped(at, Jump(scans=1))
        seen.append(at)
    assert seen == ends[:7]
    assert here.jumped(at, Jump(scans=-1)) == ends[5]
    assert here.jumped(here.end_ns, Jump(scans=1)) == here.end_ns
    assert here.jumped(here.begin_ns, Jump(scans=-1)) == here.begin_ns
    assert here.jumped(at, Jump(seconds=-1e6)) == here.begin_ns
    assert here.jumped(at, Jump(seconds=5)) == at + 5 * SECOND
    assert here.jumped(at, Jump(to_end=True)) == here.end_ns


def test_within_a_scan_its_progress_and_end_are_told() -> None:
    here = source(ANALYSIS)
    scan = ksmtrace.open(ANALYSIS).scans.iloc[18]
    ns = int(scan["start_ns"] + (scan["end_ns"] - scan["start_ns"]) // 4)
    told = here.state(ns).scan
    assert told.seq == scan["seq"]
    assert told.under_way
    assert told.fraction == pytest.approx(0.25, abs=1e-6)
    assert told.ends_in_s == pytest.approx(0.75 * scan["duration_s"], rel=1e-6)


def test_a_process_id_used_again_is_another_process(tmp_path: Path) -> None:
    a, b = {"mm": 0xA000, "tgid": 11}, {"mm": 0xB000, "tgid": 11}
    rows = [
        event(KSM_ENTER, arg=VIA_SELF, **a),
        *(joins_ksm_page(7, item=n, addr=n << 12, **a) for n in range(1, 4)),
        event(KSM_EXIT, **a),
        event(KSM_ENTER, arg=VIA_SELF, **b),
        *(joins_ksm_page(7, item=n, addr=n << 12, **b) for n in range(1, 6)),
    ]
    names = [
        {"ts": BEGIN + 2 * MS, "what": "enter", "tgid": 11, "comm": "old", "cgroup": "/a"},
        {"ts": BEGIN + 7 * MS, "what": "enter", "tgid": 11, "comm": "new", "cgroup": "/b"},
    ]
    batch = batch_of([{**row, "ts": BEGIN + n * MS} for n, row in enumerate(rows, 1)])
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch], tables={"identities": names}))
    told = plain(here.state(here.end_ns))["rows"]
    assert told[0] == [11, 11]
    assert told[1]["merges"] == [3, 5]
    assert told[1]["exited"] == [1, 0]
    assert told[2]["comm"] == ["old", "new"]
    assert told[2]["cgroup"] == ["/a", "/b"]
    early = plain(here.state(BEGIN + 4 * MS))["rows"]
    assert (early[0], early[1]["merges"], early[2]["comm"]) == ([11], [3], ["old"])


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_what_a_fork_had_merged_is_told_apart_as_the_timeline_does(path: Path) -> None:
    how = ksmtrace.open(path).pages["how"].value_counts()
    noted = source(path)._noted
    counts = {what: int((noted["what"] == CODES[what]).sum()) for what in MERGES}
    assert counts == {
        "merged": how["created"] + how["partner"] + how["joined"],
        "inherited": how["inherited"],
        "attached": how["joined_or_inherited"],
        "zero": how["zero_page"],
    }


def test_a_forked_process_took_over_what_its_parent_had_merged() -> None:
    here = source(ANALYSIS)
    told = [(b.what, b.count, b.name) for b in here.state(here.moment(22.0)).recent]
    assert ("inherited", 211, "web-1") in told


def test_how_fast_a_process_merges_is_unknown_before_its_first_sample(tmp_path: Path) -> None:
    there = {"ts": BEGIN - 1, "what": "present", "tgid": 11, "comm": "db"}
    samples = [
        {"ts": BEGIN + n * SECOND, "reason": "interval", "tgid": 11, "ksm_merging_pages": pages}
        for n, pages in ((3, 100_003), (8, 100_020))
    ]
    batch = batch_of([event(KSM_ENTER, ts=BEGIN + MS, mm=0xA000, tgid=13, arg=VIA_SELF)])
    tables = {"identities": [there], "counters": [host_sample(BEGIN), *samples]}
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch], tables=tables))
    first = here.state(BEGIN + 3 * SECOND).rows
    later = here.state(BEGIN + 8 * SECOND).rows
    assert first is not None
    assert later is not None
    [row] = np.flatnonzero(first.tgid == 11)
    assert first.columns["merged_pages"][row] == 100_003
    assert np.isnan(first.columns["net_per_s"][row])
    [rate] = later.columns["net_per_s"][later.tgid == 11].tolist()
    assert 17 / 8 <= rate <= 17 / 0.2


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_no_process_has_two_lines(path: Path) -> None:
    here = source(path)
    for share in (0.3, 0.7, 1.0):
        rows = here.state(here.begin_ns + int(share * (here.end_ns - here.begin_ns))).rows
        assert rows is not None
        assert len(set(rows.tgid.tolist())) == len(rows)


def test_an_exec_is_no_exit(tmp_path: Path) -> None:
    old, new = {"mm": 0xA000, "tgid": 11}, {"mm": 0xB000, "tgid": 11}
    rows = [
        event(KSM_ENTER, arg=VIA_SELF, **old),
        event(KSM_ENTER, arg=VIA_EXEC, **new),
        event(KSM_EXIT, **old),
        *(joins_ksm_page(7, item=n, addr=n << 12, **new) for n in range(1, 6)),
        event(KSM_EXIT, **new),
    ]
    batch = batch_of([{**row, "ts": BEGIN + n * MS} for n, row in enumerate(rows, 1)])
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch]))
    before, after = here.state(BEGIN + 8 * MS).rows, here.state(here.end_ns).rows
    assert before is not None
    assert after is not None
    assert [plain(here.state(BEGIN + 8 * MS))["rows"][1][c] for c in ("merges", "exited")] == [
        [5], [0],
    ]  # fmt: skip
    assert after.tgid.tolist() == [11]
    assert after.columns["exited"].tolist() == [1]


def test_many_scans_do_not_hide_what_happened_before_them(tmp_path: Path) -> None:
    rows = [joins_ksm_page(7, BEGIN + MS, tgid=11, mm=11 << 12, addr=0x1000, item=1)]
    for n in range(307):
        rows += [scan_starts(n, BEGIN + (n + 1) * SECOND),
                 scan_stops(n, BEGIN + (n + 1) * SECOND + MS)]  # fmt: skip
    path = make_recording(tmp_path / "a.ksm", [batch_of(rows)])
    here = RecordedSource(path)
    told = [burst.what for burst in here.state(here.end_ns).recent]
    assert told == ["scanned", "scanned", "scanned", "attached"]
    assert [b.what for b in sums_of(path, [], SECOND).recent(48)] == told


def test_losses_are_said_once_they_have_happened(tmp_path: Path) -> None:
    rows = [scan_starts(0, BEGIN + MS), loses(13, BEGIN + 2 * MS), loses(17, BEGIN + 3 * MS)]
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch_of(rows)]))
    assert here.state(BEGIN + MS).lost == 0
    assert here.state(BEGIN + MS).notes == ["it tells nothing of processes"]
    end = here.state(here.end_ns)
    assert end.lost == 30
    assert end.notes[0] == "30 events were lost up to here, so merges are too few"
    assert [burst.what for burst in end.recent] == ["lost"]
    assert end.recent[0].count == 30


def test_a_recording_of_one_event_has_one_thing_to_say(tmp_path: Path) -> None:
    batch = batch_of([event(COW_BREAK, BEGIN + MS, tgid=11, addr=0x1000)])
    path = make_recording(tmp_path / "a.ksm", [batch], facts={"cow": {"breaks": 1}})
    state = RecordedSource(path).state(BEGIN + SECOND)
    assert [(b.what, b.count, b.tgid, b.name) for b in state.recent] == [("broke", 1, 11, None)]
    assert state.figures["breaks_per_s"] is not None
    assert state.figures["saved_bytes"] is None


def test_many_processes_in_one_moment_are_told_in_few_lines(tmp_path: Path) -> None:
    rows = [joins_ksm_page(7, BEGIN + MS, tgid=tgid, mm=tgid << 12, addr=0x1000, item=tgid)
            for tgid in range(1, 1_010)]  # fmt: skip
    rows += [joins_ksm_page(7, BEGIN + MS, tgid=77, mm=77 << 12, addr=n << 12, item=n << 20)
             for n in range(2, 7)]  # fmt: skip
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch_of(rows)]))
    recent = here.state(here.end_ns).recent
    assert [(b.tgid, b.count, b.processes) for b in recent] == [
        (77, 6, 0), (1, 1, 0), (2, 1, 0), (0, 1_006, 1_006),
    ]  # fmt: skip


def test_a_scan_that_ends_tells_how_long_it_took(tmp_path: Path) -> None:
    rows = [scan_starts(5, BEGIN + MS), makes_ksm_page(7, BEGIN + 2 * MS, tgid=11),
            scan_stops(5, BEGIN + 32 * MS)]  # fmt: skip
    here = RecordedSource(make_recording(tmp_path / "a.ksm", [batch_of(rows)]))
    burst = here.state(here.end_ns).recent[0]
    assert (burst.what, burst.number, burst.seconds) == ("scanned", 5, 0.031)


def test_before_the_first_sample_no_counter_is_told(tmp_path: Path) -> None:
    samples = [host_sample(BEGIN + 2 * SECOND, pages_shared=3, pages_sharing=11)]
    path = make_recording(tmp_path / "a.ksm", tables={"counters": samples})
    here = RecordedSource(path)
    assert here.state(BEGIN + SECOND).figures["saved_bytes"] is None
    assert here.state(BEGIN + 2 * SECOND).figures["saved_bytes"] == 11 * 4096
