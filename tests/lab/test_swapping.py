"""Which pages stay, and which are gone, when others are sent to the swap disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.lab.swapping import ranges_of

PAGE = 4096
pages = st.sets(st.integers(0, 97).map(lambda number: number * PAGE))


@given(pages)
def test_ranges_hold_exactly_the_pages_and_never_touch(chosen: set[int]) -> None:
    ranges = ranges_of(chosen)
    assert [start for start, _ in ranges] == sorted(start for start, _ in ranges)
    held = [page for start, length in ranges for page in range(start, start + length, PAGE)]
    assert held == sorted(chosen)
    ends = {start + length for start, length in ranges}
    assert not ends & {start for start, _ in ranges}
