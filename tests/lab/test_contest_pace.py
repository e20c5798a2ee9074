from __future__ import annotations

from dataclasses import replace

import pytest

from ksmtrace.kernel.costs import DEFAULT, Costs
from ksmtrace.kernel.releases import profile
from ksmtrace.lab import operations as op
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.on_uksm import UksmStage
from ksmtrace.lab.pace import let_work, wakes_at
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.run import run_everywhere
from ksmtrace.lab.scenario import ScenarioError, parse_scenario
from ksmtrace.lab.where import parse_all, parse_where
from ksmtrace.model.clock import Clock

FREE = Costs(**dict.fromkeys(vars(DEFAULT), 0.0))
MS = 1_000_000


def plan(*steps: str, knobs: str = "") -> Plan:
    text = "".join(f"[[step]]\n{step}\n" for step in steps)
    return plan_scenario(parse_scenario(f"[knobs]\n{knobs}\n{text}", "x.toml"))


def run_operation(text: str, pages: int = 4) -> op.Run:
    made = plan(f'map = "a.p"\npages = {pages}', text)
    (operation,) = made.steps[1].operations
    assert isinstance(operation, op.Run)
    return operation


class Sleeper:
    """Works for 2 ms, then sleeps for 10."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.next_ns = 0
        self.woke: list[int] = []

    def wake(self) -> None:
        self.woke.append(self.clock.now_ns // MS)
        self.clock.now_ns += 2 * MS
        self.next_ns = self.clock.now_ns + 10 * MS


def test_writes_and_wake_ups_come_in_the_order_of_their_times() -> None:
    clock = Clock()
    sleeper = Sleeper(clock)
    written: list[int] = []
    let_work(sleeper, clock, 40, 13, lambda: written.append(clock.now_ns // MS))
    assert sleeper.woke == [0, 12, 24, 36]
    # The first is due at 13, while the scanner works.
    assert written == [14, 26, 39]
    assert clock.now_ns == 40 * MS


def test_the_nap_goes_on_in_the_next_run() -> None:
    clock = Clock()
    sleeper = Sleeper(clock)
    let_work(sleeper, clock, 5)
    let_work(sleeper, clock, 5)
    assert (sleeper.woke, clock.now_ns) == ([0], 10 * MS)
    let_work(sleeper, clock, 5)
    assert sleeper.woke == [0, 12]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run = 2", op.Run(2000)),
        ("run = 0.25", op.Run(250)),
        (
            'run = 1\nrewrite = "a.p[1:3]"\nevery = 0.1\ncontent = "equal"',
            op.Run(1000, (("a", 1), ("a", 2)), 100, 2, fresh=False),
        ),
        (
            'run = 1\nrewrite = ["a.p[2]", "a.p[1:3]"]\nevery = 1\npages = 1',
            op.Run(1000, (("a", 2), ("a", 1)), 1000, 1),
        ),
    ],
)
def test_what_a_run_step_says(text: str, expected: op.Run) -> None:
    found = run_operation(text)
    start = 0x1000_0000_0000
    pages = tuple((name, (address - start) // 4096) for name, address in found.pages)
    assert replace(found, pages=pages) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run = 0", "must be from 0.001"),
        ("run = 1e9", "must be from 0.001"),
        ("run = nan", "must be from 0.001"),
        ("run = true", "number of seconds"),
        ('run = "60"', "number of seconds"),
        ("run = 1\nevery = 0.1", "every goes with rewrite"),
        ("run = 1\npages = 1", "pages goes with rewrite"),
        ('run = 1\nrewrite = "a.p"', "needs every"),
        ('run = 1\nrewrite = "a.p"\nevery = 0', "every must be"),
        ('run = 1\nrewrite = "a.p"\nevery = 0.1\npages = 5', "pages must be from 1 to 4"),
        ('run = 1\nrewrite = "a.p"\nevery = 0.1\ncontent = "x"', '"fresh" or "equal"'),
        ('run = 1\nrewrite = "a.q"\nevery = 0.1', "has no region"),
        ("run = 1\nrewrite = []\nevery = 0.1", "needs a place"),
        ("run = 1\nrewrite = [1]\nevery = 0.1", "no place in memory"),
        ('run = 36000\nrewrite = "a.p"\nevery = 0.001', "more than 50,000,000"),
    ],
)
def test_a_mistake_in_a_run_step_is_told(text: str, words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        run_operation(text)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith("x.toml:")


def test_protected_pages_can_not_be_rewritten() -> None:
    with pytest.raises(ScenarioError, match="protected"):
        plan(
            'map = "a.p"\npages = 4',
            'protect = "a.p[1]"\naccess = "read"',
            'run = 1\nrewrite = "a.p"\nevery = 0.1',
        )


def test_ksmd_takes_the_time_of_its_work_and_of_its_sleep() -> None:
    made = plan(
        'map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "unique"', "run = 1",
        knobs="pages_to_scan = 3\nsleep_millisecs = 20",
    )  # fmt: skip
    # Three visits of a millisecond, then a sleep of 20 that ends at the tick after it: a batch each
    # 24 ms, so 42 in a second. A full scan takes three of them: 3, 3 and 1 visits.
    stage = ModelStage(
        made, profile("6.6"), on="x", costs=replace(FREE, visit_ns=MS), count_work=True
    )
    stage.perform()
    assert stage.scanner.work.wakeups == 42
    assert stage.scanner.work.visits == 14 * 7
    assert stage.clock.ksmd_cpu_ns == 14 * 7 * MS
    assert stage.clock.now_ns == 1000 * MS


@pytest.mark.parametrize(
    ("now", "sleep", "at"), [(0, 20, 24), (3.9, 20, 24), (4, 20, 28), (1, 1, 8), (1, 0, 1)]
)
def test_a_timer_ends_at_a_tick_and_one_late(now: float, sleep: int, at: int) -> None:
    assert wakes_at(int(now * MS), sleep * MS) == at * MS


def test_without_any_cost_a_sleep_is_all_that_takes_time() -> None:
    made = plan('map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "unique"', "run = 1")
    stage = ModelStage(made, profile("6.18"), on="x", costs=FREE)
    stage.perform()
    assert stage.scanner.work.wakeups == 42
    stage = ModelStage(
        replace(made, knobs={"sleep_millisecs": "0"}), profile("6.18"), on="x", costs=FREE
    )
    stage.perform()
    assert stage.scanner.work.wakeups == 1000


def test_a_scan_after_a_run_is_a_whole_one_again() -> None:
    made = plan(
        'map = "a.p"\npages = 211', 'write = "a.p"\ncontent = "same"', "run = 0.04", "scan = 1",
        "scan = 1",
    )  # fmt: skip
    stage = ModelStage(made, profile("6.18"), on="x", costs=FREE)
    scans = [seen.scan for seen in stage.perform().observations if seen.scan is not None]
    assert scans == [1, 2]
    assert stage.scanner.counters["pages_sharing"] == 210


@pytest.mark.parametrize("on", ["ksm:6.12", "uksm:full"])
@pytest.mark.parametrize(("content", "own"), [("fresh", 7), ("equal", 1)])
def test_pages_are_rewritten_in_turn(on: str, content: str, own: int) -> None:
    made = plan(
        'map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "same"',
        f'run = 1\nrewrite = "a.p"\nevery = 0.3\npages = 2\ncontent = "{content}"',
        f'run = 0.5\nrewrite = "a.p[6]"\nevery = 0.4\ncontent = "{content}"',
    )  # fmt: skip
    place = parse_where(on)
    stage = UksmStage(made, place) if place.uksm else ModelStage(made, place.profile, on=on)
    stage.perform()
    (mm,) = stage.memory.mms
    assert len({frame.content for frame in mm.pages.values()}) == own


def test_only_ksm_is_held_against_ksm() -> None:
    made = plan(
        'map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "same"',
        "scan = 2\nexpect = { pages_sharing = 5 }",
    )  # fmt: skip
    places = parse_all(["ksm:6.12", "ksm:6.18", "uksm:full"], models_only=True)
    found = run_everywhere(made, places)
    assert [(c.first.on, c.second.on) for c in found.comparisons] == [("ksm:6.12", "ksm:6.18")]
    assert found.kinds == [["ksm:6.12", "ksm:6.18"], ["uksm:full"]]
    assert [d.on for d in found.disappointments] == ["ksm:6.12", "ksm:6.18"]
    assert any("not compared" in note for note in found.notes)
    counters = found.performances[2].observations[-1].counters
    assert (counters["pages_shared"], counters["pages_sharing"]) == (1, 6)


@pytest.mark.parametrize(
    ("step", "word"),
    [("batch = 3", "batch"), ('swap_out = "a.p"', "swap_out"),
     ('migrate = "a.p"\nnode = 1', "migrate")],
)  # fmt: skip
def test_what_a_uksm_can_not_do_is_refused_before_anything_starts(step: str, word: str) -> None:
    made = plan('map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "same"', step)
    with pytest.raises(ScenarioError, match=word) as caught:
        run_everywhere(made, parse_all(["uksm:full"], models_only=True))
    assert caught.value.message.startswith("x.toml:")


def test_ksms_knobs_do_nothing_on_a_uksm_and_a_note_says_so() -> None:
    made = plan(
        'map = "a.p"\npages = 7', 'write = "a.p"\ncontent = "same"', "set = { run = 2 }",
        "scan = 1", knobs="pages_to_scan = 3",
    )  # fmt: skip
    (performance,) = run_everywhere(made, parse_all(["uksm:low"], models_only=True)).performances
    assert sum("UKSM has no such setting" in note for note in performance.notes) == 2
