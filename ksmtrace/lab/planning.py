"""From a scenario's steps to operations, with everything checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ksmtrace.lab.expectations import check_expectation
from ksmtrace.lab.operations import Operation, SetKnob
from ksmtrace.lab.plan import BESIDE, Plan, PlannedStep
from ksmtrace.lab.planner import Planner, knob_text
from ksmtrace.lab.scenario import Scenario, Step
from ksmtrace.lab.verbs import VERBS


def plan_scenario(scenario: Scenario) -> Plan:
    """Check a scenario and turn it into operations. Raises ScenarioError with file and line."""
    planner = Planner()
    planner.where = scenario.name
    knobs = {name: knob_text(planner.error, name, v) for name, v in scenario.knobs.items()}
    planned = []
    for number, step in enumerate(scenario.steps, start=1):
        planner.where = step.where
        values = dict(step.values)
        beside = {key: values.pop(key) for key in BESIDE if key in values}
        verbs = [key for key in values if key in VERBS]
        if len(verbs) > 1:
            raise planner.error(f"a step does one thing, this one {' and '.join(verbs)}")
        if not verbs and values:
            unknown = next(iter(values))
            raise planner.error(f"{unknown!r} is no step", f"the steps are {', '.join(VERBS)}")
        operations: tuple[Operation, ...] = ()
        if verbs:
            verb = VERBS[verbs[0]]
            subject = values.pop(verbs[0])
            for key in values:
                if key not in verb.options:
                    has = ", ".join(verb.options) or "no options"
                    raise planner.error(f"{verb.name} has no option {key!r}", f"it has {has}")
            operations = tuple(verb.resolve(planner, subject, values))
        planned.append(_planned(planner, number, step, operations, beside))
    return Plan(scenario, knobs, tuple(planned), planner.places, tuple(planner.processes))


def _planned(
    planner: Planner,
    number: int,
    step: Step,
    operations: tuple[Operation, ...],
    beside: Mapping[str, Any],
) -> PlannedStep:
    say, refused = beside.get("say", ""), beside.get("refused", "")
    for name in ("say", "intro"):
        if not isinstance(beside.get(name, ""), str):
            raise planner.error(f"{name} must be a text")
    known = isinstance(refused, str) and refused in ("", "EBUSY", "EINVAL")
    if not known or (refused and not _sets_a_knob(operations)):
        raise planner.error('refused is "EBUSY" or "EINVAL", beside set')
    expect = beside.get("expect", [])
    expectations = [expect] if isinstance(expect, dict) else expect
    if not isinstance(expectations, list) or not all(isinstance(e, dict) for e in expectations):
        raise planner.error("expect must be a table, or a list of tables")
    for expectation in expectations:
        check_expectation(planner, expectation)
    return PlannedStep(number, step, operations, say, tuple(expectations), refused)


def _sets_a_knob(operations: tuple[Operation, ...]) -> bool:
    return any(isinstance(operation, SetKnob) for operation in operations)
