"""The parts of UKSM, by figures: dedup, judging, planning, write faults."""

from __future__ import annotations

import pytest

from ksmtrace.model.uksm import GOVERNORS, Quirks, planning
from ksmtrace.model.uksm.settings import Settings
from tests.support.uksm import MEMCMP_COST, PAGE, Uksm, unique

SAME = b"same"


def looked_at(count: int, visits: str, *, ghost: bool = True) -> list[tuple[int, int, int, int]]:
    """Counters and full hashes after each visit of pages of one content."""
    machine = Uksm([SAME] * count, quirks=Quirks(ghost=ghost), check_invariants=True)
    machine.wake()
    seen = []
    for number in visits:
        machine.look(int(number))
        seen.append((*machine.merged, machine.scanner.tallies.full_hashes))
    return seen


def test_the_third_equal_page_merges_and_the_first_is_a_ghost_until_visited_again() -> None:
    assert looked_at(3, "0120") == [(0, 0, 1, 0), (0, 0, 2, 1), (1, 1, 1, 2), (1, 2, 0, 2)]


def test_of_two_equal_pages_only_the_first_one_s_second_visit_merges() -> None:
    seen = looked_at(2, "0110")
    assert seen[2][:3] == (0, 0, 2)
    assert seen[3] == (1, 1, 0, 3)


def test_as_intended_the_second_equal_page_merges_at_once() -> None:
    assert looked_at(2, "01", ghost=False) == [(0, 0, 1, 0), (1, 1, 0, 0)]


def test_a_page_is_compared_once_for_each_merge() -> None:
    machine = Uksm([SAME] * 3)
    machine.wake()
    compares = []
    for page in (0, 1, 2, 0):
        machine.look(page)
        compares.append(machine.scanner.tallies.compares)
    assert compares == [0, 0, 1, 2]
    assert machine.scanner.work.compared_bytes == 2 * PAGE
    assert machine.scanner.work.merges == 2


@pytest.mark.parametrize(
    ("sampled", "merged", "cowed", "rung"),
    [(100, 20, 10, 2), (100, 20, 11, 0), (100, 9, 0, 0), (90, 9, 0, 2), (100, 0, 0, 0)],
)
def test_a_slot_climbs_if_a_tenth_merged_and_stayed_so(
    sampled: int, merged: int, cowed: int, rung: int
) -> None:
    machine = Uksm(unique(1000))
    machine.wake()
    slot, daemon = machine.slot(), machine.scanner._daemon
    daemon.rungs[0].remove(slot)
    daemon.rungs[1].insert([slot])
    slot.sampled, slot.merged, slot.cowed = sampled, merged, cowed
    daemon.judge(slot)
    assert machine.rung() == rung
    assert (slot.sampled, slot.merged, slot.cowed) == (0, 0, 0)


def test_what_is_fully_scanned_goes_to_the_bottom_however_rich() -> None:
    machine = Uksm(unique(1000))
    machine.wake()
    slot, daemon = machine.slot(), machine.scanner._daemon
    daemon.rungs[0].remove(slot)
    daemon.rungs[2].insert([slot])
    slot.done = slot.sampled = slot.merged = 1000
    daemon.judge(slot)
    assert (machine.rung(), slot.done) == (0, 0)


def test_with_thrash_threshold_0_the_fully_scanned_may_climb_too() -> None:
    machine = Uksm(unique(1000), knobs={"thrash_threshold": 0})
    machine.wake()
    slot, daemon = machine.slot(), machine.scanner._daemon
    slot.done = slot.sampled = slot.merged = 1000
    slot.cowed = 1000
    daemon.judge(slot)
    assert (machine.rung(), slot.done) == (1, 0)


PLANS = {
    "full": [(400, 4000), (803, 4000), (62291, 95000), (3800000, 95000)],
    "medium": [(400, 4000), (601, 3000), (28570, 100000), (200000, 100000)],
    "low": [(200, 3000), (400, 4000), (22222, 200000), (50000, 100000)],
    "quiet": [(200, 4000), (400, 4000), (803, 8000), (1511, 15000)],
}


@pytest.mark.parametrize("governor", GOVERNORS)
def test_quotas_and_samples_of_each_governor(governor: str) -> None:
    settings = Settings(governor)
    plan = []
    for rung in range(4):
        ratio = settings.real_ratio(rung)
        cover = settings.cover_ms[rung]
        pages = 1 << 40
        plan.append(
            (planning.quota(ratio, 100, 500), pages // planning.stride(pages, cover, ratio, 500))
        )
    # What one sample stands for is truncated, so there may be one more.
    for (quota, samples), (wanted, wanted_samples) in zip(plan, PLANS[governor], strict=True):
        assert quota == wanted
        assert wanted_samples <= samples <= wanted_samples + 1


def test_at_a_slow_page_the_slowest_rung_gets_six_visits() -> None:
    assert planning.quota(20, 100, 30307) == 6


@pytest.mark.parametrize(
    ("sample", "average"), [(5001, 1000), (5000, 1400), (250, 450), (500, 500)]
)
def test_the_page_time_follows_slowly_and_bursts_double_it(sample: int, average: int) -> None:
    assert planning.moving_average(sample, 500) == average


def test_a_nap_keeps_the_share_by_whole_milliseconds() -> None:
    assert planning.nap_ms(100, (1 << 20) - 1, 20) == 100
    assert planning.nap_ms(100, 1 << 20, 20) == 499
    assert planning.nap_ms(100, 3 << 20, 20) == 1000
    assert planning.nap_ms(100, 60 << 20, 2375) == 192
    assert planning.nap_ms(100, 0, 0) == 100


def test_a_negative_share_taken_for_a_huge_one_gives_a_dense_stride() -> None:
    assert planning.stride(1_000_000, 200, -2500, 500) == 1
    assert planning.stride(1_000_000, 200, 2375, 500) == 10
    assert planning.stride(1_000_000, 0, 20, 500) == 1
    assert planning.stride(100, 1, 1, 100_000) == 33


def test_when_the_slowest_rung_cannot_afford_a_page_the_sleep_grows_until_it_can() -> None:
    machine = Uksm(unique(100), knobs={"sleep_millisecs": 20})
    state = machine.scanner._state
    state.page_ns = 90_000
    machine.scanner._daemon._plan()
    # 90,000 ns at 0.2 % are 45 ms.
    assert machine.scanner.knobs["sleep_millisecs"] == "52"
    assert machine.scanner._daemon.rungs[0].quota == 1
    state.eval_round = 8
    state.page_ns = 500
    machine.scanner._daemon._plan()
    assert machine.scanner.knobs["sleep_millisecs"] == "20"


def test_an_absurd_page_time_is_forgotten() -> None:
    machine = Uksm(unique(100))
    machine.scanner._state.page_ns = 100_001
    machine.wake()
    assert machine.scanner.counters["ema_per_page_time"] == 500


def test_a_write_to_a_merged_page_is_noticed_at_its_next_visit_only() -> None:
    machine = Uksm([SAME] * 5)
    machine.wake()
    machine.look(0, 1, 2, 3, 4, 0)
    assert machine.merged == (1, 4, 0)
    machine.memory.write(machine.mms[0], machine.address(2), b"other")
    assert machine.slot().cowed == 1
    assert machine.merged == (1, 4, 0)
    machine.look(3)
    assert machine.merged == (1, 4, 0)
    machine.look(2)
    assert machine.merged == (1, 3, 1)


def test_a_write_to_a_zero_page_counts_as_well() -> None:
    machine = Uksm([b""] * 3)
    machine.wake()
    machine.look(0, 1, 2)
    assert machine.scanner.counters["uksm_zero_pages"] == 3
    machine.memory.write(machine.mms[0], machine.address(1), b"x")
    assert machine.slot().cowed == 1
    assert machine.scanner.counters["uksm_zero_pages"] == 2


def test_pages_with_one_partial_hash_are_told_apart_by_the_full_one() -> None:
    almost = b"base" + b"\0" * 4091 + b"x"
    machine = Uksm([b"base", b"base", b"base", almost, almost, almost], contents="names")
    order = machine.scanner._state.hashes._hasher._rank  # type: ignore[attr-defined]
    assert order[1023] > 64, "the difference isn't read"
    machine.wake()
    machine.look(0, 1, 2, 0)
    assert machine.merged == (1, 2, 0)
    machine.look(3, 4, 5)
    assert machine.scanner.saved_pages() == 3
    machine.look(3)
    assert machine.merged == (2, 4, 0)
    assert machine.scanner.work.failed > 0, "they collide with the other merged page"


def test_a_pinned_page_does_not_merge() -> None:
    machine = Uksm([SAME] * 3, quirks=Quirks(ghost=False))
    frame = machine.memory.pin(machine.mms[0], machine.address(0))
    machine.wake()
    machine.look(0, 1)
    assert machine.scanner.saved_pages() == 0
    machine.memory.unpin(frame)
    machine.look(0, 1, 2)
    assert machine.scanner.saved_pages() == 2


def test_a_dead_merged_page_is_found_at_its_items_next_visit() -> None:
    machine = Uksm([SAME] * 3)
    machine.wake()
    machine.look(0, 1, 2, 0)
    for page in range(3):
        machine.memory.write(machine.mms[0], machine.address(page), b"%d" % page)
    assert machine.merged == (1, 2, 0)
    machine.look(1)
    assert machine.merged == (0, 0, 1)


def test_unmergeable_breaks_the_range_up_and_drops_the_whole_region() -> None:
    machine = Uksm([SAME] * 7 + [b""])
    machine.scanner.scan(2)
    assert machine.scanner.saved_pages() == 7
    memory, mm = machine.memory, machine.mms[0]
    memory.madvise_unmergeable(mm, machine.address(0), machine.address(3))
    assert machine.scanner.saved_pages() == 4
    machine.wake(3)
    assert machine.merged == (0, 0, 0)
    assert machine.scanner.counters["uksm_zero_pages"] == 1
    scanned = machine.scanner.counters["pages_scanned"]
    machine.wake(3)
    assert machine.scanner.counters["pages_scanned"] == scanned
    memory.extend(mm, machine.address(0), 1)
    machine.wake(3)
    assert machine.scanner.counters["pages_scanned"] > scanned, "another region, another slot"


def test_opting_in_is_neither_needed_nor_noticed() -> None:
    machine = Uksm([SAME] * 3)
    memory, mm = machine.memory, machine.mms[0]
    memory.madvise_mergeable(mm, machine.address(0), machine.address(1))
    memory.prctl_merge(mm, on=True)
    memory.prctl_merge(mm, on=False)
    assert len(mm.vmas) == 1
    assert not mm.merge_any
    assert not len(machine.scanner.take_events())
    machine.scanner.scan(2)
    assert machine.merged == (1, 2, 0)


def test_an_incompatible_region_is_never_scanned_nor_one_without_memory() -> None:
    machine = Uksm([SAME] * 3)
    memory, mm = machine.memory, machine.mms[0]
    memory.map(mm, 1 << 40, 5, compatible=False)
    memory.write(mm, 1 << 40, SAME)
    memory.map(mm, 1 << 41, 11)
    machine.wake(5)
    assert len(machine.scanner._daemon.on_rungs()) == 1
    memory.write(mm, (1 << 41) + PAGE, SAME)
    machine.wake()
    assert len(machine.scanner._daemon.on_rungs()) == 2


def test_collisions_and_full_hashes_are_booked_in_words() -> None:
    almost = b"base" + b"\0" * 4091 + b"x"
    machine = Uksm([b"base"] * 3 + [almost] * 2)
    machine.wake()
    machine.look(0, 1, 2, 0)
    state = machine.scanner._state
    state.strength.account.spent = 0
    full_hash, collision = 1034 - 64, MEMCMP_COST + 64
    machine.look(3)
    assert state.strength.account.spent == collision, "with the merged page"
    machine.look(4)
    assert state.strength.account.spent == 2 * collision + full_hash
    assert state.strength.account.spared == 6 * (1024 - 64)


@pytest.mark.parametrize(("passed", "left"), [(True, 1000), (False, 3995)])
def test_a_slot_s_end_takes_its_visits_of_this_round_off(passed: bool, left: int) -> None:
    machine = Uksm(unique(3000), unique(5000))
    machine.wake()
    state, slot = machine.scanner._state, machine.slot(0)
    state.svp, slot.done = 4000, 5
    slot.round_mark = state.full_round if passed else 0
    machine.memory.unmap(machine.mms[0], machine.address(0), machine.address(3000))
    daemon = machine.scanner._daemon
    daemon.slots.look()
    daemon.slots.reap()
    assert state.svp == left
