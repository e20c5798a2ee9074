"""Expectations that a performance did not meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksmtrace.lab.expectations import ABSENT, CONDITIONS, applies
from ksmtrace.lab.notation import without_scans
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan, PlannedStep


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


def disappointments(
    plan: Plan, performance: Performance, scanner: str = "ksm"
) -> list[Disappointment]:
    """Every expectation that a performance did not meet. scanner: ksm or uksm."""
    found: list[Disappointment] = []
    for step in plan.steps:
        for expectation in step.expect:
            if applies(expectation, performance.profile, scanner):
                found += _unmet(step, expectation, performance)
        if scanner != "ksm":
            continue
        refused = {seen.refused or "" for seen in performance.of_step(step.number)} - {""}
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
                told = [
                    line for o in performance.of_step(step.number) for line in without_scans(o.told)
                ]
                if not _same_events(value, told):
                    unmet.append(("the events", value, told))
        elif isinstance(value, dict):
            numbers = last.processes.get(key, {})
            unmet += [
                (f"{key}'s {name}", number, numbers.get(name, ABSENT))
                for name, number in value.items()
                if not _met(number, numbers.get(name))
            ]
        elif key not in last.counters and expectation.get("scanner") == "uksm":
            # Not checked in the plan, where UKSM's counters aren't known.
            unmet.append((key, value, ABSENT))
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
