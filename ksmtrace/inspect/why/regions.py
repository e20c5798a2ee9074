"""Pages of regions by cause, as far as page tables tell: no content is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from ksmtrace.inspect.why.answer import RegionAnswer
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes.eligibility import bar_of, kind_of_shared
from ksmtrace.processes.page_tables import (
    FILE_OR_SHARED,
    KPF_KSM,
    KPF_TRANSPARENT_HUGE,
    KPF_ZERO_PAGE,
    PRESENT,
    SWAPPED,
    PageTables,
    Words,
    frames_of,
    ksm_flag_tells,
)
from ksmtrace.processes.regions import Region

_PAGES_AT_ONCE = 1 << 16
UNMERGED = "unmerged"
"""Pages that ksmd would merge if they have equals: not told apart before contents are read."""


def look_at(
    tgid: int, regions: Iterable[Region], progress: Callable[[str], None] = lambda _words: None
) -> list[RegionAnswer]:
    """Every region's pages by cause, unmerged ones in one.

    Raises OSError where the process is gone or may not be looked at.
    """
    answers = []
    with PageTables(tgid) as tables:
        for region in regions:
            progress(f"looking at {region.start:x} {region.name}")
            answers.append(look_at_region(tables, region))
    return answers


def look_at_region(tables: PageTables, region: Region) -> RegionAnswer:
    """One region's pages by cause."""
    answer = RegionAnswer(region)
    pages = (region.end - region.start) // PAGE_BYTES
    bar = bar_of(region)
    if bar is not None:
        # Whether a shared page is there is for others to say, too: what counts is what is mapped.
        there = min(pages, (region.present_bytes or 0) // PAGE_BYTES)
        # A shared file's pages are the page cache: nobody could merge them better.
        of_file = bar.cause == "shared" and kind_of_shared(region) == "file"
        answer.pages = Counter({"file" if of_file else bar.cause: there})
        answer.pages["absent"] += pages - there
    elif region.anonymous_bytes == 0 and region.swapped_bytes == 0 and not region.mergeable:
        there = min(pages, (region.present_bytes or 0) // PAGE_BYTES)
        answer.pages = Counter({"file": there, "absent": pages - there})
    else:
        for _first, entries in tables.entries(region.start, region.end, _PAGES_AT_ONCE):
            answer.pages += causes_of(entries, tables, answer)
        if not ksm_flag_tells() and region.ksm_bytes:
            merged = min(region.ksm_bytes // PAGE_BYTES, answer.pages[UNMERGED])
            answer.pages += Counter(merged=merged)
            answer.pages[UNMERGED] -= merged
        # What the process gave back meanwhile.
        answer.pages["absent"] += pages - answer.pages.total()
        if not region.mergeable and answer.pages[UNMERGED]:
            answer.pages["unregistered"] = answer.pages.pop(UNMERGED)
    answer.pages = Counter({cause: n for cause, n in answer.pages.items() if n})
    return answer


def causes_of(entries: Words, tables: PageTables, answer: RegionAnswer) -> Counter[str]:
    """Some pages of an eligible region by cause; huge ones are counted in `answer`."""
    found: Counter[str] = Counter()
    present = (entries & PRESENT) != 0
    found["swapped"] = int(((entries & SWAPPED) != 0).sum())
    found["absent"] = int((~present).sum()) - found["swapped"]
    of_file = present & ((entries & FILE_OR_SHARED) != 0)
    own = frames_of(entries[present & ~of_file])
    flags = tables.flags(own)
    if flags is None:
        found["file"], found[UNMERGED] = int(of_file.sum()), len(own)
        return found
    zero, ksm = (flags & KPF_ZERO_PAGE) != 0, (flags & KPF_KSM) != 0
    found["zero_page"] = int(zero.sum())
    found["merged"] = int((ksm & ~zero).sum())
    found["file"] = int(of_file.sum())
    rest = ~zero & ~ksm
    found[UNMERGED] = int(rest.sum())
    answer.huge += int(np.count_nonzero(flags[rest] & KPF_TRANSPARENT_HUGE))
    return found
