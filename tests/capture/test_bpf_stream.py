from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import batch_of, scan_stops

from ksmtrace.capture import bpf_stream
from ksmtrace.capture.bpf_stream import BpfStream, lost_events, object_stream
from ksmtrace.events.batch import EventBatch, concatenate, empty, lost_count
from ksmtrace.events.registry import LOST


@given(st.dictionaries(st.integers(0, 511), st.integers(0, 1 << 40)))
def test_each_cpus_loss_is_told_once(losses: dict[int, int]) -> None:
    batch = lost_events(losses)
    assert lost_count(batch) == sum(losses.values())
    assert dict(zip(batch["cpu"].tolist(), batch["addr"].tolist(), strict=True)) == {
        cpu: count for cpu, count in losses.items() if count
    }
    assert (batch["kind"] == LOST.id).all()
    assert (batch["ts"] > 0).all()


class FakeRing:
    def __init__(self, *batches: EventBatch) -> None:
        self.batches = list(batches)

    def read(self) -> EventBatch:
        return self.batches.pop(0) if self.batches else empty()


def test_the_end_stops_the_programs_first_then_empties_the_ring_then_tells_losses() -> None:
    ring: Any = FakeRing(batch_of([scan_stops(3, 1)]))
    order: list[str] = []

    def detach() -> None:
        order.append("detach")
        ring.batches.append(batch_of([scan_stops(5, 2)]))

    def losses() -> dict[int, int]:
        order.append("losses")
        return {1: 0, 2: 7}

    stream = BpfStream(ring, 0, detach=detach, losses=losses)
    stream.stop()
    batches = []
    while len(batch := stream.read()):
        batches.append(batch)
    final = concatenate(batches)
    assert order == ["detach", "losses"]
    assert final["addr"].tolist() == [3, 5, 7]
    assert np.array_equal(final["cpu"], [0, 0, 2])
    assert not stream.exhausted


class FakeObject:
    def map_fd(self, name: str) -> int:
        return {"events": 7}[name]

    def read_per_cpu(self, name: str, words: int) -> list[tuple[int, ...]]:
        return {("cpu_states", 3): [(2, 0, 0), (0, 5, 5), (3, 0, 0)]}[name, words]

    def misses(self, program: str) -> int:
        return {"enter": 11, "exit": 13}[program]


@pytest.mark.parametrize(("programs", "on_first"), [((), 2), (("enter", "exit"), 26)])
def test_what_programs_missed_is_lost_like_what_did_not_fit(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...], on_first: int
) -> None:
    monkeypatch.setattr(bpf_stream, "Ring", lambda _fd, _bytes: nullcontext(FakeRing()))
    loaded: Any = FakeObject()
    with object_stream(loaded, 4096, lambda: None, programs) as stream:
        assert stream.fileno() == 7
        stream.stop()
        lost = stream.read()
    assert dict(zip(lost["cpu"].tolist(), lost["addr"].tolist(), strict=True)) == {
        0: on_first,
        2: 3,
    }
