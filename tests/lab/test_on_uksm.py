from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.lab.families import FAMILIES
from ksmtrace.lab.on_uksm import UksmStage
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import random_scenario
from ksmtrace.lab.run import shipped_scenarios
from ksmtrace.lab.scenario import ScenarioError, read_scenario
from ksmtrace.lab.where import parse_where

WRITTEN = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))
PLACES = [parse_where(name) for name in ("uksm:full", "uksm:quiet-quirks")]


def performed(plan: Plan, number: int = 0) -> bool:
    """Whether it can be performed; every invariant holds after each wake-up, and the books agree.

    Anything but a refusal with file and line is a failure.
    """
    place = PLACES[number % len(PLACES)]
    try:
        stage = UksmStage(plan, place, seed=number, check_invariants=True)
        performance = stage.perform()
    except ScenarioError:
        return False
    assert len(performance.observations) == sum(len(step.operations) for step in plan.steps)
    assert stage.scanner.saved_pages() >= 0
    return True


def test_every_shipped_scenario_can_be_performed() -> None:
    assert all(performed(plan_scenario(read_scenario(path))) for path in shipped_scenarios())


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_any_written_scenario_is_performed_or_refused_by_name(path: Path) -> None:
    plan = plan_scenario(read_scenario(path))
    refused = ("batch =", "swap_out =", "migrate =")
    impossible = any(word in path.read_text() for word in refused)
    assert performed(plan, WRITTEN.index(path)) != impossible


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_random_scenarios_are_performed_or_refused_by_name(family: object) -> None:
    for seed in range(3):
        performed(plan_scenario(random_scenario(family, seed)), seed)  # type: ignore[arg-type]
