from __future__ import annotations

import threading
import time

from ksmtrace.processes.background import Background
from ksmtrace.processes.following import Snapshot


class Reader:
    """Counts readings; stuck while `free` is not set."""

    def __init__(self) -> None:
        self.readings = 0
        self.free = threading.Event()
        self.free.set()

    def take(self) -> Snapshot:
        begun = time.monotonic()
        self.free.wait(20)
        self.readings += 1
        return Snapshot([], self.readings, begun)


def test_each_asking_reads_anew_and_nothing_is_read_unasked() -> None:
    reader = Reader()
    background = Background(reader.take, print)
    for number in (1, 2, 3):
        snapshot = background.latest(20)
        assert snapshot is not None
        assert snapshot.unreadable == number
    time.sleep(0.05)
    assert reader.readings == 3


def test_those_who_ask_while_it_is_read_share_it() -> None:
    reader = Reader()
    background = Background(reader.take, print)
    reader.free.clear()
    found: list[Snapshot | None] = []
    askers = [
        threading.Thread(target=lambda: found.append(background.latest(20))) for _ in range(7)
    ]
    for asker in askers:
        asker.start()
    time.sleep(0.1)
    reader.free.set()
    for asker in askers:
        asker.join(20)
    assert [one.unreadable for one in found if one] == [1] * 7


def test_a_process_that_hangs_costs_one_wait_then_the_last_reading_is_served() -> None:
    reader = Reader()
    background = Background(reader.take, print)
    first = background.latest(20)
    reader.free.clear()
    assert background.latest(0.1) is first
    time.sleep(0.05)
    begin = time.monotonic()
    assert background.latest(0.1) is first
    assert time.monotonic() - begin < 0.05
    reader.free.set()


def test_a_reading_that_fails_is_told_once_counted_and_tried_again() -> None:
    said: list[str] = []
    answers = iter([OSError(24, "Too many open files")] * 2)

    def take() -> Snapshot:
        if (error := next(answers, None)) is not None:
            raise error
        return Snapshot([], 7, 0.0)

    background = Background(take, said.append)
    assert background.latest(20) is None
    assert background.latest(20) is None
    assert background.latest(20) == Snapshot([], 7, 0.0)
    assert background.failures == 2
    assert len(said) == 1
    assert "Too many open files" in said[0]
