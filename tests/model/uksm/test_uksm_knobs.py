"""UKSM's files in sysfs, and how it is driven."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.costs import Costs
from ksmtrace.kernel.uksm import COUNTERS, KNOBS
from ksmtrace.model import KnobRefused, Memory
from ksmtrace.model.uksm import UksmScanner
from tests.support.uksm import Uksm, unique


def scanner(governor: str = "full", **knobs: object) -> UksmScanner:
    return UksmScanner(Memory(), governor, knobs=knobs)


def test_the_files_are_those_of_a_real_kernel() -> None:
    assert set(scanner().knobs) == {knob.name for knob in KNOBS}
    ours = set(scanner().counters) - {"uksm_zero_pages"}
    assert ours == {counter.name for counter in COUNTERS if counter.where == "uksm"}


def test_the_files_show_the_defaults() -> None:
    assert scanner().knobs == {
        "run": "1",
        "sleep_millisecs": "100",
        "cpu_governor": "[full] medium low quiet",
        "max_cpu_percentage": "95",
        "cpu_ratios": "20 40 MAX/4 MAX/1",
        "eval_intervals": "1000 500 200 50",
        "abundant_threshold": "10",
        "thrash_threshold": "50",
    }
    assert scanner().counters == {
        "pages_shared": 0, "pages_sharing": 0, "pages_unshared": 0, "pages_scanned": 0,
        "full_scans": 1, "hash_strength": 64, "sleep_times": 0, "ema_per_page_time": 500,
        "uksm_zero_pages": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("governor", "ratios", "cover", "most"),
    [
        ("medium", "20 30 MAX/4 MAX/1", "1000 500 400 100", "50"),
        ("low", "10 20 MAX/2 MAX/1", "1500 1000 1000 250", "20"),
        ("quiet", "10 20 40 75", "2000 1000 1000 1000", "1"),
    ],
)
def test_a_governor_is_a_preset(governor: str, ratios: str, cover: str, most: str) -> None:
    one, other = scanner(governor), scanner()
    other.set_knob("cpu_governor", governor + "\n")
    assert one.knobs == other.knobs
    assert one.knobs["cpu_ratios"] == ratios
    assert one.knobs["eval_intervals"] == cover
    assert one.knobs["max_cpu_percentage"] == most
    assert f"[{governor}]" in one.knobs["cpu_governor"]


@pytest.mark.parametrize(
    ("name", "written", "shown"),
    [
        ("run", "0", "0"),
        ("sleep_millisecs", "20", "20"),
        ("max_cpu_percentage", "100", "99"),
        ("max_cpu_percentage", "0", "10"),
        ("cpu_ratios", "MAX/2 9999 1 MAX/100", "MAX/2 9999 1 MAX/100"),
        ("eval_intervals", "0 1 2 3", "0 1 2 3"),
        ("abundant_threshold", "99", "99"),
        ("thrash_threshold", "0", "0"),
        ("cpu_governor", "quietly", "full medium low [quiet]"),
    ],
)
def test_what_is_written_is_shown(name: str, written: str, shown: str) -> None:
    assert scanner(**{name: written}).knobs[name] == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "2"), ("run", "x"), ("sleep_millisecs", "1001"), ("sleep_millisecs", "-1"),
        ("max_cpu_percentage", "101"), ("cpu_ratios", "1 2 3"), ("cpu_ratios", "0 1 2 3"),
        ("cpu_ratios", "MAX/0 1 2 3"), ("cpu_ratios", "10001 1 2 3"), ("eval_intervals", "1 2 3 x"),
        ("abundant_threshold", "100"), ("thrash_threshold", "100"), ("cpu_governor", "fast"),
        ("cpu_governor", ""),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_refused(name: str, value: str) -> None:
    before = scanner()
    with pytest.raises(KnobRefused, match="EINVAL"):
        before.set_knob(name, value)
    assert before.knobs == scanner().knobs


def test_an_unknown_knob_or_governor_is_a_mistake_of_use() -> None:
    for make in (
        lambda: scanner("fast"),
        lambda: scanner(pages_to_scan=100),
        lambda: scanner(cpu_ratios="10000 1 2 3"),
    ):
        with pytest.raises(KsmtraceError) as error:
            make()
        assert error.value.exit_code is Exit.USAGE


def test_paused_it_does_nothing_and_time_passes() -> None:
    machine = Uksm([b"same"] * 10, knobs={"run": 0})
    machine.wake(5)
    assert machine.seconds == 0.5
    assert machine.scanner.counters["pages_scanned"] == 0
    assert machine.scanner.work.wakeups == 0
    machine.scanner.set_knob("run", 1)
    machine.wake(3)
    assert machine.sharing == 9
    machine.scanner.set_knob("run", 0)
    assert machine.scanner.saved_pages() == 9, "pausing unmerges nothing"


def test_run_for_passes_the_time_asked_for() -> None:
    machine = Uksm(unique(100))
    machine.scanner.run_for(3)
    assert 3 <= machine.seconds < 3.11
    assert machine.scanner.counters["sleep_times"] == 30


def test_finish_scan_comes_to_every_page_there_is() -> None:
    machine = Uksm(unique(5003), unique(17, "small"), unique(2, "two"))
    machine.scanner.run_for(0.5)
    wakeup = machine.scanner._daemon.visit.wakeup
    machine.scanner.finish_scan()
    for number in range(3):
        assert min(machine.slot(number).seen) > wakeup


def test_a_region_of_one_page_is_passed_over_unless_it_is_the_first() -> None:
    machine = Uksm(unique(103), unique(1, "one"))
    machine.scanner.scan(7)
    assert not machine.slot(1).items
    machine = Uksm(unique(1, "one"), unique(103))
    machine.scanner.scan(7)
    assert len(machine.slot(0).items) == 1


def test_finish_scan_returns_at_once_where_there_is_nothing() -> None:
    machine = Uksm()
    machine.memory.map(machine.memory.spawn(7), 0, 10)
    machine.scanner.finish_scan()
    assert machine.seconds == 0


def test_every_kind_of_work_has_its_price() -> None:
    dice = random.Random(1)
    costs = Costs(**{field.name: dice.uniform(1, 900) for field in fields(Costs)})
    machine = Uksm([b"same"] * 50, unique(50), [b""] * 50, costs=costs)
    machine.scanner.run_for(2)
    work, clock = machine.scanner.work, machine.scanner.clock
    assert work.lines
    assert work.ksm_pages
    assert abs(clock.ksmd_cpu_ns - work.ns(costs)) <= machine.scanner.work.wakeups


def test_wakeups_cost_what_their_work_costs() -> None:
    machine = Uksm([b"same"] * 500)
    machine.wake(2)
    work, clock = machine.scanner.work, machine.scanner.clock
    assert clock.ksmd_cpu_ns == int(work.ns(machine.scanner._state.costs))
    # A nap of 100 ms, and one that keeps 0.2 %: of 1 ms that would be 499 ms.
    assert clock.now_ns - clock.ksmd_cpu_ns in (200_000_000, 599_000_000)
    assert work.visits == machine.scanner.counters["pages_scanned"] == 400
    assert work.uksm_bytes == 4 * 64 * 400 + 2 * 4 * (1034 - 64)
