from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import borders

from ksmtrace.recording.pseudonyms import Pseudonyms, RawPointers

U64 = npt.NDArray[np.uint64]
KEY = b"the key of these tests"
FRAMES = st.integers(0, (1 << 53) - 1)
ADDRESSES = st.integers(0, (1 << 64) - 1)
BLOCK_BITS = {"pfns": 9, "addresses": 12}
COLUMNS = [("pfns", FRAMES), ("addresses", ADDRESSES)]
BOTH = pytest.mark.parametrize("column", ["pfns", "addresses"])


def columns(column: str) -> st.SearchStrategy[U64]:
    """Numbers with runs, neighbours and zeros in them."""
    one = dict(COLUMNS)[column]
    near = st.tuples(one, st.lists(st.integers(0, 7), min_size=1, max_size=5)).map(
        lambda pair: [pair[0] ^ offset for offset in pair[1]]
    )
    runs = st.tuples(st.just(0) | one, st.integers(1, 7)).map(lambda pair: [pair[0]] * pair[1])
    parts = st.lists(st.one_of(near, runs), max_size=11)
    return parts.map(lambda lists: np.array([n for part in lists for n in part], np.uint64))


def rename(column: str, values: U64, key: bytes | None = KEY) -> U64:
    renamed: U64 = getattr(Pseudonyms(key), column)(values)
    return renamed


@BOTH
@given(data=st.data())
def test_equal_stays_equal_and_different_stays_different(column: str, data: st.DataObject) -> None:
    values = data.draw(columns(column))
    renamed = rename(column, values)
    assert len(set(zip(values.tolist(), renamed.tolist(), strict=True))) == len(
        set(values.tolist())
    )
    assert len(set(renamed.tolist())) == len(set(values.tolist()))


@BOTH
@given(data=st.data())
def test_zero_and_only_zero_is_zero(column: str, data: st.DataObject) -> None:
    values = data.draw(columns(column))
    assert np.array_equal(rename(column, values) == 0, values == 0)


@BOTH
@given(data=st.data())
def test_neighbours_stay_in_one_block(column: str, data: st.DataObject) -> None:
    values = data.draw(columns(column))
    renamed = rename(column, values)
    bits = np.uint64(BLOCK_BITS[column])
    known = values != 0
    before, after = (values >> bits)[known].tolist(), (renamed >> bits)[known].tolist()
    assert len(set(zip(before, after, strict=True))) == len(set(before)) == len(set(after))


@BOTH
@given(data=st.data(), where=borders())
def test_any_batching_gives_the_same(column: str, data: st.DataObject, where: list[int]) -> None:
    values = data.draw(columns(column))
    pseudonyms = Pseudonyms(KEY)
    parts = [getattr(pseudonyms, column)(part) for part in np.split(values, sorted(where))]
    assert np.array_equal(np.concatenate(parts), rename(column, values))


@BOTH
def test_a_whole_block_stays_whole(column: str) -> None:
    size = 1 << BLOCK_BITS[column]
    values = np.arange(7 * size, 8 * size, dtype=np.uint64)
    renamed = rename(column, values)
    assert sorted(renamed.tolist()) == list(range(int(renamed.min()), int(renamed.min()) + size))
    assert renamed.min() % size == 0


@BOTH
def test_another_key_gives_other_names(column: str) -> None:
    values = np.arange(1, 1010, dtype=np.uint64) * np.uint64(4099)
    names = [rename(column, values, key) for key in (KEY, b"another key", None, None)]
    for number, some in enumerate(names):
        assert (some == values).sum() < 3
        for others in names[number + 1 :]:
            assert (some == others).sum() < 3


@BOTH
def test_nothing_of_the_order_of_blocks_remains(column: str) -> None:
    values = np.arange(1, 1010, dtype=np.uint64) << np.uint64(BLOCK_BITS[column])
    rising = (np.diff(rename(column, values).astype(np.float64)) > 0).mean()
    assert 0.37 < rising < 0.63


def test_frames_stay_frames() -> None:
    values = np.array([1, 511, 512, (1 << 52) + 3, (1 << 53) - 1], np.uint64)
    assert int(rename("pfns", values).max()) < 1 << 53


def test_a_frame_and_an_address_of_one_number_get_different_names() -> None:
    values = np.arange(1, 102, dtype=np.uint64)
    assert (rename("pfns", values) != rename("addresses", values)).all()


def test_the_column_that_came_in_is_left_alone() -> None:
    values = np.array([3, 3, 3, 3, 5], np.uint64)
    rename("pfns", values)
    assert values.tolist() == [3, 3, 3, 3, 5]


@BOTH
@given(data=st.data())
def test_raw_pointers_are_raw(column: str, data: st.DataObject) -> None:
    values = data.draw(columns(column))
    assert np.array_equal(getattr(RawPointers(), column)(values), values)
