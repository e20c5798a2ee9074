from __future__ import annotations

import os
from typing import Any

import pytest
from support.batches import batch_of, event

from ksmtrace.capture import code_book as module
from ksmtrace.capture.code_book import CodeBook
from ksmtrace.capture.cow import CowWatch
from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import COW_BREAK, KSM_EXIT
from ksmtrace.processes.code import Mapping

HERE = (Mapping(0x1000, 0x3000, 0x500, "/bin/here"),)
THERE = (Mapping(0x9000, 0xA000, 0, "/bin/there"),)


class Sink:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def code(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows

    def told(self) -> set[tuple[Any, ...]]:
        return {(row["tgid"], row["ip"], row["file"], row["offset"]) for row in self.rows}


@pytest.fixture(name="alive")
def make_alive(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[Mapping, ...]]:
    """The mappings of the processes that are alive."""
    alive: dict[int, tuple[Mapping, ...]] = {}
    monkeypatch.setattr(module, "executable_mappings", lambda tgid: alive.get(tgid, ()))
    return alive


@pytest.fixture(name="sink")
def make_sink() -> Sink:
    return Sink()


def breaks(*pairs: tuple[int, int]) -> EventBatch:
    return batch_of([event(COW_BREAK, tgid=tgid, item=ip) for tgid, ip in pairs])


def look_up(book: CodeBook, batch: EventBatch) -> bool:
    job = book.note(batch)
    for _ in job or ():
        pass
    return job is not None


def test_each_place_is_looked_up_once(sink: Sink, alive: dict[int, tuple[Mapping, ...]]) -> None:
    alive[7] = alive[11] = HERE
    book = CodeBook(sink, CowWatch())
    assert look_up(book, breaks((7, 0x1010), (7, 0x1010), (11, 0x1010), (7, 0x2000), (7, 0x1010)))
    assert not look_up(book, breaks((7, 0x1010)))
    assert len(sink.rows) == 3
    assert sink.told() == {
        (7, 0x1010, "/bin/here", 0x510),
        (11, 0x1010, "/bin/here", 0x510),
        (7, 0x2000, "/bin/here", 0x1500),
    }


def test_a_process_that_is_gone_is_told_by_what_was_kept(
    sink: Sink, alive: dict[int, tuple[Mapping, ...]]
) -> None:
    book = CodeBook(sink, CowWatch())
    alive[7] = HERE
    book.keep(7)
    book.forked(7, 13)
    alive.clear()
    look_up(book, breaks((7, 0x1010), (13, 0x1011), (17, 0x1012)))
    assert sink.told() == {
        (7, 0x1010, "/bin/here", 0x510),
        (13, 0x1011, "/bin/here", 0x511),
        (17, 0x1012, None, None),
    }


def test_what_a_process_was_before_an_exec_still_counts(
    sink: Sink, alive: dict[int, tuple[Mapping, ...]]
) -> None:
    book = CodeBook(sink, CowWatch())
    alive[7] = HERE
    book.keep(7)
    alive[7] = THERE
    look_up(book, breaks((7, 0x1010), (7, 0x9001)))
    assert sink.told() == {(7, 0x1010, "/bin/here", 0x510), (7, 0x9001, "/bin/there", 1)}


def test_places_that_come_while_a_job_is_at_work_are_taken_up_by_it(
    sink: Sink, alive: dict[int, tuple[Mapping, ...]]
) -> None:
    alive[7] = HERE
    book = CodeBook(sink, CowWatch())
    job = book.note(breaks((7, 0x1010)))
    assert job is not None
    next(job)
    assert book.note(breaks((7, 0x1011))) is None
    for _ in job:
        pass
    assert len(sink.rows) == 2
    assert book.note(breaks((7, 0x1012))) is not None


def test_too_many_places_are_counted(
    sink: Sink, alive: dict[int, tuple[Mapping, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOCATIONS", 5)
    alive[7] = HERE
    watch = CowWatch()
    look_up(CodeBook(sink, watch), breaks(*((7, 0x1000 + number) for number in range(13))))
    assert len(sink.rows) == 5
    assert watch.locations_left_out == 8


def test_the_mappings_of_the_latest_processes_are_kept(
    sink: Sink, alive: dict[int, tuple[Mapping, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_PROCESSES", 2)
    book = CodeBook(sink, CowWatch())
    for tgid in (7, 11, 13):
        alive[tgid] = HERE
        book.keep(tgid)
    alive.clear()
    look_up(book, breaks(*((tgid, 0x1010) for tgid in (7, 11, 13))))
    assert {row["tgid"] for row in sink.rows if row["file"]} == {11, 13}


def test_other_events_are_none_of_its_business(sink: Sink) -> None:
    assert not look_up(CodeBook(sink, CowWatch()), batch_of([event(KSM_EXIT, tgid=os.getpid())]))
    assert not look_up(CodeBook(sink, CowWatch()), batch_of([]))
