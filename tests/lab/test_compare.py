"""Each kind of difference between two performances is found, and nothing else is one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    MAPCOUNT_SHIFT,
)
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.compare import Comparison, compare
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import parse_scenario

EFAULT = -14
# Everything that there is: forks, exits, failures, zero pages, deaths, a refusal, the advisor.
TEXT = """
[knobs]
use_zero_pages = 1
smart_scan = 0
[[step]]
map = "a.p"
pages = 5
[[step]]
write = "a.p[0:3]"
content = "a"
[[step]]
write = "a.p[3]"
content = "zero"
[[step]]
write = "a.p[4]"
content = "b"
[[step]]
map = "b.p"
pages = 2
[[step]]
write = "b.p"
content = "b"
[[step]]
pin = "a.p[4]"
[[step]]
scan = 3
[[step]]
unpin = "a.p[4]"
[[step]]
fork = "a"
as = "c"
[[step]]
scan = 2
[[step]]
set = { max_page_sharing = 3 }
refused = "EBUSY"
[[step]]
discard = "a.p"
[[step]]
exit = "c"
[[step]]
exit = "b"
[[step]]
map = "a.q"
pages = 1
[[step]]
write = "a.q"
content = "c"
[[step]]
set = { advisor_mode = "scan-time" }
[[step]]
scan = 2
"""


@cache
def plan() -> Plan:
    return plan_scenario(parse_scenario(TEXT, "x.toml"))


@cache
def performed() -> Performance:
    return perform_on_model(plan(), profile("6.18.44"))


def performance(*, real: bool = False) -> Performance:
    """A copy to change."""
    made = performed()
    return replace(made, observations=[*made.observations], tgids={**made.tgids}, real=real)


def at_event(kind: int) -> tuple[int, int]:
    """(observation, event) of the first event of a kind."""
    for number, seen in enumerate(performance().observations):
        found = np.flatnonzero(seen.events["kind"] == kind)
        if len(found):
            return number, int(found[0])
    raise AssertionError(kind)


def changed(change: Callable[[EventBatch], EventBatch | None], number: int) -> Performance:
    """A performance with one observation's events changed, in place or by another batch."""
    made = performance(real=True)
    seen = made.observations[number]
    events = seen.events.copy()
    other = change(events)
    made.observations[number] = replace(seen, events=events if other is None else other)
    return made


def difference(first: Performance, second: Performance | None = None) -> tuple[int, int, str]:
    """(step, number, why) of the first event that differs."""
    found = compare(plan(), first, second or performance())
    assert not found.agree
    event = found.first_event
    assert event is not None
    assert event.why
    assert event.where.startswith("x.toml:")
    return event.step, event.at, event.why


EVENTS = [
    (number, at)
    for number, seen in enumerate(performance().observations)
    for at in range(len(seen.events))
]


def step_of(number: int) -> int:
    return performance().observations[number].step


def test_the_scenario_has_every_kind_of_event() -> None:
    kinds = {int(k) for seen in performance().observations for k in seen.events["kind"]}
    assert kinds == set(range(1, 10))
    told = " ".join(line for seen in performance().observations for line in seen.told)
    assert "NEW" in told
    assert "ADD!" in told
    assert any(seen.refused for seen in performance().observations)


def test_a_performance_agrees_with_itself() -> None:
    for real in (False, True):
        found = compare(plan(), performance(real=real), performance())
        assert found.agree
        assert found.first_event is None
        assert found.events_compared
        assert len(found.observations) == len(performance().observations)


# Names that can't be equal.


def renamed(slot: str, new: Callable[[int], int]) -> Performance:
    made = performance(real=True)
    for number, seen in enumerate(made.observations):
        events = seen.events.copy()
        events[slot] = [new(int(old)) if old else 0 for old in events[slot]]
        made.observations[number] = replace(seen, events=events)
    return made


@pytest.mark.parametrize("slot", ["pfn", "mm", "item"])
@given(st.integers())
def test_frames_address_spaces_and_items_may_have_other_numbers(slot: str, seed: int) -> None:
    numbers: dict[int, int] = {}
    fresh = random.Random(seed).sample(range(1_000, 3_000), 2_000)
    first = renamed(slot, lambda old: numbers.setdefault(old, fresh[len(numbers)]))
    assert compare(plan(), first, performance()).agree


def test_processes_may_have_other_ids() -> None:
    first = renamed("tgid", lambda old: old + 31)
    first.tgids = {tgid + 31: name for tgid, name in first.tgids.items()}
    for number, seen in enumerate(first.observations):
        events = seen.events.copy()
        entered = events["kind"] == KSM_ENTER.id
        forked = entered & (events["addr"] != 0)
        events["addr"][forked] += 31
        first.observations[number] = replace(seen, events=events)
    assert compare(plan(), first, performance()).agree


def test_a_real_kernel_may_use_a_number_again_but_not_two_for_one_thing() -> None:
    # All frames the same: the kernel has given one and the same page frame to each KSM page.
    assert compare(plan(), renamed("pfn", lambda _old: 7), performance()).agree
    counter = iter(range(1, 10_000))
    _, _, why = difference(renamed("pfn", lambda _old: next(counter)))
    assert why == "page frame"


def test_times_and_cpus_are_not_compared() -> None:
    first = renamed("ts", lambda old: old * 3 + 5)
    for number, seen in enumerate(first.observations):
        events = seen.events.copy()
        events["cpu"] = 1
        first.observations[number] = replace(seen, events=events)
    assert compare(plan(), first, performance()).agree


# Events that differ.


@pytest.mark.parametrize(("number", "at"), EVENTS)
def test_a_dropped_event_is_found_where_it_was(number: int, at: int) -> None:
    step, found, _ = difference(changed(lambda events: np.delete(events, at), number))
    assert step == step_of(number)
    assert found >= at


@pytest.mark.parametrize(("number", "at"), EVENTS)
def test_a_doubled_event_is_found(number: int, at: int) -> None:
    step, found, _ = difference(changed(lambda e: np.insert(e, at, e[at]), number))
    assert step == step_of(number)
    assert found >= at


@pytest.mark.parametrize(("number", "at"), EVENTS)
def test_two_events_in_the_wrong_order_are_found(number: int, at: int) -> None:
    if at == 0:
        return

    def swap(events: EventBatch) -> None:
        events[[at - 1, at]] = events[[at, at - 1]]

    step, found, _ = difference(changed(swap, number))
    assert (step, found) == (step_of(number), at - 1)


def test_an_event_that_comes_a_step_too_late_is_found() -> None:
    number = next(n for n, seen in enumerate(performance().observations) if len(seen.events) > 2)
    first = performance(real=True)
    events = [seen.events for seen in first.observations[number : number + 2]]
    moved = [events[0][:-1], np.concatenate([events[0][-1:], events[1]])]
    for at, batch in enumerate(moved):
        seen = first.observations[number + at]
        first.observations[number + at] = replace(seen, events=batch)
    step, at, why = difference(first)
    assert (step, at) == (step_of(number), len(events[0]) - 1)
    assert "more" in why


@pytest.mark.parametrize(("number", "at"), EVENTS)
@pytest.mark.parametrize("slot", ["kind", "err", "addr", "arg"])
def test_an_altered_field_is_found(slot: str, number: int, at: int) -> None:
    event = performance().observations[number].events[at]
    kind = int(event["kind"])
    if slot in ("addr", "arg") and not has_field(kind, slot):
        return
    if slot == "addr" and kind == KSM_ENTER.id:
        return  # the parent's process id, a name

    def alter(events: EventBatch) -> None:
        # A real advisor's seconds may be one off.
        by = 2 if kind == KSM_ADVISOR.id else 1
        new = {"kind": 1 + int(event["kind"]) % 9, "err": int(event["err"]) - by}
        events[slot][at] = new.get(slot, int(event[slot]) ^ 0x1000)

    step, found, why = difference(changed(alter, number))
    assert (step, found) == (step_of(number), at)
    if slot == "addr" and kind not in (KSM_START_SCAN.id, KSM_START_SCAN.id + 1, KSM_ADVISOR.id):
        assert why == "address"


def has_field(kind: int, slot: str) -> bool:
    with_addr = {1, 3, 4, 5, 6, 7, 9}
    with_arg = {1, 3, 4, 6, 9}
    return kind in (with_addr if slot == "addr" else with_arg)


@pytest.mark.parametrize(
    ("bits", "why"),
    [(INTO_EXISTING, "ksm_page"), (FIRST_SIGHT, "first sight"), (1 << MAPCOUNT_SHIFT, "mapcount")],
)
def test_what_is_wrong_about_a_merge_is_said(bits: int, why: str) -> None:
    number, at = at_event(KSM_MERGE_WITH_KSM_PAGE.id)

    def alter(events: EventBatch) -> None:
        events["arg"][at + 1] ^= bits

    assert difference(changed(alter, number)) == (step_of(number), at + 1, why)


def test_what_is_wrong_about_the_advisor_is_said() -> None:
    number, at = at_event(KSM_ADVISOR.id)

    def alter(events: EventBatch) -> None:
        events["arg"][at] += 5

    *_, why = difference(changed(alter, number))
    assert "rmap_items" not in why
    assert "CPU" in why or "cpu" in why


def merges() -> list[tuple[int, int]]:
    return [
        (number, at)
        for number, at in EVENTS
        if performance().observations[number].events["kind"][at] == KSM_MERGE_WITH_KSM_PAGE.id
    ]


@pytest.mark.parametrize(("slot", "why"), [("pfn", "page frame"), ("mm", "address space")])
@pytest.mark.parametrize(("number", "at"), merges())
def test_one_thing_under_two_numbers_is_found(slot: str, why: str, number: int, at: int) -> None:
    def alter(events: EventBatch) -> None:
        events[slot][at] += 5000

    found = compare(plan(), changed(alter, number), performance())
    assert not found.agree
    assert found.first_event is not None
    assert found.first_event.why == why


def test_a_wrong_owner_is_found() -> None:
    number, at = merges()[0]
    first = performance(real=True)
    other = next(tgid for tgid, name in first.tgids.items() if name == "c")

    def alter(events: EventBatch) -> None:
        events["tgid"][at] = other

    assert difference(changed(alter, number)) == (step_of(number), at, "process")


def test_the_first_of_several_differences_is_the_one_told() -> None:
    number, at = EVENTS[-1]
    first = changed(lambda events: events[:0], number)
    early, _ = EVENTS[0]
    seen = first.observations[early]
    first.observations[early] = replace(seen, events=seen.events[:0])
    assert difference(first)[0] == step_of(early)
    assert at
    found = compare(plan(), first, performance())
    assert sum(not one.agrees for one in found.observations) == 2


def test_both_sides_words_stand_in_a_difference() -> None:
    number, at = at_event(KSM_MERGE_WITH_KSM_PAGE.id)
    first = performance(real=True)
    seen = first.observations[number]
    first.observations[number] = replace(seen, events=seen.events[:at], told=seen.told[:at])
    event = compare(plan(), first, performance()).first_event
    assert event is not None
    assert event.told == ("nothing", "NEW a.p[1]")


# What a source or a kernel can't tell is not compared.


@pytest.mark.parametrize(
    ("unknown", "slot"), [("addr", "addr"), ("tgid", "tgid"), ("arg", "arg"), ("addr", "arg")]
)
def test_what_a_source_cannot_fill_is_not_compared(unknown: str, slot: str) -> None:
    number, at = merges()[0]

    def alter(events: EventBatch) -> None:
        events[slot][at] = 0 if slot == "tgid" else int(events[slot][at]) ^ FIRST_SIGHT << 4

    first = changed(alter, number)
    if slot != "tgid":
        assert not compare(plan(), first, performance()).agree
    first.fields_unknown = (unknown,)
    assert compare(plan(), first, performance()).agree


def test_an_owner_that_one_side_does_not_know_is_not_compared() -> None:
    assert compare(plan(), renamed("tgid", lambda _old: 0), performance()).agree


def test_without_tracepoints_only_counters_are_compared() -> None:
    for side in (0, 1):
        both = [changed(lambda events: events[:0], EVENTS[0][0]), performance()]
        both[side].has_events = False
        found = compare(plan(), *both)
        assert found.agree
        assert not found.events_compared


# Counters.


def altered_counter(name: str, number: int, process: str = "") -> Comparison:
    first = performance(real=True)
    seen = first.observations[number]
    if process:
        stat = {**seen.processes[process], name: seen.processes[process][name] + 1}
        seen = replace(seen, processes={**seen.processes, process: stat})
    else:
        seen = replace(seen, counters={**seen.counters, name: seen.counters[name] + 1})
    first.observations[number] = seen
    return compare(plan(), first, performance())


@pytest.mark.parametrize("name", performance().observations[0].counters)
def test_a_counter_that_differs_is_found(name: str) -> None:
    for number in (0, len(performance().observations) - 1):
        true = performance().observations[number].counters[name]
        found = altered_counter(name, number)
        [one] = [observation for observation in found.observations if not observation.agrees]
        assert one.step == step_of(number)
        assert one.counters == {name: (true + 1, true)}
        assert one.events is None


@pytest.mark.parametrize("name", performance().observations[-1].processes["a"])
def test_a_process_s_counter_that_differs_is_found(name: str) -> None:
    number = len(performance().observations) - 1
    [one] = [o for o in altered_counter(name, number, "a").observations if not o.agrees]
    assert list(one.counters) == [f"a.{name}"]


def test_a_counter_that_one_side_lacks_is_not_compared() -> None:
    first = performance(real=True)
    seen = first.observations[-1]
    few = {name: n for name, n in seen.counters.items() if name != "cow_ksm"}
    first.observations[-1] = replace(seen, counters={**few, "of_its_own": 5}, processes={})
    assert compare(plan(), first, performance()).agree


def test_a_refusal_of_one_side_only_is_found() -> None:
    first = performance(real=True)
    number = next(n for n, seen in enumerate(first.observations) if seen.refused)
    first.observations[number] = replace(first.observations[number], refused="")
    [one] = [o for o in compare(plan(), first, performance()).observations if not o.agrees]
    assert list(one.counters) == ["refused"]


def test_models_of_two_kernels_differ_where_they_should() -> None:
    newer = perform_on_model(plan(), profile("6.11"))
    older = perform_on_model(plan(), profile("6.10"))
    found = compare(plan(), newer, older)
    assert not found.agree


def test_performances_of_different_length_are_no_pair() -> None:
    first = performance()
    first.observations.pop()
    with pytest.raises(ValueError, match=r"shorter|longer"):
        compare(plan(), first, performance())


@pytest.mark.parametrize(
    ("slot", "by", "same"),
    [("err", 1, True), ("arg", 1, True), ("arg", 2, False), ("addr", 1, False)],
)
def test_a_real_advisor_s_clocks_may_be_read_a_moment_earlier(
    slot: str, by: int, same: bool
) -> None:
    at, number = at_event(KSM_ADVISOR.id)

    def later(batch: EventBatch) -> EventBatch:
        batch = batch.copy()
        batch[slot][number] += by
        return batch

    real = changed(later, at)
    assert compare(plan(), real, performance()).agree == same
