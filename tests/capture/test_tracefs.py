from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.batches import Row, batch_of, event

from ksmtrace.capture import tracefs
from ksmtrace.capture.tracefs import TracefsStream, _Owners, remove_stale_instances
from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import KSM_ENTER, KSM_MERGE_WITH_KSM_PAGE, KSM_REMOVE_RMAP_ITEM

A, B, C = 0xA000, 0xB000, 0xC000
KNOWN, PARENT, OTHER = 11, 13, 17


@pytest.fixture(autouse=True)
def fake_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task is its own process; those above 1000 are gone."""
    monkeypatch.setattr(tracefs, "_tgid_of", lambda pid: pid if 0 < pid < 1000 else None)


def enters(mm: int) -> Row:
    return event(KSM_ENTER, mm=mm)


def merges(mm: int) -> Row:
    return event(KSM_MERGE_WITH_KSM_PAGE, mm=mm, pfn=7)


def filled(owners: _Owners, rows: list[Row], pids: list[int]) -> list[int]:
    batch = batch_of(rows)
    owners.fill(batch, np.array(pids, np.int32))
    tgids: list[int] = batch["tgid"].tolist()
    return tgids


def test_an_enter_proves_who_owns_an_mm_from_then_on() -> None:
    owners = _Owners(frozenset())
    assert filled(owners, [enters(A), merges(A), merges(B)], [KNOWN, 47, 47]) == [KNOWN, KNOWN, 0]
    assert filled(owners, [merges(B), merges(A)], [47, 47]) == [0, KNOWN]


def test_nothing_is_known_before_the_first_enter() -> None:
    owners = _Owners(frozenset())
    assert filled(owners, [merges(A), merges(B)], [47, 47]) == [0, 0]
    assert filled(owners, [], []) == []


def test_a_process_registered_before_may_enter_for_its_child_so_it_proves_nothing() -> None:
    owners = _Owners(frozenset({PARENT}))
    assert filled(owners, [enters(A), merges(A)], [PARENT, 47]) == [0, 0]


def test_a_second_enter_of_the_same_task_is_its_childs() -> None:
    owners = _Owners(frozenset())
    rows = [enters(A), enters(B), merges(A), merges(B)]
    assert filled(owners, rows, [PARENT, PARENT, 47, 47]) == [PARENT, 0, PARENT, 0]


def test_an_enter_by_a_task_that_is_gone_proves_nothing() -> None:
    assert filled(_Owners(frozenset()), [enters(A), merges(A)], [4001, 47]) == [0, 0]


def test_entering_again_keeps_the_owner() -> None:
    owners = _Owners(frozenset())
    assert filled(owners, [enters(A)], [KNOWN]) == [KNOWN]
    assert filled(owners, [enters(A), merges(A)], [KNOWN, 47]) == [KNOWN, KNOWN]


def test_an_address_used_again_by_somebody_unproven_loses_its_owner() -> None:
    owners = _Owners(frozenset({PARENT}))
    filled(owners, [enters(A)], [KNOWN])
    assert filled(owners, [enters(A), merges(A)], [PARENT, 47]) == [0, 0]
    assert filled(owners, [merges(A)], [47]) == [0]


def test_an_address_used_again_by_somebody_proven_gets_the_new_owner() -> None:
    owners = _Owners(frozenset())
    filled(owners, [enters(A)], [KNOWN])
    assert filled(owners, [enters(A), merges(A)], [OTHER, 47]) == [OTHER, OTHER]


def test_events_before_an_address_is_used_again_are_the_old_owners() -> None:
    owners = _Owners(frozenset())
    filled(owners, [enters(A)], [KNOWN])
    rows = [event(KSM_REMOVE_RMAP_ITEM, mm=A), enters(A), merges(A)]
    assert filled(owners, rows, [47, OTHER, 47]) == [KNOWN, OTHER, OTHER]


def test_any_batching_proves_the_same_owners() -> None:
    rows = [merges(A), enters(A), merges(A), enters(B), merges(C), enters(A), merges(A), merges(B)]
    pids = [47, KNOWN, 47, OTHER, 47, PARENT, 47, 47]
    whole = filled(_Owners(frozenset()), rows, pids)
    apart = _Owners(frozenset())
    assert [filled(apart, [row], [pid])[0] for row, pid in zip(rows, pids, strict=True)] == whole


def test_instances_of_killed_runs_are_removed_and_living_ones_kept(tmp_path: Path) -> None:
    for name in ("ksmtrace-7", "ksmtrace-11", "somebody-elses"):
        (tmp_path / "instances" / name).mkdir(parents=True)
    lock = os.open(tmp_path / "instances" / "ksmtrace-11", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert remove_stale_instances(tmp_path) == ["ksmtrace-7"]
    finally:
        os.close(lock)
    left = {place.name for place in (tmp_path / "instances").iterdir()}
    assert left == {"ksmtrace-11", "somebody-elses"}


ENTER_FORMAT = """\
name: ksm_enter
ID: 569
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:void * mm;\toffset:8;\tsize:8;\tsigned:0;
"""


def page_of(times: list[int], cpu: int) -> bytes:
    """A page of ksm_enter records; the mm tells CPU and time."""
    data = b""
    before = times[0] if times else 0
    for ts in times:
        data += struct.pack("<I", (ts - before) << 5 | 4)
        data += struct.pack("<HHiQ", 569, 0, 4001, ts * 8 + cpu)
        before = ts
    head = struct.pack("<QQ", times[0] if times else 0, len(data))
    return (head + data).ljust(4096, b"\0")


def make_instance(folder: Path, pages: Mapping[int, list[list[int]]]) -> Path:
    """pages: by CPU, the times of each page's events."""
    kind = folder / "events" / "ksm" / "ksm_enter"
    kind.mkdir(parents=True)
    (kind / "format").write_text(ENTER_FORMAT)
    for cpu, lists in pages.items():
        place = folder / "per_cpu" / f"cpu{cpu}"
        place.mkdir(parents=True)
        (place / "trace_pipe_raw").write_bytes(b"".join(page_of(times, cpu) for times in lists))
    return folder


def times_of(batch: EventBatch) -> list[int]:
    assert (batch["mm"] == batch["ts"] * 8 + batch["cpu"]).all()
    listed: list[int] = batch["ts"].tolist()
    return listed


def rest_of(stream: TracefsStream) -> EventBatch:
    stream.stop()
    batches = []
    while len(batch := stream.read()):
        batches.append(batch)
    return concatenate(batches)


@pytest.fixture(autouse=True)
def nobody_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefs, "registered_tgids", list)


def test_the_buffers_of_all_cpus_are_merged_by_time(tmp_path: Path) -> None:
    folder = make_instance(tmp_path, {0: [[101, 107], [113]], 11: [[103, 109, 127]], 3: []})
    stream = TracefsStream(folder)
    try:
        assert (folder / "events" / "ksm" / "enable").read_text() == "1"
        assert times_of(stream.read()) == [101, 103, 107, 109, 113, 127]
        assert times_of(stream.read()) == []
        assert times_of(rest_of(stream)) == []
        assert (folder / "events" / "ksm" / "enable").read_text() == "0"
    finally:
        stream.close()


def test_an_event_newer_than_the_read_waits_for_the_next(tmp_path: Path) -> None:
    later = time.monotonic_ns() + 10**15
    folder = make_instance(tmp_path, {0: [[101], [later]], 1: [[103]]})
    stream = TracefsStream(folder)
    try:
        assert times_of(stream.read()) == [101, 103]
        assert times_of(rest_of(stream)) == [later]
    finally:
        stream.close()


def test_nothing_overtakes_what_one_cpu_still_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracefs, "_MOST_PAGES", 2)
    busy = [[100 + 2 * n] for n in range(7)]
    folder = make_instance(tmp_path, {0: busy, 1: [[101, 111, 131]]})
    stream = TracefsStream(folder)
    try:
        read: list[int] = []
        for _ in range(5):
            read += times_of(stream.read())
        read += times_of(rest_of(stream))
    finally:
        stream.close()
    assert read == sorted([100, 102, 104, 106, 108, 110, 112, 101, 111, 131])


def test_final_reads_until_every_buffer_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracefs, "_MOST_PAGES", 2)
    folder = make_instance(tmp_path, {0: [[100 + 2 * n] for n in range(7)], 1: [[101], [131]]})
    stream = TracefsStream(folder)
    try:
        assert times_of(rest_of(stream)) == [100, 101, 102, 104, 106, 108, 110, 112, 131]
    finally:
        stream.close()
