"""Finding the settings with which ksmd does as much as another scanner did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

TOLERANCE = 0.02
_MOST_TRIES = 10
_FINE = 100
"""So many pages a batch at least: one more or less is then within the tolerance."""
_OTHER_BATCHES = (50, 200, 25, 400, 800)
"""Where a batch of that rate was tried: other sizes end elsewhere, and so may come nearer."""
_LONGEST_SLEEP_MS = 2000
_LEAST = 1 / 16
_STEEPEST = 4.0
_ONE_SIDED = 3
"""So many tries on one side, and the middle is tried."""


@dataclass(frozen=True)
class Settings:
    """How fast ksmd goes."""

    pages_to_scan: int
    sleep_millisecs: int

    @property
    def rate(self) -> float:
        """Pages a millisecond of sleep."""
        return self.pages_to_scan / max(1, self.sleep_millisecs)


def settings_for(rate: float, sleep_ms: int, least: int = _FINE) -> Settings:
    """Settings of about that rate; a longer sleep than sleep_ms where a batch would be too small.

    rate: pages a millisecond of sleep. least: pages of a batch, where the longest sleep allows it.
    """
    base = max(1, sleep_ms)
    batches = math.ceil(least / (rate * base)) if rate * base < least else 1
    sleep = min(base * batches, max(base, _LONGEST_SLEEP_MS))
    return Settings(max(1, round(rate * sleep)), sleep)


def _untried(rate: float, sleep_ms: int, tried: set[Settings]) -> Settings:
    """Settings of about that rate that were not tried, if there are any."""
    all_ = [settings_for(rate, sleep_ms, least) for least in (_FINE, *_OTHER_BATCHES)]
    return next((settings for settings in all_ if settings not in tried), all_[0])


Found = TypeVar("Found")


@dataclass(frozen=True)
class Tuned(Generic[Found]):
    """The best of all tries. off: by what part it misses the target, 0.01 is 1 % too much."""

    settings: Settings
    found: Found
    off: float


def _steepness(one: Tuned[Found], other: Tuned[Found]) -> float:
    """By what power the amount grows with the rate, between two tries."""
    farther = math.log(other.settings.rate / one.settings.rate)
    if not farther or min(one.off, other.off) <= -1:
        return 1.0
    steepness = (math.log1p(other.off) - math.log1p(one.off)) / farther
    return min(_STEEPEST, max(1 / _STEEPEST, steepness))


class _Bracket(Generic[Found]):
    """The nearest tries on both sides of the target, which say where to try next."""

    def __init__(self) -> None:
        self._below: Tuned[Found] | None = None
        self._above: Tuned[Found] | None = None
        self._same_side = 0
        self._last: Tuned[Found] | None = None
        self._steepness = 1.0

    def add(self, tried: Tuned[Found]) -> None:
        """Take a try in."""
        if self._last is not None:
            self._steepness = _steepness(self._last, tried)
        self._last = tried
        side = 1 if tried.off > 0 else -1
        self._same_side = self._same_side + side if self._same_side * side > 0 else side
        if tried.off < 0:
            if self._below is None or tried.settings.rate > self._below.settings.rate:
                self._below = tried
        elif self._above is None or tried.settings.rate < self._above.settings.rate:
            self._above = tried

    def rate(self) -> float:
        """Where the target should be: between both sides, or in proportion to the only one."""
        below, above = self._below, self._above
        if below is None or above is None:
            only = below or above
            assert only is not None
            done = math.log(max(1 + only.off, _LEAST))
            return only.settings.rate * math.exp(-done / self._steepness)
        low, high = math.log(below.settings.rate), math.log(above.settings.rate)
        if abs(self._same_side) >= _ONE_SIDED or below.off <= -1:
            return math.exp((low + high) / 2)
        far_below, far_above = math.log1p(below.off), math.log1p(above.off)
        return math.exp(low + (high - low) * far_below / (far_below - far_above))


def tune(
    measure: Callable[[Settings], Found],
    amount: Callable[[Found], float],
    target: float,
    start: tuple[Settings, Found],
    tolerance: float = TOLERANCE,
) -> Tuned[Found]:
    """Try settings until `amount` is the target, nearly. amount: grows with the rate, about as it.

    start: settings tried before, and what came of them; target: above 0.
    """
    settings, found = start
    sleep = settings.sleep_millisecs
    tried = {settings}
    best = last = Tuned(settings, found, amount(found) / target - 1)
    bracket: _Bracket[Found] = _Bracket()
    for _ in range(_MOST_TRIES):
        if abs(best.off) <= tolerance:
            break
        bracket.add(last)
        settings = _untried(bracket.rate(), sleep, tried)
        if settings in tried:
            break
        tried.add(settings)
        found = measure(settings)
        last = Tuned(settings, found, amount(found) / target - 1)
        if abs(last.off) < abs(best.off):
            best = last
    return best
