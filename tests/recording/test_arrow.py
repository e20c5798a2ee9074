from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import POINTERS, Row, batch_of, borders, event, random_batch, split

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    KINDS,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_START_SCAN,
    LOST,
    SLOTS,
    role_of,
)
from ksmtrace.recording.arrow import (
    arrow_schema,
    events_from_arrow,
    events_to_arrow,
    numbers,
    rows_to_arrow,
    texts,
)
from ksmtrace.recording.pseudonyms import Pseudonyms, RawPointers
from ksmtrace.recording.schema import TABLES


def stored(row: Row) -> dict[str, Any]:
    """An event as the events table has it."""
    rows: list[dict[str, Any]] = events_to_arrow([batch_of([row])], RawPointers()).to_pylist()
    return rows[0]


@given(random_batch())
def test_there_and_back_is_identity(batch: EventBatch) -> None:
    assert np.array_equal(events_from_arrow(events_to_arrow([batch], RawPointers())), batch)


@given(random_batch(), borders())
def test_batches_stored_together_are_stored_as_one(batch: EventBatch, where: list[int]) -> None:
    whole = events_to_arrow([batch], RawPointers())
    assert events_to_arrow(split(batch, where), RawPointers()).equals(whole)


@given(random_batch())
def test_pseudonyms_change_pointers_and_nothing_else(batch: EventBatch) -> None:
    back = events_from_arrow(events_to_arrow([batch], Pseudonyms(b"a key")))
    for slot in SLOTS:
        if slot.name not in POINTERS:
            assert np.array_equal(back[slot.name], batch[slot.name])
        else:
            assert np.array_equal(back[slot.name] == 0, batch[slot.name] == 0)


@given(random_batch())
def test_what_a_kind_does_not_say_is_null(batch: EventBatch) -> None:
    by_id = {kind.id: kind for kind in KINDS}
    rows = events_to_arrow([batch], RawPointers()).to_pylist()
    for row, source in zip(rows, batch, strict=True):
        kind = by_id[int(source["kind"])]
        assert row["kind"] == kind.name
        for slot in SLOTS:
            role = role_of(kind, slot.name)
            unknown = role is None or (role != "value" and source[slot.name] == 0)
            if slot.name != "kind":
                assert (row[slot.name] is None) == unknown


def test_the_number_zero_is_kept_where_it_is_a_number() -> None:
    first_scan = stored(event(KSM_START_SCAN, addr=0, arg=0))
    assert (first_scan["addr"], first_scan["arg"]) == (0, 0)
    merge = stored(event(KSM_MERGE_WITH_KSM_PAGE, pfn=7))
    assert (merge["err"], merge["arg"], merge["cpu"]) == (0, 0, 0)
    decision = stored(event(KSM_ADVISOR))
    assert (decision["err"], decision["addr"], decision["arg"]) == (0, 0, 0)
    assert stored(event(LOST))["addr"] == 0


def test_an_unknown_address_owner_or_pointer_is_null() -> None:
    merge = stored(event(KSM_MERGE_WITH_KSM_PAGE))
    unknown = ("pfn", "item", "mm", "addr", "tgid")
    assert all(merge[slot] is None for slot in unknown)
    assert stored(event(KSM_ENTER))["addr"] is None
    assert stored(event(KSM_ENTER, addr=11))["addr"] == 11


def test_a_slot_that_a_kind_lacks_is_null_even_if_a_source_filled_it() -> None:
    assert stored(event(KSM_REMOVE_KSM_PAGE, pfn=3, tgid=5, addr=7))["tgid"] is None


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=13))
def test_texts_keep_every_character_and_tell_nothing_from_empty(
    values: list[str | None],
) -> None:
    array = texts(values)
    array.validate(full=True)
    assert array.to_pylist() == values


@given(st.lists(st.tuples(st.integers(-(1 << 31), (1 << 31) - 1), st.booleans()), max_size=29))
def test_numbers_are_null_exactly_where_the_mask_says(values: list[tuple[int, bool]]) -> None:
    array = numbers(
        np.array([value for value, _ in values], np.int32),
        np.array([null for _, null in values], bool),
    )
    array.validate(full=True)
    assert array.to_pylist() == [None if null else value for value, null in values]


@given(st.lists(st.booleans(), max_size=29))
def test_booleans_are_packed_and_unpacked(values: list[bool]) -> None:
    assert numbers(np.array(values, bool)).to_pylist() == values


@pytest.mark.parametrize("name", [name for name in TABLES if name != "events"])
def test_a_row_without_a_key_has_null_there(name: str) -> None:
    table = TABLES[name]
    batch = rows_to_arrow(table, [{"ts": 17}, {}])
    batch.validate(full=True)
    assert batch.schema == arrow_schema(name)
    first, second = batch.to_pylist()
    assert first["ts"] == 17
    assert all(value is None for key, value in first.items() if key != "ts")
    assert set(second.values()) == {None}


def test_signed_counters_keep_their_sign() -> None:
    rows = [{"ts": 1, "general_profit": -4097}, {"ts": 2, "general_profit": 0}, {"ts": 3}]
    batch = rows_to_arrow(TABLES["counters"], rows)
    assert batch["general_profit"].to_pylist() == [-4097, 0, None]
