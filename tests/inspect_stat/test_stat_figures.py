from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.inspect.stat.figures import (
    STAT_MEASURES,
    EventCounts,
    Observation,
    ProcessSamples,
    figures_of,
)
from ksmtrace.inspect.stat.series import Series
from ksmtrace.timeline.host_figures import Missing, Value

PAGE = 4096
MS = 1_000_000
COUNTERS = ("pages_sharing", "ksm_zero_pages", "full_scans", "ksmd_cpu_ns", "cow_ksm",
            "general_profit")  # fmt: skip


def observed(
    rows: list[dict[str, float]],
    *,
    lived: int | None = None,
    own: list[tuple[float, float]] | None = None,
    events: EventCounts | None = None,
    kernel: str = "6.18.0",
) -> Observation:
    """A run whose samples are 50 ms apart."""
    series = Series(COUNTERS)
    for number, row in enumerate(rows):
        series.add(number * 50 * MS, row)
    processes = None
    if own is not None:
        merged, profit = np.array(own, np.float64).reshape(-1, 2).T
        processes = ProcessSamples(np.arange(len(own), dtype=np.uint64), merged, profit)
    return Observation(
        begin_ns=0,
        end_ns=(len(rows) - 1) * 50 * MS,
        kernel=kernel,
        page_bytes=PAGE,
        host=series.samples(),
        lived=len(rows) if lived is None else lived,
        processes=processes,
        events=events or Missing("no capture"),
    )


def saving(*pages: int) -> list[dict[str, float]]:
    return [{"pages_sharing": number} for number in pages]


def why(value: Value) -> str:
    assert isinstance(value, Missing)
    return value.why


def test_saving_is_sharing_and_zero_pages() -> None:
    rows: list[dict[str, float]] = [
        {"pages_sharing": 0, "ksm_zero_pages": 0},
        {"pages_sharing": 7, "ksm_zero_pages": 13},
        {"pages_sharing": 11, "ksm_zero_pages": 0},
    ]
    figures = figures_of(observed(rows))
    assert figures["saved_peak_pages"] == 20
    assert figures["saved_peak_bytes"] == 20 * PAGE
    assert figures["saved_last_pages"] == 11
    assert figures["saved_first_pages"] == 0


def test_90_percent_is_of_what_was_gained_and_not_of_what_was_there_before() -> None:
    figures = figures_of(observed(saving(1000, 1000, 1089, 1090, 1100, 1100)))
    assert figures["time_to_90_percent_s"] == pytest.approx(0.15)


def test_no_gain_gives_no_time_to_90_percent() -> None:
    figures = figures_of(observed(saving(7, 7, 5)))
    assert "nothing more was saved" in why(figures["time_to_90_percent_s"])


def test_what_counts_after_a_commands_end_is_not_its_saving() -> None:
    figures = figures_of(observed(saving(0, 13, 13, 0), lived=3))
    assert figures["saved_last_pages"] == 13
    assert figures["saved_peak_pages"] == 13


def test_full_scans_are_counted_across_an_unmerging_that_begins_them_anew() -> None:
    figures = figures_of(observed([{"full_scans": n} for n in (41, 43, 0, 2, 5)]))
    assert figures["full_scans"] == 7


def test_cost_is_ksmds_cpu_by_what_was_saved_on_average() -> None:
    pages = (1 << 30) // PAGE
    rows: list[dict[str, float]] = [
        {"pages_sharing": pages / 2, "ksmd_cpu_ns": 10e9},
        {"pages_sharing": pages / 2, "ksmd_cpu_ns": 13e9},
    ]
    figures = figures_of(observed(rows))
    assert figures["ksmd_cpu_s"] == 3
    assert figures["ksmd_cpu_percent"] == pytest.approx(100 * 3 / 0.05)
    assert figures["ksmd_cpu_s_per_gib"] == pytest.approx(6)


def test_a_counter_of_a_later_kernel_is_unknown_and_not_0() -> None:
    figures = figures_of(observed(saving(0, 1), kernel="5.4.0"))
    assert "5.19" in why(figures["copies"])
    assert "6.4" in why(figures["profit_peak_bytes"])


def test_without_a_capture_merges_are_unknown_and_the_rest_is_told() -> None:
    figures = figures_of(observed(saving(0, 31)))
    assert [why(figures[n]) for n in ("merges", "zero_merges", "failed_merges")] == [
        "no capture"
    ] * 3
    assert figures["saved_peak_pages"] == 31


def test_events_that_tell_no_owner_leave_only_the_processes_merges_unknown() -> None:
    counts = EventCounts(merges=17, zero_merges=3, failed_merges=1, scans=2, lost=0,
                         own_merges=None)  # fmt: skip
    figures = figures_of(observed(saving(0, 17), own=[(17, 5.0)], events=counts))
    assert figures["merges"] == 17
    assert "whose page" in why(figures["process_merges"])
    assert figures["process_merged_peak_pages"] == 17


def test_samples_in_which_a_process_could_not_be_told_are_left_out() -> None:
    own = [(3.0, 1.0), (19.0, 7.0), (math.nan, math.nan)]
    figures = figures_of(observed(saving(0, 1, 1), own=own))
    assert figures["process_merged_peak_pages"] == 19
    assert figures["process_merged_last_pages"] == 19
    assert figures["process_profit_peak_bytes"] == 7


def test_a_host_has_no_figures_of_a_process() -> None:
    figures = figures_of(observed(saving(0, 1)))
    assert all("no command" in why(v) for n, v in figures.items() if n.startswith("process_"))


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=60))
def test_figures_of_any_series_are_within_it(pages: list[int]) -> None:
    figures = figures_of(observed(saving(*pages)))
    assert set(figures) == {measure.name for measure in STAT_MEASURES}
    assert figures["saved_peak_pages"] == max(pages)
    assert figures["saved_last_pages"] == pages[-1]
    assert isinstance(figures["saved_mean_bytes"], float)
    assert min(pages) * PAGE <= figures["saved_mean_bytes"] * (1 + 1e-12)
    assert figures["saved_mean_bytes"] <= max(pages) * PAGE * (1 + 1e-12)
    after = figures["time_to_90_percent_s"]
    if isinstance(after, float):
        gained = [n - pages[0] for n in pages]
        at = round(after / 0.05)
        assert gained[at] >= 0.9 * max(gained)
        assert all(gain < 0.9 * max(gained) for gain in gained[:at])
    else:
        assert max(pages) == pages[0]


@given(st.integers(1, 400), st.integers(2, 50))
def test_thinning_keeps_few_rows_in_order_from_the_first_on(rows: int, most: int) -> None:
    series = Series(("pages_sharing",), most_rows=most)
    for number in range(rows):
        series.add(number, {"pages_sharing": number})
    ts, values = series.ts, series.columns()["pages_sharing"]
    assert len(series) == len(values) <= most
    assert ts.tolist() == values.tolist()
    assert ts[0] == 0
    assert ts[-1] == rows - 1
    assert (np.diff(ts.astype(np.int64)) > 0).all()
