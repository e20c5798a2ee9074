"""Reading ahead changes nothing but when things are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.recording.ahead import read_ahead


@given(st.lists(st.integers()))
def test_everything_comes_once_and_in_order(items: list[int]) -> None:
    assert list(read_ahead(iter(items))) == items


def test_the_next_is_made_while_one_is_used() -> None:
    second_made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_made.set()
        yield 2

    coming = read_ahead(items())
    assert next(coming) == 1
    assert second_made.wait(10)
    assert list(coming) == [2]


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    coming = read_ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(coming)


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    coming = read_ahead(iter(range(10)))
    assert next(coming) == 0
    coming.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before
