"""What samples of a host's counters amount to, and how a figure is declared.

A figure that can't be told is `Missing`, with the reason; it is never 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.releases import UNKNOWN_KERNEL, parse_release
from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME
from ksmtrace.timeline.context import Samples

Floats = npt.NDArray[np.float64]
Unit = Literal["number", "per_s", "s", "us", "bytes", "percent", "cpu_s"]
GIB = 1 << 30
NOTHING_SAVED = "nothing was saved"
_F_contra = TypeVar("_F_contra", contravariant=True)


@dataclass(frozen=True)
class Missing:
    """A figure that can't be told, and why: a clause that fits after a dash."""

    why: str


Value = float | Missing


@dataclass(frozen=True)
class Measure(Generic[_F_contra]):
    """A figure. name: as JSON has it, with its unit. better: which of two is, None if neither.

    words: as the table has it. meaning: as the docs have it. scales: it grows with the length of
    what is measured, so that two of different lengths don't compare.
    """

    group: str
    name: str
    words: str
    unit: Unit
    of: Callable[[_F_contra], Value]
    meaning: str
    better: Literal["more", "less"] | None = None
    scales: bool = False


class HostFigures(ABC):
    """A host's samples, asked for figures. kernel: its release."""

    def __init__(self, kernel: str, page_bytes: int) -> None:
        self.kernel = kernel
        self.page_bytes = page_bytes

    @property
    @abstractmethod
    def host(self) -> Samples:
        """The samples, in time's order."""

    def counter(self, name: str) -> Floats | Missing:
        """A counter of the host at each sample; NaN where one lacks it, but not all do."""
        if not len(self.host):
            return Missing("no counters were sampled")
        declared = COUNTERS_BY_NAME[name]
        values = self.host.counters[name]
        if np.isfinite(values).any():
            return values
        if self.older_than(declared.since):
            return Missing(f"{name} came with Linux {declared.since}")
        return Missing(f"{name} was not sampled")

    def older_than(self, release: str) -> bool:
        """Whether the recorded kernel is known, and older than a release."""
        known = self.kernel != UNKNOWN_KERNEL
        return known and (0, 0, 0) < parse_release(self.kernel) < parse_release(release)

    def last(self, name: str) -> Value:
        """A counter's last value."""
        values = self.counter(name)
        return values if isinstance(values, Missing) else float(values[np.isfinite(values)][-1])

    def grown(self, name: str) -> tuple[float, float] | Missing:
        """By how much a counter grew from its first to its last sample, and in how many seconds."""
        values = self.counter(name)
        if isinstance(values, Missing):
            return values
        there = np.isfinite(values)
        ts = self.host.ts[there]
        seconds = float(ts[-1] - ts[0]) / 1e9
        if seconds <= 0:
            return Missing("it takes two samples of the counters")
        return float(values[there][-1] - values[there][0]), seconds

    @cached_property
    def saved(self) -> tuple[npt.NDArray[np.uint64], Floats] | Missing:
        """When (ns), and pages_sharing + ksm_zero_pages in bytes then."""
        sharing = self.counter("pages_sharing")
        if isinstance(sharing, Missing):
            return sharing
        zero = self.counter("ksm_zero_pages")
        pages = sharing if isinstance(zero, Missing) else sharing + np.nan_to_num(zero)
        there = np.isfinite(pages)
        return self.host.ts[there], pages[there] * self.page_bytes

    @cached_property
    def saved_mean(self) -> Value:
        """Bytes saved, averaged over time: each sample counts until the next."""
        if isinstance(self.saved, Missing):
            return self.saved
        ts, saved = self.saved
        if len(ts) < 2 or ts[-1] == ts[0]:
            return Missing("it takes two samples of the counters")
        return float(np.average(saved[:-1], weights=np.diff(ts).astype(np.float64)))


def divided(top: Value, bottom: Value, times: float = 1.0, why: str = "") -> Value:
    """The quotient, so many times. why: what it means that bottom is 0."""
    if isinstance(top, Missing):
        return top
    if isinstance(bottom, Missing):
        return bottom
    return times * top / bottom if bottom else Missing(why)


def cpu(figures: HostFigures) -> Value:
    """Seconds of CPU that ksmd took from the first sample to the last."""
    grown = figures.grown("ksmd_cpu_ns")
    return grown if isinstance(grown, Missing) else grown[0] / 1e9


def cpu_share(figures: HostFigures) -> Value:
    """The same in percent of the time: of one core."""
    grown = figures.grown("ksmd_cpu_ns")
    return grown if isinstance(grown, Missing) else 100 * grown[0] / 1e9 / grown[1]


def cpu_per_gib(figures: HostFigures) -> Value:
    """Seconds of ksmd's CPU by the GiB saved, mean over time."""
    return divided(cpu(figures), figures.saved_mean, GIB, NOTHING_SAVED)
