"""UksmScanner: the whole of UKSM over a simulated memory, with its files in sysfs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.kernel.costs import DEFAULT, Costs
from ksmtrace.kernel.releases import Behaviour, profile
from ksmtrace.model.clock import Clock
from ksmtrace.model.memory import Memory, Mm
from ksmtrace.model.scene import Scene
from ksmtrace.model.stream import ModelStream
from ksmtrace.model.uksm.coverage import Coverage
from ksmtrace.model.uksm.governors import MEMCMP_COST, STRENGTH
from ksmtrace.model.uksm.hashing import Contents, Hashes, hasher_for, permutation
from ksmtrace.model.uksm.invariants import assert_invariants
from ksmtrace.model.uksm.quirks import AS_SHIPPED, Quirks
from ksmtrace.model.uksm.scene import scene_of
from ksmtrace.model.uksm.settings import Settings
from ksmtrace.model.uksm.state import State, Tallies
from ksmtrace.model.uksm.structures import Slot
from ksmtrace.model.uksm.visit import Visit
from ksmtrace.model.uksm.visit_log import LoggedVisit
from ksmtrace.model.uksm.wakeup import WakeUp
from ksmtrace.model.visit_log import VisitRecord
from ksmtrace.model.work import Work

_RELEASE = "6.8"
_MOST_WAKEUPS = 1000
_WAKEUPS_OF_A_PAGE = 20


class UksmScanner:
    """UKSM's daemon, its slots, trees and counters, over `memory`.

    governor: full, medium, low or quiet. quirks: what it does as released, and what as meant.
    costs: what its work takes, which decides how much of it there is. seed: of the random numbers
    that it lives by; with the same one everything happens again. clock: the time it lives in.
    knobs: values by their name in sysfs. check_invariants: assert what must hold after every
    wake-up. contents: what simulated contents are: "names" of pages, which stand for pages full of
    words of their own (see `hashing.NameHasher`), or the very bytes of "pages". memcmp_cost: of a
    comparison, in hashed words, by which it judges its strength. log_visits: tell each
    look at a page to who watches. Raises KsmtraceError (usage) for
    an unknown governor or knob, KnobRefused for a bad value.
    """

    takes_all = True

    def __init__(
        self,
        memory: Memory,
        governor: str = "full",
        *,
        quirks: Quirks = AS_SHIPPED,
        costs: Costs | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        knobs: Mapping[str, object] | None = None,
        check_invariants: bool = False,
        contents: Contents = "names",
        memcmp_cost: int = MEMCMP_COST,
        log_visits: bool = False,
    ) -> None:
        self.profile = profile(_RELEASE)
        self.behaviour: Behaviour = replace(
            self.profile.behaviour, fork_counters="fresh", zero_pages="uncounted"
        )
        self.memory = memory
        self.clock = clock or Clock()
        dice = Random(seed)  # noqa: S311 the same each time
        hasher = hasher_for(contents, permutation(dice))
        self._state = State(
            memory,
            self.clock,
            ModelStream(self.clock),
            quirks,
            costs or DEFAULT,
            Settings(governor),
            dice,
            Hashes(hasher, STRENGTH),
            memcmp_cost,
        )
        self._check_invariants = check_invariants
        memory.ksm = self
        for name, value in (knobs or {}).items():
            self.set_knob(name, value)
        visit = LoggedVisit if log_visits else Visit
        self._daemon = WakeUp(self._state, Random(f"slots {seed}"), visit)  # noqa: S311
        self._scan = Coverage()
        self._seqnr = 0

    # What memory tells UKSM.

    @property
    def ksm_zero_pages(self) -> int:
        """Pages mapped to UKSM's zero page."""
        return self._state.zero_pages

    @ksm_zero_pages.setter
    def ksm_zero_pages(self, value: int) -> None:
        self._state.zero_pages = value

    def enter(self, mm: Mm, *, parent: Mm | None = None, exec_: bool = False) -> None:
        """A process has a slot for the first time, or was forked by one that has."""
        mm.mergeable = True
        self._state.stream.enter(mm, parent, exec_=exec_)

    def exit(self, mm: Mm) -> None:
        """See `Ksm.exit`; its slots are reaped after the next wake-up."""
        mm.mergeable = False
        self._state.stream.exit(mm)

    def copied(self, mm: Mm, address: int) -> None:
        """See `Ksm.copied`: the region's slot has thrashed once more."""
        slot = self._daemon.slots.slot_at(mm, address)
        if slot is not None:
            slot.cowed += 1

    def unmergeable(self, mm: Mm, start: int, end: int) -> None:
        """See `Ksm.unmergeable`: merged pages are broken up, whole regions lose their slots.

        Zero pages stay.
        """
        for vma in list(mm.vmas_in(start, end)):
            if vma.compatible:
                self.memory.unshare(mm, max(start, vma.start), min(end, vma.end))
                self._daemon.slots.opt_out(mm, vma)

    # What the daemon does.

    def wake(self) -> None:
        """One wake-up and the nap after it; the clock passes with both."""
        nap_ms = self._state.settings.sleep
        if self._state.settings.run:
            nap_ms = self._wake()
        self.clock.wait(nap_ms)

    def _wake(self) -> int:
        state, daemon = self._state, self._daemon
        state.begin()
        daemon.slots.look()
        if not self._scan.going_on and self._watch(self._scan, daemon.on_rungs()):
            state.stream.scan(KSM_START_SCAN, self._seqnr, state.items)
        nap_ms = daemon.run()
        for slot in daemon.admitted:
            if slot.mm.users and not slot.mm.mergeable:
                self.enter(slot.mm)
        if self._scan.going_on and self._scan.complete(state.eval_round):
            self._scan.end()
            state.stream.scan(KSM_STOP_SCAN, self._seqnr, state.items)
            self._seqnr += 1
        if self._check_invariants:
            assert_invariants(state, daemon)
        return nap_ms

    def _watch(self, coverage: Coverage, slots: list[Slot]) -> bool:
        return coverage.begin(slots, self._daemon.visit.wakeup + 1, self._state.eval_round)

    def run_for(self, seconds: float) -> None:
        """Wake-ups until so much time has passed."""
        end = self.clock.now_ns + int(seconds * 1e9)
        while self.clock.now_ns < end:
            self.wake()

    def finish_scan(self) -> None:
        """Wake-ups until every page of every region that has memory now was visited once at least.

        Regions that UKSM passes over don't count (see `coverage.PATIENCE`). Raises KsmtraceError
        where that takes endlessly long.
        """
        self._state.settings.run = 1
        daemon = self._daemon
        daemon.slots.look()
        slots = daemon.slots.live
        goal = Coverage()
        if not self._watch(goal, slots):
            return
        most = _MOST_WAKEUPS + _WAKEUPS_OF_A_PAGE * sum(slot.pages for slot in slots)
        for _ in range(most):
            self.wake()
            if goal.complete(self._state.eval_round):
                return
        raise KsmtraceError(
            f"UKSM has not come to every page in {most:,} wake-ups",
            "its CPU ratios may be too low for so much memory",
        )

    def scan(self, times: int = 1) -> EventBatch:
        """`finish_scan` so many times; returns all events since they were last taken."""
        for _ in range(times):
            self.finish_scan()
        return self.take_events()

    def take_events(self) -> EventBatch:
        """The events since they were last taken."""
        return self._state.stream.take()

    def watch_visits(self, watch: Callable[[VisitRecord], None]) -> None:
        """Have a function called at the end of each visit. The visits must be logged."""
        visit = self._daemon.visit
        assert isinstance(visit, LoggedVisit), "visits are watched with log_visits=True only"
        visit.watch = watch

    # What can be read.

    def scene(self) -> Scene:
        """Every page's standing, trees and rungs, as plain data; see `scene.scene_of`."""
        return scene_of(self._state, self._daemon)

    @property
    def counters(self) -> dict[str, int]:
        """The read-only files of /sys/kernel/mm/uksm, and vmstat's nr_uksm_zero_pages."""
        state = self._state
        return {
            "pages_shared": state.pages_shared,
            "pages_sharing": state.pages_sharing,
            "pages_unshared": state.pages_unshared,
            "pages_scanned": state.pages_scanned,
            "full_scans": state.full_round,
            "hash_strength": state.strength.value,
            "sleep_times": state.sleep_times,
            "ema_per_page_time": state.page_ns,
            "uksm_zero_pages": state.zero_pages,
        }

    @property
    def work(self) -> Work:
        """What was done so far, counted."""
        return self._state.work

    @property
    def tallies(self) -> Tallies:
        """What was done so far, as far as sysfs doesn't tell and `work` hasn't it."""
        return self._state.tallies

    def saved_pages(self) -> int:
        """Pages that are saved, by memory's own books; see `Memory.saved_pages`."""
        return self.memory.saved_pages()

    # What can be set.

    @property
    def knobs(self) -> dict[str, str]:
        """The files that can be written, as they show."""
        return self._state.settings.shown()

    def set_knob(self, name: str, value: object) -> None:
        """Write a file. Raises KsmtraceError (usage) for an unknown one, KnobRefused."""
        self._state.settings.set(name, str(value))
