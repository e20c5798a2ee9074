"""A stage for scenarios: simulated processes, and a scanner of some kind over their memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from ksmtrace.events.batch import EventBatch
from ksmtrace.lab import operations as op
from ksmtrace.lab.notation import Teller
from ksmtrace.lab.pace import Pace, let_work
from ksmtrace.lab.performance import Observation, Performance, Watch
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.scenario import ScenarioError
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE, ZERO
from ksmtrace.model.ksm import KnobRefused
from ksmtrace.model.memory import HUGE_PAGES, Frame, Memory, MemoryFault, Mm

_HUGE = HUGE_PAGES * PAGE_SIZE
_FIRST_TGID = 1001


class Stage(ABC):
    """Simulated processes and a simulated scanner over their memory; which one, a subclass says."""

    def __init__(self, plan: Plan, memory: Memory, performance: Performance, clock: Clock) -> None:
        self._plan = plan
        self.memory = memory
        self.clock = clock
        self.performance = performance
        self._mms: dict[str, Mm] = {}
        self._names: dict[int, str] = {}
        self._huge: dict[str, list[tuple[int, int]]] = {}
        self._pins: dict[str, Frame] = {}
        self._fresh = 0
        self._teller = Teller(lambda mm, _tgid: self._names.get(mm, "?"), plan.name_of)

    # What the scanner does.

    @abstractmethod
    def prepare(self) -> None:
        """Set what the scenario sets before its first step."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """The scanner's counters by its own names."""

    @abstractmethod
    def ksm_stat(self, mm: Mm) -> dict[str, int]:
        """What the kernel tells of a process."""

    @abstractmethod
    def take_events(self) -> EventBatch:
        """The events since they were last taken."""

    @abstractmethod
    def set_knob(self, name: str, value: str) -> None:
        """Write one of KSM's knobs. Raises KnobRefused."""

    @abstractmethod
    def scan(self) -> None:
        """Finish one full scan."""

    @abstractmethod
    def batch(self, pages: int) -> None:
        """Visit up to so many pages."""

    @abstractmethod
    def full_scans(self) -> int:
        """How many full scans were finished."""

    @abstractmethod
    def pace(self) -> Pace:
        """The scanner as it works by itself; always the same."""

    # What is done.

    def perform(
        self, *, watch: Watch = lambda _seen: None, like: Sequence[Observation] = ()
    ) -> Performance:
        """The whole scenario. like: a real run's observations, for its times."""
        self.prepare()
        self.take_events()
        times = iter(like)
        for step in self._plan.steps:
            for seen in self.observe(step, times):
                self.performance.observations.append(seen)
                watch(seen)
        return self.performance

    def observe(self, step: PlannedStep, times: Iterator[Observation]) -> Iterator[Observation]:
        """Do a step, one operation after the other. times: a real run's observations of them."""
        for operation in step.operations:
            real = next(times, None)
            if real is not None:
                self._live_in_the_time_of(real)
            refused = self.do(step, operation)
            batch = self.take_events()
            yield Observation(
                step.number,
                self.full_scans() if isinstance(operation, op.Scan) else None,
                self.counters(),
                {name: self.ksm_stat(mm) for name, mm in self._mms.items() if mm.users},
                batch,
                tuple(self.tell(batch)),
                refused,
                visits=self._visits(),
            )

    def tell(self, batch: EventBatch) -> list[str]:
        """A line for each event, by the scenario's names; batches in order, each once."""
        return self._teller.tell(batch)

    def name_of(self, mm: int, address: int) -> str:
        """What the scenario calls a page, by its mm's number."""
        return self._plan.name_of(self._names[mm], address)

    def do(self, step: PlannedStep, operation: op.Operation) -> str:
        """One operation of a step. Returns the name of the errno if a knob's write was refused.

        Raises ScenarioError for what processes can't do there.
        """
        try:
            self._do(operation)
        except KnobRefused as error:
            return str(error)
        except MemoryFault as error:
            raise ScenarioError(step.step.where, f"on {self.performance.on}, {error}") from None
        return ""

    @abstractmethod
    def _live_in_the_time_of(self, real: Observation) -> None:
        """Set the clock as it was when a real scanner worked."""

    def _visits(self) -> tuple[tuple[str, str], ...]:
        """What became of each page visit, where that is kept."""
        return ()

    def _do(self, operation: op.Operation) -> None:
        memory = self.memory
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
                self.set_knob(name, value)
            case op.Scan():
                self.scan()
            case op.Batch(at_most):
                self.batch(at_most)
            case op.Wait(milliseconds):
                self.clock.wait(milliseconds)
            case op.Run():
                self.run(operation)

    def run(self, operation: op.Run, watch: Callable[[], None] = lambda: None) -> None:
        """Let the scanner work at its own pace. watch: see `let_work`."""
        live = operation.milliseconds, operation.every_ms
        let_work(self.pace(), self.clock, *live, self.writer(operation), watch)

    def writer(self, operation: op.Run) -> Callable[[], None]:
        """What writes, each time that it is called, the next pages of those that are to be."""
        pages, at_once = operation.pages, operation.at_once
        place = 0

        def write() -> None:
            nonlocal place
            for number in range(place, place + at_once):
                process, address = pages[number % len(pages)]
                mm = self._mms[process]
                self._fault_huge(process, mm, address)
                if operation.fresh:
                    content = b"fresh %09d" % self._fresh
                    self._fresh += 1
                else:
                    content = self.memory.read(mm, address)
                self.memory.write(mm, address, content)
            place = (place + at_once) % max(1, len(pages))

        return write

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
