from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.views.timeline_parts import in_ascii
from ksmtrace.views.timeline_strip import (
    LEVELS,
    Span,
    Strip,
    axis,
    cells_of,
    chart,
    gauge,
    marks,
    rates,
    segments,
    spark,
)

SECOND = 1_000_000_000
VALUES = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e15)), min_size=1, max_size=97)


def test_nothing_is_the_lowest_block_and_anything_more_a_higher_one() -> None:
    assert spark(np.array([0.0, 1e-6, 500.0, 1000.0])) == "▁▂▅█"


def test_what_is_not_known_is_a_blank_and_not_the_lowest_block() -> None:
    assert spark(np.array([np.nan, 0.0, 7.0])) == " ▁█"
    assert spark(np.array([np.nan])) == " "


def test_a_scale_may_begin_above_nothing() -> None:
    assert spark(np.array([500.0, 750.0, 1000.0]), 500.0, 1000.0) == "▁▅█"


@given(VALUES)
def test_a_higher_value_never_has_a_lower_block(values: list[float]) -> None:
    drawn = spark(np.array(values))
    assert len(drawn) == len(values)
    told = [(v, LEVELS.index(b)) for v, b in zip(values, drawn, strict=True) if b != " "]
    assert len(told) == sum(v == v for v in values)  # noqa: PLR0124 NaN differs from itself
    assert [level for _, level in sorted(told)] == sorted(level for _, level in told)
    assert all((level > 0) == (value > 0) for value, level in told)


@given(st.lists(st.integers(0, 10 * SECOND), max_size=101), st.integers(1, 103))
def test_no_moment_is_lost_or_counted_twice(moments: list[int], cells: int) -> None:
    span = Span(0, 10 * SECOND, cells)
    assert round(float((rates(moments, span) * span.cell_s).sum())) == len(moments)


def test_a_rate_is_a_second() -> None:
    span = Span(0, 2 * SECOND, 4)
    assert rates([0, 1, 2, SECOND], span).tolist() == [6, 0, 2, 0]


def test_a_gauge_keeps_its_last_value_and_shows_its_peak() -> None:
    span = Span(0, 10, 5)
    values = gauge([2, 3, 6], np.array([7.0, 3.0, 5.0]), span)
    assert np.isnan(values[0])
    assert values[1:].tolist() == [7, 3, 5, 5]


def test_a_gauge_steps_over_samples_that_do_not_know_it() -> None:
    span = Span(0, 10, 5)
    assert gauge([0, 4], np.array([7.0, np.nan]), span).tolist() == [7] * 5
    assert np.isnan(gauge([0], np.array([np.nan]), span)).all()


def test_scans_are_stretches_with_their_numbers_where_there_is_room() -> None:
    starts, ends = np.array([0, 6, 8]), np.array([5, 8, 15])
    assert segments(starts, ends, ["1", "23", "4"], 16) == "│1────│─│4──────"


def test_the_number_of_a_short_scan_takes_the_gap_behind_it() -> None:
    assert segments(np.array([0, 4]), np.array([0, 4]), ["11", "12"], 8) == "│11 │12 "


def test_a_gap_between_scans_is_seen() -> None:
    assert segments(np.array([0, 6]), np.array([2, 9]), ["1", "2"], 10) == "│1─   │2──"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=53), st.integers(1, 41))
def test_stretches_never_change_the_length_of_their_line(
    stretches: list[tuple[int, int]], cells: int
) -> None:
    starts = np.clip(np.sort(np.array([s for s, _ in stretches], np.int64)), 0, cells - 1)
    ends = np.clip(starts + np.array([e for _, e in stretches], np.int64), 0, cells - 1)
    names = [str(number) for number in range(len(stretches))]
    assert len(segments(starts, ends, names, cells)) == cells


def test_marks_are_where_something_was_lost() -> None:
    assert marks(np.array([1, 3]), 5) == " x x "


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [(5.0, "0 s      1        2"), (0.05, "0.00 s   0.01"), (7200.0, "0 s          2,000")],
)
def test_the_axis_has_round_numbers_of_seconds(length_s: float, expected: str) -> None:
    line, words = axis(Span(0, round(length_s * SECOND), 47))
    assert len(line) == 47
    assert words.startswith(expected)


@given(st.integers(0, 1 << 62), st.integers(1, 1 << 62), st.integers(4, 307))
def test_every_number_of_the_axis_stands_below_its_tick(
    start: int, length: int, cells: int
) -> None:
    span = Span(start, start + length, cells)
    line, words = axis(span)
    assert len(line) == cells
    found = list(re.finditer(r"[\d.,]+", words))
    assert found[0].start() == 0
    for number in found:
        assert line[number.start()] == ("┼" if number.start() else "├")
        place = float(number[0].replace(",", "")) / span.cell_s
        assert number.start() == pytest.approx(place, abs=1 + 1e-6 * cells)


def test_a_chart_fits_its_width() -> None:
    for width in (40, 80, 133):
        span = Span(0, SECOND, cells_of(width))
        strips = [
            Strip("a label much too long", "▁" * span.cells, "0..a scale far too long to fit")
        ]
        assert max(map(len, chart(strips, span, width).plain.splitlines())) <= width


def test_ascii_keeps_the_columns_and_the_order_of_blocks() -> None:
    ascii_ = in_ascii(LEVELS + "│├┼─–…")
    assert ascii_ == "_.:-=+*#|++--~"
    assert in_ascii("büro") == "b\\xfcro"


@given(st.text())
def test_ascii_is_ascii(text: str) -> None:
    assert in_ascii(text).isascii()
