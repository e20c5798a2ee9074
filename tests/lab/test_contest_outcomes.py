from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.costs import DEFAULT, HostCosts
from ksmtrace.lab.contest import track
from ksmtrace.lab.contest.contest import Contest
from ksmtrace.lab.contest.ground import check_contest, optimum
from ksmtrace.lab.contest.outcome import Outcome
from ksmtrace.lab.contest.protocols import PROTOCOLS, chosen
from ksmtrace.lab.contest.result import contest_report, figures
from ksmtrace.lab.contest.tuning import TOLERANCE
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.run import load_plan, shipped_workloads
from ksmtrace.lab.scenario import ScenarioError, parse_scenario
from ksmtrace.lab.where import parse_all

COSTS = HostCosts(DEFAULT, "built in")


def plan(*steps: str, knobs: str = "") -> Plan:
    text = "".join(f"[[step]]\n{step}\n" for step in steps)
    return plan_scenario(parse_scenario(f"[knobs]\n{knobs}\n{text}", "x.toml"))


def same_machines(machines: int, pages: int, *runs: str, knobs: str = "") -> Plan:
    steps = [f'map = "vm{n}.ram"\npages = {pages}' for n in range(machines)]
    steps += [f'write = "vm{n}.ram"\ncontent = "sequence"' for n in range(machines)]
    return plan(*steps, *runs, knobs=knobs)


def contest(made: Plan, *on: str, protocol: str | None = None, **options: Any) -> Contest:
    places = parse_all(list(on), models_only=True)
    found = Contest(made, places, chosen(protocol, made, places), COSTS, **options)
    found.run()
    return found


def outcome(found: Contest, on: str, protocol: str = "defaults") -> Outcome:
    told = found.of_protocol(next(p for p in PROTOCOLS.values() if p.name == protocol))
    return next(one for one in told if one.on == on)


def test_ksmd_with_its_defaults_merges_in_its_second_scan() -> None:
    # 2 x 1009 pages at 100 each 24 ms: the second scan begins after 21 batches, in which the first
    # machine's pages go into the unstable tree and the other's find them there.
    found = contest(same_machines(2, 1009, "run = 2"), "ksm:6.12")
    (one,) = found.outcomes
    assert found.optimum == one.optimum == one.saved == 1009
    assert (one.work.merges, one.work.ksm_pages, one.breaks) == (1009, 1009, 0)
    first = one.time_to(1)
    assert first is not None
    assert first == pytest.approx(31 * 0.024, abs=0.010)
    assert one.curve.time_s[-1] == 2
    assert one.cpu_s == pytest.approx(one.work.ns(DEFAULT) / 1e9, rel=1e-6)
    assert one.work.wakeups == pytest.approx(2 / 0.024, rel=0.01)


def test_equal_cpu_and_equal_visits_are_equal() -> None:
    found = contest(
        same_machines(3, 1500, "run = 12"), "ksm:6.12", "uksm:full", "ksm:2011", "uksm:quiet"
    )
    uksm = outcome(found, "uksm:full")
    for name in ("ksm:6.12", "ksm:2011"):
        assert outcome(found, name, "cpu").cpu_s == pytest.approx(uksm.cpu_s, rel=TOLERANCE + 0.002)
        assert outcome(found, name, "visits").visits == pytest.approx(uksm.visits, rel=TOLERANCE)
        assert outcome(found, name).settings == {"pages_to_scan": 100, "sleep_millisecs": 20}
    assert [o.on for o in found.of_protocol(PROTOCOLS["cpu"])] == [
        "ksm:6.12", "uksm:full", "ksm:2011", "uksm:quiet",
    ]  # fmt: skip
    assert len({id(outcome(found, "uksm:full", p).curve) for p in PROTOCOLS}) == 1


def test_of_two_copies_a_ghost_is_found_late() -> None:
    found = contest(same_machines(2, 1500, "run = 8"), "uksm:full", "uksm:full-ghost")
    late, early = (outcome(found, on).time_to(90) for on in ("uksm:full", "uksm:full-ghost"))
    assert late is not None
    assert early is not None
    assert late > 1.5 * early


def test_memory_that_is_written_all_the_time_is_left_alone_by_uksm_and_not_by_ksmd() -> None:
    live = 'run = 8\nrewrite = "vm0.ram"\nevery = 0.1\ncontent = "equal"'
    made = same_machines(2, 1500, live, knobs="pages_to_scan = 1000")
    found = contest(made, "ksm:6.12", "uksm:full", protocol="defaults")
    ksm, uksm = outcome(found, "ksm:6.12"), outcome(found, "uksm:full")
    # What holds the same again is no change to a checksum.
    assert ksm.breaks > 10_000
    assert uksm.breaks < ksm.breaks / 3
    assert uksm.cpu_s < ksm.cpu_s / 3
    assert uksm.optimum == 1500


def test_fresh_contents_leave_nothing_to_be_saved() -> None:
    live = 'run = 2\nrewrite = "vm0.ram"\nevery = 0.1'
    found = contest(same_machines(2, 211, live), "ksm:6.12", "uksm:full", protocol="defaults")
    assert found.optimum == 0
    for one in found.outcomes:
        assert one.time_to(50) is None
        assert one.cpu_us_per_page is None or one.saved > 0


def test_what_a_fork_shares_is_no_merit_of_a_scanner() -> None:
    made = plan(
        'map = "a.p"\npages = 311', 'write = "a.p"\ncontent = "unique"', 'fork = "a"\nas = "b"',
        'write = "b.p[0:101]"\ncontent = "x"', "run = 3",
    )  # fmt: skip
    found = contest(made, "ksm:6.12", "uksm:full", protocol="defaults")
    assert found.optimum == 100
    assert [one.saved for one in found.outcomes] == [100, 100]
    assert [one.curve.pages[0] for one in found.outcomes] == [0, 0]


def test_breaks_are_copies_of_merged_pages_and_of_placed_zero_pages() -> None:
    made = plan(
        'map = "a.p"\npages = 7', 'write = "a.p[0:3]"\ncontent = "zero"',
        'write = "a.p[3:7]"\ncontent = "x"', "run = 3", 'write = "a.p[2:5]"\ncontent = "y"',
        "run = 0.01",
    )  # fmt: skip
    found = contest(made, "ksm:6.12", "uksm:full", protocol="defaults")
    assert [one.breaks for one in found.outcomes] == [3, 3]


def test_regions_are_opted_in_unless_they_are_opted_out() -> None:
    made = plan(
        'map = "a.p"\npages = 101\nksm = false', 'write = "a.p"\ncontent = "x"',
        'map = "a.q"\npages = 50', 'write = "a.q"\ncontent = "x"', 'unmergeable = "a.q"', "run = 3",
    )  # fmt: skip
    found = contest(made, "ksm:6.12", "uksm:full", protocol="defaults")
    assert found.optimum == 100
    assert [one.saved for one in found.outcomes] == [100, 100]


def test_the_same_seed_gives_the_same_answer_and_another_one_another() -> None:
    made = same_machines(2, 700, "run = 4")
    one, again, other = (
        contest_report(contest(made, "uksm:full", "ksm:6.12", seed=seed)) for seed in (3, 3, 4)
    )
    assert one == again
    assert figures(one, "defaults", "uksm:full") != figures(other, "defaults", "uksm:full")
    assert figures(one, "defaults", "ksm:6.12") == figures(other, "defaults", "ksm:6.12")


PAGES = st.lists(st.sampled_from(["zero", "a", "b", "c", "unique"]), min_size=1, max_size=29)


@settings(max_examples=17)
@given(st.lists(PAGES, min_size=1, max_size=3), st.booleans())
def test_on_quiet_memory_all_reach_the_optimum(machines: list[list[str]], fork: bool) -> None:
    steps = []
    for number, pages in enumerate(machines):
        steps.append(f'map = "m{number}.p"\npages = {len(pages)}')
        steps += [f'write = "m{number}.p[{n}]"\ncontent = "{c}"' for n, c in enumerate(pages)]
    if fork:
        steps.append('fork = "m0"\nas = "child"')
    # A region of one page may never be visited by a UKSM, as docs/uksm.md tells.
    alone = any(len(pages) == 1 for pages in machines)
    made = plan(*steps, "run = 3")
    on = ["ksm:6.18"] if alone else ["ksm:6.18", "uksm:full", "uksm:full-quirks"]
    found = contest(made, *on, protocol="defaults")
    pages = [c for machine in machines for c in machine]
    named = {c for c in pages if c not in ("zero", "unique")}
    expected = len(pages) - len(named) - pages.count("unique")
    assert found.optimum == expected
    assert {one.saved for one in found.outcomes} == {found.optimum}


def test_the_optimum_is_counted_before_anybody_has_scanned() -> None:
    made = plan(
        'map = "a.p"\npages = 13', 'write = "a.p[0:5]"\ncontent = "x"',
        'write = "a.p[5:8]"\ncontent = "zero"', 'read = "a.p[8:10]"', 'fork = "a"\nas = "b"',
    )  # fmt: skip
    stage = ModelStage(made, parse_all(["ksm:6.12"], models_only=True)[0].profile, on="x")
    stage.perform()
    # 16 mappings of 8 frames; read pages are no memory. One frame holds all that is not zero.
    assert optimum(stage.memory) == 15
    assert stage.memory.saved_pages() == 8


def test_settings_of_a_scenario_or_a_user_come_first() -> None:
    made = same_machines(
        2, 211, "run = 1", knobs="pages_to_scan = 50\nmax_page_sharing = 2\nsmart_scan = 0"
    )
    found = contest(made, "ksm:6.12", "ksm:2011")
    assert outcome(found, "ksm:6.12").settings["pages_to_scan"] == 50
    ground = {line.split(":")[1]: line for line in found.ground()}
    assert "max_page_sharing=2," in ground["6.12"]
    assert "smart_scan=0" in ground["6.12"]
    assert "smart_scan" not in ground["2011"]
    assert [protocol.name for protocol in found.protocols] == ["defaults"]
    assert any("ksm:2011" in note and "smart_scan" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "on", "knobs", "words"),
    [
        ("fast", ["ksm:6.12"], "", "no protocol 'fast'"),
        ("cpu", ["ksm:6.12"], "", "no UKSM to equal"),
        ("visits", ["uksm:full"], "", "no KSM"),
        ("cpu", ["ksm:6.12", "uksm:full"], 'advisor_mode = "scan-time"', "the advisor sets"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(
    text: str, on: list[str], knobs: str, words: str
) -> None:
    made = same_machines(2, 7, "run = 1", knobs=knobs)
    with pytest.raises(KsmtraceError, match=words) as caught:
        chosen(text, made, parse_all(on, models_only=True))
    assert caught.value.exit_code == Exit.USAGE


def test_with_the_advisor_only_the_defaults_are_left_and_it_sets_the_pace() -> None:
    knobs = 'advisor_mode = "scan-time"\nadvisor_target_scan_time = 1'
    found = contest(same_machines(2, 1500, "run = 4", knobs=knobs), "ksm:6.12", "uksm:full")
    assert [protocol.name for protocol in found.protocols] == ["defaults"]
    assert outcome(found, "ksm:6.12").settings == {"advisor_mode": "scan-time"}
    assert outcome(found, "ksm:6.12").saved == 1500


@pytest.mark.parametrize(
    ("steps", "words"),
    [(["scan = 1"], "no step lets the scanners work"), (["run = 1", "scan = 1"], "own pace"),
     (["batch = 1", "run = 1"], "own pace")],
)  # fmt: skip
def test_what_is_in_scans_is_no_contest(steps: list[str], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        check_contest(plan('map = "a.p"\npages = 2', *steps))


def test_an_interruption_leaves_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def interrupt(words: str) -> None:
        told.append(words)
        if words.startswith("ksm:6.12") and "50%" in words:
            raise KeyboardInterrupt

    monkeypatch.setattr(track, "_TOLD_EVERY", 1)
    made = same_machines(2, 211, "run = 2")
    places = parse_all(["uksm:full", "ksm:6.12"], models_only=True)
    found = Contest(made, places, chosen(None, made, places), COSTS, 0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        found.run()
    assert [(one.on, one.partial) for one in found.outcomes] == [
        ("uksm:full", False), ("ksm:6.12", True),
    ]  # fmt: skip
    assert found.outcomes[1].seconds == pytest.approx(1, abs=0.05)
    report = contest_report(found)
    assert report["partial"]
    (partial,) = (o for p in report["protocols"] for o in p["outcomes"] if o["partial"])
    assert partial["curve"]["time_s"][-1] == pytest.approx(partial["seconds"], abs=1e-6)


def test_the_shipped_workloads_can_all_be_compared() -> None:
    names = [path.stem for path in shipped_workloads()]
    assert len(names) >= 7
    for name in names:
        made = load_plan(name, {})
        check_contest(made)
        assert made.scenario.title
        assert made.scenario.about
