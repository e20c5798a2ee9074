"""Each quirk's switch, and that it changes what it should and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ksmtrace.model.memory import Frame, Memory
from ksmtrace.model.uksm import AS_INTENDED, AS_SHIPPED, Quirks
from ksmtrace.model.uksm.credit import Credit
from ksmtrace.model.uksm.structures import Item, Slot, StableNode
from tests.support.uksm import PAGE, START, Uksm, repeated, unique


def test_shipped_is_all_of_them_and_intended_none() -> None:
    assert all(getattr(AS_SHIPPED, field.name) for field in fields(Quirks))
    assert not any(getattr(AS_INTENDED, field.name) for field in fields(Quirks))


@pytest.mark.parametrize("dense", [True, False])
def test_a_slot_entering_an_empty_fast_rung_is_scanned_densely(dense: bool) -> None:
    machine = Uksm(unique(400_000), quirks=replace(AS_SHIPPED, dense_entry=dense))
    machine.wake()
    daemon, slot = machine.scanner._daemon, machine.slot()
    daemon.rungs[0].remove(slot)
    daemon.rungs[2].insert([slot])
    samples = 200 * 100 * 2375 // 500
    assert daemon.rungs[2].step == (1 if dense else 400_000 // samples)
    daemon._plan()
    assert daemon.rungs[2].step == 400_000 // samples, "the plan is right in any case"


def credited(groups: list[int], own: int, *, literally: bool) -> tuple[list[int], list[int]]:
    """Who is credited with a merge of slot `own`, and the groups afterwards, by key."""
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, START, 1)
    credit = Credit(literally=literally)
    slots: dict[int, Slot] = {}
    for key in {*groups, own}:
        slots[key] = Slot(mm, mm.vmas[0], (key, 0))
    frame = Frame(1, b"same", 0)
    node = StableNode(frame)
    for key in groups:
        only = Credit(literally=False)
        only.append(Item(1, slots[key], 0, frame), node, log=False)
    machine = Uksm(unique(1))
    slots[own].rung = machine.scanner._daemon.rungs[0]
    slots[own].rung.step = 7
    credit.append(Item(2, slots[own], 0, frame), node, log=True)
    assert slots[own].merged == 1
    assert all(slot.bemerged % 7 == 0 for slot in slots.values())
    assert set(credit.slots) == {slot for slot in slots.values() if slot.bemerged}
    return (
        [key for key in sorted(slots) if slots[key].bemerged],
        [group.slot.key[0] for group in node.groups],
    )


@pytest.mark.parametrize(
    ("groups", "own", "shipped", "order"),
    [
        ([1, 2, 3, 4, 5], 2, [1, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 3, 4, 5], 2, [1, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 2, 3], 9, [1, 2, 3], [9, 1, 2, 3]),
        ([9, 1, 2, 3], 2, [1, 2, 3], [2, 9, 1, 2, 3]),
        ([], 5, [], [5]),
    ],
)
def test_who_is_credited_hangs_on_the_order_of_addresses(
    groups: list[int], own: int, shipped: list[int], order: list[int]
) -> None:
    # 9 2 ...: inserted before a larger one, the slot gets a second group and credits itself.
    assert credited(groups, own, literally=True) == (shipped, order)
    others = sorted(set(groups) - {own})
    assert credited(groups, own, literally=False)[0] == others


def test_a_slot_that_others_merge_with_climbs_without_a_sample_of_its_own() -> None:
    machine = Uksm(unique(1000), unique(3000), quirks=replace(AS_SHIPPED, credit=False))
    machine.wake()
    daemon, slot = machine.scanner._daemon, machine.slot(0)
    slot.bemerged = 100
    daemon.credit.slots[slot] = None
    daemon._end_evaluation_round()
    assert (machine.rung(0), slot.bemerged) == (1, 0)
    assert not daemon.credit.slots
    slot.bemerged, slot.cowed = 100, 51
    daemon.credit.slots[slot] = None
    daemon._end_evaluation_round()
    assert (machine.rung(0), slot.cowed) == (1, 0), "it thrashes"


@pytest.mark.parametrize("freeze", [True, False])
def test_visits_after_a_pass_count_or_not(freeze: bool) -> None:
    machine = Uksm(unique(100), quirks=replace(AS_SHIPPED, freeze=freeze))
    machine.wake()
    daemon, state = machine.scanner._daemon, machine.scanner._state
    slot = machine.slot()
    for _ in range(130):
        daemon.visit.draw(slot)
        if slot.done == slot.pages:
            slot.done = 0
    assert state.svp == (100 if freeze else 130)


@pytest.mark.parametrize("wrap", [True, False])
def test_a_deleted_slot_may_wrap_the_count_of_visits(wrap: bool) -> None:
    machine = Uksm(unique(3000), unique(5000), quirks=replace(AS_SHIPPED, wrap=wrap))
    state = machine.scanner._state
    machine.wake()
    while not (machine.slot(0).done and machine.slot(1).counted):
        machine.wake()
    state.svp = 1
    mm = machine.mms[0]
    machine.memory.unmap(mm, START, START + 3000 * PAGE)
    machine.scanner._daemon.slots.look()
    machine.scanner._daemon.slots.reap()
    assert (state.svp > 1 << 63) == wrap
    assert wrap or state.svp == 0
    assert state.total_pages == 5000


def test_as_intended_clones_merge_without_a_full_hash_and_much_earlier() -> None:
    shipped, intended = (
        Uksm(unique(5000), unique(5000), quirks=quirks) for quirks in (AS_SHIPPED, AS_INTENDED)
    )
    assert intended.until_sharing(4500) * 2 < shipped.until_sharing(4500)
    assert intended.scanner.tallies.full_hashes == 0 < shipped.scanner.tallies.full_hashes


def test_without_a_quirk_in_reach_the_switches_change_nothing() -> None:
    def run(quirks: Quirks) -> dict[str, int]:
        machine = Uksm(repeated(100, 1) + unique(100), quirks=quirks)
        machine.wake()
        return machine.scanner.counters

    assert run(AS_SHIPPED) == run(AS_INTENDED)
