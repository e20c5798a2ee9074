"""Performing a scenario on the reference scanner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.costs import Costs, host_costs
from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.stepper import ALL_PAGES
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab import operations as op
from ksmtrace.lab.fast_domain import check_fast
from ksmtrace.lab.pace import KsmPace, Pace
from ksmtrace.lab.performance import Moment, Observation, Performance, Watch
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.scenario import ScenarioError
from ksmtrace.lab.stage import Stage
from ksmtrace.model.clock import Clock
from ksmtrace.model.engines import Engine, model_of
from ksmtrace.model.ksm import KnobRefused
from ksmtrace.model.memory import Mm

VISIT_NS = 2000
"""What a visit is taken to cost where no real run tells: ksmd does some 500,000 a second."""


class _Clock(Clock):
    """Time as a real run had it, where there was one: set at each batch's begin and end."""

    at_end: Moment | None = None

    def scan_ends(self) -> None:
        if self.at_end is not None:
            self.set(self.at_end)

    def set(self, moment: Moment) -> None:
        self.now_ns, self.ksmd_cpu_ns = moment.now_ns, moment.ksmd_cpu_ns


class ModelStage(Stage):
    """Simulated processes and a simulated ksmd. costs: of its work at its own pace, this host's."""

    def __init__(
        self,
        plan: Plan,
        profile: Profile,
        *,
        on: str,
        check_invariants: bool = False,
        visits: bool = False,
        count_work: bool = False,
        engine: Engine = "readable",
        costs: Costs | None = None,
    ) -> None:
        self.engine = engine
        self._times = _Clock(visit_ns=VISIT_NS)
        if engine == "fast":
            check_fast(plan)
        paced = any(isinstance(o, op.Run) for step in plan.steps for o in step.operations)
        memory, self.scanner = model_of(
            profile,
            self._times,
            engine,
            check_invariants=check_invariants,
            log_visits=visits,
            log_item_lives=True,
            count_work=count_work or paced,
        )
        super().__init__(plan, memory, Performance(on, profile), self._times)
        self._costs = costs
        self._pace: KsmPace | None = None

    def prepare(self) -> None:
        """See `Stage`."""
        self._set_knobs(self._plan.knobs)
        if "pages_to_scan" not in self._plan.knobs and not self._advised():
            self.scanner.set_knob("pages_to_scan", ALL_PAGES)

    def perform(
        self, *, watch: Watch = lambda _seen: None, like: Sequence[Observation] = ()
    ) -> Performance:
        """See `Stage`."""
        performance = super().perform(watch=watch, like=like)
        performance.item_lives = self.scanner.item_lives
        return performance

    def _advised(self) -> bool:
        return self.scanner.knobs.get("advisor_mode", "none") != "none"

    def _set_knobs(self, knobs: Mapping[str, str]) -> None:
        for name in in_order(knobs):
            value = knobs[name]
            try:
                self.set_knob(name, value)
            except KnobRefused as error:
                raise ScenarioError(
                    self._plan.scenario.name, f"the kernel refuses {name} = {value}: {error}"
                ) from None

    def set_knob(self, name: str, value: str) -> None:
        """See `Stage`."""
        if self.scanner.profile.has(KNOBS_BY_NAME[name].since):
            self.scanner.set_knob(name, value)
            if (name, value) == ("run", "2"):
                # As on the host, where ksmd runs in steps only: so the next run=2 is one again.
                self.scanner.set_knob("run", "0")
            return
        note = f"there is no knob {name}; it came with Linux {KNOBS_BY_NAME[name].since}"
        if note not in self.performance.notes:
            self.performance.notes.append(note)

    def counters(self) -> dict[str, int]:
        """See `Stage`."""
        return self.scanner.counters

    def ksm_stat(self, mm: Mm) -> dict[str, int]:
        """See `Stage`."""
        return self.scanner.ksm_stat(mm)

    def take_events(self) -> EventBatch:
        """See `Stage`."""
        return self.scanner.take_events()

    def full_scans(self) -> int:
        """See `Stage`."""
        return self.scanner.counters["full_scans"]

    def scan(self) -> None:
        """See `Stage`."""
        self.scanner.finish_scan()

    def batch(self, pages: int) -> None:
        """See `Stage`."""
        self.scanner.do_batch(pages)

    def pace(self) -> Pace:
        """See `Stage`."""
        if self._pace is None:
            self._pace = KsmPace(self.scanner, self.clock, self._costs or host_costs().costs)
        return self._pace

    def run(self, operation: op.Run, watch: Callable[[], None] = lambda: None) -> None:
        """See `Stage`; with the default pages_to_scan where nothing has set it."""
        stepping = self.scanner.knobs["pages_to_scan"] == str(ALL_PAGES)
        if stepping:
            self.scanner.set_knob("pages_to_scan", KNOBS_BY_NAME["pages_to_scan"].default)
        super().run(operation, watch)
        if stepping:
            self.scanner.set_knob("pages_to_scan", ALL_PAGES)

    def _live_in_the_time_of(self, real: Observation) -> None:
        if real.begin is not None:
            self._times.set(real.begin)
            self._times.at_end = real.end

    def _visits(self) -> tuple[tuple[str, str], ...]:
        if self.engine == "fast":
            return ()
        return tuple(
            (self.name_of(visit.mm, visit.address), "; ".join(map(str, visit.steps)))
            for visit in self.scanner.take_visits()
        )


def perform_on_model(
    plan: Plan,
    profile: Profile,
    *,
    on: str | None = None,
    like: Sequence[Observation] = (),
    watch: Watch = lambda _seen: None,
    check_invariants: bool = False,
    visits: bool = False,
    engine: Engine = "readable",
) -> Performance:
    """Perform a scenario on the reference scanner.

    on: how the result is called. like: a real run's observations; the model then lives in its
    time. watch: called with each observation. visits: tell what became of each page visit. engine:
    which of the two with the same answers. Raises KsmtraceError for what the release can't do.
    """
    stage = ModelStage(
        plan,
        profile,
        on=on or f"ksm:{profile.name}",
        check_invariants=check_invariants,
        visits=visits,
        engine=engine,
    )
    return stage.perform(watch=watch, like=like)
