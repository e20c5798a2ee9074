"""How much each rung may do until the next wake-up, and how far apart its samples lie.

Pure arithmetic, integers truncating as in the kernel.
"""

from __future__ import annotations

from ksmtrace.kernel.uksm import RATIO_SCALE
from ksmtrace.model.uksm.governors import (
    LEAST_SAMPLES,
    LONGEST_NAP_MS,
    TICK_MS,
)

_U64 = (1 << 64) - 1
_BURST = 10
_NEW_WEIGHT = 20
_NAP_SHIFT = 20


def real_ratio(ratio: int, max_cpu: int) -> int:
    """A rung's CPU share in 1/10000; a negative one is a share of max_cpu per cent."""
    if ratio > 0:
        return ratio
    return -ratio * max_cpu // 100 or 1


def budget_ns(ratio: int, sleep_ms: int) -> int:
    """The CPU time that a share allows between two wake-ups."""
    return 1_000_000 * sleep_ms // (RATIO_SCALE - ratio) * ratio


def quota(ratio: int, sleep_ms: int, page_ns: int) -> int:
    """How many visits that is."""
    return budget_ns(ratio, sleep_ms) // page_ns


def stride(pages: int, cover_ms: int, ratio: int, page_ns: int) -> int:
    """How many pages of a rung one sample stands for. A negative ratio is taken for a huge one."""
    if cover_ms == 0:
        return 1
    samples = max(LEAST_SAMPLES, cover_ms * 100 * (ratio & _U64) // page_ns)
    return pages // samples if pages > samples else 1


def moving_average(sample: int, old: int) -> int:
    """The page time after another measurement."""
    if sample > old * _BURST:
        return old * 2
    return (_NEW_WEIGHT * sample + (100 - _NEW_WEIGHT) * old) // 100


def sleep_for_one_page(page_ns: int, ratio: int) -> int:
    """Milliseconds after which the slowest rung can afford a page: whole ticks, and one more."""
    needed_us = page_ns * (RATIO_SCALE - ratio) // ratio // 1000
    ticks = -(-needed_us // (TICK_MS * 1000))
    return (ticks + 1) * TICK_MS


def nap_ms(sleep_ms: int, cpu_ns: int, ratio: int) -> int:
    """How long to sleep after so much work, that it stays within the share. ratio 0: no work."""
    nap = sleep_ms
    if ratio and cpu_ns > 0:
        # The kernel's milliseconds here are 2^20 ns.
        nap = max(nap, (cpu_ns >> _NAP_SHIFT) * (RATIO_SCALE - ratio) // ratio)
        nap = min(nap, LONGEST_NAP_MS)
    return nap
