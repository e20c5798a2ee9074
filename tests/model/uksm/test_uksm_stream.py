"""What UKSM's events tell: a timeline built from them against what really happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    VIA_FORK,
)
from ksmtrace.model.uksm import Quirks
from ksmtrace.model.uksm.structures import ItemState
from ksmtrace.timeline.build import Timeline
from tests.support.timelines import timeline_in_memory
from tests.support.uksm import PAGE, Uksm, repeated, unique


@dataclass
class Watched:
    """A machine whose programs act now and then. touched: pages not left alone since."""

    machine: Uksm
    batches: list[EventBatch] = field(default_factory=list)
    touched: set[tuple[int, int]] = field(default_factory=set)

    def run(self, seconds: float) -> None:
        self.machine.scanner.run_for(seconds)
        self.batches.append(self.machine.scanner.take_events())

    def timeline(self) -> Timeline:
        return timeline_in_memory(self.batches, facts={"kernel": "6.12.0"})

    def truth(self) -> dict[tuple[int, int], int]:
        """The frame of each page that is merged, and known to be, by process and address."""
        zero = self.machine.memory.zero_frame.pfn
        found = {
            (mm.tgid, address): zero
            for mm in self.machine.memory.mms
            for address in mm.ksm_zero
            if mm.pages[address].pfn == zero
        }
        for slot in self.machine.scanner._daemon.slots.by_serial.values():
            for item in slot.items.values():
                mapped = item.mm.pages.get(item.address)
                if item.state is not ItemState.STABLE or mapped is None:
                    continue
                assert item.group is not None
                if mapped is item.group.node.frame:
                    found[item.mm.tgid, item.address] = mapped.pfn
        return found


def told(timeline: Timeline, zero: int) -> dict[tuple[int, int], int]:
    """The same as a timeline tells."""
    pages, ksm_pages = timeline.pages, timeline.stable_pages
    alive = pages[pages["end"] == "still_merged"]
    frames = [
        zero if pd.isna(page) else int(ksm_pages["pfn"][int(page)]) for page in alive["ksm_page"]
    ]
    places = zip(alive["tgid"].tolist(), alive["addr"].tolist(), strict=True)
    return dict(zip(places, frames, strict=True))


def watched(seed: int) -> Watched:
    dice = random.Random(seed)
    contents = [b"" if dice.random() < 0.1 else b"c%d" % dice.randrange(30) for _ in range(997)]
    run = Watched(Uksm(contents, repeated(211, 13, "c"), unique(101), seed=seed))
    run.run(2)
    return run


@pytest.mark.parametrize("seed", range(3))
def test_the_timeline_of_memory_left_alone_is_the_truth(seed: int) -> None:
    run = watched(seed)
    run.run(4)
    truth = run.truth()
    assert len(truth) > 900
    timeline = run.timeline()
    assert told(timeline, run.machine.memory.zero_frame.pfn) == truth
    counters = run.machine.scanner.counters
    merged = counters["pages_shared"] + counters["pages_sharing"]
    assert len(truth) == merged + counters["uksm_zero_pages"]
    ksm_pages = timeline.stable_pages
    assert len(ksm_pages) == counters["pages_shared"]
    assert int(ksm_pages["sharers_last"].sum()) == merged


@pytest.mark.parametrize("seed", range(5))
def test_with_programs_at_work_only_unseen_ends_are_missing(seed: int) -> None:
    run = watched(seed)
    machine, dice = run.machine, random.Random(seed)
    memory = machine.memory
    for _ in range(12):
        mm = dice.choice([mm for mm in memory.mms if mm.vmas])
        first = dice.randrange(101)
        start = machine.address(first)
        match dice.randrange(5):
            case 0 | 1:
                for page in range(first, min(first + 50, 101)):
                    memory.write(mm, machine.address(page), b"c%d" % dice.randrange(30))
                    run.touched.add((mm.tgid, machine.address(page)))
            case 2:
                memory.discard(mm, start, start + 20 * PAGE)
                run.touched.update((mm.tgid, start + page * PAGE) for page in range(20))
            case 3 if len(memory.mms) < 6:
                memory.fork(mm, 500 + len(memory.mms) + memory._next_mm)
            case _ if len(memory.mms) > 3:
                memory.exit(mm)
        run.run(0.7)
    for _ in range(3):
        run.run(2)
    truth, seen = run.truth(), told(run.timeline(), memory.zero_frame.pfn)
    assert {place: seen.get(place) for place in truth} == truth
    assert set(seen.keys() - truth.keys()) <= run.touched
    assert len(truth) > 100


def test_a_new_merged_page_is_told_twice_and_a_dead_one_with_all_but_one_of_its_items() -> None:
    machine = Uksm(repeated(7, 1))
    batch = machine.scanner.scan(2)
    merges = batch[batch["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert [int(arg) & 1 for arg in merges["arg"]] == [0, 1, 1, 1, 1, 1, 1]
    assert [int(arg) >> 8 for arg in merges["arg"]] == [0, 2, 3, 4, 5, 6, 7]
    assert len(set(merges["pfn"].tolist())) == 1
    assert len(set(merges["item"].tolist())) == 7
    for page in range(7):
        machine.memory.write(machine.mms[0], machine.address(page), b"u%d" % page)
    machine.scanner.finish_scan()
    batch = machine.scanner.take_events()
    removed = batch[batch["kind"] == KSM_REMOVE_RMAP_ITEM.id]
    assert 0 < len(removed) < 7
    assert np.sum(batch["kind"] == KSM_REMOVE_KSM_PAGE.id) == 1
    assert removed["item"].tolist() != sorted(removed["item"].tolist())


def test_a_page_left_by_a_fork_is_told_at_first_sight_and_no_other_one_is() -> None:
    machine = Uksm(repeated(5, 1))
    before = machine.scanner.scan(2)
    child = machine.memory.fork(machine.mms[0], 999)
    after = machine.scanner.scan(2)
    for batch, inherited in ((before, 0), (after, 5)):
        merges = batch[batch["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
        assert [int(arg) >> 1 & 1 for arg in merges["arg"]].count(1) == inherited
    merges = after[after["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert set(merges["mm"].tolist()) == {child.id}


def test_processes_enter_with_their_first_slot_and_children_with_the_fork() -> None:
    machine = Uksm(repeated(5, 1))
    machine.memory.spawn(77)
    machine.wake()
    [enter] = machine.scanner.take_events()
    assert (enter["kind"], enter["mm"], enter["tgid"]) == (KSM_ENTER.id, machine.mms[0].id, 101)
    child = machine.memory.fork(machine.mms[0], 999)
    [enter] = machine.scanner.take_events()
    assert (enter["mm"], enter["arg"], enter["addr"]) == (child.id, VIA_FORK, 101)
    machine.memory.exit(child)
    [leave] = machine.scanner.take_events()
    assert (leave["kind"], leave["mm"], leave["tgid"]) == (KSM_EXIT.id, child.id, 999)


def test_a_scan_is_over_when_each_page_was_visited_since_its_start() -> None:
    machine = Uksm(unique(1009), unique(503, "other"))
    batches = [machine.scanner.scan() for _ in range(4)]
    batch = np.concatenate(batches)
    scans = batch[np.isin(batch["kind"], (KSM_START_SCAN.id, KSM_STOP_SCAN.id))]
    assert scans["kind"].tolist() == [KSM_START_SCAN.id, KSM_STOP_SCAN.id] * (len(scans) // 2)
    assert scans["addr"].tolist() == [number // 2 for number in range(len(scans))]
    assert len(scans) >= 4
    starts = scans[scans["kind"] == KSM_START_SCAN.id]["arg"].tolist()
    assert starts[0] == 0
    assert starts[1] == 1512, "all have items then"


def test_zero_pages_are_told_with_the_zero_page_s_frame() -> None:
    machine = Uksm([b"", b"a", b""], quirks=Quirks(ghost=False))
    batch = machine.scanner.scan(2)
    zero = batch[batch["kind"] == KSM_MERGE_ONE_PAGE.id]
    assert sorted(zero["addr"].tolist()) == [machine.address(0), machine.address(2)]
    assert set(zero["pfn"].tolist()) == {machine.memory.zero_frame.pfn}
    assert not zero["err"].any()


def test_a_try_that_fails_is_told_with_an_error() -> None:
    machine = Uksm(repeated(3, 1), quirks=Quirks(ghost=False))
    machine.memory.pin(machine.mms[0], machine.address(0))
    machine.memory.pin(machine.mms[0], machine.address(1))
    machine.memory.pin(machine.mms[0], machine.address(2))
    batch = machine.scanner.scan(2)
    merges = batch[batch["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert len(merges)
    assert set(merges["err"].tolist()) == {-14}


def test_time_passes_with_the_work_and_never_goes_back() -> None:
    machine = Uksm(repeated(2003, 17))
    machine.scanner.run_for(3)
    batch = machine.scanner.take_events()
    times = batch["ts"].astype(np.int64)
    assert np.all(np.diff(times) >= 0)
    merges = times[batch["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert any(0 < later - earlier < 100_000 for earlier, later in pairwise(merges.tolist()))
