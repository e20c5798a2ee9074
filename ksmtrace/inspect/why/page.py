"""One page, looked at closely."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ksmtrace.inspect.why.answer import PageAnswer, RegionAnswer
from ksmtrace.inspect.why.causes import CAUSES
from ksmtrace.inspect.why.contents import Registered
from ksmtrace.inspect.why.regions import UNMERGED, look_at_region
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes.page_tables import (
    KPF_KSM,
    KPF_TRANSPARENT_HUGE,
    PRESENT,
    SWAPPED,
    PageTables,
    frames_of,
    ksm_flag_tells,
)
from ksmtrace.processes.regions import Region

_MOST_EQUALS = 8


def look_at_page(tgid: int, region: Region, address: int) -> PageAnswer:
    """What the page tables tell of a page. Its cause is `unmerged` if contents have to tell.

    Raises OSError where the process is gone or may not be looked at.
    """
    start = address // PAGE_BYTES * PAGE_BYTES
    flags = " ".join(region.flags)
    facts = [("region", f"{region.start:x}-{region.end:x} {region.name or '[anonymous]'}: {flags}")]
    with PageTables(tgid) as tables:
        one = Region(
            start, start + PAGE_BYTES, region.permissions, region.name, region.mergeable, None,
            region.flags, present_bytes=None, anonymous_bytes=None,
        )  # fmt: skip
        entries = [entry for _, entry in tables.entries(start, start + PAGE_BYTES)]
        if not entries or not len(entries[0]):
            return _answer(start, "absent", "the process is just exiting", facts)
        entry = entries[0]
        facts.append(("pagemap", f"{int(entry[0]):#018x}: {_in_words(int(entry[0]))}"))
        evidence = "see pagemap above"
        if int(entry[0]) & int(PRESENT):
            facts += _frame_facts(tables, entry)
        answer: RegionAnswer = look_at_region(tables, one)
    cause = next((c for c in answer.pages if c != "absent"), "absent")
    if cause == UNMERGED and not ksm_flag_tells():
        facts.append(("caution", "this kernel doesn't tell KSM pages from other anonymous ones"))
    if cause in CAUSES and CAUSES[cause].level == "region":
        evidence = f"VmFlags of its region: {flags}"
    elif cause == "unregistered":
        evidence = "its region has no flag mg (VM_MERGEABLE)"
    elif cause == "merged":
        evidence = "kpageflags has KSM"
    return _answer(start, cause, evidence, facts)


def _answer(address: int, cause: str, evidence: str, facts: list[tuple[str, str]]) -> PageAnswer:
    remedy = CAUSES[cause].remedy if cause in CAUSES else ""
    return PageAnswer(address, cause, evidence, remedy, facts)


def _in_words(entry: int) -> str:
    if entry & int(PRESENT):
        return "present"
    return "in swap" if entry & int(SWAPPED) else "nothing there"


def _frame_facts(
    tables: PageTables, entry: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
) -> list[tuple[str, str]]:
    frame = frames_of(entry)
    flags, mappings = tables.flags(frame), tables.mappings(frame)
    if flags is None or mappings is None:
        return [("frame", "hidden: run with sudo")]
    words = [f"frame {int(frame[0]):#x}, mapped {_times(int(mappings[0]))} on this host"]
    if int(flags[0]) & int(KPF_KSM):
        others = int(mappings[0]) - 1
        words.append(
            f"a KSM page, shared with {others:,} other mapping{'' if others == 1 else 's'}"
        )
    if int(flags[0]) & int(KPF_TRANSPARENT_HUGE):
        words.append("part of a transparent huge page (merging splits it)")
    return [("frame", "; ".join(words))]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def tell_contents(
    page: PageAnswer, registered: Registered, process: int, evidence: Mapping[str, str]
) -> None:
    """Fill in what contents say of a page. process: its position in the sample.

    evidence: what was read that shows each cause.
    """
    sample = registered.sample
    position = registered.position_of(process, page.address // PAGE_BYTES)
    if position is None:
        if page.cause == UNMERGED:
            page.cause = "changing"
            page.evidence = f"its digest was another {sample.interval:.1f} s later, or it moved"
            page.remedy = CAUSES[page.cause].remedy
        return
    equals = registered.equals_of(position)
    page.equal_count = len(equals)
    assert sample.numbers is not None
    for other in equals[:_MOST_EQUALS].tolist():
        region = sample.regions[registered.region_of(other)]
        page.equals.append(
            (
                sample.processes[region.process].identity.tgid,
                int(sample.numbers[other]) * PAGE_BYTES,
                bool(registered.merged[other]),
            )
        )
    page.cause = registered.cause_at(position)
    page.remedy = CAUSES[page.cause].remedy
    page.evidence = evidence.get(page.cause, page.evidence)
