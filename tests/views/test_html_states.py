from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.timeline.tables import END, HOW
from ksmtrace.views.html.page_states import STATES, Lives, Moments, changes_of, lives_of

MOMENTS, PLACES = 13, 7
Life = tuple[int, int, int, int, int, bool]


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    """Lives of a few pages, those of one page one after the other or overlapping."""
    found = []
    for _ in range(draw(st.integers(0, 17))):
        begin = draw(st.integers(0, MOMENTS))
        end = draw(st.integers(begin, MOMENTS))
        doubt = draw(st.integers(begin, end))
        how = draw(st.integers(0, len(HOW) - 1))
        found.append(
            (draw(st.integers(0, PLACES - 1)), begin, doubt, end, how, draw(st.booleans()))
        )
    return sorted(found, key=lambda life: life[1])


def as_arrays(told: list[Life]) -> Lives:
    columns = [np.array([life[n] for life in told], np.int64) for n in range(5)]
    broken = np.array([life[5] for life in told], bool)
    return Lives(*columns[:5], np.zeros(len(told), np.int64), broken)


def state_of(told: list[Life], place: int, moment: int) -> str:
    """What a page is, told one page and one moment at a time."""
    mine = [life for life in told if life[0] == place]
    begun = [life for life in mine if life[1] <= moment]
    if not begun:
        return "waiting" if mine else "never"
    _, _, doubt, end, how, broken = begun[-1]
    if moment < doubt:
        return {"inherited": "inherited", "zero_page": "zero"}.get(HOW[how], "merged")
    if moment < end:
        return "doubtful"
    return "broken" if broken else "ended"


@given(lives(), st.integers(0, 2))
def test_changes_add_up_to_the_state_of_every_page_at_every_moment(
    told: list[Life], shift: int
) -> None:
    arrays = as_arrays(told)
    cells = (PLACES - 1 >> shift) + 1
    changes = changes_of(arrays, arrays.place >> shift, cells, MOMENTS)
    counts = np.zeros((cells, len(STATES)), np.int64)
    for moment in range(MOMENTS):
        now = changes.moment == moment
        np.add.at(counts, (changes.cell[now], changes.state[now]), changes.pages[now])
        for cell in range(cells):
            places = [place for place in range(PLACES) if place >> shift == cell]
            expected = Counter(state_of(told, place, moment) for place in places)
            del expected["never"]
            found = {STATES[n]: int(counts[cell, n]) for n in np.flatnonzero(counts[cell])}
            assert found == dict(expected)


@given(st.integers(0, 10**15), st.integers(0, 10**12), st.integers(2, 1001), st.data())
def test_what_happened_is_seen_from_the_first_moment_after_it(
    start: int, length: int, count: int, data: st.DataObject
) -> None:
    moments = Moments(start, start + length, count)
    ts = data.draw(st.integers(start, start + length))
    first = int(moments.after(np.array([ts]))[0])
    assert moments.at_ns(first) >= ts
    assert first == 0 or moments.at_ns(first - 1) < ts
    assert moments.at_ns(0) == start


def test_a_life_of_before_was_there_from_the_start_and_an_unknown_end_is_in_doubt() -> None:
    pages = pd.DataFrame(
        {
            "how": pd.Categorical(["before", "joined", "joined"], categories=list(HOW)),
            "end": pd.Categorical(["cow_break", "unknown", "still_merged"], categories=list(END)),
            "ksm_page": pd.array([3, 5, None], dtype="Int32"),
            "merged_ns": pd.array([None, 200, 300], dtype="Int64"),
            "ended_after_ns": pd.array([500, 400, None], dtype="Int64"),
            "ended_before_ns": pd.array([500, 900, None], dtype="Int64"),
        }
    )
    rows = np.arange(3)
    found = lives_of(pages, rows, rows, Moments(100, 1100, 11))
    assert found.begin.tolist() == [0, 1, 2]
    assert found.doubt.tolist() == [4, 3, 11]
    assert found.end.tolist() == [4, 8, 11]
    assert found.broken.tolist() == [True, False, False]
    assert found.ksm_page.tolist() == [3, 5, -1]
