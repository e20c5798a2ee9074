"""From facts to the whole answer: the verdict, the advice, the risks."""

from __future__ import annotations

from ksmtrace.amounts import count, seconds, size
from ksmtrace.inspect.advise.advice import Advice, Answer, Overcommit, State, Verdict
from ksmtrace.inspect.advise.caveats import caveats
from ksmtrace.inspect.advise.facts import Facts
from ksmtrace.inspect.advise.rules.table import RULES
from ksmtrace.inspect.advise.situation import Situation


def answer(facts: Facts) -> Answer:
    """What to say of a host. Pure: the same facts, the same answer."""
    now = Situation(facts)
    return Answer(
        source=facts.source,
        kernel=facts.kernel,
        observed_s=facts.observed_s,
        verdict=verdict(now),
        advice=advice(now),
        overcommit=overcommit(now),
        shared=facts.shared,
        caveats=caveats(now),
        not_known=_not_known(now),
    )


def advice(now: Situation) -> tuple[Advice, ...]:
    """What every rule has to say, highest expected benefit first."""
    found = [one for rule in RULES if (one := rule.ask(now)) is not None]
    return tuple(sorted(found, key=lambda one: one.rank))


def verdict(now: Situation) -> Verdict:
    """Whether KSM pays, in one sentence with the reasons."""
    state, sentence = _judged(now)
    return Verdict(
        state,
        sentence,
        {
            "saved_pages": now.saved_pages,
            "saved_bytes": now.saved_bytes,
            "saved_mean_bytes": now.saved_mean_bytes,
            "saved_bytes_per_s": now.trend_bytes_per_s,
            "profit_bytes": now.profit_bytes,
            "rmap_items": now.rmap_items,
            "rmap_item_bytes": now.facts.rmap_item_bytes,
            "ksmd_cpu_s": now.ksmd_s,
            "ksmd_percent_of_one_core": now.core_percent,
            "ksmd_percent_of_host": now.host_percent,
            "ksmd_cpu_s_per_gib_saved": now.cpu_s_per_gib,
            "ksmd_cpu_s_per_gib_saved_hour": now.cpu_s_per_gib_hour,
            "scan_s": now.scan_s,
            "full_scans": now.value("full_scans"),
            "memory_bytes": now.facts.memory_bytes,
            "judged_at_s": _judged_at_s(now),
        },
    )


def _judged_at_s(now: Situation) -> float | None:
    series = now.facts.series
    return float(series.at_s[now.judged_at] - series.at_s[0]) if len(series.at_s) else None


def _judged(now: Situation) -> tuple[State, str]:
    saved, profit = now.saved_bytes, now.profit_bytes
    if saved is None:
        return "unknown", "It can't be told whether KSM pays: the counters are not known."
    if now.knob("run") in (0, 2) and not now.facts.stepped and not now.saved_pages:
        return "off", "KSM is off: it saves nothing and costs nothing."
    if not now.saved_pages and not now.rmap_items:
        return "idle", "KSM saves nothing: no memory is offered to it."
    if profit is not None and profit < 0:
        return "loses", (
            f"KSM does not pay: what it saves ({size(saved)}) is less than its own list takes."
        )
    if saved <= 0:
        return "idle", f"KSM saves nothing yet of the {count(now.rmap_items)} pages on its list."
    return _of_saving(now, saved)


def _of_saving(now: Situation, saved: int) -> tuple[State, str]:
    gain = f"{size(now.profit_bytes)} net" if now.profit_bytes is not None else size(saved)
    if now.facts.stepped:
        return "pays", f"KSM saves {gain}; ksmd was driven by hand, so its cost says nothing."
    percent = now.core_percent
    if percent is None:
        return "pays", f"KSM saves {gain}; what ksmd costs is not known."
    if now.dear:
        return "dear", (
            f"KSM saves {gain}, and ksmd takes {percent:.1f} % of a core for it: dear, where hosts"
            " have some 4 GiB a core."
        )
    if now.over:
        when = f"Judged at its fullest, {seconds(_judged_at_s(now))} in: nothing was left merged."
        return "pays", f"KSM paid: it saved {gain} for {percent:.1f} % of a core. {when}"
    growing = (now.trend_bytes_per_s or 0) > 0 and not now.steady
    more = ", and what it saves is growing" if growing else ""
    return "pays", f"KSM pays: it saves {gain} for {percent:.1f} % of a core{more}."


def overcommit(now: Situation) -> Overcommit:
    """Whether the host would survive if nothing were shared any more."""
    needed = None if now.saved_bytes is None else max(0, now.saved_bytes)
    found = Overcommit(needed, now.facts.mem_available_bytes, now.facts.swap_free_bytes, "")
    return Overcommit(
        found.needed_bytes,
        found.mem_available_bytes,
        found.swap_free_bytes,
        _survival(found, now.facts.live),
    )


def _survival(found: Overcommit, live: bool) -> str:
    if found.needed_bytes is None:
        return "Not known: the counters are not."
    if not found.needed_bytes:
        return "Nothing is shared, so nothing can come back."
    needed = size(found.needed_bytes)
    if found.available_bytes is None:
        why = "MemAvailable can't be read" if live else "the recording holds no MemAvailable"
        return f"{needed} would be needed; {why}, so whether that fits is not known."
    there = (
        f"{size(found.available_bytes)} can be had"
        f" (MemAvailable {size(found.mem_available_bytes)}, free swap"
        f" {size(found.swap_free_bytes)})"
    )
    if found.fits:
        return f"{needed} would be needed and {there}: it fits. Unmerging (run 2) is safe now."
    return f"{needed} would be needed and {there}: it does NOT fit. Never write 2 to run."


def _not_known(now: Situation) -> tuple[str, ...]:
    said = list(now.facts.unknown)
    if now.facts.stepped:
        said.append("ksmd was driven scan by scan: rates, times and settings are not judged.")
    if (
        now.facts.knobs.get("use_zero_pages") == "0"
        and now.facts.zero_filled is None
        and now.rmap_items
    ):
        said.append("whether zero pages abound (use_zero_pages is 0): ksmtrace estimate --all.")
    if now.profile is None:
        said.append("which kernel it was, so its own behaviours are left out.")
    return tuple(said)
