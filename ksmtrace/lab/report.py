"""A run as plain data with stable names: what --json prints and what the view shows."""

from __future__ import annotations

from typing import Any

from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME
from ksmtrace.lab.compare import Comparison
from ksmtrace.lab.notation import without_scans
from ksmtrace.lab.performance import Observation
from ksmtrace.lab.run import Run


def report_of(run: Run) -> dict[str, Any]:
    """Everything that a run found.

    {"agree": bool, "on": [...], "scans": [{"scan": n, "counters": {name: {on: value}},
    "events_agree": bool, ...}], "steps": [...], "first_difference": {...} or None, ...}. A counter
    that a place does not have is left out there. "kinds": the places, those together that were
    compared; what agrees, agrees within each kind.
    """
    steps = [_step(run, number) for number in range(len(run.plan.steps))]
    return {
        "scenario": run.plan.scenario.name,
        "title": run.plan.scenario.title,
        "about": run.plan.scenario.about,
        "on": [place.name for place in run.places],
        "kernels": {place.name: ".".join(map(str, place.profile.version)) for place in run.places},
        "kinds": run.kinds,
        "agree": run.agree,
        "as_expected": not run.disappointments,
        "disappointments": [str(disappointment) for disappointment in run.disappointments],
        "first_difference": _first_difference(run),
        "notes": run.notes,
        "scans": [scan for step in steps for scan in step["seen"] if scan["scan"] is not None],
        "steps": steps,
    }


def _step(run: Run, index: int) -> dict[str, Any]:
    planned = run.plan.steps[index]
    numbers = [
        number
        for number, seen in enumerate(run.performances[0].observations)
        if seen.step == planned.number
    ]
    return {
        "step": planned.number,
        "where": planned.step.where,
        "does": planned.does,
        "say": planned.say,
        "seen": [_seen(run, number) for number in numbers],
    }


def _seen(run: Run, number: int) -> dict[str, Any]:
    all_seen = [performance.observations[number] for performance in run.performances]
    compared = [comparison.observations[number] for comparison in run.comparisons]
    names = [place.name for place in run.places]
    return {
        "scan": all_seen[0].scan,
        "counters": _counters(names, all_seen),
        "processes": {
            name: {process: dict(values) for process, values in seen.processes.items()}
            for name, seen in zip(names, all_seen, strict=True)
        },
        "events": {
            name: list(seen.told) for name, seen in zip(names, all_seen, strict=True)
        },
        "visits": {
            name: [list(visit) for visit in seen.visits]
            for name, seen in zip(names, all_seen, strict=True)
            if seen.visits
        },
        "refused": {name: seen.refused for name, seen in zip(names, all_seen, strict=True)},
        "counters_agree": all(not one.counters for one in compared),
        "events_agree": all(one.events is None for one in compared),
    }  # fmt: skip


def _counters(names: list[str], all_seen: list[Observation]) -> dict[str, dict[str, int]]:
    own = [name for seen in all_seen for name in seen.counters if name not in COUNTERS_BY_NAME]
    return {
        counter: values
        for counter in dict.fromkeys([*COUNTERS_BY_NAME, *own])
        if (
            values := {
                name: seen.counters[counter]
                for name, seen in zip(names, all_seen, strict=True)
                if counter in seen.counters
            }
        )
    }


def _first_difference(run: Run) -> dict[str, Any] | None:
    found = [
        (number, compared, comparison)
        for comparison in run.comparisons
        for number, compared in enumerate(comparison.observations)
        if not compared.agrees
    ]
    if not found:
        return None
    number, compared, comparison = min(found, key=lambda one: one[0])
    told: dict[str, Any] = {
        "step": compared.step,
        "where": run.plan.steps[compared.step - 1].step.where,
        "scan": compared.scan,
        "between": [comparison.first.on, comparison.second.on],
        "counters": {name: list(values) for name, values in compared.counters.items()},
        "event": None,
    }
    if compared.events is not None:
        told["event"] = {
            "why": compared.events.why,
            "number": compared.events.at,
            "told": list(compared.events.told),
            "before": _before(comparison, number, compared.events.at),
        }
    return told


def _before(comparison: Comparison, number: int, at: int) -> list[str]:
    """The last events that both sides had."""
    told = comparison.first.observations[number].told[:at]
    return without_scans(told)[-3:]
