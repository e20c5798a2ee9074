"""How often ksmd must come by, as far as no release differs (mm/ksm.c, 2.6.32 to 6.19)."""

from __future__ import annotations

SCANS_TO_MERGE = 2
"""Full scans until pages that hold still are merged: the first only notes their checksums."""

MOST_SCANS_SKIPPED = 8
"""How many scans in a row smart scan leaves a page out at the most (6.7)."""

SCANS_PAST_SKIPPING = MOST_SCANS_SKIPPED + SCANS_TO_MERGE
"""Full scans after which even smart scan has visited every page."""
