"""Searching settings of ksmd for a moment: the most saved, soonest, within a share of CPU.

The scans themselves are simulated once for each choice of what ksmd does; how long they take at a
pace is arithmetic. More pages_to_scan is always sooner and always more CPU, so the most that a CPU
limit allows, and the least that a time limit allows, are found by halving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.costs import Costs
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.whatif.ask import pace_asked
from ksmtrace.whatif.moment import Moment
from ksmtrace.whatif.pacing import Pace, Prediction, predict
from ksmtrace.whatif.passes import Passes, scan

SWITCHES: Mapping[str, tuple[str, ...]] = {"smart_scan": ("1", "0"), "use_zero_pages": ("1", "0")}
"""What ksmd does, as far as it is tried; other knobs stay as they are."""
SLEEPS_MS = (20, 50, 100, 200)
TARGETS_S = (10, 20, 30, 60, 120, 300, 600, 1200, 3600)
"""Scan times asked of the advisor."""
_MOST_PAGES = 10_000_000
_GRID: list[int] = [
    number * 10**power for power in range(6) for number in (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
] + [_MOST_PAGES]
"""pages_to_scan that are tried: numbers that people write."""
_ALIKE = 0.002
"""Savings that differ by less count as the same."""
SHARE = 0.99
"""How much of what is saved in the end a time limit is about."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """max_cpu_percent: of a core, until it is saved and ever after. within_s: until it is saved."""

    max_cpu_percent: float
    within_s: float | None = None


@dataclass(frozen=True)
class Candidate:
    """Settings, and what they would do. switches: by knob; pace: how fast.

    has_advisor: whether the kernel has one, which must be off for another pages_to_scan.
    """

    switches: Mapping[str, str]
    pace: Pace
    prediction: Prediction
    has_advisor: bool

    @property
    def cpu_percent(self) -> float:
        """The larger of ksmd's two shares of a core: until all is saved, and ever after."""
        return max(self.prediction.cpu_percent_until_saved or 0.0, self.prediction.cpu_percent)

    @property
    def seconds(self) -> float:
        """Until it is saved (SHARE of it)."""
        reached = self.prediction.at(SHARE)
        return reached[0] if reached else 0.0

    def keeps(self, limits: Limits) -> bool:
        """Whether it stays within limits."""
        soon = limits.within_s is None or self.seconds <= limits.within_s
        return soon and self.cpu_percent <= limits.max_cpu_percent

    @property
    def knobs(self) -> dict[str, str]:
        """What to write, in order."""
        off = self.has_advisor and self.pace.advisor_mode == "none"
        return {
            **({"advisor_mode": "none"} if off else {}),
            **self.switches,
            **self.pace.as_knobs(),
        }


@dataclass(frozen=True)
class Tuning:
    """now: the host's own settings. best: those within the limits, the best first; may be empty.

    nearest: the least CPU for the time asked for, and the shortest time for the CPU asked for,
    where nothing keeps both. tried: how many settings were looked at.
    """

    limits: Limits
    now: Candidate
    best: list[Candidate]
    nearest: list[Candidate]
    tried: int


def tune(
    moment: Moment,
    profile: Profile,
    limits: Limits,
    *,
    costs: Costs,
    tick_ns: int,
    most: int = 5,
    progress: Progress = lambda _words: None,
) -> Tuning:
    """Search settings. Raises KsmtraceError where nothing at all would ever be saved."""
    search = _Search(
        limits, costs, tick_ns, moment.ksmd_cpu_ns, advisor=_has(profile, "advisor_mode")
    )
    own = {n: v for n, v in moment.knobs.items() if n in SWITCHES and _has(profile, n)}
    own = {**{n: KNOBS_BY_NAME[n].default for n in SWITCHES if _has(profile, n)}, **own}
    now: Candidate | None = None
    for switches in _choices(profile):
        progress(f"scanning with {_in_words(switches)}")
        passes = scan(moment, profile, f"ksm:{profile.name}", switches, costs)
        if passes.partial:
            raise KeyboardInterrupt
        if switches == own:
            pace = pace_asked(moment.knobs, {})
            now = search.candidate(switches, pace, passes)
        search.add(switches, passes)
    if not any(each.prediction.pages_saved for each in search.found):
        raise KsmtraceError(
            "no settings would save anything: no two pages of it are equal",
            "ksmtrace estimate tells what a host's memory holds",
        )
    assert now is not None, "its own switches are among those that are tried"
    kept = [each for each in search.found if each.keeps(limits)]
    nearest = [] if kept else search.nearest()
    return Tuning(limits, now, _best(kept, now)[:most], nearest, search.tried)


def _has(profile: Profile, knob: str) -> bool:
    return profile.has(KNOBS_BY_NAME[knob].since)


def _choices(profile: Profile) -> Iterator[dict[str, str]]:
    names = [name for name in SWITCHES if _has(profile, name)]
    for values in product(*(SWITCHES[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _in_words(switches: Mapping[str, str]) -> str:
    return ", ".join(f"{n}={v}" for n, v in switches.items()) or "the kernel's own ways"


def _best(kept: list[Candidate], now: Candidate) -> list[Candidate]:
    """The most saved first; what saves alike, by time, then by CPU. One of each kind, then all."""
    most = max((each.prediction.pages_saved for each in kept), default=0)

    def rank(each: Candidate) -> tuple[float, ...]:
        lacks = (most - each.prediction.pages_saved) / most if most else 0.0
        # What brings nothing that could be measured is better left as it is.
        changes = sum(now.switches[name] != value for name, value in each.switches.items())
        share = each.prediction.cpu_percent
        return round(lacks / _ALIKE), round(each.seconds, 2), round(share, 2), changes

    ranked = sorted(kept, key=rank)
    kinds: dict[tuple[object, ...], Candidate] = {}
    for each in ranked:
        kinds.setdefault((*each.switches.items(), each.pace.advisor_mode), each)
    # The best of each kind is more to choose from than the best kind's neighbours.
    return [*kinds.values(), *(each for each in ranked if each not in kinds.values())]


class _Search:
    """Everything that was tried, and what of it is worth telling."""

    def __init__(
        self, limits: Limits, costs: Costs, tick_ns: int, ksmd_cpu_ns: int, *, advisor: bool
    ) -> None:
        self._advisor = advisor
        self._ksmd_cpu_ns = ksmd_cpu_ns
        self._limits = limits
        self._costs = costs
        self._tick_ns = tick_ns
        self.found: list[Candidate] = []
        self.tried = 0

    def candidate(self, switches: Mapping[str, str], pace: Pace, passes: Passes) -> Candidate:
        self.tried += 1
        told = predict(
            passes.done, pace, wakeup_ns=self._costs.wakeup_ns, tick_ns=self._tick_ns,
            cold_level_ns=self._costs.cold_level_ns, ksmd_cpu_ns=self._ksmd_cpu_ns,
        )  # fmt: skip
        return Candidate(switches, pace, told, self._advisor)

    def add(self, switches: Mapping[str, str], passes: Passes) -> None:
        """Try all paces for one choice of switches."""
        for sleep in SLEEPS_MS:

            def at(pages: int, sleep: int = sleep) -> Candidate:
                return self.candidate(switches, Pace(pages, sleep), passes)

            self.found.append(at(_largest(at, self._is_cheap)))
            if self._limits.within_s is not None:
                self.found.append(at(_round_up(_largest(at, self._is_late))))
        if self._advisor:
            for target in TARGETS_S:
                pace = Pace(
                    advisor_mode="scan-time",
                    advisor_target_scan_time=target,
                    advisor_max_cpu=max(1, min(100, int(self._limits.max_cpu_percent))),
                )
                self.found.append(self.candidate(switches, pace, passes))

    def _is_cheap(self, each: Candidate) -> bool:
        return each.cpu_percent <= self._limits.max_cpu_percent

    def _is_late(self, each: Candidate) -> bool:
        return each.seconds > (self._limits.within_s or 0.0)

    def nearest(self) -> list[Candidate]:
        """The best of those that miss one limit only, for each limit."""
        limits = self._limits
        cheap = [each for each in self.found if self._is_cheap(each)]
        within = limits.within_s
        soon = [each for each in self.found if within is not None and each.seconds <= within]
        shortest = min(cheap, key=lambda each: each.seconds, default=None)
        cheapest = min(soon, key=lambda each: each.cpu_percent, default=None)
        if shortest is None and cheapest is None:
            cheapest = min(self.found, key=lambda each: each.cpu_percent)
        return [each for each in (shortest, cheapest) if each is not None]


def _largest(at: Callable[[int], Candidate], fits: Callable[[Candidate], bool]) -> int:
    """The most pages that fit, of _GRID; its least if none does."""
    low, high = 0, len(_GRID)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(at(_GRID[middle])):
            low = middle
        else:
            high = middle
    return _GRID[low]


def _round_up(pages: int) -> int:
    return min((each for each in _GRID if each > pages), default=_MOST_PAGES)
