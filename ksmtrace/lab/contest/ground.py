"""Fair ground: the same memory and the same settings for all, and the best that one could reach."""

from __future__ import annotations

from dataclasses import replace

from ksmtrace.kernel.costs import Costs
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab import operations as op
from ksmtrace.lab.contest.tuning import Settings
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.scenario import ScenarioError
from ksmtrace.lab.where import Where
from ksmtrace.model.content import ZERO
from ksmtrace.model.memory import Memory

FAIR = {
    "use_zero_pages": "1",
    "max_page_sharing": "1000000",
    "merge_across_nodes": "1",
    "advisor_mode": "none",
}
"""KSM's settings where neither scenario nor user says otherwise: UKSM has no such limits."""


def run_seconds(plan: Plan) -> float:
    """For how long scanners work at their own pace, in seconds of simulated time."""
    return sum(o.milliseconds for o in _operations(plan) if isinstance(o, op.Run)) / 1000


def _operations(plan: Plan) -> list[op.Operation]:
    return [operation for step in plan.steps for operation in step.operations]


def check_contest(plan: Plan) -> None:
    """Raise ScenarioError for a scenario in which scanners can't be compared."""
    if not run_seconds(plan):
        raise ScenarioError(
            plan.scenario.name,
            "no step lets the scanners work at their own pace",
            "add one, as in run = 60; `ksmtrace lab list` names workloads that have it",
        )
    for step in plan.steps:
        if any(isinstance(operation, op.Scan | op.Batch) for operation in step.operations):
            raise ScenarioError(
                step.step.where,
                "scanners are compared at their own pace, so not with scan or batch beside run",
                "leave these steps out, or perform it by: ksmtrace lab run FILE --on ksm:6.12",
            )


def default_settings(plan: Plan) -> Settings:
    """How fast ksmd goes unless it is tuned: as the scenario says, or the kernel."""
    names = ("pages_to_scan", "sleep_millisecs")
    values = [plan.knobs.get(name, KNOBS_BY_NAME[name].default) for name in names]
    if not all(value.isdecimal() for value in values):
        raise ScenarioError(plan.scenario.name, f"the kernel refuses {' or '.join(names)}")
    return Settings(*map(int, values))


def fair_knobs(plan: Plan, profile: Profile) -> dict[str, str]:
    """KSM's settings, but for how fast it goes; those that the release has."""
    known = {name: value for name, value in FAIR.items() if profile.has(KNOBS_BY_NAME[name].since)}
    return known | dict(plan.knobs)


def is_advised(plan: Plan) -> bool:
    """Whether ksmd's advisor sets pages_to_scan."""
    return plan.knobs.get("advisor_mode", "none") != "none"


class KsmContestant(ModelStage):
    """Ksmd on fair ground: all memory is opted in, as UKSM takes all."""

    def __init__(self, plan: Plan, place: Where, settings: Settings | None, costs: Costs) -> None:
        knobs = fair_knobs(plan, place.profile)
        if settings is not None:
            knobs["pages_to_scan"] = str(settings.pages_to_scan)
            knobs["sleep_millisecs"] = str(settings.sleep_millisecs)
        super().__init__(replace(plan, knobs=knobs), place.profile, on=place.name, costs=costs)

    def _do(self, operation: op.Operation) -> None:
        super()._do(operation)
        if isinstance(operation, op.Map):
            start, end = operation.start, operation.start + operation.length
            self.memory.madvise_mergeable(self._mms[operation.process], start, end)


class Nobody:
    """A scanner that never wakes; see `Pace`."""

    next_ns = 1 << 62

    def wake(self) -> None:
        """Never called."""


def optimum(memory: Memory) -> int:
    """Pages that would be saved if all equal pages were one and zero pages none.

    Of regions that were opted out nothing but what fork shares. The memory must not have been
    scanned, and be KSM's: that is where regions say whether they are opted in.
    """
    mapped = 0
    frames = set()
    contents = set()
    for mm in memory.mms:
        for vma in mm.vmas:
            for address in mm.mapped_in(vma.start, vma.end):
                frame = mm.pages[address]
                if frame is memory.zero_frame:
                    continue
                mapped += 1
                if vma.mergeable:
                    contents.add(frame.content)
                else:
                    frames.add(frame)
    contents.discard(ZERO)
    return mapped - len(frames) - len(contents)
