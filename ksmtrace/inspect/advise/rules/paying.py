"""Processes that cost more than they save."""

from __future__ import annotations

from ksmtrace.amounts import count, size
from ksmtrace.inspect.advise.advice import Advice, Confidence
from ksmtrace.inspect.advise.facts import Process
from ksmtrace.inspect.advise.rules.base import (
    Rule,
    memory_for_unmerging,
    named,
    opt_outs,
    write,
)
from ksmtrace.inspect.advise.situation import Situation
from ksmtrace.kernel.scanning import SCANS_TO_MERGE

_WORTH_BYTES = 1 << 20
_WORTH_SHARE = 0.01
_VOLATILE = 0.5
_FEWEST_ITEMS = 512


def _losers(now: Situation) -> list[Process]:
    """Processes whose ksm_process_profit is negative, worst first."""
    found = [p for p in now.facts.processes or () if (p.profit_bytes or 0) < 0]
    return sorted(found, key=lambda p: p.profit_bytes or 0)


def _loss(losers: list[Process]) -> int:
    return -sum(process.profit_bytes or 0 for process in losers)


def _confidence(now: Situation) -> Confidence:
    scans = now.value("full_scans")
    return "sure" if scans is not None and scans >= SCANS_TO_MERGE else "possible"


def _too_early(now: Situation) -> str:
    if _confidence(now) == "sure":
        return ""
    scans = count(now.value("full_scans"))
    return f" Nothing can merge before the second full scan; {scans} are done: look again then."


def _evidence(now: Situation, losers: list[Process]) -> dict[str, float | int | str | None]:
    return {
        "profit_bytes": now.profit_bytes,
        "saved_bytes": now.saved_bytes,
        "rmap_items": now.rmap_items,
        "rmap_item_bytes": now.facts.rmap_item_bytes,
        "losing_processes": len(losers),
        "losing_processes_bytes": _loss(losers),
        "worst_tgid": losers[0].tgid if losers else None,
    }


def _tell(process: Process) -> str:
    return f"loses {size(-(process.profit_bytes or 0))} {_earns(process)}"


def _earns(process: Process) -> str:
    return f"({count(process.merging_pages)} of {count(process.rmap_items)} pages merged)"


def _negative_profit(now: Situation) -> Advice | None:
    if now.profit_bytes is None or now.profit_bytes >= 0:
        return None
    losers = _losers(now)
    why = (
        f"KSM saves {size(now.saved_bytes)}, and its list of {count(now.rmap_items)} pages takes"
        f" more: profit {size(now.profit_bytes)}."
    )
    if losers:
        return _opt_out(now, losers, f"{why} ")
    # Each process's own figure also counts the mapping that keeps a KSM page and saves nothing.
    least = sorted(now.facts.processes or (), key=lambda p: (p.profit_bytes or 0, p.tgid))
    search = ("grep ksm_process_profit /proc/*/ksm_stat",)
    return Advice(
        what="opt out the processes that save least, or stop KSM",
        commands=(*(opt_outs(least) or search), f"{write('run', 2)}    # or"),
        why=why
        + (f" Least: {named(least, _earns)}." if least else " Whose they are is not known.")
        + _too_early(now),
        brings=f"{size(-now.profit_bytes)} if KSM is stopped.",
        risks=memory_for_unmerging(now),
        confidence=_confidence(now),
        evidence=_evidence(now, losers),
        gain_bytes=-now.profit_bytes,
    )


def _opt_out(now: Situation, losers: list[Process], why: str = "") -> Advice:
    return Advice(
        what="opt out the processes that cost more than they save",
        commands=opt_outs(losers),
        why=f"{why}{named(losers, _tell)}.{_too_early(now)}",
        brings=f"about {size(_loss(losers))}: the sum of their negative ksm_process_profit.",
        risks="what they do share is copied again.",
        confidence=_confidence(now),
        evidence=_evidence(now, losers),
        gain_bytes=_loss(losers),
    )


def _unprofitable(now: Situation) -> Advice | None:
    losers = _losers(now)
    loss = _loss(losers)
    worth = max(_WORTH_BYTES, _WORTH_SHARE * (now.saved_bytes or 0))
    if now.profit_bytes is None or now.profit_bytes < 0 or loss < worth:
        return None
    return _opt_out(now, losers)


def _changing_pages(now: Situation) -> int | None:
    """pages_volatile without the pages that smart scan has just skipped: they are in no tree."""
    volatile, share = now.value("pages_volatile"), now.skipped_share
    if volatile is None or share is None or not now.rmap_items:
        return None
    return max(0, volatile - round(share * now.rmap_items))


def _volatile(now: Situation) -> Advice | None:
    changing, items = _changing_pages(now), now.rmap_items
    scans = now.value("full_scans") or 0
    if changing is None or not items or items < _FEWEST_ITEMS or scans < SCANS_TO_MERGE:
        return None
    if changing < _VOLATILE * items:
        return None
    idle = sorted(
        (p for p in now.facts.processes or () if (p.rmap_items or 0) > 4 * (p.merging_pages or 0)),
        key=lambda p: (p.merging_pages or 0) - (p.rmap_items or 0),
    )
    item = now.facts.rmap_item_bytes
    cost = changing * item if item else None
    skipped = now.facts.knobs.get("smart_scan") == "1"
    settled = (now.facts.scans or 0) >= SCANS_TO_MERGE
    first = "" if settled else " (or seen for the first time: too few full scans were watched)"
    less = ", without those smart scan skipped" if skipped else ""
    who = named(idle, lambda p: f"({count(p.merging_pages)} of {count(p.rmap_items)} merged)")
    arithmetic = f" ({count(changing)} × {item} bytes)" if item else ""
    return Advice(
        what="opt out memory that changes faster than ksmd comes round",
        commands=opt_outs(idle) or ("ksmtrace why PID    # which regions change",),
        why=f"{count(changing)} of {count(items)} pages ({100 * changing / items:.0f} %) are in no"
        f" tree: changed since ksmd saw them{first}{less}."
        + (f" Least merged: {who}." if idle else ""),
        brings=f"up to {size(cost)} of list{arithmetic}, and ksmd's time for them.",
        risks="pages of these processes that do merge are copied again.",
        confidence="likely" if idle and settled and not skipped else "possible",
        evidence={
            "changing_pages": changing,
            "pages_volatile": now.value("pages_volatile"),
            "rmap_items": items,
            "full_scans": scans,
        },
        gain_bytes=cost,
    )


NEGATIVE_PROFIT = Rule(
    "negative_profit",
    "`general_profit` is negative: rmap_items cost more than is saved",
    "opting out the processes with the lowest `ksm_process_profit`",
    _negative_profit,
)
UNPROFITABLE_PROCESSES = Rule(
    "unprofitable_processes",
    "KSM pays as a whole, but some processes' `ksm_process_profit` is negative by 1 MiB and 1 % of"
    " what is saved, or more",
    "opting those out",
    _unprofitable,
)
VOLATILE_MEMORY = Rule(
    "volatile_memory",
    "half of ksmd's list or more is `pages_volatile`, after two full scans; pages that smart scan"
    " skips are taken off",
    "opting out the processes with fewest of their pages merged",
    _volatile,
)
