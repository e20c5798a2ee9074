"""What of the scenario language the fast engine does not do: refused before anything runs."""

from __future__ import annotations

from ksmtrace.lab import operations as op
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.scenario import ScenarioError


def refusal(plan: Plan) -> str | None:
    """The first thing in a scenario that the fast engine can't do, with where; None if it can all.

    Held pages, huge pages, stops within a full scan, and work at ksmd's own pace.
    """
    for step in plan.steps:
        for operation in step.operations:
            what = _what(operation)
            if what:
                return f"{step.step.where}: {what}"
    return None


def check_fast(plan: Plan) -> None:
    """Raise ScenarioError unless the fast engine can do all of it."""
    outside = refusal(plan)
    if outside:
        raise ScenarioError(
            plan.scenario.name,
            f"the fast engine can't do {outside}; --engine readable can",
        )


def _what(operation: op.Operation) -> str | None:
    match operation:
        case op.Pin() | op.Unpin():
            return "a page that is held (pin)"
        case op.Batch():
            return "a stop within a full scan (batch)"
        case op.Run():
            return "work at ksmd's own pace (run)"
        case op.Map(huge=True):
            return "huge pages"
    return None
