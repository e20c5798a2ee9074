from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch_of, scan_stops
from support.compared import PAGE, small_recording
from support.recordings import BEGIN, SECOND, host_sample, make_recording

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.host_figures import GIB, Missing, Value
from ksmtrace.timeline.measures import MEASURES, Figures


def figures_of(path: Path) -> Mapping[str, Value]:
    figures = Figures(timeline_of(StoredRecording(path)))
    return {measure.name: measure.of(figures) for measure in MEASURES}


MEAN = (9 * 6) / 10 * PAGE
"""Bytes saved by the samples: nothing for 4 s, 9 pages for 6 s."""

BY_HAND = {
    "merges_per_s_of_scanning": (22 + 1 + 1) / (1 + 3 + 2),
    "pages_scanned_per_s": 200.0,
    "scans_per_s": 0.3,
    "scan_median_s": 2.0,
    "saved_mean_bytes": MEAN,
    "saved_peak_bytes": 13 * PAGE,
    "saved_last_bytes": 13 * PAGE,
    "pages_shared_last": 11,
    "pages_sharing_last": 12,
    "zero_pages_last": 1,
    "profit_last_bytes": 50_000,
    # 24 mappings at the end: the 12th stood with the 6th pair, the 22nd with the last.
    "time_to_50_percent_s": 2.2 + 5 * 0.2,
    "time_to_90_percent_s": 2.2 + 10 * 0.2,
    "time_to_99_percent_s": 7.0,
    "ksmd_cpu_s": 2.0,
    "ksmd_cpu_percent": 20.0,
    "ksmd_cpu_s_per_gib": 2 / (MEAN / GIB),
    "ksmd_cpu_s_per_gib_hour": 2 / (MEAN / GIB) * 360,
    "ksmd_cpu_us_per_visit": 1000.0,
    "ended_per_s": 0.0,
    "copies_per_s": 0.7,
    "failed_percent": 100 / 25,
    "inherited_percent": 100 / 23,
    "events_lost": 0,
}


def test_every_figure_is_what_it_is_by_hand(tmp_path: Path) -> None:
    found = figures_of(small_recording(tmp_path / "a.ksm"))
    known = {name: value for name, value in found.items() if not isinstance(value, Missing)}
    assert known.keys() - BY_HAND.keys() == {"residual_most_pages"}
    for name, value in BY_HAND.items():
        assert known[name] == pytest.approx(value, rel=1e-5), name


def test_time_stretched_changes_rates_and_times_and_nothing_else(tmp_path: Path) -> None:
    once = figures_of(small_recording(tmp_path / "a.ksm"))
    slow = figures_of(small_recording(tmp_path / "b.ksm", slower=3))
    factors = {"per_s": 1 / 3, "s": 3.0}
    for measure in MEASURES:
        a, b = once[measure.name], slow[measure.name]
        if isinstance(a, Missing) or isinstance(b, Missing):
            assert a == b
            continue
        factor = factors.get(measure.unit, 1.0)
        if measure.name in ("ksmd_cpu_percent", "ksmd_cpu_s_per_gib_hour"):
            factor = {"ksmd_cpu_percent": 1 / 3}.get(measure.name, 1 / 3)
        assert b == pytest.approx(a * factor, rel=1e-5), measure.name


@pytest.mark.parametrize(
    ("kernel", "lacking", "figure", "why"),
    [
        ("6.1.0-41-amd64", "ksm_zero_pages", "zero_pages_last", "came with Linux 6.6"),
        ("6.1.0-41-amd64", "general_profit", "profit_last_bytes", "came with Linux 6.4"),
        ("6.18.2", "general_profit", "profit_last_bytes", "general_profit was not sampled"),
        ("unknown", "general_profit", "profit_last_bytes", "general_profit was not sampled"),
        ("6.6.3", "", "pages_scanned_per_s", "wrong before Linux 6.10"),
        ("6.6.3", "", "ksmd_cpu_us_per_visit", "wrong before Linux 6.10"),
        ("6.6.3", "", "advised_pages_last", "came with Linux 6.8"),
        ("6.18.2", "", "advised_pages_last", "the advisor decided nothing"),
        ("6.18.2", "", "breaks_per_s", "recorded without --cow"),
        ("6.6.3", "", "inherited_percent", "can't be told"),
    ],
)
def test_a_figure_that_a_recording_lacks_says_why(
    kernel: str, lacking: str, figure: str, why: str, tmp_path: Path
) -> None:
    found = figures_of(small_recording(tmp_path / "a.ksm", kernel=kernel, without=(lacking,)))
    missing = found[figure]
    assert isinstance(missing, Missing)
    assert why in missing.why


def test_savings_without_zero_pages_count_what_there_is(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm", kernel="6.1", without=("ksm_zero_pages",))
    assert figures_of(path)["saved_last_bytes"] == 12 * PAGE


def test_writes_that_were_watched_and_not_seen_are_none(tmp_path: Path) -> None:
    assert figures_of(small_recording(tmp_path / "a.ksm", cow=True))["breaks_per_s"] == 0


def test_scans_counted_anew_after_run_2_are_counted_on(tmp_path: Path) -> None:
    ends = [scan_stops(seq, BEGIN + n * SECOND) for n, seq in enumerate([7, 8, 9, 0, 1, 2, 3], 1)]
    path = make_recording(tmp_path / "a.ksm", [batch_of(ends)], final={"duration_s": 10.0})
    assert figures_of(path)["scans_per_s"] == 0.7


def test_without_any_sample_there_is_one_reason_for_all_counters(tmp_path: Path) -> None:
    found = figures_of(make_recording(tmp_path / "a.ksm"))
    for name in ("pages_shared_last", "saved_mean_bytes", "ksmd_cpu_s", "residual_most_pages"):
        assert found[name] == Missing("no counters were sampled")


def test_what_was_merged_before_has_no_time_of_convergence(tmp_path: Path) -> None:
    path = make_recording(
        tmp_path / "a.ksm",
        tables={
            "counters": [host_sample(BEGIN, "start", pages_shared=1, pages_sharing=2)],
            "census": [
                {"ts": BEGIN, "reason": reason, "tgid": 7, "addr": PAGE * n, "pfn": 5}
                for reason in ("start", "end")
                for n in (1, 2, 3)
            ],
        },
    )
    missing = figures_of(path)["time_to_50_percent_s"]
    assert isinstance(missing, Missing)
    assert "before the recording" in missing.why


def test_an_empty_recording_has_no_figures_and_is_no_error(tmp_path: Path) -> None:
    found = figures_of(make_recording(tmp_path / "a.ksm"))
    known = {name for name, value in found.items() if not isinstance(value, Missing)}
    assert known == {"ended_per_s", "events_lost", "scans_per_s"}


@settings(max_examples=31)
@given(begin=st.integers(0, 40), end=st.integers(0, 40), kernel=st.sampled_from(["6.1", "6.18.2"]))
def test_any_part_of_a_stream_gives_numbers_or_reasons(
    tmp_path_factory: pytest.TempPathFactory, begin: int, end: int, kernel: str
) -> None:
    path = tmp_path_factory.mktemp("part") / "a.ksm"
    found: Mapping[str, Any] = figures_of(small_recording(path, part=(begin, end), kernel=kernel))
    for name, value in found.items():
        assert isinstance(value, Missing) or math.isfinite(value), name
