from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.lab.contest.curve import Curve, curve_of

ROWS = [(0.0, 0.0, 0.0), (1.0, 0.1, 50.0), (2.0, 0.3, 90.0), (4.0, 0.4, 80.0), (10.0, 0.5, 100.0)]


@pytest.mark.parametrize(
    ("pages", "seconds", "cpu_s"),
    [(0, 0, 0), (1, 1, 0.1), (50, 1, 0.1), (50.1, 2, 0.3), (90, 2, 0.3), (91, 10, 0.5)],
)
def test_a_time_is_that_of_the_first_moment_with_so_many_pages(
    pages: float, seconds: float, cpu_s: float
) -> None:
    curve = curve_of(ROWS)
    assert (curve.time_to(pages), curve.cpu_to(pages)) == (seconds, cpu_s)


def test_what_was_never_saved_has_no_time() -> None:
    assert curve_of(ROWS).time_to(101) is None


def test_the_mean_weighs_each_value_with_the_time_that_it_stood() -> None:
    # 0 for a second, 50 for one, 90 for two, 80 for six.
    assert curve_of(ROWS).mean == (0 + 50 + 2 * 90 + 6 * 80) / 10
    assert curve_of(ROWS[-1:]).mean == 100


def test_what_was_saved_anyway_is_taken_off_as_it_was_at_the_time() -> None:
    ground = curve_of([(0, 0, 7), (2, 0, 3), (11, 0, 0)])
    assert curve_of(ROWS).less(ground).pages.tolist() == [-7, 43, 87, 77, 97]


@given(
    st.lists(
        st.tuples(st.floats(0.001, 10), st.floats(0, 1), st.integers(0, 1000)),
        min_size=1,
        max_size=23,
    ),
    st.integers(0, 1000),
)
def test_time_to_is_what_a_plain_loop_finds(
    steps: list[tuple[float, float, int]], pages: int
) -> None:
    table = np.array(steps)
    curve = Curve(table[:, 0].cumsum(), table[:, 1].cumsum(), table[:, 2])
    expected = None
    for at, saved in zip(curve.time_s.tolist(), curve.pages.tolist(), strict=True):
        if saved >= pages:
            expected = at
            break
    assert curve.time_to(pages) == expected
    less = curve.time_to(pages / 2)
    assert expected is None or (less is not None and less <= expected)
