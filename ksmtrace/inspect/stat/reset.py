"""Making each run begin in the same state.

What a run leaves behind: rmap_items of processes that are gone, which count as saved until ksmd
comes by; stable nodes whose pages are gone, which no counter shows and the next run's searches
walk over; full_scans; the advisor's memory of past scans. run=2 undoes all but the last, which
entering the mode anew resets, but it undoes everybody's merging. Ages of smart scan are in the
rmap_items: a new process has new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ksmtrace.inspect.stat.watch import Eyes, pump
from ksmtrace.kernel.knobs import Change
from ksmtrace.kernel.stepper import drain_lru_batches
from ksmtrace.kernel.sysfs import read_knob
from ksmtrace.processes.registered import registered_tgids

_ON_LIST = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
_GLANCE = 0.02
_PATIENCE = 1.0
_LONGEST_S = 300.0
"""A ksmd with pages_to_scan=0, or one that sleeps for hours, never cleans up."""


class Reset:
    """Prepares runs. unmerge: run=2 even where others are registered with KSM.

    Where nobody is, it is made unasked if `run` is ours to change: it concerns nobody then.
    wait_scans: full scans to wait for where nothing may be unmerged.
    """

    def __init__(
        self,
        eyes: Eyes,
        change: Change,
        *,
        unmerge: bool,
        wait_scans: int,
        status: Callable[[str], None],
    ) -> None:
        self._eyes = eyes
        self._change = change
        self._unmerge = unmerge
        self._wait_scans = wait_scans
        self._status = status
        self.settled = 0
        """How often others' presence left only waiting."""

    def prepare(self, knobs: Mapping[str, str], *, first: bool) -> bool:
        """Set the knobs for a run, after undoing the last one; whether all was unmerged.

        A signal cuts the waiting short. Raises KsmtraceError as the kernel refuses.
        """
        fresh = self._unmerged(patience=0 if first else _PATIENCE)
        if not fresh and not first:
            self.settled += 1
            self._settle()
        if self._change.before:
            self._change.set(knobs)
        return fresh

    def tidy(self) -> None:
        """Leave nothing of the last run in the counters, as far as that is allowed."""
        if self._unmerged(patience=_PATIENCE):
            self._change.set({})

    def _unmerged(self, *, patience: float) -> bool:
        if "run" not in self._change.before:
            return False
        if not self._unmerge and self._others(patience):
            return False
        # References that CPUs hold back would let pages survive it.
        drain_lru_batches()
        self._change.unmerge()
        return True

    def _others(self, patience: float) -> list[int]:
        """Who is registered with KSM; those who are just ending get `patience` seconds."""
        deadline = time.monotonic() + patience
        while (found := registered_tgids()) and time.monotonic() < deadline:
            if self._eyes.signals.caught:
                break
            time.sleep(_GLANCE)
        return found

    def _settle(self) -> None:
        """Wait until ksmd has been everywhere since the last run, or has nothing on its list."""
        sampler = self._eyes.sampler
        if read_knob("run") != "1":
            return
        before = sampler.counters().get("full_scans", 0)
        deadline = time.monotonic() + _LONGEST_S
        while not self._eyes.signals.caught and time.monotonic() < deadline:
            counters = sampler.counters()
            done = counters.get("full_scans", 0) - before
            if not any(counters.get(name) for name in _ON_LIST) or done >= self._wait_scans:
                return
            self._status(
                f"waiting for ksmd to clean up: full scan {done + 1} of {self._wait_scans}"
            )
            pump(self._eyes.stream)
            time.sleep(_GLANCE)
