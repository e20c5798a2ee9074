from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.batches import batch_of, borders, event, loses, random_batch, split

from ksmtrace.events.batch import EVENT, EventBatch, concatenate, empty, lost_count, of_kind
from ksmtrace.events.registry import KINDS, KSM_EXIT, LOST, SLOTS


def test_a_record_is_56_bytes_without_holes_and_little_endian() -> None:
    assert EVENT.itemsize == 56
    assert sum(np.dtype(slot.numpy).itemsize for slot in SLOTS) == 56
    assert all(slot.numpy.startswith("<") for slot in SLOTS)


def test_the_c_types_are_as_wide_as_the_numpy_ones() -> None:
    for slot in SLOTS:
        bits, sign = int(slot.c.strip("_us")), slot.c[2]
        kind: Any = np.dtype(slot.numpy)
        assert kind.itemsize * 8 == bits
        assert kind.kind == {"u": "u", "s": "i"}[sign]


def test_every_slot_is_aligned_as_c_aligns_it() -> None:
    assert EVENT.fields is not None
    for dtype, offset, *_ in EVENT.fields.values():
        assert offset % dtype.itemsize == 0


@given(random_batch(), borders())
def test_the_pieces_of_a_batch_put_together_are_the_batch(
    batch: EventBatch, where: list[int]
) -> None:
    assert np.array_equal(concatenate(split(batch, where)), batch)


@given(random_batch())
def test_each_event_is_of_exactly_one_kind(batch: EventBatch) -> None:
    masks = [of_kind(batch, kind) for kind in KINDS]
    assert np.array_equal(np.sum([*masks, np.zeros(len(batch))], axis=0), np.ones(len(batch)))
    assert of_kind(batch, *KINDS).all()


@given(st.lists(st.integers(0, 1 << 40), max_size=13))
def test_what_is_lost_is_the_sum_over_the_loss_records(counts: list[int]) -> None:
    rows = [row for count in counts for row in (loses(count), event(KSM_EXIT, addr=7))]
    assert lost_count(batch_of(rows)) == sum(counts)


def test_nothing_is_lost_in_a_batch_of_nothing() -> None:
    assert lost_count(empty()) == 0
    assert len(concatenate([])) == 0
    assert concatenate([]).dtype == EVENT


def test_only_loss_records_count_as_loss() -> None:
    others = [event(kind, addr=11) for kind in KINDS if kind is not LOST]
    assert lost_count(batch_of(others)) == 0
