"""Performing a scenario on the real ksmd: real processes, real memory, one batch at a time."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol

from ksmtrace.capture.choose import choose_source
from ksmtrace.capture.source import EventStream, Source
from ksmtrace.errors import KsmtraceError, host_cannot
from ksmtrace.events.batch import EventBatch, concatenate, lost_count
from ksmtrace.events.registry import KSM_ENTER
from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.signals import signals_interrupt
from ksmtrace.kernel.stepper import Stepper, default_knobs, drain_lru_batches, parked
from ksmtrace.kernel.sysfs import HostSampler, read_knob, read_ksm_stat
from ksmtrace.lab import operations as op
from ksmtrace.lab.alone import prove_alone, refuse_strangers
from ksmtrace.lab.needs import SWAP, missing, needs_of
from ksmtrace.lab.notation import Teller
from ksmtrace.lab.performance import RELATIVE, Moment, Observation, Performance, Watch
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.puppeteer import Channel, Puppeteer, nursery
from ksmtrace.lab.swapping import Swapper, swapper

HOST = "host"
_RING_BYTES = 64 << 20
_MOST_BATCHES = 100_000
_SLICE = 0.1
_HUGE_BYTES = 2 << 20
_REFUSALS = {errno.EBUSY: "EBUSY", errno.EINVAL: "EINVAL"}
_NOT_KSM_NOW = ("ksmd_cpu_ns",)


class Attendant(Protocol):
    """Somebody who wants to look at the processes before and after each operation."""

    def before(self, operation: op.Operation, tgids: list[int], full_scans: int) -> None:
        """Before it. tgids: the living processes."""
        ...

    def after(self, operation: op.Operation, tgids: list[int], full_scans: int) -> None:
        """After it, before its events are read; full_scans as before it."""
        ...

    def end(self) -> None:
        """After the last one, while the processes still live."""
        ...


class Host:
    """The real kernel, ready for one scenario after another. Use `host_stage` to get it."""

    def __init__(
        self, stepper: Stepper, stream: EventStream, source: Source, why: str, channel: Channel
    ) -> None:
        self.stepper = stepper
        self.stream = stream
        self.source = source
        self.why = why
        self.profile = running_profile()
        self.sampler = HostSampler()
        self.interruptions: list[int] = []
        self._channel = channel

    def perform(
        self,
        plan: Plan,
        *,
        watch: Watch = lambda _seen: None,
        attend: Attendant | None = None,
    ) -> Performance:
        """Perform a scenario; afterwards nothing of it is left.

        Raises KsmtraceError, where this machine lacks what the scenario needs, too.
        """
        needs = needs_of(plan)
        if lacking := missing(needs):
            raise host_cannot(lacking, f"perform {plan.scenario.name}")
        self._reset_knobs(plan.knobs)
        with ExitStack() as stack:
            swapping = stack.enter_context(swapper(self._channel.pid)) if SWAP in needs else None
            puppeteer = Puppeteer(self._channel)
            try:
                return _Run(self, plan, puppeteer, attend, swapping).perform(watch)
            finally:
                puppeteer.clear()
                self.stepper.park()
                self.stepper.unmerge()
                self._reset_knobs({})

    def read_events(self) -> EventBatch:
        """Everything that has arrived. Raises KsmtraceError if something was lost."""
        batches = []
        while len(batch := self.stream.read()):
            batches.append(batch)
        events = concatenate(batches)
        if lost := lost_count(events):
            raise KsmtraceError(f"{lost} events were lost; the scenario is too large for the ring")
        return events

    def heed_interruptions(self) -> None:
        """Raise KeyboardInterrupt if one came that something swallowed (a destructor does)."""
        if self.interruptions:
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            self.heed_interruptions()
            time.sleep(min(rest, _SLICE))

    def counters(self) -> dict[str, int]:
        """Every counter of KSM that this kernel has."""
        return {n: v for n, v in self.sampler.counters().items() if n not in _NOT_KSM_NOW}

    def moment(self) -> Moment:
        """Now."""
        cpu = self.sampler.counters().get("ksmd_cpu_ns", 0)
        return Moment(time.monotonic_ns(), cpu)

    def _reset_knobs(self, wanted: Mapping[str, str]) -> None:
        known = default_knobs()
        goal = known | {name: value for name, value in wanted.items() if name in known}
        goal["run"] = "0"
        goal.pop("sleep_millisecs")
        if goal.get("advisor_mode", "none") != "none":
            goal.pop("pages_to_scan")
        for name in in_order(goal):
            if read_knob(name) != goal[name]:
                try:
                    self.stepper.write(name, goal[name])
                except OSError as error:
                    raise KsmtraceError(
                        f"the kernel refuses {name}={goal[name]}: {error.strerror}"
                    ) from error


@contextmanager
def host_stage(backend: str = "auto") -> Iterator[Host]:
    """The real kernel for scenarios: ksmd parked, events captured, and all of it put back.

    Raises KsmtraceError (host cannot) where ksmd can't be traced or stepped, or isn't ours alone.
    """
    choice = choose_source(backend)
    refuse_strangers()
    with ExitStack() as stack:
        channel = stack.enter_context(nursery())
        stepper = stack.enter_context(parked())
        stream = stack.enter_context(choice.source.open(ring_bytes=_RING_BYTES))
        host = Host(stepper, stream, choice.source, choice.why, channel)
        stack.callback(host.sampler.close)
        stack.enter_context(signals_interrupt(host.interruptions.append))
        prove_alone(stepper)
        host.read_events()
        yield host


class _Run:
    """One scenario's performance."""

    def __init__(
        self,
        host: Host,
        plan: Plan,
        puppeteer: Puppeteer,
        attend: Attendant | None,
        swapping: Swapper | None,
    ) -> None:
        self._swapping = swapping
        self._host = host
        self._attend = attend
        self._plan = plan
        self._puppets = puppeteer
        self._advised = plan.knobs.get("advisor_mode", "none") != "none"
        self._paced = self._advised or "pages_to_scan" in plan.knobs
        self.performance = Performance(
            HOST, host.profile, fields_unknown=tuple(host.source.fields_unknown), real=True
        )
        self._pids: dict[str, int] = {}
        self._mms: dict[int, str] = {}
        self._newborn = ""
        self._teller = Teller(self._process_of, plan.name_of)
        self._huge: dict[str, list[tuple[int, int]]] = {}
        self._touched: set[tuple[str, int]] = set()

    def perform(self, watch: Watch) -> Performance:
        host = self._host
        host.read_events()
        self._before = host.counters()
        for step in self._plan.steps:
            for operation in step.operations:
                seen = self._observe(step, operation)
                self.performance.observations.append(seen)
                watch(seen)
        if self._attend is not None:
            self._attend.end()
        return self.performance

    def _observe(self, step: PlannedStep, operation: op.Operation) -> Observation:
        host = self._host
        host.heed_interruptions()
        refused = ""
        begin = end = None
        works = isinstance(operation, op.Scan | op.Batch)
        if works:
            begin = host.moment()
        scans = host.stepper.full_scans()
        if self._attend is not None:
            self._attend.before(operation, list(self._pids.values()), scans)
            drain_lru_batches()
        try:
            self._do(operation)
        except OSError as error:
            if not isinstance(operation, op.SetKnob) or error.errno not in _REFUSALS:
                raise
            refused = _REFUSALS[error.errno]
        if works:
            end = host.moment()
        if self._attend is not None:
            self._attend.after(operation, list(self._pids.values()), scans)
        batch = host.read_events()
        for mm in batch["mm"][batch["kind"] == KSM_ENTER.id].tolist():
            self._mms.pop(mm, None)
        counters = host.counters()
        return Observation(
            step.number,
            counters.get("full_scans") if isinstance(operation, op.Scan) else None,
            {
                name: value - self._before.get(name, 0) if name in RELATIVE else value
                for name, value in counters.items()
            },
            {name: read_ksm_stat(pid) or {} for name, pid in self._pids.items()},
            batch,
            tuple(self._teller.tell(batch)),
            refused,
            begin,
            end,
            tgids={pid: name for name, pid in self._pids.items()},
        )

    def _process_of(self, mm: int, tgid: int) -> str:
        """An mm is known by its owner; a forked one has none at first, so it is the newborn."""
        if tgid in self.performance.tgids:
            self._mms[mm] = self.performance.tgids[tgid]
        return self._mms.setdefault(mm, self._newborn or "?")

    def _do(self, operation: op.Operation) -> None:
        puppets, stepper = self._puppets, self._host.stepper
        match operation:
            case op.Start(process):
                self._born(process, puppets.start(process))
            case op.Fork(process, child):
                self._born(child, puppets.start(child, process))
                self._huge[child] = list(self._huge.get(process, []))
            case op.Exec(process):
                puppets.exec(process)
                self._huge.pop(process, None)
            case op.Exit(process):
                del self._pids[process]
                puppets.exit(process)
            case op.SwapOut(process, start, length):
                assert self._swapping is not None
                self._swapping.swap_out(puppets, self._pids, process, start, length)
            case op.Pin(process, address, label):
                puppets.pin(process, address, label)
            case op.Unpin(label):
                puppets.unpin(label)
            case op.Order():
                puppets.tell(operation.process, operation.word, *operation.arguments())
                self._see_to_huge_pages(operation)
            case op.SetKnob(name, value):
                self._set_knob(name, value)
            case op.Scan():
                self._scan()
            case op.Batch(pages):
                if self._advised:
                    raise KsmtraceError(
                        "a batch can't be stepped while the advisor sets pages_to_scan",
                        "use scan, or set advisor_mode to none",
                    )
                before = read_knob("pages_to_scan") or ""
                stepper.write("pages_to_scan", str(pages))
                stepper.batch()
                stepper.write("pages_to_scan", before)
            case op.Wait(milliseconds):
                self._host.wait(milliseconds / 1000)

    def _born(self, process: str, pid: int) -> None:
        self._pids[process] = pid
        self.performance.tgids[pid] = process
        self._newborn = process

    def _set_knob(self, name: str, value: str) -> None:
        stepper = self._host.stepper
        drain_lru_batches()
        if name == "run":
            # ksmd runs in steps only: 1 is what each step writes.
            stepper.write("run", "2" if value == "2" else "0")
            stepper.write("run", "0")
            return
        if read_knob(name) is None:
            self.performance.notes.append(f"there is no knob {name}")
            return
        stepper.write(name, value)
        if name == "advisor_mode":
            self._advised = value != "none"
        if name in ("advisor_mode", "pages_to_scan"):
            self._paced = True

    def _scan(self) -> None:
        """One full scan; in several batches where the scenario or the advisor set their size."""
        stepper = self._host.stepper
        before = stepper.full_scans()
        for _ in range(_MOST_BATCHES if self._paced else 1):
            idle = self._host.counters()
            stepper.batch()
            if stepper.full_scans() != before or self._host.counters() == idle:
                return
        if self._paced:
            raise KsmtraceError("the scan did not end", "is pages_to_scan 0?")

    def _see_to_huge_pages(self, operation: op.Order) -> None:
        """Raise KsmtraceError if the kernel gave no huge page where the scenario has one."""
        process = operation.process
        if isinstance(operation, op.Map) and operation.huge:
            span = (operation.start, operation.start + operation.length)
            self._huge.setdefault(process, []).append(span)
        if not isinstance(operation, op.Write):
            return
        address = operation.pages[0][0]
        wanted = any(low <= address < high for low, high in self._huge.get(process, ()))
        # Once for each huge page: ksmd may have split it since.
        unit = (process, address // _HUGE_BYTES)
        if wanted and unit not in self._touched:
            self._touched.add(unit)
            if not _has_huge(self._pids[process], address):
                raise KsmtraceError(
                    "the kernel gave no huge page",
                    "see /sys/kernel/mm/transparent_hugepage/enabled, and free memory",
                )


def _has_huge(pid: int, address: int) -> bool:
    """Whether smaps reports huge pages in the region at an address."""
    inside = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 a process's own file
        for line in file:
            head = line.split(" ", 1)[0]
            if "-" in head and ":" not in head:
                start, end = (int(word, 16) for word in head.split("-"))
                inside = start <= address < end
            elif inside and line.startswith("AnonHugePages:"):
                return line.split()[1] != "0"
    return False
