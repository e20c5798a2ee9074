"""KsmScanner: the whole of KSM over a simulated memory, with the kernel's knobs and counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.advisor import INITIAL_PAGES_WITHOUT
from ksmtrace.kernel.releases import Behaviour, Profile, profile
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS, KNOBS_BY_NAME
from ksmtrace.model.branches import Branch
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.counting import CountedVisit
from ksmtrace.model.cycle import Cycle
from ksmtrace.model.invariants import assert_invariants
from ksmtrace.model.memory import Memory, Mm
from ksmtrace.model.scene import Member, Scene, scene_of
from ksmtrace.model.state import State
from ksmtrace.model.stream import ModelStream
from ksmtrace.model.visit import Visit
from ksmtrace.model.visit_log import LoggedVisit, VisitRecord
from ksmtrace.model.work import Work

_U32 = 0xFFFFFFFF
_BYTES_OF_RMAP_ITEM = 64
_BOOLEANS = {"use_zero_pages", "smart_scan"}
_TRUE, _FALSE = {"1", "y", "t", "on"}, {"0", "n", "f", "of"}


NOT_MODELLED: Mapping[str, str] = MappingProxyType(
    {
        "ksmd_cpu_ns": "the clock that the scanner is given has it; nothing is measured",
        "sleep_millisecs": "kept, without effect: time passes only as the clock is told",
    }
)
"""Counters and knobs of the kernel that the model has not, or not fully, and why."""


class KnobRefused(Exception):
    """The kernel would refuse this write. args: the name of the errno."""


class KsmScanner:
    """ksmd, its trees and counters, over `memory`.

    kernel: a release ("6.12", "6.12.117", "2011", "6.12+fork_counters"). knobs: values by their
    name in sysfs. clock: the time it lives in. check_invariants: assert what must hold after every
    batch. log_visits: keep a record of every page visit, for `take_visits`. log_item_lives: keep
    `item_lives`. count_work: keep `work`, which takes up to half as much time
    again; not with log_visits. Raises KsmtraceError (usage) for an unknown kernel or knob,
    KnobRefused for a bad value.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        kernel: str | Profile = "6.18",
        knobs: Mapping[str, object] | None = None,
        clock: Clock | None = None,
        check_invariants: bool = False,
        log_visits: bool = False,
        log_item_lives: bool = False,
        count_work: bool = False,
    ) -> None:
        self.profile = kernel if isinstance(kernel, Profile) else profile(kernel)
        self.behaviour: Behaviour = self.profile.behaviour
        self.memory = memory
        self.clock = clock or Clock()
        self._state = State(memory, self.behaviour, self.clock, ModelStream(self.clock))
        if log_item_lives:
            self._state.item_lives = {}
        self._work = Work() if count_work else None
        visit = _visit_of(self._state, self._work, log_visits=log_visits)
        self._cycle = Cycle(self._state, visit)
        self._check_invariants = check_invariants
        memory.ksm = self
        for name, value in (knobs or {}).items():
            self.set_knob(name, value)

    # What memory tells KSM.

    takes_all = False

    @property
    def ksm_zero_pages(self) -> int:
        """Pages that ksmd mapped to the zero page."""
        return self._state.ksm_zero_pages

    @ksm_zero_pages.setter
    def ksm_zero_pages(self, value: int) -> None:
        self._state.ksm_zero_pages = value

    def enter(self, mm: Mm, *, parent: Mm | None = None, exec_: bool = False) -> None:
        """See `Ksm.enter`."""
        self._cycle.enter(mm, parent, exec_=exec_)

    def exit(self, mm: Mm) -> None:
        """See `Ksm.exit`."""
        self._cycle.exit(mm)

    def copied(self, mm: Mm, address: int) -> None:
        """See `Ksm.copied`: ksmd learns of it when it comes by."""

    def unmergeable(self, mm: Mm, start: int, end: int) -> None:
        """See `Ksm.unmergeable`: memory does it for KSM."""

    # What ksmd does.

    def scan(self, times: int = 1) -> EventBatch:
        """Let ksmd finish `times` full scans, in batches of pages_to_scan.

        Returns all events since they were last taken. With nobody registered nothing happens, as
        in the kernel. Raises KsmtraceError where pages_to_scan is 0: then no scan would ever end.
        """
        for _ in range(times):
            self.finish_scan()
        return self.take_events()

    def finish_scan(self) -> None:
        """As `scan`, once; the events stay to be taken."""
        if not self._state.settings.pages_to_scan and self._cycle.slots:
            raise KsmtraceError(
                "with pages_to_scan=0 ksmd never finishes a scan", "set it to 1 or more"
            )
        before = self._state.seqnr
        while self._state.seqnr == before and self._cycle.slots:
            self.do_batch(self._state.settings.pages_to_scan)

    def batch(self, pages: int | None = None) -> EventBatch:
        """Let ksmd do one batch of `pages` (None: pages_to_scan). Returns events as `scan` does."""
        self.do_batch(self._state.settings.pages_to_scan if pages is None else pages)
        return self.take_events()

    def do_batch(self, pages: int) -> None:
        """As `batch`; the events stay to be taken."""
        self._state.settings.run = 1
        if self._work is not None:
            self._work.wakeups += 1
        self._cycle.batch(pages)
        if self._check_invariants:
            assert_invariants(self._state, self._cycle)

    def take_events(self) -> EventBatch:
        """The events since they were last taken."""
        return self._state.stream.take()

    def take_visits(self) -> list[VisitRecord]:
        """The visits since they were last taken; none unless they are logged."""
        visit = self._cycle.visit
        if not isinstance(visit, LoggedVisit):
            return []
        records, visit.records = visit.records, []
        return records

    def watch_visits(self, watch: Callable[[VisitRecord], None]) -> None:
        """Have a function called at the end of each visit, which is not kept then.

        The visits must be logged.
        """
        visit = self._cycle.visit
        assert isinstance(visit, LoggedVisit), "visits are watched with log_visits=True only"
        visit.watch = watch

    def watch_closely(self, closely: bool) -> None:
        """Whether visits that are watched are told with their steps, which takes time."""
        visit = self._cycle.visit
        assert isinstance(visit, LoggedVisit), "visits are watched with log_visits=True only"
        visit.idle = not closely

    # What can be read.

    def scene(
        self, *, at: Member | None = None, most: int | None = None, places: int | None = None
    ) -> Scene:
        """Every page's standing and the trees, as plain data; see `scene.scene_of`."""
        return scene_of(self._state, self._cycle, at=at, most=most, places=places)

    @property
    def counters(self) -> dict[str, int]:
        """Every counter that this release has, as in /sys/kernel/mm/ksm and /proc/vmstat."""
        state = self._state
        saved = state.pages_sharing
        if self.profile.has("6.6"):
            saved += state.ksm_zero_pages
        in_trees = state.pages_shared + state.pages_sharing + state.pages_unshared
        values = {
            "full_scans": state.seqnr,
            "pages_shared": state.pages_shared,
            "pages_sharing": state.pages_sharing,
            "pages_unshared": state.pages_unshared,
            "pages_volatile": max(0, state.rmap_items - in_trees),
            "pages_scanned": state.pages_scanned,
            "pages_skipped": state.pages_skipped,
            "ksm_zero_pages": state.ksm_zero_pages,
            "stable_node_chains": state.stable_node_chains,
            "stable_node_dups": state.stable_node_dups,
            "general_profit": saved * PAGE_SIZE - state.rmap_items * _BYTES_OF_RMAP_ITEM,
            "cow_ksm": self.memory.cow_ksm,
            "ksm_swpin_copy": self.memory.swap.copies,
        }
        return {
            counter.name: values[counter.name]
            for counter in COUNTERS
            if counter.name in values and self.profile.has(counter.since)
        }

    def ksm_stat(self, mm: Mm) -> dict[str, int]:
        """The lines of a process's ksm_stat that this release has; yes and no are 1 and 0."""
        merged = mm.ksm_merging_pages
        if self.profile.has("6.6"):
            merged += mm.ksm_zero_pages
        values = {
            "ksm_rmap_items": (mm.ksm_rmap_items, "6.1"),
            "ksm_zero_pages": (mm.ksm_zero_pages, "6.6"),
            "ksm_merging_pages": (mm.ksm_merging_pages, "5.19"),
            "ksm_process_profit": (
                merged * PAGE_SIZE - mm.ksm_rmap_items * _BYTES_OF_RMAP_ITEM, "6.4",
            ),
            "ksm_merge_any": (int(mm.merge_any), "6.14"),
            "ksm_mergeable": (int(any(vma.mergeable for vma in mm.vmas)), "6.14"),
        }  # fmt: skip
        return {name: value for name, (value, since) in values.items() if self.profile.has(since)}

    @property
    def reached(self) -> Counter[Branch]:
        """How often each branch of the algorithm was taken."""
        return self._state.reached

    @property
    def work(self) -> Work:
        """What was done so far, counted. Raises ValueError unless that was asked for."""
        if self._work is None:
            raise ValueError("work is counted with count_work=True only")
        return self._work

    @property
    def item_lives(self) -> Mapping[int, Sequence[int]]:
        """By rmap_item: the number of events before it was made, and before it was freed if it was.

        Empty unless they are logged.
        """
        return self._state.item_lives or {}

    # What can be set.

    @property
    def knobs(self) -> dict[str, str]:
        """Every knob that this release has, with its value as sysfs shows it."""
        return {
            knob.name: str(getattr(self._state.settings, knob.name))
            for knob in KNOBS
            if self.profile.has(knob.since)
        }

    def set_knob(self, name: str, value: object) -> None:
        """Write a knob, with everything that follows from it.

        Raises KsmtraceError (usage) for a knob that this release hasn't, KnobRefused where the
        kernel would answer with an error.
        """
        knob = KNOBS_BY_NAME.get(name)
        if knob is None or not self.profile.has(knob.since):
            hint = (
                f"it came with Linux {knob.since}" if knob else f"there are {', '.join(self.knobs)}"
            )
            raise KsmtraceError(
                f"KSM of Linux {self.profile.name} has no knob {name!r}", hint, Exit.USAGE
            )
        settings = self._state.settings
        if name == "advisor_mode":
            self._set_advisor_mode(str(value))
            return
        number = _number(name, str(value))
        if name == "run":
            self._set_run(number)
            return
        if name == "pages_to_scan" and settings.advisor_mode != "none":
            raise KnobRefused("EINVAL")
        changes = number != getattr(settings, name)
        if knob.needs_nothing_merged and changes and not self._nothing_merged():
            raise KnobRefused("EBUSY")
        setattr(settings, name, number)

    def _nothing_merged(self) -> bool:
        return not self._state.pages_shared and self._cycle.sweep()

    def _set_run(self, value: int) -> None:
        settings = self._state.settings
        if value == settings.run:
            return
        settings.run = value
        if value == 2:
            self._cycle.unmerge_everything()

    def _set_advisor_mode(self, mode: str) -> None:
        settings = self._state.settings
        if mode not in ("none", "scan-time"):
            raise KnobRefused("EINVAL")
        if mode == settings.advisor_mode:
            return
        settings.advisor_mode = mode
        if mode == "none":
            settings.pages_to_scan = INITIAL_PAGES_WITHOUT
        else:
            settings.pages_to_scan = settings.advisor_min_pages_to_scan
            self._cycle.advising.restart()


def _visit_of(state: State, work: Work | None, *, log_visits: bool) -> Visit:
    if log_visits and work is not None:
        raise ValueError("visits are either logged or counted")
    if work is not None:
        return CountedVisit(state, work)
    if not log_visits:
        return Visit(state)
    logged = LoggedVisit(state)
    logged.begin_log()
    return logged


def _number(name: str, text: str) -> int:
    """A numeric knob's value. Raises KnobRefused as the kernel's parsers would."""
    if name in _BOOLEANS:
        # As kstrtobool(): the first letter decides, after an o the second.
        letters = text.lower()[: 2 if text.lower().startswith("o") else 1]
        if letters in _TRUE or letters in _FALSE:
            return int(letters in _TRUE)
        raise KnobRefused("EINVAL")
    most = {"run": 2, "merge_across_nodes": 1}.get(name, _U32)
    least = {"max_page_sharing": 2, "advisor_target_scan_time": 1}.get(name, 0)
    try:
        number = int(text)
    except ValueError:
        raise KnobRefused("EINVAL") from None
    if not least <= number <= most:
        raise KnobRefused("EINVAL")
    return number
