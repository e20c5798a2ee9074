from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.batches import batch_of, event, scan_stops

from ksmtrace.capture import context as module
from ksmtrace.capture.context import Context
from ksmtrace.errors import Obstacle
from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
)
from ksmtrace.kernel import sysfs
from ksmtrace.processes.census import CENSUS
from ksmtrace.processes.identity import Identity
from ksmtrace.processes.lifecycle import LifecycleEvent
from ksmtrace.processes.regions import Region

HEAP = Region(4096, 8192, "rw-p", "[heap]", mergeable=True, ksm_bytes=0)


class Host:
    """The processes there are, and which of them are registered."""

    def __init__(self) -> None:
        self.alive: dict[int, str] = {}
        self.registered: set[int] = set()
        self.regions: dict[int, list[Region]] = {}

    def add(self, tgid: int, comm: str = "sleep", *, registered: bool = True) -> None:
        self.alive[tgid] = comm
        self.regions[tgid] = [HEAP]
        if registered:
            self.registered.add(tgid)

    def remove(self, tgid: int) -> None:
        del self.alive[tgid]
        self.registered.discard(tgid)

    def identify(self, tgid: int) -> Identity | None:
        if tgid not in self.alive:
            return None
        return Identity(tgid, 7, 1009, self.alive[tgid], "/", None, f"{self.alive[tgid]} --secret")

    def read_ksm_stat(self, tgid: int) -> dict[str, int] | None:
        return {"ksm_rmap_items": tgid} if tgid in self.alive else None

    def take_census(self, tgid: int) -> Iterator[npt.NDArray[np.void]]:
        rows = np.zeros(1, CENSUS)
        rows["tgid"] = tgid
        yield rows


class Sampler:
    table = "counters"

    def counters(self) -> dict[str, int]:
        return {"pages_shared": 101}

    def knobs(self) -> dict[str, str]:
        return {"run": "1"}


class Sink:
    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.censuses: list[tuple[str, int]] = []

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.rows += [(name, row) for row in rows]

    def census(self, ts: int, reason: str, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        assert ts > 0
        self.censuses += [(reason, int(row["tgid"])) for row in rows]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [row for table, row in self.rows if table == name]

    def what(self) -> list[tuple[str, int]]:
        return [(row["what"], row["tgid"]) for row in self.of("identities")]


@pytest.fixture(name="host")
def make_host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(module, "identify", host.identify)
    monkeypatch.setattr(module, "is_registered", host.registered.__contains__)
    monkeypatch.setattr(module, "all_tgids", lambda: iter(host.alive))
    monkeypatch.setattr(module, "all_regions", lambda tgid: iter(host.regions.get(tgid) or ()))
    monkeypatch.setattr(module, "take_census", host.take_census)
    monkeypatch.setattr(module, "census_obstacle", lambda: None)
    monkeypatch.setattr(sysfs, "read_ksm_stat", host.read_ksm_stat)
    monkeypatch.setattr(module, "_REST", 0)
    return host


@pytest.fixture(name="sink")
def make_sink() -> Sink:
    return Sink()


def context_on(sink: Sink, **options: Any) -> Context:
    sampler: Any = Sampler()
    return Context(sink, sampler, **options)


def work(context: Context) -> None:
    while context.work(1):
        pass


def merged(*tgids: int, kind: Any = KSM_MERGE_WITH_KSM_PAGE) -> Any:
    return batch_of([event(kind, n + 1, tgid=tgid) for n, tgid in enumerate(tgids)])


def test_registered_processes_are_found_sampled_and_counted_at_the_start(
    host: Host, sink: Sink
) -> None:
    for tgid in (11, 7):
        host.add(tgid)
    host.add(13, registered=False)
    context = context_on(sink)
    context.start()
    work(context)
    assert sink.what() == [("present", 7), ("present", 11)]
    assert [row["reason"] for row in sink.of("counters")] == ["start"] * 3
    assert [row.get("tgid") for row in sink.of("counters")] == [None, 7, 11]
    assert sink.of("counters")[0]["pages_shared"] == 101
    assert sink.of("counters")[0]["knob_run"] == "1"
    assert {row["tgid"] for row in sink.of("regions")} == {7, 11}
    assert sink.censuses == [("start", 7), ("start", 11)]
    assert sorted(context.known_tgids) == [7, 11]


def test_command_lines_are_kept_only_when_asked_for(host: Host, sink: Sink) -> None:
    host.add(7)
    for cmdlines in (False, True):
        context = context_on(sink, cmdlines=cmdlines)
        context.start()
        work(context)
    first, second = sink.of("identities")
    assert first.get("cmdline") is None
    assert "secret" not in str(first)
    assert second["cmdline"] == "sleep --secret"


@pytest.mark.parametrize("kind", [KSM_ENTER, KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE])
def test_a_process_is_met_once_by_its_first_event(host: Host, sink: Sink, kind: Any) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11, 11, 0, 11, kind=kind))
    context.events(merged(11, kind=kind))
    work(context)
    assert sink.what() == [("enter", 11)]
    assert len(sink.of("regions")) == 1


def test_items_removed_of_a_dead_process_do_not_bring_it_back(host: Host, sink: Sink) -> None:
    context = context_on(sink)
    context.events(merged(11, kind=KSM_REMOVE_RMAP_ITEM))
    assert sink.what() == []


def test_a_process_that_was_too_short_to_be_read_is_still_noted(host: Host, sink: Sink) -> None:
    context = context_on(sink)
    context.events(merged(11))
    work(context)
    assert sink.what() == [("enter", 11)]
    assert sink.of("identities")[0].get("comm") is None


def test_an_exit_ends_a_process_with_its_last_name(host: Host, sink: Sink) -> None:
    host.add(11, "worker")
    context = context_on(sink)
    context.events(merged(11))
    host.remove(11)
    context.events(batch_of([event(KSM_EXIT, 101, tgid=11), event(KSM_EXIT, 103, tgid=13)]))
    assert sink.what() == [("enter", 11), ("exit", 11)]
    assert sink.of("identities")[-1]["comm"] == "worker"
    assert sink.of("identities")[-1]["ts"] == 101
    assert context.known_tgids == []


def test_an_exec_ends_an_address_space_but_not_the_process(host: Host, sink: Sink) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11))
    host.registered.discard(11)
    context.events(merged(11, kind=KSM_EXIT))
    assert sink.what() == [("enter", 11), ("exec", 11)]


def test_a_process_that_stays_registered_over_an_exec_stays_known(host: Host, sink: Sink) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11))
    context.events(merged(11, kind=KSM_EXIT))
    assert sink.what() == [("enter", 11)]
    assert context.known_tgids == [11]


def test_births_renames_and_deaths_of_known_processes_are_followed(host: Host, sink: Sink) -> None:
    host.add(11)
    host.add(13)
    context = context_on(sink)
    context.events(merged(11))
    host.alive[11] = "renamed"
    context.lifecycle(
        [
            LifecycleEvent(101, "fork", 11, 13),
            LifecycleEvent(103, "comm", 11),
            LifecycleEvent(107, "fork", 4001, 4003),
            LifecycleEvent(109, "exec", 4001),
        ]
    )
    host.remove(13)
    context.lifecycle([LifecycleEvent(113, "exit", 13), LifecycleEvent(127, "exit", 13)])
    assert sink.what() == [("enter", 11), ("fork", 13), ("comm", 11), ("exit", 13)]
    assert sink.of("identities")[2]["comm"] == "renamed"
    assert [row["ts"] for row in sink.of("identities")[1:]] == [101, 103, 113]


def test_only_the_chosen_processes_are_looked_at(host: Host, sink: Sink) -> None:
    for tgid in (7, 11, 13):
        host.add(tgid)
    context = context_on(sink, only=frozenset({11}))
    context.start()
    work(context)
    context.events(merged(7, 13))
    context.lifecycle([LifecycleEvent(1, "fork", 11, 13)])
    work(context)
    assert sink.what() == [("present", 11)]
    assert {row.get("tgid") for row in sink.of("counters")} == {None, 11}
    assert sink.censuses == [("start", 11)]


def test_the_end_of_a_scan_is_sampled_with_its_number(host: Host, sink: Sink) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11))
    context.events(batch_of([scan_stops(5, 1), scan_stops(6, 2)]))
    work(context)
    rows = [(row["reason"], row["seq"], row.get("tgid")) for row in sink.of("counters")]
    assert rows == [("scan", 6, None), ("scan", 6, 11)]


def test_the_end_is_sampled_and_counted(host: Host, sink: Sink) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11))
    context.finish()
    work(context)
    assert [(row["reason"], row.get("tgid")) for row in sink.of("counters")] == [
        ("end", 11),
    ]
    assert sink.censuses == [("end", 11)]


def test_regions_are_written_when_they_changed_and_only_then(host: Host, sink: Sink) -> None:
    host.add(11)
    context = context_on(sink)
    context.events(merged(11))
    work(context)
    context.events(batch_of([event(KSM_ENTER, tgid=11), scan_stops(1, 2)]))
    work(context)
    assert len(sink.of("regions")) == 1
    host.regions[11] = [HEAP, Region(1 << 20, 2 << 20, "rw-p", "", True, 0)]
    context.events(batch_of([event(KSM_ENTER, tgid=11), scan_stops(2, 3)]))
    work(context)
    assert len(sink.of("regions")) == 3
    assert Counter(row["name"] for row in sink.of("regions")) == {"[heap]": 2, "": 1}


def test_without_a_census_its_obstacle_is_noted(
    host: Host, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "census_obstacle", lambda: Obstacle("no census", "run with sudo"))
    host.add(11)
    context = context_on(sink)
    context.start()
    context.take_census("interval")
    context.finish()
    work(context)
    assert context.census_note == "no census: run with sudo"
    assert sink.censuses == []


def test_work_stops_when_its_time_is_over(host: Host, sink: Sink) -> None:
    for tgid in range(1, 102):
        host.add(tgid)
    context = context_on(sink)
    context.start()
    assert context.work(0)
    assert len(sink.of("identities")) == 1
    work(context)
    assert len(sink.of("identities")) == 101


class Book:
    """Takes the place of a CodeBook."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def note(self, batch: EventBatch) -> Iterator[None]:
        self.told.append(("note", len(batch)))
        return iter(())

    def keep(self, tgid: int) -> None:
        self.told.append(("keep", tgid))

    def forked(self, parent: int, child: int) -> None:
        self.told.append(("forked", parent, child))


def test_whoever_breaks_pages_is_looked_up_while_that_can_be_done(host: Host, sink: Sink) -> None:
    book: Any = Book()
    context = context_on(sink, code=book)
    host.add(7)
    host.add(11)
    context.events(batch_of([event(COW_BREAK, tgid=7, item=0x1000, addr=4096)]))
    assert context.known_tgids == [7]
    context.lifecycle([LifecycleEvent(1, "fork", 7, 11)])
    assert book.told == [("keep", 7), ("note", 1), ("forked", 7, 11), ("keep", 11)]


def test_where_process_ids_do_not_match_no_code_is_looked_up(host: Host, sink: Sink) -> None:
    book: Any = Book()
    context = context_on(sink, code=book, process_ids_match=False)
    host.add(7)
    context.events(batch_of([event(COW_BREAK, tgid=7, item=0x1000)]))
    assert book.told == []
