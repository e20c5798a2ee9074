"""What stands in the model's events, field by field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ksmtrace.events.batch import EVENT
from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    MAPCOUNT_SHIFT,
    TRACEPOINTS,
    VIA_EXEC,
    VIA_FORK,
    VIA_SELF,
    EventKind,
    role_of,
)
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import ZERO
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory, Mm

PAGE = 4096
EFAULT = -14
SECOND = 1_000_000_000


class Machine:
    """One process with a region of given contents."""

    def __init__(self, contents: list[bytes], kernel: str = "6.18.44", **knobs: object) -> None:
        self.memory = Memory()
        self.clock = Clock(now_ns=17, visit_ns=3)
        self.scanner = KsmScanner(
            self.memory, kernel=kernel, knobs=knobs, clock=self.clock, check_invariants=True
        )
        self.mm = self.memory.spawn(7)
        self.memory.map(self.mm, 0, len(contents))
        self.memory.madvise_mergeable(self.mm, 0, len(contents) * PAGE)
        for number, content in enumerate(contents):
            self.memory.write(self.mm, number * PAGE, content)

    def frame(self, page: int, mm: Mm | None = None) -> int:
        return (mm or self.mm).pages[page * PAGE].pfn

    def events(self, kind: EventKind) -> list[Any]:
        """The events of a kind since they were last taken."""
        return [e for e in self.scanner.take_events() if e["kind"] == kind.id]

    def last_scan(self, kind: EventKind, scans: int = 1) -> list[Any]:
        """The events of a kind of the last of so many scans."""
        self.scanner.scan(scans - 1)
        self.scanner.finish_scan()
        return self.events(kind)


def merged(arg: int) -> tuple[bool, bool, int]:
    """(into an existing KSM page, first sight, mappings just after)."""
    return bool(arg & INTO_EXISTING), bool(arg & FIRST_SIGHT), arg >> MAPCOUNT_SHIFT


def test_events_are_records_like_a_live_kernel_s() -> None:
    machine = Machine([b"a", b"a"])
    batch = machine.scanner.scan(2)
    assert batch.dtype == EVENT
    assert set(batch["cpu"]) == {0}
    assert not len(machine.scanner.take_events())


def test_what_a_kind_does_not_have_is_0() -> None:
    machine = Machine([b"a", b"a", ZERO, b"b"], use_zero_pages=1)
    machine.memory.fork(machine.mm, 11)
    machine.scanner.finish_scan()
    machine.scanner.finish_scan()
    machine.memory.discard(machine.mm, 0, PAGE)
    batch = machine.scanner.scan(1)
    assert len(np.unique(batch["kind"])) >= 5
    for event in batch:
        kind = next(k for k in TRACEPOINTS if k.id == event["kind"])
        for slot in EVENT.names or ():
            assert role_of(kind, slot) is not None or event[slot] == 0, (kind.name, slot)


def test_time_is_the_clock_s_and_never_goes_back() -> None:
    machine = Machine([b"a"] * 5)
    batch = machine.scanner.scan(2)
    assert batch["ts"][0] == 17
    assert np.all(np.diff(batch["ts"].astype(np.int64)) >= 0)
    # Each of the ten visits took 3 ns.
    assert batch["ts"][-1] == 17 + 10 * 3
    machine.clock.wait(2)
    assert machine.scanner.scan(1)["ts"][0] == 47 + 2_000_000


# Processes.


def test_who_enters_by_itself_is_named() -> None:
    machine = Machine([b"a"])
    [event] = machine.events(KSM_ENTER)
    assert (event["mm"], event["tgid"]) == (machine.mm.id, 7)
    assert (event["arg"], event["addr"]) == (VIA_SELF, 0)


def test_a_forked_child_is_told_by_its_parent() -> None:
    machine = Machine([b"a"])
    machine.scanner.take_events()
    child = machine.memory.fork(machine.mm, 11)
    [event] = machine.events(KSM_ENTER)
    assert (event["mm"], event["tgid"]) == (child.id, 0), "it has no process id yet"
    assert (event["arg"], event["addr"]) == (VIA_FORK, 7)


def test_exec_enters_the_new_address_space_before_the_old_one_leaves() -> None:
    machine = Machine([b"a"])
    machine.memory.prctl_merge(machine.mm, on=True)
    machine.scanner.take_events()
    fresh = machine.memory.exec(machine.mm)
    enter, leave = machine.scanner.take_events()
    assert (enter["kind"], enter["mm"], enter["tgid"]) == (KSM_ENTER.id, fresh.id, 7)
    assert enter["arg"] == VIA_EXEC
    assert (leave["kind"], leave["mm"], leave["tgid"]) == (KSM_EXIT.id, machine.mm.id, 7)


# Scans.


def test_a_scan_s_number_is_that_of_full_scans_and_its_items_are_all() -> None:
    machine = Machine([b"a", b"b", b"c"])
    machine.scanner.take_events()
    batch = machine.scanner.scan(2)
    assert [(int(e["kind"]), int(e["addr"]), int(e["arg"])) for e in batch] == [
        (KSM_START_SCAN.id, 0, 0), (KSM_STOP_SCAN.id, 0, 3),
        (KSM_START_SCAN.id, 1, 3), (KSM_STOP_SCAN.id, 1, 3),
    ]  # fmt: skip
    machine.scanner.set_knob("run", 2)
    assert machine.scanner.scan(1)["addr"].tolist() == [0, 0]


# Merges.


def test_a_new_ksm_page_is_told_twice() -> None:
    machine = Machine([b"a", b"a"])
    before = machine.frame(1)
    new, joins = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE, 2)
    for event in (new, joins):
        assert event["pfn"] == before == machine.frame(0), "the page seen last becomes the KSM page"
        assert (event["mm"], event["tgid"], event["err"]) == (machine.mm.id, 7, 0)
    assert (new["addr"], joins["addr"]) == (PAGE, 0)
    assert new["item"] != joins["item"]
    assert merged(int(new["arg"])) == (False, False, 0)
    assert merged(int(joins["arg"])) == (True, False, 2)


def test_the_mappings_are_counted_just_after_each_merge() -> None:
    machine = Machine([b"a"] * 5)
    merges = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE, 2)
    assert [merged(int(e["arg"]))[2] for e in merges] == [0, 2, 3, 4, 5]
    assert [int(e["addr"]) // PAGE for e in merges] == [1, 0, 2, 3, 4]
    assert len({int(e["pfn"]) for e in merges}) == 1


def test_an_inherited_ksm_page_is_merged_at_first_sight() -> None:
    machine = Machine([b"a", b"a"])
    machine.scanner.scan(2)
    child = machine.memory.fork(machine.mm, 11)
    merges = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE)
    assert [merged(int(e["arg"])) for e in merges] == [(True, True, 4), (True, True, 4)]
    assert {(int(e["mm"]), int(e["tgid"])) for e in merges} == {(child.id, 11)}


@pytest.mark.parametrize(("kernel", "first_sight"), [("6.10", True), ("6.11", False)])
def test_until_6_10_a_real_merge_may_come_at_first_sight_too(
    kernel: str, first_sight: bool
) -> None:
    machine = Machine([b"a", b"a"], kernel)
    machine.scanner.scan(2)
    machine.memory.map(machine.mm, 1 << 20, 1)
    machine.memory.madvise_mergeable(machine.mm, 1 << 20, (1 << 20) + PAGE)
    machine.memory.write(machine.mm, 1 << 20, b"a")
    scans = 1 if first_sight else 2
    [event] = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE, scans)
    assert merged(int(event["arg"])) == (True, first_sight, 3)


def test_a_page_that_cannot_become_a_ksm_page_fails_with_its_own_frame() -> None:
    machine = Machine([b"a", b"a"])
    machine.memory.pin(machine.mm, PAGE)
    frame = machine.frame(1)
    [event] = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE, 2)
    assert (event["err"], event["pfn"], event["addr"]) == (EFAULT, frame, PAGE)
    assert merged(int(event["arg"])) == (False, False, 0)


def test_a_second_half_that_fails_names_the_ksm_page_that_is_undone() -> None:
    machine = Machine([b"a", b"a"])
    machine.memory.pin(machine.mm, 0)
    frame = machine.frame(1)
    new, failed = machine.last_scan(KSM_MERGE_WITH_KSM_PAGE, 2)
    assert (new["err"], failed["err"]) == (0, EFAULT)
    assert new["pfn"] == failed["pfn"] == frame
    assert merged(int(failed["arg"])) == (True, False, 1)
    assert machine.frame(1) != frame


def test_a_zero_merge_names_the_zero_page() -> None:
    machine = Machine([ZERO, b"a", ZERO], use_zero_pages=1)
    events = machine.last_scan(KSM_MERGE_ONE_PAGE, 2)
    assert [int(e["addr"]) // PAGE for e in events] == [0, 2]
    for event in events:
        assert event["pfn"] == machine.memory.zero_frame.pfn
        assert (event["mm"], event["tgid"], event["err"]) == (machine.mm.id, 7, 0)
    assert events[0]["item"] != events[1]["item"]


def test_a_zero_merge_that_fails_names_the_zero_page_too() -> None:
    machine = Machine([ZERO], use_zero_pages=1)
    machine.memory.pin(machine.mm, 0)
    [event] = machine.last_scan(KSM_MERGE_ONE_PAGE, 2)
    assert (event["pfn"], event["err"]) == (machine.memory.zero_frame.pfn, EFAULT)


# Deaths.


def test_a_dead_ksm_page_drops_its_items_newest_first_but_the_oldest() -> None:
    machine = Machine([b"a"] * 5)
    machine.scanner.finish_scan()
    machine.scanner.finish_scan()
    merges = machine.events(KSM_MERGE_WITH_KSM_PAGE)
    items = {int(e["addr"]): int(e["item"]) for e in merges}
    frame = machine.frame(0)
    machine.memory.discard(machine.mm, 0, 5 * PAGE)
    machine.scanner.finish_scan()
    batch = machine.scanner.take_events()[1:-1]
    assert batch["kind"].tolist() == [KSM_REMOVE_RMAP_ITEM.id] * 4 + [KSM_REMOVE_KSM_PAGE.id]
    assert [int(address) // PAGE for address in batch["addr"][:-1]] == [4, 3, 2, 1]
    assert [items[int(e["addr"])] for e in batch[:-1]] == batch["item"][:-1].tolist()
    assert set(batch["pfn"]) == {frame}
    assert set(batch["mm"][:-1]) == {machine.mm.id}
    assert set(batch["tgid"][:-1]) == {7}


def test_the_items_of_an_exited_process_keep_its_name() -> None:
    machine = Machine([b"a", b"a"])
    machine.scanner.scan(2)
    machine.memory.exit(machine.mm)
    [event] = machine.last_scan(KSM_REMOVE_RMAP_ITEM)
    assert (event["mm"], event["tgid"]) == (machine.mm.id, 7)


# The advisor.


def test_the_advisor_s_event_has_its_three_numbers() -> None:
    machine = Machine([b"a"], advisor_mode="scan-time")
    machine.clock.ksmd_cpu_ns = 50 * 1_000_000
    machine.scanner.take_events()
    machine.scanner.batch(1)  # the scan began, and took the only page
    machine.clock.wait(3000)
    machine.clock.ksmd_cpu_ns += 40 * 1_000_000
    machine.scanner.do_batch(500)
    *_, advice, stop = machine.scanner.take_events()
    # 90 ms in 3 s; 500 pages at 3 % cost 166 a percent, and ten percent are granted.
    assert (advice["kind"], stop["kind"]) == (KSM_ADVISOR.id, KSM_STOP_SCAN.id)
    assert (advice["err"], advice["addr"], advice["arg"]) == (3, 1660, 3)
    assert machine.scanner.knobs["pages_to_scan"] == "1660"


def test_switched_on_in_mid_scan_the_advisor_counts_from_boot() -> None:
    machine = Machine([b"a"])
    machine.clock.now_ns = 97 * SECOND
    machine.scanner.batch(1)
    machine.scanner.set_knob("advisor_mode", "scan-time")
    first, second = machine.last_scan(KSM_ADVISOR), machine.last_scan(KSM_ADVISOR)
    assert [int(e["err"]) for e in (*first, *second)] == [97, 1]
