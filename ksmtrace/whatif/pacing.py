"""How long full scans take at a pace, and what CPU: arithmetic, from what was done in them.

ksmd visits pages_to_scan pages, then sleeps sleep_millisecs, by the timer's ticks: it wakes one
tick late, and what it does within a tick costs no time (kernel/time/timer.c; measured on Linux
6.18 at 250 ticks a second: 24 ms from one waking to the next for sleep_millisecs=20).

While it sleeps, others use the caches. The tops of KSM's trees, which stay in the cache while ksmd
runs, are then to be brought again: each node once in a batch, at the price of one that is too deep
to be cached. That makes small batches dear (docs/tune.md#small-batches).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide
from ksmtrace.kernel.scanning import MOST_SCANS_SKIPPED
from ksmtrace.model.work import WARM_LEVELS
from ksmtrace.whatif.passes import Pass

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """The settings that say how fast ksmd goes."""

    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    advisor_mode: str = "none"
    advisor_max_cpu: int = 70
    advisor_min_pages_to_scan: int = 500
    advisor_max_pages_to_scan: int = 30000
    advisor_target_scan_time: int = 200

    def as_knobs(self) -> dict[str, str]:
        """What to write to set it, in order."""
        if self.advisor_mode == "none":
            return {
                "pages_to_scan": str(self.pages_to_scan),
                "sleep_millisecs": str(self.sleep_millisecs),
            }
        return {
            "sleep_millisecs": str(self.sleep_millisecs),
            **{f.name: str(getattr(self, f.name)) for f in fields(self) if f.name in _ADVISOR},
            "advisor_mode": self.advisor_mode,
        }


_ADVISOR = (
    "advisor_max_cpu", "advisor_min_pages_to_scan", "advisor_max_pages_to_scan",
    "advisor_target_scan_time",
)  # fmt: skip


def pace_of(knobs: Mapping[str, str]) -> Pace:
    """The pace that knobs set; where one is missing, the kernel's default."""
    known = {f.name: f.type for f in fields(Pace)}
    values = {
        name: value if name == "advisor_mode" else int(value)
        for name, value in knobs.items()
        if name in known
    }
    return Pace(**values)  # type: ignore[arg-type]  # one of them is a text


@dataclass(frozen=True)
class Prediction:
    """How saving grows. seconds, cpu_seconds: since ksmd began, at each sample; saved: pages then.

    scan_seconds, cpu_percent: of a full scan once nothing more is saved. pages_to_scan: at the end.
    """

    seconds: Floats
    cpu_seconds: Floats
    saved: npt.NDArray[np.int64]
    scan_seconds: float
    cpu_percent: float
    pages_to_scan: int

    @property
    def pages_saved(self) -> int:
        """In the end."""
        return int(self.saved[-1]) if len(self.saved) else 0

    def at(self, share: float) -> tuple[float, float] | None:
        """(seconds, CPU seconds) until a share of what is saved in the end is; None for nothing."""
        if not self.pages_saved:
            return None
        wanted = share * self.pages_saved
        after = int(np.argmax(self.saved >= wanted))
        if after == 0:
            return float(self.seconds[0]), float(self.cpu_seconds[0])
        low, high = int(self.saved[after - 1]), int(self.saved[after])
        part = (wanted - low) / (high - low)
        return (
            float(self.seconds[after - 1] + part * np.diff(self.seconds)[after - 1]),
            float(self.cpu_seconds[after - 1] + part * np.diff(self.cpu_seconds)[after - 1]),
        )

    @property
    def cpu_percent_until_saved(self) -> float | None:
        """Of a core, until 99 % of it is saved."""
        reached = self.at(0.99)
        return 100 * reached[1] / reached[0] if reached and reached[0] else None


def predict(
    passes: Sequence[Pass],
    pace: Pace,
    *,
    wakeup_ns: float,
    tick_ns: int,
    cold_level_ns: float = 0.0,
    ksmd_cpu_ns: int = 0,
) -> Prediction:
    """Reckon all of them at a pace. tick_ns: the kernel's timer tick.

    wakeup_ns, cold_level_ns: of Costs. ksmd_cpu_ns: what ksmd has taken since boot, before: the
    advisor's first decision counts all of that as the first scan's (kernel/advisor.py).
    """
    advisor = AdvisorState()
    pages_to_scan = pace.pages_to_scan
    if pace.advisor_mode != "none":
        pages_to_scan = pace.advisor_min_pages_to_scan
    now = cpu = 0.0
    seconds, cpu_seconds, saved = [np.zeros(1)], [np.zeros(1)], [np.zeros(1, np.int64)]
    last: list[tuple[float, float]] = []
    for each in passes:
        took, worked = scan_times(
            each, pages_to_scan, pace.sleep_millisecs, wakeup_ns, tick_ns, cold_level_ns
        )
        seconds.append(now + took / 1e9)
        cpu_seconds.append(cpu + worked / 1e9)
        saved.append(each.saved)
        last.append((took[-1] / 1e9, worked[-1] / 1e9))
        now += took[-1] / 1e9
        cpu += worked[-1] / 1e9
        if pace.advisor_mode != "none":
            decision = decide(
                advisor,
                AdvisorKnobs(
                    pace.advisor_max_cpu,
                    pace.advisor_max_pages_to_scan,
                    pace.advisor_target_scan_time,
                ),
                pages_to_scan=pages_to_scan,
                scan_ns=int(took[-1]),
                ksmd_cpu_ns=ksmd_cpu_ns + int(cpu * 1e9),
            )
            advisor, pages_to_scan = decision.state, decision.pages_to_scan
    # Smart scan comes by every so many scans; an average over as many has all of it.
    steady = last[-min(len(last), MOST_SCANS_SKIPPED) :]
    scan_s = sum(s for s, _ in steady) / len(steady) if steady else 0.0
    scan_cpu = sum(c for _, c in steady) / len(steady) if steady else 0.0
    return Prediction(
        np.concatenate(seconds),
        np.concatenate(cpu_seconds),
        np.concatenate(saved),
        scan_s,
        100 * scan_cpu / scan_s if scan_s else 0.0,
        pages_to_scan,
    )


def scan_times(
    each: Pass,
    pages_to_scan: int,
    sleep_millisecs: int,
    wakeup_ns: float,
    tick_ns: int,
    cold_level_ns: float = 0.0,
) -> tuple[Floats, Floats]:
    """(time, CPU time) in ns from a scan's beginning to each of its samples."""
    visits = np.diff(each.visits, prepend=0).astype(np.float64)
    work = np.diff(each.cpu_ns, prepend=0.0)
    batches = visits / pages_to_scan
    # The scan's last batch ends with it, however few pages it had.
    batches[-1] += each.visits[-1] // pages_to_scan + 1 - each.visits[-1] / pages_to_scan
    waking = wakeup_ns + (_refilled(each, visits, pages_to_scan) * cold_level_ns)
    busy = work + batches * (waking if sleep_millisecs else wakeup_ns)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_batch = np.where(batches > 0, busy / np.maximum(batches, 1e-12), 0.0)
    took = batches * _cycle_ns(of_batch, sleep_millisecs, tick_ns)
    return np.cumsum(np.maximum(took, busy)), np.cumsum(busy)


def _refilled(each: Pass, visits: Floats, pages_to_scan: int) -> Floats:
    """Nodes of the trees' cached tops that a batch comes to, for each sample.

    A search passes one node of each level, whichever: of 2^n nodes that many searches miss a node
    with a probability of (1 - 2^-n) for each.
    """
    levels = np.arange(WARM_LEVELS)[:, None]
    nodes = np.zeros(len(visits))
    for tree in each.trees:
        searches = np.diff(tree.searches, prepend=0.0)
        depth = np.diff(tree.levels, prepend=0.0) / np.maximum(searches, 1e-12)
        in_batch = searches / np.maximum(visits, 1.0) * min(pages_to_scan, int(each.visits[-1]))
        met = 2.0**levels * (1 - (1 - 2.0**-levels) ** in_batch)
        nodes += (met * np.clip(depth - levels, 0, 1)).sum(axis=0)
    return nodes


def _cycle_ns(busy: Floats, sleep_millisecs: int, tick_ns: int) -> Floats:
    """From one waking to the next, for so much work in between."""
    if not sleep_millisecs:
        return busy
    ticks = math.ceil(sleep_millisecs * 1_000_000 / tick_ns) + 1
    return np.asarray((np.floor(busy / tick_ns) + ticks) * tick_ns)
