"""The scenarios T1 to T61 on the real ksmd: as written, and as modelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtrace.lab.compare import Comparison, compare
from ksmtrace.lab.disappointments import disappointments
from ksmtrace.lab.needs import missing, needs_of
from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.operations import MergeAny
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import read_scenario

FOLDER = Path(__file__).parents[1] / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("T*.toml"))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with host_stage() as stage:
        yield stage


def came_with(plan: Plan) -> str:
    """The first release that can do it at all."""
    if any("advisor_mode" in step.step.values.get("set", {}) for step in plan.steps):
        return "6.8"
    operations = [operation for step in plan.steps for operation in step.operations]
    return "6.4" if any(isinstance(o, MergeAny) for o in operations) else "2.6.38"


def differences(comparison: Comparison) -> list[str]:
    """Everything that differs."""
    found = []
    for compared in comparison.observations:
        found += [f"step {compared.step}: {name}" for name in compared.counters]
        event = compared.events
        if event is not None:
            found.append(f"{event.where}: {event.why}: {event.told[0]} against {event.told[1]}")
    return found


def performed(host: Host, plan: Plan) -> Performance:
    if not host.profile.has(came_with(plan)):
        pytest.skip(f"Linux {host.profile.name} can't: this came with {came_with(plan)}")
    if lacking := missing(needs_of(plan)):
        pytest.skip("; ".join(map(str, lacking)))
    return host.perform(plan)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_does_what_the_scenario_says_and_so_does_the_model(
    name: str, host: Host
) -> None:
    plan = plan_scenario(read_scenario(FOLDER / f"{name}.toml"))
    real = performed(host, plan)
    assert [str(one) for one in disappointments(plan, real)] == []
    model = perform_on_model(plan, host.profile, like=real.observations, check_invariants=True)
    assert differences(compare(plan, real, model)) == []


def test_a_scenario_that_says_something_else_disappoints(host: Host, tmp_path: Path) -> None:
    wrong = tmp_path / "T02.toml"
    text = (FOLDER / "T02.toml").read_text()
    wrong.write_text(text.replace('"ADD a.p[0] to a.p[1]"', '"ADD a.p[1] to a.p[0]"'))
    plan = plan_scenario(read_scenario(wrong))
    [found] = disappointments(plan, host.perform(plan))
    assert found.what == "the events"
    assert found.seen == ["NEW a.p[1]", "ADD a.p[0] to a.p[1]"]


def test_a_model_with_another_smart_scan_differs(host: Host) -> None:
    plan = plan_scenario(read_scenario(FOLDER / "T14a.toml"))
    real = host.perform(plan)
    behaviour = replace(host.profile.behaviour, smart_scan=not host.profile.behaviour.smart_scan)
    other = replace(host.profile, behaviour=behaviour)
    assert differences(compare(plan, real, perform_on_model(plan, host.profile))) == []
    assert differences(compare(plan, real, perform_on_model(plan, other)))
