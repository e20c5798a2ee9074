"""Five tenants arrive one after the other; each holds what all hold, and some of its own."""

from __future__ import annotations

import os
import time
from functools import partial

from pages import memory, page_of, started

TENANTS, COMMON, PAIRED, OWN = 5, 499, 251, 257
APART, SECONDS = 1.7, 15.0
BEGIN = time.monotonic()


def tenant(number: int) -> None:
    """Pages common to all, pages that its pair has too, and pages of its own."""
    kept = memory(
        *[page_of(1, page) for page in range(COMMON)],
        *[page_of(2, number // 2, page) for page in range(PAIRED)],
        *[page_of(3, number, page) for page in range(OWN)],
    )
    time.sleep(BEGIN + SECONDS - time.monotonic())
    kept.close()


pids = []
for number in range(TENANTS):
    pids.append(started(f"tenant-{number + 1}", partial(tenant, number)))
    time.sleep(APART)
for pid in pids:
    os.waitpid(pid, 0)
