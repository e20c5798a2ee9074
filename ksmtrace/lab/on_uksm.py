"""Performing a scenario on the model of UKSM.

Scenarios are written for KSM. UKSM takes memory without being asked, has no knobs of KSM's but
`run`, and visits pages in no order that one could stop in.
"""

from __future__ import annotations

from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.costs import Costs, host_costs
from ksmtrace.lab import operations as op
from ksmtrace.lab.pace import Pace, UksmPace
from ksmtrace.lab.performance import Observation, Performance, Watch
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.scenario import ScenarioError
from ksmtrace.lab.stage import Stage
from ksmtrace.lab.where import Where
from ksmtrace.model.clock import Clock
from ksmtrace.model.memory import Memory, Mm
from ksmtrace.model.uksm.scanner import UksmScanner

_SCAN_IS = (
    "a scan is: until every page was visited once, but for regions that UKSM passes over;"
    " full_scans are UKSM's own rounds"
)


def check_uksm(plan: Plan) -> None:
    """Raise ScenarioError, by the step's name, for what UKSM or its model can't do."""
    for step in plan.steps:
        for operation in step.operations:
            match operation:
                case op.Batch():
                    what = "batch: UKSM visits pages in random order, in quotas of its own"
                case op.SwapOut():
                    what = "swap_out: the model of UKSM has no swap"
                case op.Migrate():
                    what = "migrate: the model of UKSM moves no pages between nodes"
                case _:
                    continue
            raise ScenarioError(
                step.step.where, f"uksm can't do {what}", "leave the step out, or name only ksm:..."
            )


class UksmStage(Stage):
    """Simulated processes and a simulated UKSM. costs: of its work, this host's if None.

    seed: of the random numbers that UKSM lives by. visits: have its visits told. Raises
    ScenarioError for what it can't do.
    """

    def __init__(
        self,
        plan: Plan,
        place: Where,
        *,
        costs: Costs | None = None,
        seed: int = 0,
        check_invariants: bool = False,
        visits: bool = False,
    ) -> None:
        assert place.uksm is not None
        check_uksm(plan)
        clock, memory = Clock(), Memory()
        self.scanner = UksmScanner(
            memory,
            place.uksm.governor,
            quirks=place.uksm.quirks,
            costs=costs or host_costs().costs,
            seed=seed,
            clock=clock,
            check_invariants=check_invariants,
            log_visits=visits,
        )
        super().__init__(plan, memory, Performance(place.name, place.profile), clock)
        self._scans = 0
        self._pace: UksmPace | None = None

    def prepare(self) -> None:
        """See `Stage`."""
        for name, value in self._plan.knobs.items():
            self.set_knob(name, value)

    def set_knob(self, name: str, value: str) -> None:
        """See `Stage`: what UKSM hasn't is told in a note."""
        if name == "run" and value in ("0", "1"):
            self.scanner.set_knob(name, value)
            return
        note = f"{name} = {value} does nothing: UKSM has no such setting"
        if note not in self.performance.notes:
            self.performance.notes.append(note)

    def counters(self) -> dict[str, int]:
        """See `Stage`."""
        return self.scanner.counters | {"cow_ksm": self.memory.cow_ksm}

    def ksm_stat(self, mm: Mm) -> dict[str, int]:  # noqa: ARG002 as declared
        """See `Stage`: UKSM keeps none."""
        return {}

    def take_events(self) -> EventBatch:
        """See `Stage`."""
        return self.scanner.take_events()

    def scan(self) -> None:
        """See `Stage`."""
        if _SCAN_IS not in self.performance.notes:
            self.performance.notes.append(_SCAN_IS)
        self.scanner.finish_scan()
        self._scans += 1

    def batch(self, pages: int) -> None:
        """See `Stage`; refused before anything began."""
        raise AssertionError(f"check_uksm lets no batch of {pages} through")

    def full_scans(self) -> int:
        """See `Stage`: those that the scenario asked for."""
        return self._scans

    def pace(self) -> Pace:
        """See `Stage`."""
        if self._pace is None:
            self._pace = UksmPace(self.scanner, self.clock)
        return self._pace

    def _live_in_the_time_of(self, real: Observation) -> None:
        """UKSM lives in its own: what it does depends on it."""


def perform_on_uksm(
    plan: Plan, place: Where, *, watch: Watch = lambda _seen: None, seed: int = 0
) -> Performance:
    """Perform a scenario on the model of a UKSM. Raises KsmtraceError for what it can't do."""
    return UksmStage(plan, place, seed=seed).perform(watch=watch)
