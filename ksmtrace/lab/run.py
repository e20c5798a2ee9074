"""One scenario in several places, compared: what `lab run` and `simulate` do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError, host_cannot
from ksmtrace.lab.compare import Comparison, compare
from ksmtrace.lab.disappointments import Disappointment, disappointments
from ksmtrace.lab.needs import OWN_PACE, needs_of
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.on_uksm import check_uksm, perform_on_uksm
from ksmtrace.lab.performance import Observation, Performance, Watch
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import Scenario, read_scenario
from ksmtrace.lab.where import MODEL, UKSM, Where
from ksmtrace.model.engines import Engine

SHIPPED = Path(__file__).parent / "scenarios"
WORKLOADS = Path(__file__).parent / "workloads"
Progress = Callable[[str, int, int], None]
"""Called with where, step and number of steps."""


@dataclass(frozen=True)
class Run:
    """One scenario, performed in several places. comparisons: each with each of its kind."""

    plan: Plan
    places: tuple[Where, ...]
    performances: tuple[Performance, ...]
    comparisons: tuple[Comparison, ...]
    disappointments: tuple[Disappointment, ...]

    @property
    def agree(self) -> bool:
        """Whether every counter and event is the same in all places."""
        return all(comparison.agree for comparison in self.comparisons)

    @property
    def kinds(self) -> list[list[str]]:
        """The places' names, those together whose scanners are of a kind and so are compared."""
        scanners = dict.fromkeys(place.scanner for place in self.places)
        return [[p.name for p in self.places if p.scanner == scanner] for scanner in scanners]

    @property
    def notes(self) -> list[str]:
        """What was assumed or left out."""
        notes = []
        if len(self.kinds) > 1:
            one, other = (", ".join(kind) for kind in self.kinds)
            notes.append(f"{one} and {other} are told side by side, but not compared")
        notes += [
            f"{name}: what the scenario expects is of KSM, so not held against it"
            for kind in self.kinds
            for name in kind
            if self._is_uksm(name) and any(map(_expects_ksm, self.plan.steps))
        ]
        notes += [f"{w.name}: {w.profile.note}" for w in self.places if w.profile.note]
        for performance in self.performances:
            if "addr" in performance.fields_unknown:
                unknown = ", ".join(performance.fields_unknown)
                notes.append(f"{performance.on}: {unknown} unknown there, and so not compared")
        return notes + [f"{p.on}: {note}" for p in self.performances for note in p.notes]

    def _is_uksm(self, name: str) -> bool:
        return any(place.name == name and place.uksm for place in self.places)


def _expects_ksm(step: PlannedStep) -> bool:
    return bool(step.refused) or any(e.get("scanner") != UKSM for e in step.expect)


def shipped_scenarios() -> list[Path]:
    """The scenarios that come with ksmtrace."""
    return sorted(SHIPPED.glob("*.toml"))


def shipped_workloads() -> list[Path]:
    """Those in which scanners work at their own pace, to be compared."""
    return sorted(WORKLOADS.glob("*.toml"))


def find_scenario(name: str) -> Path:
    """A scenario's file: a path, `-` for standard input, or the name of a shipped one."""
    path = Path(name)
    if name == "-" or path.is_file():
        return path
    for shipped in (SHIPPED / f"{name}.toml", WORKLOADS / f"{name}.toml"):
        if shipped.is_file():
            return shipped
    raise KsmtraceError(
        f"there is no scenario {name}",
        "give a file, or one of those that `ksmtrace lab list` names",
        Exit.USAGE,
    )


def load_plan(name: str, knobs: Mapping[str, str]) -> Plan:
    """A scenario's plan, with some knobs set otherwise. Raises KsmtraceError (usage)."""
    path = find_scenario(name)
    if name == "-":
        from ksmtrace.lab.scenario import parse_scenario

        scenario = parse_scenario(sys.stdin.read(), "standard input")
    else:
        scenario = read_scenario(path)
    return plan_scenario(_with_knobs(scenario, knobs))


def _with_knobs(scenario: Scenario, knobs: Mapping[str, str]) -> Scenario:
    merged: dict[str, Any] = {**scenario.knobs, **knobs}
    return replace(scenario, knobs=merged)


def run_everywhere(
    plan: Plan,
    places: Sequence[Where],
    *,
    on_real: Callable[[Where, Plan, Watch], Performance] | None = None,
    progress: Progress = lambda _where, _step, _steps: None,
    visits: bool = False,
    seed: int = 0,
    engine: Engine = "readable",
) -> Run:
    """Perform a plan in all places, the real ones first, so that models can live in their time.

    on_real: performs on a real kernel, where one of the places is it. The first real one is also
    whose model `model` is. visits: models tell what became of every visit. seed: of UKSM's random
    numbers. Raises KsmtraceError.
    """
    if any(place.real for place in places) and OWN_PACE in needs_of(plan):
        raise host_cannot(OWN_PACE.obstacles(), f"perform {plan.scenario.name}")
    if any(place.uksm for place in places):
        check_uksm(plan)
    done: dict[str, Performance] = {}
    first_real: Performance | None = None
    for place in sorted(places, key=lambda place: not place.real):

        def watch(seen: Observation, name: str = place.name) -> None:
            progress(name, seen.step, len(plan.steps))

        if place.real:
            assert on_real is not None
            done[place.name] = on_real(place, plan, watch)
            first_real = first_real or done[place.name]
            continue
        if place.uksm is not None:
            done[place.name] = perform_on_uksm(plan, place, watch=watch, seed=seed)
            if visits:
                done[place.name].notes.append("the model of UKSM keeps no log of visits")
            continue
        of_first = place.name == MODEL and first_real is not None
        done[place.name] = perform_on_model(
            plan,
            first_real.profile if of_first and first_real else place.profile,
            on=place.name,
            like=first_real.observations if first_real else (),
            watch=watch,
            visits=visits,
            engine=engine,
        )
    places = [replace(place, profile=done[place.name].profile) for place in places]
    performances = tuple(done[place.name] for place in places)
    comparisons = tuple(
        compare(plan, done[one.name], done[other.name])
        for one, other in combinations(places, 2)
        if one.scanner == other.scanner
    )
    unmet = tuple(
        disappointment
        for place in places
        for disappointment in disappointments(plan, done[place.name], place.scanner)
    )
    return Run(plan, tuple(places), performances, comparisons, unmet)
