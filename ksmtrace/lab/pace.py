"""Scanners that work at their own pace in simulated time, and memory that changes meanwhile.

A wake-up takes the CPU time that its work costs; the nap after it is as the scanner's settings say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ksmtrace.kernel.costs import Costs
from ksmtrace.model.clock import Clock
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.uksm.governors import TICK_MS
from ksmtrace.model.uksm.scanner import UksmScanner

_NS_OF_MS = 1_000_000
_TICK_NS = TICK_MS * _NS_OF_MS


def wakes_at(now_ns: int, sleep_ns: int) -> int:
    """When the kernel's timer wakes who goes to sleep now: by whole ticks, and one late.

    So sleep_millisecs=20 of a ksmd is 24 ms from one waking to the next with 250 ticks a second,
    which was measured on Linux 6.18.
    """
    if not sleep_ns:
        return now_ns
    return (now_ns // _TICK_NS + -(-sleep_ns // _TICK_NS) + 1) * _TICK_NS


class Pace(Protocol):
    """A scanner that knows when it wakes. next_ns: when it does, by its clock."""

    next_ns: int

    def wake(self) -> None:
        """Work once. The clock passes with the work; `next_ns` is after the nap that follows."""
        ...


class KsmPace:
    """Ksmd: a batch of pages_to_scan, then sleep_millisecs. The scanner must count its work."""

    def __init__(self, scanner: KsmScanner, clock: Clock, costs: Costs) -> None:
        self._scanner = scanner
        self._clock = clock
        self._costs = costs
        self.next_ns = clock.now_ns

    def wake(self) -> None:
        """See `Pace`. The events of a batch have the time at which it began."""
        clock, scanner = self._clock, self._scanner
        knobs = scanner.knobs
        before = scanner.work.ns(self._costs)
        visit_ns, clock.visit_ns = clock.visit_ns, 0
        scanner.do_batch(int(knobs["pages_to_scan"]))
        clock.visit_ns = visit_ns
        spent = round(scanner.work.ns(self._costs) - before)
        clock.now_ns += spent
        clock.ksmd_cpu_ns += spent
        sleep = int(knobs["sleep_millisecs"]) * _NS_OF_MS
        # Without work and sleep no time would ever pass.
        self.next_ns = wakes_at(clock.now_ns, sleep) if spent or sleep else clock.now_ns + _NS_OF_MS


class UksmPace:
    """UKSM's daemon, whose clock passes with its work by itself."""

    def __init__(self, scanner: UksmScanner, clock: Clock) -> None:
        self._scanner = scanner
        self._clock = clock
        self.next_ns = clock.now_ns

    def wake(self) -> None:
        """See `Pace`."""
        clock = self._clock
        began, cpu = clock.now_ns, clock.ksmd_cpu_ns
        self._scanner.wake()
        worked = began + clock.ksmd_cpu_ns - cpu
        # As above: with sleep_millisecs = 0 and nothing to do.
        self.next_ns = max(wakes_at(worked, clock.now_ns - worked), began + _NS_OF_MS)
        clock.now_ns = worked


def let_work(
    pace: Pace,
    clock: Clock,
    milliseconds: int,
    every_ms: int = 0,
    write: Callable[[], None] = lambda: None,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Let so much time pass. write: called every every_ms, first after that time; 0: never.

    watch: called after each wake-up and each write. A wake-up that is under way at the end is
    brought to its end. What is due while the scanner works is done right after that work.
    """
    end = clock.now_ns + milliseconds * _NS_OF_MS
    every = every_ms * _NS_OF_MS
    due = clock.now_ns + every if every else end
    while (at := min(due, pace.next_ns)) < end:
        clock.now_ns = max(clock.now_ns, at)
        if due <= pace.next_ns:
            write()
            due += every
        else:
            pace.wake()
        watch()
    clock.now_ns = max(clock.now_ns, end)
