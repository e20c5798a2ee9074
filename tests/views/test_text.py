from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.views.text import errno_name, name


@pytest.mark.parametrize("shown", [count, size, seconds])
def test_what_is_unknown_is_a_dash_and_zero_is_not(shown: object) -> None:
    assert callable(shown)
    assert shown(None) == UNKNOWN == "–"
    assert UNKNOWN not in shown(0)
    assert "0" in shown(0)


@given(st.integers(-(1 << 63), 1 << 63).filter(lambda n: abs(n) < 1 << 53))
def test_a_count_is_the_number_with_commas(number: int) -> None:
    assert int(count(number).replace(",", "")) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (-4097, "-4.0 KiB"),
        (7 << 30, "7.0 GiB"),
        (3 << 60, "3,072.0 PiB"),
    ],
)
def test_bytes_are_shown_in_the_unit_that_fits(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0 ms"),
        (0.0047, "4.7 ms"),
        (0.047, "47 ms"),
        (0.9994, "999 ms"),
        (1.0, "1.00 s"),
        (3.449, "3.45 s"),
        (119.9, "119.90 s"),
        (125, "2 min 05 s"),
        (3599.7, "60 min 00 s"),
    ],
)
def test_durations_are_shown_in_the_unit_that_fits(number: float, text: str) -> None:
    assert seconds(number) == text


@given(st.floats(0.001, 1e7))
def test_a_duration_never_has_sixty_seconds(number: float) -> None:
    found = re.search(r"min (\d+) s", seconds(number))
    assert found is None or int(found[1]) < 60


def test_an_errno_is_told_in_words() -> None:
    assert errno_name(-14) == "Bad address (EFAULT)"
    assert errno_name(-12).endswith("(ENOMEM)")
    assert "-100003" in errno_name(-100003)


@given(st.text())
def test_a_name_is_never_markup(text: str) -> None:
    assert name(text).spans == []


def test_an_unknown_name_is_a_dash() -> None:
    assert name(None).plain == UNKNOWN
