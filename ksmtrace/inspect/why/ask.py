"""The question put to a running host: why is this process not merged?"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.estimate.read import HowToRead, read_memory
from ksmtrace.inspect.why.answer import Answer, Found, PageAnswer
from ksmtrace.inspect.why.causes import CAUSES
from ksmtrace.inspect.why.contents import Registered, sort_out
from ksmtrace.inspect.why.host import (
    HostFacts,
    found,
    host_causes,
    host_facts,
    how_to_register,
    pinned_bytes,
    registration,
)
from ksmtrace.inspect.why.page import look_at_page, tell_contents
from ksmtrace.inspect.why.regions import UNMERGED, look_at
from ksmtrace.kernel.host import PAGE_BYTES, capabilities, ksm_obstacles
from ksmtrace.kernel.nodes import spans_of_nodes
from ksmtrace.kernel.sysfs import PROC, read_ksm_stat
from ksmtrace.processes.identity import Identity, identify, leader_of, stands_as
from ksmtrace.processes.page_tables import ksm_flag_tells
from ksmtrace.processes.regions import Region, all_regions
from ksmtrace.processes.registered import registered_tgids

_RANGE = re.compile(r"(?:0x)?([0-9a-f]{1,16})-(?:0x)?([0-9a-f]{1,16})", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:0x)?([0-9a-f]{3,16})", re.IGNORECASE)
_LOOK_SECONDS = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What a person asks. where: an address, a range, a region's name, or None for all.

    contents: whether to read what pages hold. scans: wait until so many full scans have ended.
    interval: least seconds between two looks at a page. seconds: most, for one process and for
    waiting.
    """

    tgid: int
    where: str | None = None
    contents: bool = True
    scans: int = 0
    interval: float = 1.0
    seconds: float = 60.0


@dataclass(frozen=True)
class Chosen:
    """Which regions are asked about, and perhaps one address within them."""

    regions: list[Region]
    address: int | None = None


def ask(
    question: Question,
    say: Say = lambda _words: None,
    first: Callable[[Answer], None] = lambda _answer: None,
) -> Answer:
    """Answer it. say: progress in words. first: called with what is known before contents are read.

    Raises KsmtraceError: no KSM here, no such process or region, no permission.
    """
    if obstacles := ksm_obstacles():
        raise KsmtraceError(obstacles[0].what, obstacles[0].remedy, Exit.HOST_CANNOT)
    facts = host_facts()
    identity = _identity(question.tgid)
    if identity is None:
        standing = stands_as(question.tgid)
        causes = [found("no_memory", f"it is a {standing}")]
        return Answer(None, question.tgid, host_causes(facts), causes, [], [], PAGE_BYTES)
    answer = _first_look(question, identity, facts, say)
    waiting = answer.pages[UNMERGED] or (answer.page and answer.page.cause in (UNMERGED, "merged"))
    if question.contents and waiting and _can_read_contents(answer):
        first(answer)
        _read_contents(question, identity, answer, facts, say)
    if not _is_the_same(identity):
        answer.notes.append("the process ended or its id was given again: this is what was seen")
    return answer


def _identity(tgid: int) -> Identity | None:
    standing = stands_as(tgid)
    if standing in ("kernel thread", "zombie"):
        return None
    leader, identity = leader_of(tgid), identify(tgid)
    if leader is not None and leader != tgid:
        raise KsmtraceError(
            f"{tgid} is a thread of process {leader}", f"ask about that: ksmtrace why {leader}"
        )
    if identity is None:
        raise KsmtraceError(f"there is no process {tgid}", "ps -e lists them")
    return identity


def _is_the_same(identity: Identity) -> bool:
    now = identify(identity.tgid)
    return now is not None and now.start_ticks == identity.start_ticks


def _first_look(question: Question, identity: Identity, facts: HostFacts, say: Say) -> Answer:
    tgid = identity.tgid
    regions = list(all_regions(tgid))
    if not regions:
        raise KsmtraceError(
            f"the regions of process {tgid} can't be read",
            "run with sudo"
            if os.geteuid()
            else "it has just ended, or is protected even from root",
            Exit.HOST_CANNOT,
        )
    chosen = choose_regions(regions, question.where)
    counters = read_ksm_stat(tgid) or {}
    try:
        looked = look_at(tgid, chosen.regions, say)
        page = None
        if chosen.address is not None:
            page = look_at_page(tgid, chosen.regions[0], chosen.address)
            if page.cause == "unregistered":
                page.remedy = how_to_register(identity)
    except PermissionError as error:
        raise KsmtraceError(
            f"process {tgid} may not be looked at: {error.strerror}",
            "run with sudo",
            Exit.HOST_CANNOT,
        ) from None
    except OSError:
        raise KsmtraceError(f"process {tgid} has just ended") from None
    return Answer(
        identity=identity,
        tgid=tgid,
        host=host_causes(facts),
        process=registration(identity, regions, counters),
        regions=looked,
        facts=_process_facts(tgid, counters),
        page_bytes=PAGE_BYTES,
        page=page,
    )


def _process_facts(tgid: int, counters: dict[str, int]) -> list[tuple[str, str]]:
    facts = [(name, f"{value:,}") for name, value in counters.items()]
    pinned = pinned_bytes(tgid)
    return facts + ([("VmPin", f"{pinned:,} bytes")] if pinned else [])


def choose_regions(regions: list[Region], where: str | None) -> Chosen:
    """The regions that `where` names: an address or a range, both in hex, or part of a name.

    Raises KsmtraceError (usage) if it names none.
    """
    if where is None:
        return Chosen(regions)
    if match := _RANGE.fullmatch(where):
        start, end = int(match[1], 16), int(match[2], 16)
        some = [region for region in regions if region.start < end and start < region.end]
        if some and start < end:
            return Chosen(some)
    elif match := _ADDRESS.fullmatch(where):
        address = int(match[1], 16)
        for region in regions:
            if region.start <= address < region.end:
                return Chosen([region], address)
    some = [r for r in regions if where and where in (r.name or "[anonymous]")]
    if some:
        return Chosen(some)
    raise KsmtraceError(
        f"the process has no region {where!r}",
        "give an address or a range in hex, or part of a name, such as [heap] or [anonymous]",
        Exit.USAGE,
    )


def _can_read_contents(answer: Answer) -> bool:
    if not os.access(PROC / "kpageflags", os.R_OK) or "CAP_SYS_ADMIN" not in capabilities():
        answer.notes.append("contents were not looked at: run with sudo")
        return False
    if not ksm_flag_tells():
        answer.notes.append(
            "this kernel's kpageflags calls every anonymous page a KSM page (6.10 and later, fixed"
            " in 2026): merged are those pages whose frame is mapped at several addresses"
        )
    return True


def _read_contents(
    question: Question, identity: Identity, answer: Answer, facts: HostFacts, say: Say
) -> None:
    others = (identify(tgid) for tgid in registered_tgids() if tgid != identity.tgid)
    everybody = [identity, *(other for other in others if other is not None)]
    how = HowToRead(
        interval=question.interval,
        process_seconds=question.seconds,
        mergeable_only=True,
        keep_numbers=True,
    )
    sample = read_memory(everybody, how, say, lambda: _wait_for_scans(question, facts, answer, say))
    facts.again()
    try:
        registered = sort_out(sample, facts, spans_of_nodes())
    except OSError as error:
        answer.notes.append(f"contents were not told apart: {error.strerror}")
        return
    for process in sample.processes:
        if process.trouble is not None:
            answer.notes.append(f"process {process.identity.tgid} {process.trouble}")
    items = sum(region.tally.candidates for region in sample.regions)
    _tell(answer, registered, facts, items)
    answer.contents_read = True


def _wait_for_scans(question: Question, facts: HostFacts, answer: Answer, say: Say) -> None:
    """Until enough full scans have ended, counted from now."""
    if not question.scans or facts.knobs.get("run") != "1":
        return
    facts.again()
    facts.first = dict(facts.counters)
    deadline = time.monotonic() + question.seconds
    while facts.grown("full_scans") < question.scans:
        say(f"waiting for full scans: {facts.grown('full_scans')} of {question.scans}")
        if time.monotonic() > deadline:
            answer.notes.append(
                f"{facts.grown('full_scans')} of {question.scans} full scans ended within"
                f" {question.seconds:g} s"
            )
            return
        time.sleep(_LOOK_SECONDS)
        facts.again()


def _tell(answer: Answer, registered: Registered, facts: HostFacts, items: int) -> None:
    # A heap grows at its end: that one is still the same region.
    by_start = {
        region.start: number
        for number, region in enumerate(registered.sample.regions)
        if region.process == 0
    }
    for looked in answer.regions:
        if UNMERGED not in looked.pages:
            continue
        number = by_start.get(looked.region.start)
        if number is None:
            answer.notes.append(f"region {looked.region.start:x} was given up or moved meanwhile")
            continue
        causes = registered.causes_in(number)
        # What merged meanwhile is merged now; what was not sampled is what page tables told.
        merged = looked.pages.pop("merged", 0)
        unread = max(looked.pages.pop(UNMERGED) + merged - causes.total(), 0)
        known = min(unread, max(merged - causes["merged"], 0))
        looked.pages += causes + Counter(merged=known, unread=unread - known)
    if "not_reached" in answer.pages or registered.pending == "not_reached":
        answer.wait_s = facts.seconds_to_meet(items)
    if answer.page is not None:
        tell_contents(answer.page, registered, 0, evidence_of(answer, facts))
        _add_wait(answer.page, answer)


def evidence_of(answer: Answer, facts: HostFacts) -> dict[str, str]:
    """What was read that shows each cause that contents tell."""
    scans = facts.grown("full_scans")
    passed = f"{scans} full scan{'' if scans == 1 else 's'} ended meanwhile"
    skipped = facts.grown("pages_skipped")
    pinned = pinned_bytes(answer.tgid)
    return {
        "unique": "no other registered page on this host has its digest",
        "forked": "all pages with its digest are this very frame",
        "numa": "merge_across_nodes=0, and all its equals are on other nodes",
        "sharing_limit": f"max_page_sharing={facts.knobs.get('max_page_sharing')}, reached by every"
        " KSM page with its content, and there is no second page to begin one with",
        "stopped": f"run={facts.knobs.get('run')}",
        "not_reached": f"{passed}; it takes two to merge a page (--scans 2 waits for them)",
        "smart_scan": f"{passed}, {skipped:,} visits were skipped (--scans 10 tells for sure)",
        "held": f"{passed}, and it was not merged"
        + (f"; VmPin is {pinned:,} bytes" if pinned else ""),
        "merged": "kpageflags has KSM",
    }


def _add_wait(page: PageAnswer, answer: Answer) -> None:
    if page.cause == "not_reached" and answer.wait_s is not None:
        page.remedy = f"{page.remedy}: at this pace it takes {answer.wait_s:,.1f} s"


def found_in_pages(answer: Answer) -> list[Found]:
    """The causes of the chosen pages, most pages first, each with its remedy."""
    causes = []
    for cause, pages in answer.pages.most_common():
        remedy = CAUSES[cause].remedy if cause in CAUSES else "see the notes, or leave --quick out"
        if cause == "unregistered" and answer.identity is not None:
            remedy = how_to_register(answer.identity)
        if cause == "not_reached" and answer.wait_s is not None:
            remedy = f"wait {answer.wait_s:,.0f} s, or raise pages_to_scan"
        causes.append(Found(cause, f"{pages:,} pages", remedy))
    return causes
