"""A process whose mergeable memory grows thirtyfold: work for an advisor."""

from __future__ import annotations

import mmap
import time

from pages import MADV_MERGEABLE, MADV_NOHUGEPAGE, PAGE, memory, page_of

FIRST, PAIRS, LATER = 2003, 251, 59999
BEFORE, AFTER = 2.5, 37.0

small = memory(*[page_of(1, page % (FIRST - PAIRS)) for page in range(FIRST)])
time.sleep(BEFORE)
large = mmap.mmap(-1, LATER * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
large.madvise(MADV_NOHUGEPAGE)
for page in range(LATER):
    # A word makes each of them different: enough work for ksmd, little for this.
    large[page * PAGE : page * PAGE + 8] = (page + 1).to_bytes(8, "little")
large.madvise(MADV_MERGEABLE)
time.sleep(AFTER)
