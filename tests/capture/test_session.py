from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch_of, event, loses, scan_starts, scan_stops, split

from ksmtrace.capture.session import Options, Progress, Session, Signals
from ksmtrace.events.batch import EventBatch, concatenate, empty, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ADVISOR,
    KSM_EXIT,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
)


class FakeStream:
    """Hands out batches one a read, then nothing; ends if it is told to."""

    def __init__(
        self,
        batches: Sequence[EventBatch] = (),
        *,
        ends: bool = False,
        last: EventBatch | None = None,
        on_read: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._batches = list(batches)
        self._ends = ends
        self._last = last
        self._stopped = False
        self._on_read = on_read
        self.reads = 0
        self.exhausted = False

    def read(self) -> EventBatch:
        self.reads += 1
        self._on_read(self.reads)
        if self._batches and not self._stopped:
            return self._batches.pop(0)
        if self._stopped and self._last is not None:
            last, self._last = self._last, None
            return last
        self.exhausted = self._ends
        return empty()

    def fileno(self) -> int | None:
        return None

    def stop(self) -> None:
        self._stopped = True


class FakeConsumer:
    def __init__(self) -> None:
        self.batches: list[EventBatch] = []
        self.flushes = 0

    def events(self, batch: EventBatch) -> None:
        self.batches.append(batch)

    def flush_if_due(self) -> None:
        self.flushes += 1

    @property
    def all(self) -> EventBatch:
        return concatenate(self.batches)


class FakeContext:
    """Writes down what is asked of it. jobs: pieces of work queued at start and at the end."""

    def __init__(self, jobs: int = 0) -> None:
        self.calls: list[str] = []
        self.seen: list[EventBatch] = []
        self.known_tgids = [7, 11, 13]
        self._per_queue = jobs
        self._jobs = 0

    def start(self) -> None:
        self.calls.append("start")
        self._jobs = self._per_queue

    def finish(self) -> None:
        self.calls.append("finish")
        self._jobs = self._per_queue

    def interval(self) -> None:
        self.calls.append("interval")

    def take_census(self, reason: str) -> None:
        self.calls.append(f"census {reason}")

    def sample_host(self, reason: str) -> None:
        self.calls.append(f"host {reason}")

    def work(self, _seconds: float) -> bool:
        if self._jobs:
            self._jobs -= 1
        return self._jobs > 0

    def events(self, batch: EventBatch) -> None:
        self.seen.append(batch)

    def lifecycle(self, _events: object) -> None:
        self.calls.append("lifecycle")


def run(
    stream: FakeStream,
    options: Options,
    *,
    consumer: FakeConsumer | None = None,
    context: FakeContext | None = None,
    **rest: Any,
) -> tuple[str, Progress]:
    fake: Any = context or FakeContext()
    signals = Signals()
    with signals.installed():
        session = Session(stream, consumer or FakeConsumer(), fake, signals, options, **rest)
        ended = session.run()
    return ended, session.progress


def test_it_ends_by_its_duration() -> None:
    begin = time.monotonic()
    ended, progress = run(FakeStream(), Options(duration=0.11))
    assert ended == "duration"
    assert 0.11 <= time.monotonic() - begin < 3
    assert progress.seconds >= 0.11


def test_it_ends_by_its_number_of_scans() -> None:
    batches = [batch_of([scan_starts(n, 2 * n), scan_stops(n, 2 * n + 1)]) for n in range(7)]
    consumer = FakeConsumer()
    ended, progress = run(FakeStream(batches), Options(scans=5), consumer=consumer)
    assert ended == "scans"
    assert progress.scans == 5
    assert len(consumer.all) == 10


def test_it_ends_with_its_source() -> None:
    rows = [scan_stops(0, 5), scan_starts(1, 7), scan_stops(1, 11)]
    ended, progress = run(FakeStream([batch_of(rows)], ends=True), Options())
    assert ended == "source"
    # The first stop ended a scan that was under way before: it is none of the recorded ones.
    assert (progress.events, progress.scans) == (3, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_by_a_signal_and_keeps_what_came_before(number: signal.Signals) -> None:
    def kill(reads: int) -> None:
        if reads == 3:
            os.kill(os.getpid(), number)

    consumer = FakeConsumer()
    batches = [batch_of([scan_stops(n, n)]) for n in range(3)]
    last = batch_of([scan_stops(9, 9)])
    ended, _ = run(FakeStream(batches, on_read=kill, last=last), Options(), consumer=consumer)
    assert ended == number.name
    assert consumer.all["addr"].tolist() == [0, 1, 2, 9]


def test_signals_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(FakeStream(ends=True), Options())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_it_ends_with_its_command_which_starts_after_the_first_samples() -> None:
    reading, writing = os.pipe()
    context = FakeContext(jobs=5)

    def launch() -> int:
        context.calls.append("launch")
        os.close(writing)
        return reading

    ended, _ = run(FakeStream(), Options(), context=context, launch=launch)
    os.close(reading)
    assert ended == "command"
    assert context.calls == ["start", "launch", "finish", "host end"]


def test_it_ends_where_no_scan_can_ever_end() -> None:
    ended, _ = run(FakeStream(), Options(scans=3), nothing_to_wait_for=lambda: True)
    assert ended == "nothing"
    ended, _ = run(FakeStream(), Options(duration=0.05), nothing_to_wait_for=lambda: True)
    assert ended == "duration"


ROWS = [
    event(KSM_MERGE_WITH_KSM_PAGE, 1, tgid=7, pfn=1),
    event(KSM_MERGE_WITH_KSM_PAGE, 2, tgid=11, pfn=2),
    scan_starts(3, 3),
    event(KSM_EXIT, 4, tgid=11),
    event(KSM_REMOVE_KSM_PAGE, 5, pfn=3),
    loses(5, 6),
    event(KSM_ADVISOR, 7, addr=5003),
    scan_stops(3, 8),
    event(KSM_MERGE_WITH_KSM_PAGE, 9, tgid=13, pfn=2),
]


@settings(max_examples=11)
@given(st.lists(st.integers(0, 9), max_size=3))
def test_a_filter_keeps_the_chosen_processes_scans_decisions_and_losses(where: list[int]) -> None:
    consumer, context = FakeConsumer(), FakeContext()
    pieces = split(batch_of(ROWS), where)
    options = Options(pids=frozenset({7, 13}))
    _, progress = run(FakeStream(pieces, ends=True), options, consumer=consumer, context=context)
    assert consumer.all["ts"].tolist() == [1, 3, 6, 7, 8, 9]
    assert progress.events == 6
    assert (progress.scans, progress.lost) == (1, 5)
    assert np.array_equal(concatenate(context.seen), batch_of(ROWS))


def test_without_a_filter_everything_is_kept_in_order() -> None:
    consumer = FakeConsumer()
    run(FakeStream([batch_of(ROWS)], ends=True, last=batch_of(ROWS)), Options(), consumer=consumer)
    assert np.array_equal(consumer.all, np.concatenate((batch_of(ROWS), batch_of(ROWS))))


def test_events_are_taken_while_long_readings_go_on() -> None:
    consumer = FakeConsumer()
    batches = [batch_of([scan_stops(n, n)]) for n in range(11)]
    seen: list[int] = []

    def launch() -> int:
        seen.append(len(consumer.all))
        return os.open(os.devnull, os.O_RDONLY)

    context = FakeContext(jobs=7)
    with pytest.raises(PermissionError):  # /dev/null can't be waited for
        run(FakeStream(batches), Options(), consumer=consumer, context=context, launch=launch)
    assert seen == [7]


def test_samples_are_taken_at_their_intervals() -> None:
    context = FakeContext()
    options = Options(duration=0.31, interval=0.05, census_interval=0.11)
    run(FakeStream(), options, context=context)
    assert 1 <= context.calls.count("interval") <= 6
    assert 1 <= context.calls.count("census interval") <= 2
    assert (context.calls[0], context.calls[-1]) == ("start", "host end")


def test_the_status_is_told_with_the_known_processes() -> None:
    told: list[int] = []
    run(
        FakeStream([batch_of([loses(5)])]),
        Options(duration=0.05),
        status=lambda progress: told.append(progress.known_processes),
    )
    assert told == [3]


def test_what_the_very_last_events_give_to_look_up_is_looked_up() -> None:
    class Diligent(FakeContext):
        def events(self, batch: EventBatch) -> None:
            super().events(batch)
            self._jobs += int(of_kind(batch, COW_BREAK).sum())

    context = Diligent()
    last = batch_of([event(COW_BREAK, tgid=7) for _ in range(13)])
    _, progress = run(FakeStream(last=last), Options(duration=0.01), context=context)
    assert progress.breaks == 13
    assert context._jobs == 0
