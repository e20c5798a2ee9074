"""What a scenario says should be seen: `expect` beside a step, checked on each performance.

An expectation is a table of counters, of `events`, and of processes with their ksm_stat lines. It
may be limited to some kernels: since, until (releases, both included), with, without (fixes). A
counter that a release does not have is not checked there; "absent" demands that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksmtrace.kernel.releases import FIXES_BY_NAME, Profile, parse_release
from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME
from ksmtrace.lab.notation import without_scans
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan, PlannedStep, Planner

CONDITIONS = ("since", "until", "with", "without")
ABSENT = "absent"
MORE_COUNTERS = {"ksm_zero_pages"}


@dataclass(frozen=True)
class Disappointment:
    """An expectation that was not met. where: file and line."""

    on: str
    where: str
    what: str
    expected: Any
    seen: Any

    def __str__(self) -> str:
        return f"{self.where}: on {self.on}, {self.what} is {self.seen}, not {self.expected}"


def check_expectation(planner: Planner, expectation: Mapping[str, Any]) -> None:
    """Raise ScenarioError for an expectation that can never be checked."""
    for key, value in expectation.items():
        if key in ("since", "until"):
            if not isinstance(value, str) or parse_release(value) == (0, 0, 0):
                raise planner.error(f'{key} must be a release like "6.11"')
        elif key in ("with", "without"):
            if value not in FIXES_BY_NAME:
                raise planner.error(f"{key} must be one of {', '.join(FIXES_BY_NAME)}")
        elif key == "events":
            if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
                raise planner.error(
                    "events must be a list of texts", 'for example ["NEW a.heap[1]"]'
                )
        elif key in planner.processes and isinstance(value, dict):
            for name, number in value.items():
                _check_number(planner, name, number)
        else:
            _check_number(planner, key, value)


def _check_number(planner: Planner, name: str, value: object) -> None:
    if name not in COUNTERS_BY_NAME:
        raise planner.error(
            f"expect: there is no counter or process {name!r}",
            f"the counters are {', '.join(COUNTERS_BY_NAME)}",
        )
    if value != ABSENT and (isinstance(value, bool) or not isinstance(value, int)):
        raise planner.error(f'expect: {name} must be a whole number or "{ABSENT}"')


def applies(expectation: Mapping[str, Any], profile: Profile) -> bool:
    """Whether an expectation is meant for this kernel."""
    version = profile.version[:2]
    if "since" in expectation and version < parse_release(expectation["since"])[:2]:
        return False
    if "until" in expectation and version > parse_release(expectation["until"])[:2]:
        return False
    if "with" in expectation and expectation["with"] not in profile.fixes:
        return False
    return "without" not in expectation or expectation["without"] not in profile.fixes


def disappointments(plan: Plan, performance: Performance) -> list[Disappointment]:
    """Every expectation that a performance did not meet."""
    found: list[Disappointment] = []
    for step in plan.steps:
        for expectation in step.expect:
            if applies(expectation, performance.profile):
                found += _unmet(step, expectation, performance)
        refused = {seen.refused for seen in performance.of_step(step)} - {""}
        wanted = {step.refused} - {""}
        if refused != wanted:
            found.append(
                Disappointment(
                    performance.on, step.step.where, "what the kernel refused with",
                    step.refused or "nothing", ", ".join(refused) or "nothing",
                )
            )  # fmt: skip
    return found


def _unmet(
    step: PlannedStep, expectation: Mapping[str, Any], performance: Performance
) -> list[Disappointment]:
    seen = [o for o in performance.observations if o.step <= step.number]
    if not seen:
        return []
    last = seen[-1]
    unmet: list[tuple[str, Any, Any]] = []
    for key, value in expectation.items():
        if key in CONDITIONS:
            continue
        if key == "events":
            if performance.has_events and "addr" not in performance.fields_unknown:
                told = [line for o in performance.of_step(step) for line in without_scans(o.told)]
                if not _same_events(value, told):
                    unmet.append(("the events", value, told))
        elif isinstance(value, dict):
            numbers = last.processes.get(key, {})
            unmet += [
                (f"{key}'s {name}", number, numbers.get(name, ABSENT))
                for name, number in value.items()
                if not _met(number, numbers.get(name))
            ]
        elif not _met(value, last.counters.get(key)):
            unmet.append((key, value, last.counters.get(key, ABSENT)))
    return [Disappointment(performance.on, step.step.where, *what) for what in unmet]


def _met(expected: object, seen: int | None) -> bool:
    if expected == ABSENT:
        return seen is None
    return seen is None or seen == expected


def _same_events(expected: list[str], told: list[str]) -> bool:
    """`ADD x` is met by `ADD x to y`, and GONE by `GONE y`."""
    return len(expected) == len(told) and all(
        line == wanted or line.startswith(f"{wanted} ")
        for wanted, line in zip(expected, told, strict=True)
    )
