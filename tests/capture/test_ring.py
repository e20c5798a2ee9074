from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.capture.ring import Ring
from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import KSM_STOP_SCAN

PAGE = mmap.PAGESIZE
RING = 4096
HELD = RING // 64
BUSY = 1 << 31


class Producer:
    """The kernel's side: a file laid out as the map is, the data twice by writing it twice."""

    def __init__(self, position: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * RING)
        self._file = mmap.mmap(self.fd, 2 * PAGE + 2 * RING)
        self._positions = np.frombuffer(self._file, "<u8")
        self._positions[0] = self._positions[PAGE // 8] = position
        self._next = 0

    @property
    def position(self) -> int:
        return int(self._positions[PAGE // 8])

    @property
    def room(self) -> int:
        return HELD - (self.position - int(self._positions[0])) // 64

    def emit(self, *, busy: bool = False) -> int:
        """Reserve a record, and submit it unless it stays busy; returns its place."""
        event = np.zeros(1, EVENT)
        event["kind"], event["addr"], event["ts"] = KSM_STOP_SCAN.id, self._next, 7
        event["err"] = -14
        self._next += 1
        place = self.position % RING
        head = np.array([56 | (BUSY if busy else 0), 0], "<u4").tobytes()
        for copy in (place, place + RING):
            at = 2 * PAGE + copy
            self._file[at : at + 64] = head + event.tobytes()
        self._positions[PAGE // 8] += 64
        return place

    def submit(self, place: int) -> None:
        for copy in (place, place + RING):
            at = 2 * PAGE + copy
            self._file[at : at + 8] = np.array([56, 0], "<u4").tobytes()

    def close(self) -> None:
        del self._positions
        self._file.close()
        os.close(self.fd)


@pytest.fixture(name="producer")
def make_producer() -> Iterator[Producer]:
    producer = Producer()
    yield producer
    producer.close()


def numbers(batch: EventBatch) -> list[int]:
    assert (batch["kind"] == KSM_STOP_SCAN.id).all()
    assert (batch["err"] == -14).all()
    listed: list[int] = batch["addr"].tolist()
    return listed


def test_an_empty_ring_gives_nothing(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        assert len(ring.read()) == 0


def test_what_is_submitted_is_read_once_and_its_place_is_freed(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        for _ in range(5):
            producer.emit()
        assert numbers(ring.read()) == [0, 1, 2, 3, 4]
        assert len(ring.read()) == 0


def test_a_busy_record_and_all_behind_it_wait(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        producer.emit()
        place = producer.emit(busy=True)
        producer.emit()
        assert numbers(ring.read()) == [0]
        assert numbers(ring.read()) == []
        producer.submit(place)
        assert numbers(ring.read()) == [1, 2]


def test_what_was_read_stays_when_its_place_is_overwritten(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        producer.emit()
        batch = ring.read()
        for _ in range(HELD):
            producer.emit()
        assert numbers(batch) == [0]
    assert numbers(batch) == [0]


def test_no_more_than_asked_for_is_read(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        for _ in range(7):
            producer.emit()
        assert numbers(ring.read(3)) == [0, 1, 2]
        assert numbers(ring.read(3)) == [3, 4, 5]
        assert numbers(ring.read(3)) == [6]


def test_a_full_ring_is_read_in_one_piece_wherever_it_begins(producer: Producer) -> None:
    with Ring(producer.fd, RING) as ring:
        for _ in range(13):
            producer.emit()
        ring.read()
        for _ in range(HELD):
            producer.emit()
        assert numbers(ring.read()) == list(range(13, 13 + HELD))


STEPS = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 67)),
    st.tuples(st.just("reserve"), st.just(1)),
    st.tuples(st.just("submit"), st.integers(0, 6)),
    st.tuples(st.just("read"), st.sampled_from([1, 3, 29, 1 << 17])),
)


@given(st.lists(STEPS, max_size=31), st.integers(0, 101))
def test_any_interleaving_of_writing_and_reading_loses_and_repeats_nothing(
    steps: list[tuple[str, int]], begin: int
) -> None:
    producer = Producer(position=64 * begin)
    busy: list[int] = []
    read: list[int] = []
    written = 0
    with Ring(producer.fd, RING) as ring:
        for what, number in steps:
            if what in ("emit", "reserve"):
                for _ in range(min(number, producer.room)):
                    place = producer.emit(busy=what == "reserve")
                    written += 1
                    if what == "reserve":
                        busy.append(place)
            elif what == "submit" and busy:
                producer.submit(busy.pop(number % len(busy)))
            elif what == "read":
                read += numbers(ring.read(number))
        for place in busy:
            producer.submit(place)
        while len(batch := ring.read()):
            read += numbers(batch)
    producer.close()
    assert read == list(range(written))
