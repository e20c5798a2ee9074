"""What follows from the facts by arithmetic: the figures that rules and the verdict stand on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ksmtrace.errors import KsmtraceError
from ksmtrace.inspect.advise.facts import Facts, Floats
from ksmtrace.kernel.releases import Profile, profile_of_host

GIB = 1 << 30
TARGET_S = 200
"""Seconds a full scan should take: what the kernel's own advisor aims at (advisor_target_scan_time,
6.8). Nothing merges before its second scan."""
MOST_CPU = 0.7
"""Of one core: what that advisor lets ksmd take (advisor_max_cpu)."""
NEGLIGIBLE_PERCENT = 1.0
"""Of one core: what ksmd may take without a word."""
CORE_PERCENT_PER_GIB = 25.0
"""Above this much of a core for a GiB, memory is dearer saved than bought: hosts commonly have
about 4 GiB a core."""
_STEADY = 1e-3
_FEWEST_VISITS = 100
_SIGNED = ("general_profit", "ksm_zero_pages")


@dataclass(frozen=True)
class Pace:
    """Settings and what they lead to.

    cpu_percent: of one core, None if a visit's cost is unknown.
    """

    pages_to_scan: int
    scan_s: float
    cpu_percent: float | None


class Situation:
    """The facts, asked for what they amount to. None: not known."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @cached_property
    def profile(self) -> Profile | None:
        """How this kernel behaves; None if the release is not known, or older than the table."""
        try:
            return profile_of_host(self.facts.kernel, self.facts.kernel_build)
        except KsmtraceError:
            return None

    def since(self, release: str) -> bool:
        """Whether the kernel is known to be at least that release."""
        return self.profile is not None and self.profile.has(release)

    @cached_property
    def saved_series(self) -> Floats:
        """Pages saved at each sample, as the kernel counts: pages_sharing + ksm_zero_pages."""
        zero = self.facts.series.values("ksm_zero_pages")
        return self.facts.series.values("pages_sharing") + np.nan_to_num(zero)

    @cached_property
    def judged_at(self) -> int:
        """The sample judged: the last, or if all had gone by then the one with most saved."""
        saved = self.saved_series
        if not len(saved):
            return -1
        if not np.isfinite(saved).any() or self.facts.live or saved[-1] > 0:
            return len(saved) - 1
        fullest = int(np.nanargmax(saved))
        return fullest if saved[fullest] > 0 else len(saved) - 1

    @property
    def over(self) -> bool:
        """Whether what is judged was over before the recording's end."""
        return self.judged_at < len(self.saved_series) - 1

    def value(self, name: str) -> int | None:
        """A counter at the moment judged; None also for a negative one that can't be."""
        values = self.facts.series.values(name)[: self.judged_at + 1]
        known = values[np.isfinite(values)]
        if not len(known) or (known[-1] < 0 and name not in _SIGNED):
            return None
        return int(known[-1])

    def growth(self, name: str) -> int | None:
        """By how much a counter grew in all; None without two samples, or if it began again."""
        values = self.facts.series.values(name)
        known = values[np.isfinite(values)]
        if len(known) < 2 or known[-1] < known[0]:
            return None
        return int(known[-1] - known[0])

    def knob(self, name: str) -> int | None:
        """A numeric knob."""
        text = self.facts.knobs.get(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None

    @property
    def running(self) -> bool:
        """Whether ksmd scans by itself."""
        return self.knob("run") == 1 and not self.facts.stepped

    @property
    def advised(self) -> bool:
        """Whether the kernel's advisor sets pages_to_scan."""
        return self.facts.knobs.get("advisor_mode") == "scan-time"

    @cached_property
    def saved_pages(self) -> int | None:
        """Pages saved; negative where the kernel's count of zero pages went wrong."""
        sharing = self.value("pages_sharing")
        return None if sharing is None else sharing + (self.value("ksm_zero_pages") or 0)

    @cached_property
    def saved_bytes(self) -> int | None:
        """The same in bytes."""
        return None if self.saved_pages is None else self.saved_pages * self.facts.page_bytes

    @cached_property
    def saved_mean_bytes(self) -> float | None:
        """Averaged over time: each sample counts until the next."""
        known = np.isfinite(self.saved_series)
        at, saved = self.facts.series.at_s[known], self.saved_series[known]
        if len(at) < 2 or at[-1] <= at[0]:
            return None
        return float(np.average(saved[:-1], weights=np.diff(at))) * self.facts.page_bytes

    @cached_property
    def trend_bytes_per_s(self) -> float | None:
        """How the saving changed in the second half of the time up to the moment judged."""
        saved = self.saved_series[: self.judged_at + 1]
        at = self.facts.series.at_s[: self.judged_at + 1]
        known = np.flatnonzero(np.isfinite(saved))
        if len(known) < 2:
            return None
        last = known[-1]
        middle = (at[known[0]] + at[last]) / 2
        begin = known[int(np.searchsorted(at[known], middle, "right")) - 1]
        seconds = float(at[last] - at[begin])
        return (
            float(saved[last] - saved[begin]) * self.facts.page_bytes / seconds if seconds else None
        )

    @cached_property
    def rmap_items(self) -> int | None:
        """Pages on ksmd's list: pages_volatile is what is left of them beside the other three."""
        parts = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
        values = [self.value(name) for name in parts]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(parts) else None

    @cached_property
    def profit_bytes(self) -> int | None:
        """general_profit; before 6.4, which doesn't tell it, the same by hand."""
        told = self.value("general_profit")
        if told is not None:
            return told
        if self.saved_bytes is None or self.rmap_items is None or not self.facts.rmap_item_bytes:
            return None
        return self.saved_bytes - self.rmap_items * self.facts.rmap_item_bytes

    @cached_property
    def ksmd_s(self) -> float | None:
        """Ksmd's CPU seconds while it was watched."""
        grown = self.growth("ksmd_cpu_ns")
        return None if grown is None else grown / 1e9

    @cached_property
    def core_percent(self) -> float | None:
        """Ksmd's share of one core; None where ksmd was driven by hand."""
        if self.facts.stepped:
            return None
        span = self.facts.series.span_s
        return 100 * self.ksmd_s / span if self.ksmd_s is not None and span > 0 else None

    @cached_property
    def host_percent(self) -> float | None:
        """Ksmd's share of all cores."""
        if self.core_percent is None or not self.facts.cpus:
            return None
        return self.core_percent / self.facts.cpus

    @cached_property
    def cpu_s_per_gib_hour(self) -> float | None:
        """CPU seconds for a GiB kept saved for an hour."""
        if self.core_percent is None or not self.saved_mean_bytes or self.saved_mean_bytes <= 0:
            return None
        return self.core_percent / 100 * 3600 / (self.saved_mean_bytes / GIB)

    @cached_property
    def cpu_s_per_gib(self) -> float | None:
        """CPU seconds spent while it was watched, by the GiB saved meanwhile, mean over time."""
        if self.ksmd_s is None or not self.saved_mean_bytes or self.saved_mean_bytes <= 0:
            return None
        return self.ksmd_s / (self.saved_mean_bytes / GIB)

    @property
    def dear(self) -> bool:
        """Whether the CPU is worth more than the memory, now that the saving has come to stand."""
        if self.steady is not True or not self.saved_bytes or self.core_percent is None:
            return False
        limit = max(NEGLIGIBLE_PERCENT, CORE_PERCENT_PER_GIB * self.saved_bytes / GIB)
        return self.core_percent > limit

    @cached_property
    def skipped_share(self) -> float | None:
        """Of the pages ksmd came to, the share that smart scan skipped; 0 without smart scan."""
        skipped, visited = self.growth("pages_skipped"), self.visits
        if skipped is None:
            return 0.0 if self.facts.knobs.get("smart_scan") != "1" else None
        return skipped / (skipped + visited) if visited else None

    @cached_property
    def visits(self) -> int | None:
        """Pages visited while it was watched; None where the kernel's count is wrong or absent."""
        if self.profile is not None and self.profile.behaviour.pages_scanned != "exact":
            return None
        return self.growth("pages_scanned")

    @cached_property
    def us_per_visit(self) -> float | None:
        """Ksmd's CPU by the pages it visited, skipping included: microseconds."""
        if not self.ksmd_s or not self.visits or self.visits < _FEWEST_VISITS:
            return None
        return self.ksmd_s * 1e6 / self.visits

    @cached_property
    def visits_per_scan(self) -> float | None:
        """Pages that a full scan visits."""
        if not self.rmap_items:
            return None
        return self.rmap_items * (1 - (self.skipped_share or 0.0))

    @cached_property
    def reckoned_scan_s(self) -> float | None:
        """Seconds of a full scan at the present settings, by arithmetic."""
        pages = self.knob("pages_to_scan")
        if self.visits and self.visits_per_scan and self.facts.series.span_s > 0:
            return self.visits_per_scan / (self.visits / self.facts.series.span_s)
        paced = self.paced(pages) if pages else None
        return None if paced is None else paced.scan_s

    @property
    def scan_s(self) -> float | None:
        """Seconds of a full scan: measured, else reckoned."""
        return self.facts.scan_s if self.facts.scan_s is not None else self.reckoned_scan_s

    @property
    def scan_words(self) -> str:
        """How `scan_s` is known."""
        return "measured" if self.facts.scan_s is not None else "reckoned from the rate"

    def paced(self, pages: int) -> Pace | None:
        """What a value of pages_to_scan leads to: a batch, a sleep, a batch, ..."""
        sleep, visits = self.knob("sleep_millisecs"), self.visits_per_scan
        if sleep is None or not visits or pages <= 0:
            return None
        busy = visits * (self.us_per_visit or 0.0) / 1e6
        seconds = math.ceil(visits / pages) * sleep / 1e3 + busy
        known = self.us_per_visit is not None and seconds > 0
        return Pace(pages, seconds, 100 * busy / seconds if known else None)

    def frugal_s(self, most_s: float) -> float:
        """Seconds of a full scan that takes a negligible share of a core, `most_s` at most."""
        busy = (self.visits_per_scan or 0.0) * (self.us_per_visit or 0.0) / 1e6
        return min(most_s, busy * 100 / NEGLIGIBLE_PERCENT) if busy else most_s

    def pace_for(self, target_s: float = TARGET_S) -> Pace | None:
        """The pages_to_scan by which a full scan takes `target_s`, with at most MOST_CPU of a core.

        Of two digits, rounded up.
        """
        sleep, visits = self.knob("sleep_millisecs"), self.visits_per_scan
        if not sleep or not visits:
            return None
        busy = visits * (self.us_per_visit or 0.0) / 1e6
        seconds = max(target_s, busy / MOST_CPU)
        pages = max(1, math.ceil(visits * sleep / 1e3 / (seconds - busy)))
        unit = 10 ** max(0, len(str(pages)) - 2)
        return self.paced(math.ceil(pages / unit) * unit)

    @cached_property
    def steady(self) -> bool | None:
        """Whether the saving stood still for the second half; None with too little to tell."""
        if self.over or self.trend_bytes_per_s is None or not self.facts.scans:
            return None
        if self.facts.scans < 3:
            return None
        half = self.trend_bytes_per_s * self.facts.series.span_s / 2
        return abs(half) <= max(_STEADY * abs(self.saved_bytes or 0), 16 * self.facts.page_bytes)

    @cached_property
    def copies(self) -> int | None:
        """Copies of KSM pages made while it was watched; None also where an order made them."""
        return None if self.facts.copies_by_order else self.growth("cow_ksm")

    @cached_property
    def merges(self) -> int | None:
        """Merges meanwhile: counted, else at least what is merged more now plus the copies."""
        if self.facts.merges is not None:
            return self.facts.merges
        series = self.facts.series
        merged = series.values("pages_sharing") + series.values("pages_shared")
        known = merged[np.isfinite(merged)]
        if len(known) < 2 or self.copies is None:
            return None
        return max(0, int(known[-1] - known[0]) + self.copies)

    @property
    def unmerge_fits(self) -> bool | None:
        """Whether all sharing could be broken with the memory there is."""
        if self.saved_bytes is None or self.facts.mem_available_bytes is None:
            return None
        return self.saved_bytes <= self.facts.mem_available_bytes + (
            self.facts.swap_free_bytes or 0
        )
