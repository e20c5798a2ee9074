"""Behaviours of kernels that make the numbers shown mean something else; declared once each.

Facts: `kernel.releases`, `kernel.changes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ksmtrace.inspect.advise.advice import Caveat
from ksmtrace.inspect.advise.situation import Situation


@dataclass(frozen=True)
class Behaviour:
    """What to know. kernels: as docs/advise.md has them. matters: whether it does, here."""

    id: str
    kernels: str
    sentence: str
    matters: Callable[[Situation], bool]


def _is(now: Situation, **switches: str) -> bool:
    if now.profile is None:
        return False
    return all(getattr(now.profile.behaviour, name) == value for name, value in switches.items())


def _forked_counts(now: Situation) -> bool:
    return bool(now.facts.processes) and _is(now, fork_counters="inherited") and now.since("6.1")


def _merge_any(fate: str) -> Callable[[Situation], bool]:
    return lambda now: _is(now, merge_any=fate)


def _zero_negative(now: Situation) -> bool:
    return (now.value("ksm_zero_pages") or 0) < 0


def _zero_uncounted(now: Situation) -> bool:
    return _is(now, zero_pages="uncounted") and now.facts.knobs.get("use_zero_pages") == "1"


def _visits_wrong(now: Situation) -> bool:
    return _is(now, pages_scanned="per_batch")


def _prot_none(now: Situation) -> bool:
    return bool(now.rmap_items) and not _is(now, prot_none="visited") and now.profile is not None


def _dropped(now: Situation) -> bool:
    known = now.profile is not None and now.profile.behaviour.drop_clears_merge_any
    return known and now.since("6.10") and any(p.merge_any for p in now.facts.processes or ())


def _skipped_volatile(now: Situation) -> bool:
    volatile, items = now.value("pages_volatile"), now.rmap_items
    if not items or volatile is None or not now.growth("pages_skipped"):
        return False
    return now.facts.knobs.get("smart_scan") == "1" and 2 * volatile >= items


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "visits_per_batch",
        "6.6 to 6.9",
        "pages_scanned counts whole batches on this kernel, so CPU a visit is not known (exact"
        " since 6.10).",
        _visits_wrong,
    ),
    Behaviour(
        "forked_counts",
        "6.1 to 6.17, less 6.12.117",
        "the ksm_stat of a forked process begins with its parent's numbers on this kernel: what is"
        " said of processes may be said of one twice.",
        _forked_counts,
    ),
    Behaviour(
        "prctl_lost_at_exec",
        "6.4 to 6.6",
        "exec undoes PR_SET_MEMORY_MERGE on this kernel, so MemoryKSM= has no effect; madvise has.",
        _merge_any("lost"),
    ),
    Behaviour(
        "prctl_unscanned_after_exec",
        "6.7 to 6.9",
        "after exec a process keeps PR_SET_MEMORY_MERGE on this kernel, but ksmd never scans it;"
        " prctl 0 and then 1 repairs that. MemoryKSM= has no effect.",
        _merge_any("unscanned"),
    ),
    Behaviour(
        "opt_in_dropped",
        "6.10 to 6.18, less 6.12.117 and 6.18.32",
        "a process that ksmd meets without mergeable memory loses its PR_SET_MEMORY_MERGE on this"
        " kernel: see ksm_merge_any in its ksm_stat.",
        _dropped,
    ),
    Behaviour(
        "negative_zero_pages",
        "6.6 to 6.17, less 6.12.117",
        "ksm_zero_pages is negative: forked processes took off what was never added. Saving and"
        " profit are shown too low.",
        _zero_negative,
    ),
    Behaviour(
        "zero_pages_uncounted",
        "4.11 to 6.5",
        "pages merged with the zero page are not counted on this kernel: more is saved than shown.",
        _zero_uncounted,
    ),
    Behaviour(
        "no_access_unmerged",
        "6.1 to 6.4",
        "memory mapped without access (PROT_NONE), or marked for NUMA balancing, hardly merges on"
        " this kernel.",
        _prot_none,
    ),
    Behaviour(
        "skipped_are_volatile",
        "6.7 and newer, with `smart_scan`, where that is half of the list",
        "pages_volatile also counts the pages that smart scan skipped; they need not change.",
        _skipped_volatile,
    ),
)


def caveats(now: Situation) -> tuple[Caveat, ...]:
    """Those that matter here."""
    return tuple(Caveat(b.id, b.sentence) for b in BEHAVIOURS if b.matters(now))
