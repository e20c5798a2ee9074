"""What may hurt: sharing that is broken as fast as it is made, and memory that isn't there."""

from __future__ import annotations

from ksmtrace.amounts import count, seconds, size
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.facts import Process
from ksmtrace.inspect.advise.rules.base import Rule, named, opt_outs
from ksmtrace.inspect.advise.situation import Situation

_BROKEN = 0.2
_FEWEST_COPIES = 64
_MOST_WRITERS = 2


def _churn(now: Situation) -> Advice | None:
    copies, merges = now.copies, now.merges
    if copies is None or merges is None or copies < _FEWEST_COPIES:
        return None
    span = now.facts.series.span_s
    if copies < _BROKEN * merges or not span:
        return None
    writers = sorted(
        (p for p in now.facts.processes or () if p.breaks), key=lambda p: -(p.breaks or 0)
    )
    counted = "" if now.facts.merges is not None else " at least"
    share = min(100.0, 100 * copies / merges) if merges else 100.0
    return Advice(
        what="keep memory that is written soon after merging out of KSM",
        commands=opt_outs(writers) or ("ksmtrace record --cow -o cow.ksm --duration 60",),
        why=f"{count(copies)} merged pages were copied in {seconds(span)}"
        f" ({copies / span:.1f} a second) beside{counted} {count(merges)} merges"
        f" ({share:.0f} %).{_by_whom(now, writers)}",
        brings=f"up to {count(copies / span)} page faults with a copy a second spared, and ksmd's"
        " work of merging those pages; in CPU not known.",
        risks="what such a process shares for long is lost as well.",
        confidence="likely" if writers else "possible",
        evidence={
            "copies": copies,
            "merges": merges,
            "copies_per_s": copies / span,
            "seconds": span,
            "worst_tgid": writers[0].tgid if writers else None,
        },
    )


def _by_whom(now: Situation, writers: list[Process]) -> str:
    if now.facts.writers is None:
        return " By whom the counters don't tell; a recording with --cow does."
    told = f" By {named(writers, lambda p: f'{count(p.breaks)} times')}." if writers else ""
    places = [writer for writer in now.facts.writers if writer.where][:_MOST_WRITERS]
    if places:
        where = ", ".join(f"{place.where} ({count(place.breaks)})" for place in places)
        told += f" Written from {where}."
    return told


def _overcommitted(now: Situation) -> Advice | None:
    if now.unmerge_fits is not False:
        return None
    available = (now.facts.mem_available_bytes or 0) + (now.facts.swap_free_bytes or 0)
    missing = (now.saved_bytes or 0) - available
    return Advice(
        what="make room before sharing breaks: add swap, or move load away; don't write 2 to run",
        commands=("swapon --show",),
        why=f"KSM saves {size(now.saved_bytes)}, and only {size(available)} are available with"
        " swap: if the shared pages were written, they would not fit.",
        brings=f"{size(missing)} are missing for the worst case.",
        risks="left so: the kernel kills processes when guests or programs rewrite their memory.",
        confidence="sure",
        evidence={
            "saved_bytes": now.saved_bytes,
            "mem_available_bytes": now.facts.mem_available_bytes,
            "swap_free_bytes": now.facts.swap_free_bytes,
            "missing_bytes": missing,
        },
        first=True,
    )


CHURN = Rule(
    "churn",
    "64 merged pages or more were copied, and a fifth as many as were merged: `cow_ksm` (5.19)",
    "opting out who wrote (a recording with `--cow` names processes and code), or recording so",
    _churn,
)
OVERCOMMITTED = Rule(
    "overcommitted",
    "what KSM saves is more than MemAvailable and free swap together",
    "room first; never `run` 2",
    _overcommitted,
)
