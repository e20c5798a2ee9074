"""UKSM's constants, and its governors: how much CPU each rung may take, and how fast it goes.

Of release 0.1.2.6, the one in the patches for Linux 4.0 to 6.12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ksmtrace.errors import Exit, KsmtraceError

DEFAULT_SLEEP_MS = 100
LONGEST_NAP_MS = 1_000
TICK_MS = 4
"""The scheduler's tick, by which naps are counted: 250 Hz."""
DEFAULT_PAGE_NS = 500
LONGEST_PAGE_NS = 100_000
"""A page time beyond which the estimate is given up."""
LEAST_SAMPLES = 3
"""What a rung takes of a cover time at least."""
ABUNDANT = 10
THRASH = 50
STRENGTH = 64
FULL_STRENGTH = 1_024
MOST_STRENGTH = 1_034
LEAST_STRENGTH = 1
MEMCMP_COST = 350
"""Comparing two pages, in hashed words, on x86."""


@dataclass(frozen=True)
class Governor:
    """A preset. cpu_ratios: of each rung, in 1/10000 of a CPU; negative: of max_cpu_percentage.

    cover_ms: in what time a rung's samples shall cover it.
    """

    cpu_ratios: tuple[int, int, int, int]
    cover_ms: tuple[int, int, int, int]
    max_cpu_percentage: int


GOVERNORS: Mapping[str, Governor] = MappingProxyType(
    {
        "full": Governor((20, 40, -2500, -10000), (1000, 500, 200, 50), 95),
        "medium": Governor((20, 30, -2500, -10000), (1000, 500, 400, 100), 50),
        "low": Governor((10, 20, -5000, -10000), (1500, 1000, 1000, 250), 20),
        "quiet": Governor((10, 20, 40, 75), (2000, 1000, 1000, 1000), 1),
    }
)
"""By name, in the order in which sysfs shows them."""


def governor_named(name: str) -> Governor:
    """The governor called so. Raises KsmtraceError (usage)."""
    if name not in GOVERNORS:
        raise KsmtraceError(
            f"UKSM has no governor {name!r}", f"there are {', '.join(GOVERNORS)}", Exit.USAGE
        )
    return GOVERNORS[name]
