"""The conformance check raises no alarm on what a kernel can do, however it is fed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import split
from support.corruptions import CORRUPTIONS, corruption
from support.executions import (
    ACTIONS,
    Execution,
    Step,
    random_steps,
    recorded,
    simulated,
)
from support.recordings import BEGIN, make_recording

from ksmtrace.capture.session import _wanted
from ksmtrace.capture.trace_pages import NOT_IN_RECORDS
from ksmtrace.events.batch import EVENT, EventBatch, concatenate, of_kind
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.kernel.releases import profile
from ksmtrace.model import KsmScanner, Memory
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.conformance import check_recording

DEMO = Path(__file__).parents[2] / "recordings" / "demo.ksm"
KERNELS = ("2.6.38", "4.11", "4.13", "6.4", "6.6", "6.8", "6.10", "6.11", "6.12.117", "6.18")
_OF_PAGES = (KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE, KSM_REMOVE_RMAP_ITEM)

steps = st.one_of(
    # Those that hypothesis makes up are short, and made shorter where they fail.
    st.builds(random_steps, st.integers(0, 1 << 32), st.integers(7, 61)),
    st.lists(
        st.tuples(
            st.sampled_from([name for name, weight in ACTIONS.items() for _ in range(weight)]),
            st.integers(0, 1 << 16),
            st.integers(0, 1 << 16),
        ),
        min_size=7,
        max_size=31,
    ),
)


def pieces(execution: Execution, seed: int) -> list[EventBatch]:
    """The execution's events in random batches."""
    dice = random.Random(seed)
    return split(execution.events, [dice.randrange(len(execution.events) + 1) for _ in range(5)])


def test_a_real_recording_is_legal() -> None:
    verdict = check_recording(StoredRecording(DEMO))
    assert verdict.finding is None
    assert verdict.legal
    assert (verdict.events, verdict.samples, verdict.notes) == (2751, 240, ())


@given(steps, st.sampled_from(KERNELS), st.sampled_from((2, 3, 256)))
def test_what_the_model_does_is_legal(script: list[Step], kernel: str, limit: int) -> None:
    execution = simulated(script, kernel, limit=limit)
    assert execution.judged() is None


@given(steps, st.sampled_from(KERNELS), st.integers(0, 1 << 16))
def test_so_it_is_where_numbers_are_used_again(script: list[Step], kernel: str, seed: int) -> None:
    execution = simulated(script, kernel, limit=3, recycle=True)
    assert execution.judged() is None
    assert execution.judged(pieces(execution, seed)) is None


@given(steps, st.sampled_from(KERNELS), st.integers(0, 37))
def test_a_stream_may_begin_at_any_time(script: list[Step], kernel: str, since: int) -> None:
    assert simulated(script, kernel, recycle=True, since=since).judged() is None


@given(steps, st.sampled_from(KERNELS), st.sampled_from((0, 1, 700)))
def test_a_clock_may_stand_still_during_a_visit(
    script: list[Step], kernel: str, visit_ns: int
) -> None:
    assert simulated(script, kernel, recycle=True, visit_ns=visit_ns).judged() is None


@given(steps, st.sampled_from(KERNELS))
def test_a_source_may_know_no_addresses_and_no_owners(script: list[Step], kernel: str) -> None:
    execution = simulated(script, kernel, recycle=True)
    events = execution.events.copy()
    events["addr"][of_kind(events, *_OF_PAGES, KSM_ENTER)] = 0
    events["tgid"] = 0
    events["arg"][of_kind(events, KSM_ENTER)] = 0
    merges = of_kind(events, KSM_MERGE_WITH_KSM_PAGE)
    events["arg"][merges] &= INTO_EXISTING
    blind = replace(execution, events=events, fields_unknown=NOT_IN_RECORDS)
    assert blind.judged() is None


@given(steps, st.sampled_from(KERNELS), st.integers(0, 1 << 16))
def test_other_processes_may_be_left_out(script: list[Step], kernel: str, seed: int) -> None:
    execution = simulated(script, kernel, recycle=True)
    pids = frozenset(random.Random(seed).sample(range(71, 77), 2))
    kept = concatenate([part[_wanted(part, pids)] for part in pieces(execution, seed)])
    assert replace(execution, events=kept, complete=False, filtered=True).judged() is None


def with_losses(events: EventBatch, dice: random.Random) -> EventBatch:
    """The events on several CPUs, some of them lost; a loss is told by its CPU's next event."""
    events = events.copy()
    cpu = 0
    for row in range(len(events)):
        cpu = dice.randrange(3) if dice.random() < 0.1 else cpu
        of_task = events["kind"][row] in (KSM_ENTER.id, KSM_EXIT.id)
        events["cpu"][row] = dice.randrange(3) if of_task else cpu
    for _ in range(dice.randint(1, 3)):
        lossy = dice.randrange(3)
        mine = np.flatnonzero((events["cpu"] == lossy) & ~of_kind(events, LOST))
        if len(mine) < 3:
            continue
        first = dice.randrange(len(mine))
        lost = mine[first : first + dice.randint(1, 7)]
        following = mine[first + len(lost) : first + len(lost) + 1]
        place = int(following[0]) if len(following) else len(events)
        told = np.zeros(1, EVENT)
        told["kind"], told["cpu"], told["addr"] = LOST.id, lossy, len(lost)
        told["ts"] = events["ts"][min(place, len(events) - 1)]
        rest = np.insert(events, place, told)
        events = np.delete(rest, lost)
    return events


@given(steps, st.sampled_from(KERNELS), st.integers(0, 1 << 16))
def test_events_may_be_lost(script: list[Step], kernel: str, seed: int) -> None:
    execution = simulated(script, kernel, limit=3, recycle=True)
    lossy = replace(execution, events=with_losses(execution.events, random.Random(seed)))
    assert lossy.judged() is None
    assert lossy.judged(pieces(lossy, seed)) is None


def told_late(events: EventBatch, dice: random.Random) -> EventBatch:
    """Tasks are held up between what they do and its event, but for less than two full scans."""
    rows = list(range(len(events)))
    for row in np.flatnonzero(of_kind(events, KSM_ENTER, KSM_EXIT)).tolist():
        at = rows.index(row)
        stops = 0
        for _ in range(dice.choice((0, 0, 1, 3, 7))):
            later = rows[at + 1] if at + 1 < len(rows) else None
            if later is None or events["kind"][later] in (KSM_ENTER.id, KSM_EXIT.id):
                break
            stops += int(events["kind"][later] == KSM_STOP_SCAN.id)
            if stops > 1:
                break
            rows[at], rows[at + 1] = rows[at + 1], rows[at]
            at += 1
    late = events[rows]
    late["ts"] = np.maximum.accumulate(late["ts"])
    return late


@given(steps, st.sampled_from(KERNELS), st.integers(0, 1 << 16))
def test_tasks_may_tell_late_what_they_did(script: list[Step], kernel: str, seed: int) -> None:
    execution = simulated(script, kernel, limit=3, recycle=True)
    late = told_late(execution.events, random.Random(seed))
    # Whose counters a process id stands for depends on who has entered.
    samples = [sample for sample in execution.samples if sample.tgid is None]
    assert execution.with_(late, samples).judged() is None


@pytest.mark.parametrize("kernel", ["6.10", "6.18"])
def test_huge_pages_and_two_numa_nodes_are_legal(kernel: str) -> None:
    memory = Memory()
    knobs = {"merge_across_nodes": 0, "max_page_sharing": 3, "pages_to_scan": 10_000}
    scanner = KsmScanner(memory, kernel=kernel, knobs=knobs)
    dice = random.Random(kernel)
    batches = []
    for number in range(3):
        mm = memory.spawn(71 + number)
        start = 1 << 30
        memory.map(mm, start, 1024)
        memory.map_huge(mm, start, b"huge")
        memory.madvise_mergeable(mm, start, start + (1024 << 12))
        for page in range(512, 531):
            address = start + page * 4096
            memory.place(mm, address, address + 4096, page % 2)
            memory.write(mm, address, f"c{page % 3}".encode())
        batches.append(scanner.scan(2))
        for address in dice.sample(sorted(mm.pages), 41):
            memory.migrate(mm, address, address + 4096, dice.randrange(2))
        batches.append(scanner.scan(2))
    execution = Execution("numa", profile(kernel), concatenate(batches), [], complete=True)
    assert len(execution.events) > 1000
    assert execution.judged() is None


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("kernel", ["6.6", "6.18"])
def test_any_batching_gives_the_same_finding(kind: str, kernel: str) -> None:
    for seed in range(7):
        execution = simulated(random_steps(seed, 37), kernel, recycle=True)
        if len(execution.events) < 11:
            continue
        spoilt = corruption(execution, kind, seed).execution
        assert spoilt.judged(pieces(spoilt, seed)) == spoilt.judged()


def in_seconds(execution: Execution) -> list[dict[str, object]]:
    """An execution's samples as rows of a recording."""
    return [
        {"ts": sample.begin, "reason": "step", "tgid": sample.tgid, **sample.values}
        for sample in execution.samples
    ]


def stored(path: Path, execution: Execution, batches: Sequence[EventBatch]) -> StoredRecording:
    return StoredRecording(
        make_recording(
            path,
            batches,
            tables={"counters": in_seconds(execution)},
            facts={"kernel": execution.profile.name, "rmap_item_bytes": 64},
        )
    )


def test_a_recording_of_the_model_is_legal_and_a_spoilt_one_is_not(tmp_path: Path) -> None:
    execution = simulated(random_steps(5, 41), "6.18")
    verdict = check_recording(stored(tmp_path / "a.ksm", execution, pieces(execution, 5)))
    assert (verdict.finding, verdict.events) == (None, len(execution.events))
    merges = np.flatnonzero(of_kind(execution.events, KSM_MERGE_WITH_KSM_PAGE))
    spoilt = np.insert(execution.events, merges[7], execution.events[merges[7]])
    verdict = check_recording(stored(tmp_path / "b.ksm", execution, [spoilt]))
    assert verdict.finding is not None
    assert verdict.finding.index == merges[7] + 1


def test_a_recording_with_a_spoilt_counter_is_not_legal(tmp_path: Path) -> None:
    execution = simulated(random_steps(5, 41), "6.18")
    at = max(n for n, s in enumerate(execution.samples[:-60]) if s.tgid is None)
    sample = execution.samples[at]
    samples = list(execution.samples)
    samples[at] = replace(sample, values={**sample.values, "pages_skipped": 1 << 20})
    spoilt = execution.with_(execution.events, samples)
    verdict = check_recording(stored(tmp_path / "a.ksm", spoilt, [execution.events]))
    assert verdict.finding is not None
    assert verdict.finding.rule == "counters"


def test_while_events_are_switched_on_or_off_some_are_missing(tmp_path: Path) -> None:
    execution = simulated(random_steps(11, 41), "6.18")
    events = execution.events.copy()
    shift = BEGIN - int(events["ts"][23])
    events["ts"] += np.uint64(shift)
    host = [
        {"ts": int(events["ts"][-23]) + 1, "reason": "end", "pages_shared": 0},
    ]
    incomplete = np.delete(events, [3, 11, 19, len(events) - 5])
    path = make_recording(
        tmp_path / "a.ksm", [incomplete], tables={"counters": host}, facts={"kernel": "6.18"}
    )
    verdict = check_recording(StoredRecording(path))
    assert verdict.finding is None
    assert verdict.events == len(events) - 23 - 22


def test_a_recording_of_some_processes_says_so(tmp_path: Path) -> None:
    execution = simulated(random_steps(5, 41), "6.18")
    kept = execution.events[_wanted(execution.events, frozenset({72}))]
    path = make_recording(tmp_path / "a.ksm", [kept], facts={"only_pids": [72], "kernel": "6.18"})
    verdict = check_recording(StoredRecording(path))
    assert verdict.finding is None
    assert verdict.notes == (
        "only some processes were recorded: what happened to pages is not judged",
    )


def test_a_real_recording_keeps_what_it_was_measured_with() -> None:
    # The tables of corruptions refer to it.
    assert len(recorded(DEMO).events) == 2751


def test_examples_are_not_trivial() -> None:
    executions = [simulated(random_steps(seed, 53), "6.18", recycle=True) for seed in range(17)]
    kinds = np.bincount(np.concatenate([execution.events["kind"] for execution in executions]))
    assert all(kinds[[1, 2, 3, 4, 5, 6, 7, 8]] > 7)
