"""Full scans of a moment by a model of ksmd, until nothing more is saved.

What a scan finds doesn't depend on its pace, as long as memory holds still or changes from scan to
scan; so the scans are done once, and `whatif.pacing` says how long they take at any pace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.costs import Costs
from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.scanning import SCANS_PAST_SKIPPING
from ksmtrace.kernel.stepper import ALL_PAGES
from ksmtrace.kernel.sysfs import KNOBS, KNOBS_BY_NAME
from ksmtrace.model.engines import Engine
from ksmtrace.model.ksm import KnobRefused, KsmScanner
from ksmtrace.model.work import Work
from ksmtrace.whatif.loading import load
from ksmtrace.whatif.moment import Moment

STILL = 3
"""Scans in a row that save nothing more, before no further ones are done."""

PACE_KNOBS = (
    "run", "sleep_millisecs", "pages_to_scan", "advisor_mode", "advisor_max_cpu",
    "advisor_min_pages_to_scan", "advisor_max_pages_to_scan", "advisor_target_scan_time",
)  # fmt: skip
"""Knobs that set how fast ksmd goes, not what it does."""

Progress = Callable[[int, int], None]
"""Called with the scan's number and the pages visited in it."""


@dataclass(frozen=True)
class Walks:
    """Searches of one of KSM's trees in a scan, and the nodes that they passed, at each sample."""

    searches: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pass:
    """A full scan: samples of how far it was, from its beginning; the last is its end.

    visits: pages visited. cpu_ns: the CPU time of that, without waking up. saved: pages saved
    then, in all. counters: those after it. trees: how the trees were searched for it.
    """

    visits: npt.NDArray[np.int64]
    cpu_ns: npt.NDArray[np.float64]
    saved: npt.NDArray[np.int64]
    counters: Mapping[str, int]
    trees: tuple[Walks, ...] = ()


@dataclass
class Passes:
    """All of them. converged: nothing more was saved; partial: interrupted before."""

    done: list[Pass] = field(default_factory=list)
    converged: bool = False
    partial: bool = False


def scan(
    moment: Moment,
    profile: Profile,
    on: str,
    knobs: Mapping[str, str],
    costs: Costs,
    *,
    engine: Engine = "fast",
    most: int = 100,
    progress: Progress = lambda _scan, _pages: None,
) -> Passes:
    """Scan a moment as nothing were merged yet. knobs: instead of the moment's own.

    Ctrl-C ends it with what is done so far. Raises KsmtraceError (usage) for a knob that this
    kernel lacks or refuses.
    """
    loaded = load(moment, profile, engine)
    scanner = loaded.scanner
    _set_knobs(scanner, moment, on, knobs)
    passes = Passes()
    sampler = _Sampler(scanner, costs, progress)
    loaded.watch(sampler.sample)
    enough = SCANS_PAST_SKIPPING if scanner.knobs.get("smart_scan") == "1" else STILL
    still = 0
    try:
        while loaded.processes and len(passes.done) < most and still < enough:
            if passes.done:
                loaded.change()
            sampler.begin(len(passes.done) + 1)
            scanner.finish_scan()
            scanner.take_events()
            passes.done.append(sampler.end())
            still = still + 1 if len(passes.done) > 1 and _alike(passes.done) else 0
    except KeyboardInterrupt:
        passes.partial = True
    passes.converged = still >= enough or not loaded.processes
    return passes


def _set_knobs(scanner: KsmScanner, moment: Moment, on: str, knobs: Mapping[str, str]) -> None:
    if "run" in knobs:
        raise KsmtraceError("a moment is scanned by a running ksmd", "leave run out", Exit.USAGE)
    own = {
        knob.name: moment.knobs[knob.name]
        for knob in KNOBS
        if knob.name in moment.knobs
        and knob.name not in PACE_KNOBS
        and scanner.profile.has(knob.since)
    }
    for name in in_order({**own, **knobs}):
        try:
            scanner.set_knob(name, knobs.get(name, own.get(name)))
        except KnobRefused as refused:
            raise KsmtraceError(
                f"{on} refuses {name}={knobs.get(name)}: {refused}",
                "ksmtrace kernels tells what each kernel has",
                Exit.USAGE,
            ) from None
    # All that was refused or unknown has been told; the pace itself is reckoned afterwards.
    if scanner.profile.has(KNOBS_BY_NAME["advisor_mode"].since):
        scanner.set_knob("advisor_mode", "none")
    scanner.set_knob("pages_to_scan", ALL_PAGES)


def _alike(done: list[Pass]) -> bool:
    names = ("pages_shared", "pages_sharing", "ksm_zero_pages")
    last, before = done[-1].counters, done[-2].counters
    return all(last.get(name) == before.get(name) for name in names)


def saved(counters: Mapping[str, int]) -> int:
    """Pages saved, as the kernel counts: where it counts no zero pages, there are none."""
    return counters["pages_sharing"] + counters.get("ksm_zero_pages", 0)


class _Sampler:
    """Notes how far a scan is whenever it is asked."""

    def __init__(self, scanner: KsmScanner, costs: Costs, progress: Progress) -> None:
        self._scanner = scanner
        self._costs = costs
        self._progress = progress
        self._number = 0
        self._before = Work()
        self._rows: list[tuple[int, float, int, int, int]] = []

    def begin(self, number: int) -> None:
        self._number = number
        self._before = replace(self._scanner.work)
        self._rows = []

    def sample(self) -> None:
        work, before = self._scanner.work, self._before
        ns = replace(work, wakeups=0).ns(self._costs) - replace(before, wakeups=0).ns(self._costs)
        visits = work.visits - before.visits
        stable = work.stable_levels - before.stable_levels
        unstable = work.unstable_levels - before.unstable_levels
        self._rows.append((visits, ns, saved(self._scanner.counters), stable, unstable))
        self._progress(self._number, visits)

    def end(self) -> Pass:
        self.sample()
        visits, cpu_ns, pages, stable, unstable = zip(*self._rows, strict=True)
        counters = dict(self._scanner.counters)
        return Pass(
            np.array(visits, np.int64),
            np.array(cpu_ns, np.float64),
            np.array(pages, np.int64),
            counters,
            (
                _walks(stable, np.full(len(stable), float(counters["pages_shared"]))),
                _walks(unstable, _growing(unstable, counters["pages_unshared"])),
            ),
        )


def _growing(levels: Sequence[int], nodes: int) -> npt.NDArray[np.float64]:
    """The unstable tree's nodes at each sample: it starts empty, and searches fill it."""
    return nodes * np.asarray(levels, np.float64) / max(levels[-1], 1)


def _walks(levels: Sequence[int], nodes: npt.NDArray[np.float64]) -> Walks:
    """Searches, from the nodes passed: a search passes about as many as the tree is deep."""
    passed = np.asarray(levels, np.float64)
    depth = np.maximum(np.log2(nodes + 1), 1.0)
    return Walks(np.cumsum(np.diff(passed, prepend=0.0) / depth), passed)
