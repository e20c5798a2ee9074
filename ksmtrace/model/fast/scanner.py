"""FastScanner: KsmScanner's answers from the fast engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.registry import KINDS
from ksmtrace.kernel.releases import Behaviour, Profile, profile
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.cycle import FastCycle, Progress
from ksmtrace.model.fast.events import Consumer, FastStream
from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.space import refused
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.state import State
from ksmtrace.model.visit_log import VisitRecord
from ksmtrace.model.work import Work

_WORD = 8


class FastScanner(KsmScanner):
    """Ksmd over a FastMemory, in full scans only.

    kernel, knobs, clock: as KsmScanner has them. events: "keep" until they are taken, "count" by
    kind alone, or a function that is given each batch. on_progress: called while a scan goes on.
    Raises as KsmScanner does, and KsmtraceError (usage) for what the engine does not do.
    """

    def __init__(
        self,
        memory: FastMemory,
        *,
        kernel: str | Profile = "6.18",
        knobs: Mapping[str, object] | None = None,
        clock: Clock | None = None,
        events: str | Consumer = "keep",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.profile = kernel if isinstance(kernel, Profile) else profile(kernel)
        self.behaviour: Behaviour = self.profile.behaviour
        self.memory = memory
        self.clock = clock or Clock()
        consumer = None if isinstance(events, str) else events
        self._events = FastStream(self.clock, len(KINDS) + 1, consumer, keep=events != "count")
        self._state = State(memory, self.behaviour, self.clock, self._events)
        self._fast = FastCycle(self._state, memory, self._events)
        self._fast.on_progress = on_progress
        self._cycle = self._fast  # type: ignore[assignment]  # it has what KsmScanner asks of one
        self._work = None
        self._check_invariants = False
        memory.ksm = self
        for name, value in (knobs or {}).items():
            self.set_knob(name, value)

    @property
    def event_counts(self) -> dict[str, int]:
        """Events so far, by kind."""
        return {kind.name: int(self._events.counts[kind.id]) for kind in KINDS}

    def watch(self, function: Callable[[], None]) -> None:
        """Have a function called now and then while a scan goes on, the counters up to date."""
        self._fast.on_progress = lambda _progress: function()

    def finish_scan(self) -> None:
        """One full scan; the events stay to be taken."""
        pages_to_scan = self._state.settings.pages_to_scan
        if not pages_to_scan and self._fast.slots:
            raise KsmtraceError(
                "with pages_to_scan=0 ksmd never finishes a scan", "set it to 1 or more"
            )
        self._state.settings.run = 1
        self._fast.full_scan(pages_to_scan)

    def do_batch(self, pages: int) -> None:  # noqa: ARG002 as KsmScanner's
        """Refused: raises KsmtraceError (usage)."""
        raise refused("stops within a full scan (batch)")

    def take_visits(self) -> list[VisitRecord]:
        """Refused: raises KsmtraceError (usage)."""
        raise refused("log of visits (--visits)")

    @property
    def work(self) -> Work:
        """What was done so far. levels, compared_bytes: what a walk would pass, on the average."""
        counted = self._fast.counted
        hashed = counted.pop("hashed") * PAGE_SIZE
        kind = "xxhash_bytes" if self.behaviour.checksum == "xxhash" else "jhash2_bytes"
        counted["compared_bytes"] += (counted["stable_levels"] + counted["unstable_levels"]) * _WORD
        return Work(**counted, **{kind: hashed}, wakeups=self._fast.wakeups)
