"""Every rule, once. A new one is a function with its entry, and a line here."""

from __future__ import annotations

from ksmtrace.inspect.advise.rules.advisor import (
    ADVISOR_CPU_LIMIT,
    ADVISOR_FLOOR,
    ADVISOR_PAGE_LIMIT,
)
from ksmtrace.inspect.advise.rules.base import Rule
from ksmtrace.inspect.advise.rules.dangers import CHURN, OVERCOMMITTED
from ksmtrace.inspect.advise.rules.limits import (
    LONG_CHAINS,
    NODES_APART,
    SHARING_LIMIT,
    ZERO_PAGES,
)
from ksmtrace.inspect.advise.rules.pace import (
    ENDLESS_SCAN,
    KSMD_FULL_CORE,
    SCANS_TOO_FAST,
    SCANS_TOO_SLOWLY,
    SMART_SCAN_OFF,
)
from ksmtrace.inspect.advise.rules.paying import (
    NEGATIVE_PROFIT,
    UNPROFITABLE_PROCESSES,
    VOLATILE_MEMORY,
)
from ksmtrace.inspect.advise.rules.switch import (
    NOTHING_REGISTERED,
    STOPPED,
    STOPPED_FOR_WHOM,
    UNMERGED,
)

RULES: tuple[Rule, ...] = (
    OVERCOMMITTED,
    STOPPED,
    UNMERGED,
    STOPPED_FOR_WHOM,
    NOTHING_REGISTERED,
    ENDLESS_SCAN,
    NEGATIVE_PROFIT,
    UNPROFITABLE_PROCESSES,
    VOLATILE_MEMORY,
    SHARING_LIMIT,
    ZERO_PAGES,
    LONG_CHAINS,
    KSMD_FULL_CORE,
    SCANS_TOO_FAST,
    ADVISOR_FLOOR,
    SMART_SCAN_OFF,
    SCANS_TOO_SLOWLY,
    ADVISOR_PAGE_LIMIT,
    ADVISOR_CPU_LIMIT,
    NODES_APART,
    CHURN,
)
"""Where estimates tell no difference, advice comes in this order."""
