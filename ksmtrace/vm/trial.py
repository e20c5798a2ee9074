"""Trying a kernel: which backends work there, and whether the model does exactly what it does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel.releases import Profile, running_profile
from ksmtrace.lab import operations as op
from ksmtrace.lab.fidelity import Tally, hold_all_against
from ksmtrace.lab.needs import NEEDS, Need, needs_of
from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import Scenario
from ksmtrace.vm.backends import backend_obstacles


class Tried(Protocol):
    """A real kernel that can be tried: this machine's, or a guest's."""

    profile: Profile
    has: Collection[Need]
    """What it has that not every machine has, see `lab.needs`."""

    def obstacles(self) -> Mapping[str, Sequence[str]]:
        """What keeps each backend from working there, best backend first."""
        ...

    def stage(self, backend: str) -> None:
        """Make ksmd ready, captured by a backend. Raises KsmtraceError."""
        ...

    def perform(self, plan: Plan) -> Performance:
        """Perform a scenario. Raises KsmtraceError."""
        ...


class ThisHost:
    """This machine's kernel. Use `this_host`."""

    def __init__(self, stack: ExitStack) -> None:
        self.profile = running_profile()
        self.has = tuple(need for need in NEEDS if not need.obstacles())
        self._stack = stack
        self._host: Host | None = None

    def obstacles(self) -> dict[str, list[str]]:
        """See `Tried.obstacles`."""
        return backend_obstacles()

    def stage(self, backend: str) -> None:
        """See `Tried.stage`."""
        self._stack.close()
        self._host = self._stack.enter_context(host_stage(backend))

    def perform(self, plan: Plan) -> Performance:
        """See `Tried.perform`."""
        assert self._host is not None
        return self._host.perform(plan)


@contextmanager
def this_host() -> Iterator[ThisHost]:
    """This machine's kernel, to be tried."""
    with ExitStack() as stack:
        yield ThisHost(stack)


@dataclass
class BackendTrial:
    """What became of one backend. why: what it lacks, if it can't work. events: kinds it saw."""

    able: bool
    why: str = ""
    tally: Tally = field(default_factory=Tally)
    events: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """What a kernel was found to do. kept: what it did in each scenario of the best backend."""

    profile: Profile
    backends: dict[str, BackendTrial]
    kept: list[tuple[Plan, Performance]]

    @property
    def best(self) -> BackendTrial:
        """The backend that all scenarios were performed with."""
        return next(trial for trial in self.backends.values() if trial.able)

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and nothing differed from the model anywhere."""
        tallies = [trial.tally for trial in self.backends.values()]
        differ = any(tally.failures or tally.disappointments for tally in tallies)
        return self.best.tally.scenarios > 0 and not differ

    def told(self) -> dict[str, Any]:
        """As plain data, for a table of kernels."""
        tally = self.best.tally
        return {
            "kernel": self.profile.name,
            "agrees": self.agrees,
            "scenarios": tally.scenarios,
            "scans": tally.scans,
            "batches": tally.batches,
            "events": tally.events,
            "ksm_pages": tally.ksm_pages,
            "differing": len(tally.failures) + len(tally.disappointments),
            "backends": {
                name: {
                    "able": trial.able,
                    "why": trial.why,
                    "scenarios": trial.tally.scenarios,
                    "events": trial.events,
                }
                for name, trial in self.backends.items()
            },
        }


def try_kernel(
    kernel: Tried,
    scenarios: Iterable[Scenario],
    few: Sequence[Scenario],
    *,
    each: Callable[[], None] = lambda: None,
) -> Trial:
    """All scenarios with the best backend, a few with every other that works there.

    each: called after every scenario. Raises KsmtraceError where no backend works.
    """
    watched = _Watched(kernel)
    trials: dict[str, BackendTrial] = {}
    kept: list[tuple[Plan, Performance]] = []
    for name, obstacles in kernel.obstacles().items():
        trial = trials[name] = BackendTrial(not obstacles, "; ".join(obstacles))
        if obstacles:
            continue
        kernel.stage(name)
        watched.seen = []
        hold_all_against(watched, scenarios if not kept else few, trial.tally, each=each)
        kept = kept or watched.seen
        ids = {
            int(kind)
            for _, performance in watched.seen
            for seen in performance.observations
            for kind in seen.events["kind"]
        }
        trial.events = [kind.name for kind in TRACEPOINTS if kind.id in ids]
    if not any(trial.able for trial in trials.values()):
        reasons = "; ".join(dict.fromkeys(trial.why for trial in trials.values()))
        raise KsmtraceError(
            f"no capture backend works on Linux {kernel.profile.name}: {reasons}",
            "see ksmtrace doctor there",
            Exit.HOST_CANNOT,
        )
    return Trial(kernel.profile, trials, kept)


class _Watched:
    """A kernel whose performances are kept."""

    def __init__(self, kernel: Tried) -> None:
        self._kernel = kernel
        self.profile = kernel.profile
        self.seen: list[tuple[Plan, Performance]] = []

    def perform(self, plan: Plan) -> Performance:
        performance = self._kernel.perform(plan)
        self.seen.append((plan, performance))
        return performance


def can_be_performed(scenario: Scenario, profile: Profile, has: Collection[Need] = ()) -> bool:
    """Whether a kernel has what the scenario's processes do, and the advisor if it is about it.

    has: what the machine has that not every one has, see `lab.needs`.
    """
    plan = plan_scenario(scenario)
    if not {*needs_of(plan)} <= {*has}:
        return False
    operations = [operation for step in plan.steps for operation in step.operations]
    if any(isinstance(operation, op.MergeAny) for operation in operations):
        return profile.has("6.4")
    knobs = {*plan.knobs, *(one.name for one in operations if isinstance(one, op.SetKnob))}
    return profile.behaviour.advisor or "advisor_mode" not in knobs
