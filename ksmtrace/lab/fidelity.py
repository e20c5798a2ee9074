"""How exact the reference scanner is: many scenarios on the real ksmd and on the model.

Every counter after every operation and every event must agree. Which branches of the algorithm the
scenarios reached is counted as well, because what was never reached was never compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.releases import Profile
from ksmtrace.lab.compare import Comparison, compare
from ksmtrace.lab.disappointments import Disappointment, disappointments
from ksmtrace.lab.needs import Need
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, LARGE, random_scenario
from ksmtrace.lab.scenario import Scenario
from ksmtrace.model.branches import Branch


class RealKernel(Protocol):
    """A real ksmd to hold the model against: this machine's, or a guest's."""

    profile: Profile

    def perform(self, plan: Plan) -> Performance:
        """Perform a scenario."""
        ...


@dataclass(frozen=True)
class Failure:
    """A scenario in which they differ, made as short as it still does."""

    scenario: Scenario
    plan: Plan
    comparison: Comparison


@dataclass
class Tally:
    """What was compared so far. reached: in how many scenarios each branch was taken."""

    scenarios: int = 0
    operations: int = 0
    scans: int = 0
    batches: int = 0
    events: int = 0
    ksm_pages: int = 0
    reached: Counter[Branch] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    disappointments: list[Disappointment] = field(default_factory=list)

    def unreached(self) -> list[Branch]:
        """Branches that nothing reached although the lab could have."""
        return [b for b in Branch if not self.reached[b] and not b.value.unreachable]


def random_scenarios(
    small: int, large: int, seed: int, profile: Profile, *, has: Collection[Need] = ()
) -> Iterator[Scenario]:
    """So many scenarios of the families in turn, then so many large ones; numbered from `seed`.

    has: what the machine has that not every one has; families that it can't perform, and those
    that came with a later release, are left out.
    """
    families = [f for f in FAMILIES if profile.has(f.since) and not {*f.needs} - {*has}]
    for number in range(small):
        yield random_scenario(families[number % len(families)], seed + number // len(families))
    for number in range(large):
        yield random_scenario(LARGE, seed + number)


def hold_against(host: RealKernel, scenario: Scenario, tally: Tally | None = None) -> Comparison:
    """Perform a scenario on both and compare; counted in `tally` if there is one."""
    plan = plan_scenario(scenario)
    real = host.perform(plan)
    stage = ModelStage(plan, host.profile, on=f"ksm:{host.profile.name}", check_invariants=False)
    model = stage.perform(like=real.observations)
    if tally is not None:
        tally.scenarios += 1
        tally.operations += len(real.observations)
        tally.scans += sum(seen.scan is not None for seen in real.observations)
        tally.batches += sum(seen.begin is not None for seen in real.observations)
        tally.events += sum(len(seen.events) for seen in real.observations)
        tally.ksm_pages += stage.scanner.reached[Branch.NEW_KSM_PAGE]
        tally.reached.update(list(stage.scanner.reached))
        if any(step.expect or step.refused for step in plan.steps):
            tally.disappointments += disappointments(plan, real)
    return compare(plan, real, model)


def hold_all_against(
    host: RealKernel,
    scenarios: Iterable[Scenario],
    tally: Tally,
    *,
    each: Callable[[], None] = lambda: None,
    most_failures: int = 5,
) -> None:
    """Compare many scenarios; gives up after some failures. each: called after every scenario."""
    for scenario in scenarios:
        comparison = hold_against(host, scenario, tally)
        if not comparison.agree:
            shortest = shrink(scenario, lambda s: not hold_against(host, s).agree)
            comparison = hold_against(host, shortest)
            tally.failures.append(Failure(shortest, plan_scenario(shortest), comparison))
        each()
        if len(tally.failures) >= most_failures:
            return


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """A scenario with as few steps as possible that still fails."""
    steps = list(scenario.steps)
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            candidate = Scenario(
                scenario.name, scenario.title, scenario.about, scenario.knobs, tuple(fewer)
            )
            if _still_fails(candidate, fails):
                steps = fewer
            else:
                at += size
        size //= 2
    return Scenario(scenario.name, scenario.title, scenario.about, scenario.knobs, tuple(steps))


def _still_fails(candidate: Scenario, fails: Callable[[Scenario], bool]) -> bool:
    try:
        return fails(candidate)
    except KsmtraceError:
        # What is left makes no sense without what was taken out.
        return False
