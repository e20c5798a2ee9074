"""Experiments with the real ksmd: its CPU time for the scans that are measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from ksmtrace.kernel.signals import signals_interrupt
from ksmtrace.kernel.stepper import ALL_PAGES, STEPPING_KNOBS, Stepper, parked
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.lab.alone import prove_alone, refuse_strangers
from ksmtrace.lab.calibrate.counted import START, USUAL_KNOBS, contents_of
from ksmtrace.lab.calibrate.experiments import Experiment
from ksmtrace.lab.puppeteer import Channel, Puppeteer, nursery
from ksmtrace.model.content import PAGE_SIZE

_AT_ONCE = 10_000
_PROCESS = "p"
_NAP_PAGES = 1_009
_NAPS_S = 0.5


class Ksmd:
    """The real ksmd, ours alone. Use `the_ksmd` to get it."""

    def __init__(self, stepper: Stepper, channel: Channel, sampler: HostSampler) -> None:
        self._stepper = stepper
        self._channel = channel
        self._sampler = sampler
        self.interruptions: list[int] = []

    def scan_ns(self, experiment: Experiment, knobs: Mapping[str, str]) -> float:
        """CPU time of one measured scan, in nanoseconds."""
        first, second = contents_of(experiment)
        with self._process(first) as puppets:
            for name, value in knobs.items():
                self._stepper.write(name, value)
            self._stepper.scan(experiment.scans)
            self._write(puppets, second)
            before = self._cpu_ns()
            self._stepper.scan(experiment.again)
            return (self._cpu_ns() - before) / experiment.again

    def wakeup_ns(self, visit_ns: float) -> float | None:
        """CPU time of a wakeup for one merged page, less its visit; None where it can't be told.

        Only here ksmd runs freely, with sleeps of a millisecond.
        """
        with self._process([b"same"] * _NAP_PAGES):
            for name, value in USUAL_KNOBS.items():
                if name in self._sampler.knobs():
                    self._stepper.write(name, value)
            self._stepper.scan(3)
            begin = self._sampler.counters()
            try:
                self._stepper.write("pages_to_scan", "1")
                self._stepper.write("sleep_millisecs", "1")
                self._stepper.write("run", "1")
                time.sleep(_NAPS_S)
            finally:
                self._stepper.write("run", "0")
                self._stepper.write("sleep_millisecs", STEPPING_KNOBS["sleep_millisecs"])
                self._stepper.park()
                self._stepper.write("pages_to_scan", str(ALL_PAGES))
            end = self._sampler.counters()
            if "pages_scanned" not in begin:
                return None
            wakeups = end["pages_scanned"] - begin["pages_scanned"]
            cpu_ns = end["ksmd_cpu_ns"] - begin["ksmd_cpu_ns"]
            return max(0.0, cpu_ns / wakeups - visit_ns) if wakeups else None

    def _cpu_ns(self) -> int:
        return self._sampler.counters()["ksmd_cpu_ns"]

    @contextmanager
    def _process(self, contents: list[bytes]) -> Iterator[Puppeteer]:
        """A process that sleeps but for what it is told to write."""
        if self.interruptions:
            raise KeyboardInterrupt
        puppets = Puppeteer(self._channel)
        length = len(contents) * PAGE_SIZE
        try:
            puppets.start(_PROCESS)
            puppets.tell(_PROCESS, "map", START, length, False, 0)
            puppets.tell(_PROCESS, "advise", START, length, "mergeable")
            self._write(puppets, contents)
            yield puppets
        finally:
            puppets.clear()
            self._stepper.batch()
            self._stepper.unmerge()

    def _write(self, puppets: Puppeteer, contents: list[bytes]) -> None:
        for first in range(0, len(contents), _AT_ONCE):
            some = enumerate(contents[first : first + _AT_ONCE], first)
            pages = tuple((START + number * PAGE_SIZE, content) for number, content in some)
            puppets.tell(_PROCESS, "write", pages)


@contextmanager
def the_ksmd() -> Iterator[Ksmd]:
    """Ksmd for experiments; all knobs are restored afterwards.

    Raises KsmtraceError where there is none, its knobs can't be changed, or it isn't ours alone.
    """
    refuse_strangers()
    with ExitStack() as stack:
        channel = stack.enter_context(nursery())
        stepper = stack.enter_context(parked())
        sampler = HostSampler()
        stack.callback(sampler.close)
        ksmd = Ksmd(stepper, channel, sampler)
        stack.enter_context(signals_interrupt(ksmd.interruptions.append))
        prove_alone(stepper)
        yield ksmd
