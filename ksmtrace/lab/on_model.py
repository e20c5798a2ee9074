"""Performing a scenario on the reference scanner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.stepper import ALL_PAGES
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab import operations as op
from ksmtrace.lab.fast_domain import check_fast
from ksmtrace.lab.notation import Teller
from ksmtrace.lab.performance import Moment, Observation, Performance, Watch
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.scenario import ScenarioError
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE, ZERO
from ksmtrace.model.engines import Engine, model_of
from ksmtrace.model.ksm import KnobRefused
from ksmtrace.model.memory import HUGE_PAGES, Frame, MemoryFault, Mm

_HUGE = HUGE_PAGES * PAGE_SIZE
_FIRST_TGID = 1001
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


class ModelStage:
    """Simulated processes and a simulated ksmd."""

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
    ) -> None:
        self._plan = plan
        self.engine = engine
        self.clock = _Clock(visit_ns=VISIT_NS)
        if engine == "fast":
            check_fast(plan)
        self.memory, self.scanner = model_of(
            profile,
            self.clock,
            engine,
            check_invariants=check_invariants,
            log_visits=visits,
            log_item_lives=True,
            count_work=count_work,
        )
        self.performance = Performance(on, profile)
        self._mms: dict[str, Mm] = {}
        self._names: dict[int, str] = {}
        self._huge: dict[str, list[tuple[int, int]]] = {}
        self._pins: dict[str, Frame] = {}
        self._teller = Teller(lambda mm, _tgid: self._names.get(mm, "?"), plan.name_of)

    def perform(
        self, *, watch: Watch = lambda _seen: None, like: Sequence[Observation] = ()
    ) -> Performance:
        """The whole scenario. like: a real run's observations, for its times."""
        self._set_knobs(self._plan.knobs)
        if "pages_to_scan" not in self._plan.knobs and not self._advised():
            self.scanner.set_knob("pages_to_scan", ALL_PAGES)
        self.scanner.take_events()
        times = iter(like)
        for step in self._plan.steps:
            for seen in self._step(step, times):
                self.performance.observations.append(seen)
                watch(seen)
        self.performance.item_lives = self.scanner.item_lives
        return self.performance

    def _advised(self) -> bool:
        return self.scanner.knobs.get("advisor_mode", "none") != "none"

    def _set_knobs(self, knobs: Mapping[str, str]) -> None:
        for name in in_order(knobs):
            value = knobs[name]
            try:
                self._set_knob(name, value)
            except KnobRefused as error:
                raise ScenarioError(
                    self._plan.scenario.name, f"the kernel refuses {name} = {value}: {error}"
                ) from None

    def _set_knob(self, name: str, value: str) -> None:
        if self.scanner.profile.has(KNOBS_BY_NAME[name].since):
            self.scanner.set_knob(name, value)
            if (name, value) == ("run", "2"):
                # As on the host, where ksmd runs in steps only: so the next run=2 is one again.
                self.scanner.set_knob("run", "0")
            return
        note = f"there is no knob {name}; it came with Linux {KNOBS_BY_NAME[name].since}"
        if note not in self.performance.notes:
            self.performance.notes.append(note)

    def _step(self, step: PlannedStep, times: Iterator[Observation]) -> Iterator[Observation]:
        for operation in step.operations:
            real = next(times, None)
            if real is not None and real.begin is not None:
                self.clock.set(real.begin)
                self.clock.at_end = real.end
            refused = ""
            try:
                self._do(operation)
            except KnobRefused as error:
                refused = str(error)
            except MemoryFault as error:
                raise ScenarioError(step.step.where, f"on {self.performance.on}, {error}") from None
            scanner = self.scanner
            batch = scanner.take_events()
            yield Observation(
                step.number,
                scanner.counters["full_scans"] if isinstance(operation, op.Scan) else None,
                scanner.counters,
                {name: scanner.ksm_stat(mm) for name, mm in self._mms.items() if mm.users},
                batch,
                tuple(self._teller.tell(batch)),
                refused,
                visits=self._visits(),
            )

    def _visits(self) -> tuple[tuple[str, str], ...]:
        if self.engine == "fast":
            return ()
        return tuple(
            (self._plan.name_of(self._names[visit.mm], visit.address), "; ".join(visit.steps))
            for visit in self.scanner.take_visits()
        )

    def _do(self, operation: op.Operation) -> None:
        memory, scanner = self.memory, self.scanner
        match operation:
            case op.Start(process):
                tgid = _FIRST_TGID + len(self._mms)
                self._know(process, memory.spawn(tgid))
            case op.Map(process, start, length, huge, node):
                memory.map(self._mms[process], start, length // PAGE_SIZE, nid=node)
                if huge:
                    self._huge.setdefault(process, []).append((start, start + length))
            case op.Advise(process, start, length, advice):
                act = {
                    "mergeable": memory.madvise_mergeable,
                    "unmergeable": memory.madvise_unmergeable,
                    "discard": memory.discard,
                }[advice]
                act(self._mms[process], start, start + length)
            case op.Protect(process, start, length, access):
                memory.protect(self._mms[process], start, start + length, access)
            case op.Unmap(process, start, length):
                memory.unmap(self._mms[process], start, start + length)
            case op.Write(process, pages):
                mm = self._mms[process]
                for address, content in pages:
                    self._fault_huge(process, mm, address)
                    memory.write(mm, address, content)
            case op.WritePart(process, addresses, offset, data):
                mm = self._mms[process]
                for address in addresses:
                    self._fault_huge(process, mm, address)
                    memory.write_part(mm, address, offset, data)
            case op.Read(process, addresses):
                for address in addresses:
                    memory.read(self._mms[process], address)
            case op.Remap(process, start, length, target):
                memory.remap(self._mms[process], start, start + length, target)
            case op.Place(process, start, length, node):
                memory.place(self._mms[process], start, start + length, node)
            case op.Migrate(process, start, length, node):
                memory.migrate(self._mms[process], start, start + length, node)
            case op.SwapOut(process, start, length):
                memory.swap_out(self._mms[process], start, start + length)
            case op.Fork(process, child):
                tgid = _FIRST_TGID + len(self._mms)
                self._know(child, memory.fork(self._mms[process], tgid))
                self._huge[child] = list(self._huge.get(process, []))
            case op.Exec(process):
                self._know(process, memory.exec(self._mms[process]))
                self._huge.pop(process, None)
            case op.Exit(process):
                memory.exit(self._mms[process])
            case op.MergeAny(process, on):
                memory.prctl_merge(self._mms[process], on=on)
            case op.Pin(process, address, label):
                self._pins[label] = memory.pin(self._mms[process], address)
            case op.Unpin(label):
                memory.unpin(self._pins.pop(label))
            case op.SetKnob(name, value):
                self._set_knob(name, value)
            case op.Scan():
                scanner.finish_scan()
            case op.Batch(pages):
                scanner.do_batch(pages)
            case op.Wait(milliseconds):
                self.clock.wait(milliseconds)

    def _know(self, process: str, mm: Mm) -> None:
        self._mms[process] = mm
        self._names[mm.id] = process
        self.performance.tgids[mm.tgid] = process

    def _fault_huge(self, process: str, mm: Mm, address: int) -> None:
        """The first touch of a huge page brings all of it."""
        if address in mm.pages:
            return
        start = address // _HUGE * _HUGE
        for low, high in self._huge.get(process, ()):
            if low <= start < high and not mm.mapped_in(start, start + _HUGE):
                self.memory.map_huge(mm, start, ZERO)


def perform_on_model(
    plan: Plan,
    profile: Profile,
    *,
    on: str | None = None,
    like: Sequence[Observation] = (),
    watch: Watch = lambda _seen: None,
    check_invariants: bool = False,
    visits: bool = False,
) -> Performance:
    """Perform a scenario on the reference scanner.

    on: how the result is called. like: a real run's observations; the model then lives in its
    time. watch: called with each observation. visits: tell what became of each page visit. Raises
    KsmtraceError for what the release can't do.
    """
    stage = ModelStage(
        plan,
        profile,
        on=on or f"ksm:{profile.name}",
        check_invariants=check_invariants,
        visits=visits,
    )
    return stage.perform(watch=watch, like=like)
