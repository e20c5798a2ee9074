"""What a scanner's work consists of, counted; what it costs is `kernel.costs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ksmtrace.kernel.costs import Costs

WARM_LEVELS = 12
"""How many levels of a tree, from its top, are taken to be cached: 4,095 nodes."""


PRICES: Mapping[str, str] = MappingProxyType(
    {
        "visits": "visit_ns",
        "absent": "absent_ns",
        "skipped": "skip_ns",
        "xxhash_bytes": "xxhash_byte_ns",
        "jhash2_bytes": "jhash2_byte_ns",
        "uksm_bytes": "uksm_byte_ns",
        "lines": "line_ns",
        "compared_bytes": "compare_byte_ns",
        "levels": "level_ns",
        "stable_levels": "stable_level_ns",
        "unstable_levels": "unstable_level_ns",
        "cold_levels": "cold_level_ns",
        "ksm_pages": "ksm_page_ns",
        "merges": "merge_ns",
        "wakeups": "wakeup_ns",
    }
)
"""Which of Costs each kind of work has; what fails costs what it did until then."""


@dataclass
class Work:
    """What a scanner has done since it began.

    visits: pages looked at. absent: addresses looked at that had no page to merge (UKSM draws them
    blindly, KSM passes the zero page). skipped: visits that smart scan spared. *_bytes: hashed by
    the two checksums of KSM and by UKSM's hash. lines: cache lines that a hash of a part of a page
    touches. compared_bytes: up to the first difference, and the word with it. stable_levels,
    unstable_levels: nodes of KSM's trees passed, their pages compared; cold_levels: those of them
    below the WARM_LEVELS. levels: nodes of UKSM's trees passed, whose keys are numbers. ksm_pages:
    pages turned into KSM pages. merges: pages mapped onto another one, the zero page included.
    failed: attempts that came to nothing. wakeups: how often it woke up.
    """

    visits: int = 0
    absent: int = 0
    skipped: int = 0
    xxhash_bytes: int = 0
    jhash2_bytes: int = 0
    uksm_bytes: int = 0
    lines: int = 0
    compared_bytes: int = 0
    levels: int = 0
    stable_levels: int = 0
    unstable_levels: int = 0
    cold_levels: int = 0
    ksm_pages: int = 0
    merges: int = 0
    failed: int = 0
    wakeups: int = 0

    @property
    def hashed_bytes(self) -> int:
        """Bytes hashed, by whatever function."""
        return self.xxhash_bytes + self.jhash2_bytes + self.uksm_bytes

    def ns(self, costs: Costs) -> float:
        """The CPU time that all this takes."""
        prices = ((getattr(self, work), getattr(costs, cost)) for work, cost in PRICES.items())
        return float(sum(number * price for number, price in prices))
