"""How fast ksmd scans: too slow to merge, too fast for what it finds."""

from __future__ import annotations

from ksmtrace.amounts import count, seconds, size
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.rules.base import UNKNOWN_GAIN, Rule, write
from ksmtrace.inspect.advise.situation import (
    MOST_CPU,
    NEGLIGIBLE_PERCENT,
    TARGET_S,
    Pace,
    Situation,
)

_SLOW = 1.5
_FULL_CORE_PERCENT = 95.0
_DEFAULT_SLEEP_MS = 20
_SPARED = (20, 25)
"""Percent of visits that smart scan spared where it was measured for the kernel (6.7)."""
_SPARSE = 100
_HUGE_BYTES = 64 << 30


def _by_hand(now: Situation) -> bool:
    return now.running and not now.advised and bool(now.rmap_items)


def _percent(number: float | None) -> str:
    return "a share of a core that is not known" if number is None else f"{number:.1f} % of a core"


def _pace(pace: Pace) -> str:
    return f"a full scan in {seconds(pace.scan_s)} for {_percent(pace.cpu_percent)}"


def _settings(now: Situation) -> str:
    return (
        f"pages_to_scan {count(now.knob('pages_to_scan'))},"
        f" sleep_millisecs {count(now.knob('sleep_millisecs'))}"
    )


def _evidence(now: Situation, pace: Pace | None = None) -> dict[str, float | int | str | None]:
    return {
        "pages_to_scan": now.knob("pages_to_scan"),
        "sleep_ms": now.knob("sleep_millisecs"),
        "rmap_items": now.rmap_items,
        "visits_per_scan": now.visits_per_scan,
        "scan_s": now.scan_s,
        "cpu_us_per_visit": now.us_per_visit,
        "ksmd_percent_of_one_core": now.core_percent,
        "proposed_pages_to_scan": pace.pages_to_scan if pace else None,
        "proposed_scan_s": pace.scan_s if pace else None,
        "proposed_percent_of_one_core": pace.cpu_percent if pace else None,
    }


def _too_slow(now: Situation) -> Advice | None:
    pace = now.pace_for()
    if not _by_hand(now) or pace is None or now.scan_s is None or now.scan_s < _SLOW * TARGET_S:
        return None
    if pace.pages_to_scan <= (now.knob("pages_to_scan") or 0):
        return None
    still_growing = (now.trend_bytes_per_s or 0) > 0 or (now.value("full_scans") or 0) < 2
    by_itself = (write("advisor_mode", "scan-time"),) if "advisor_mode" in now.facts.knobs else ()
    return Advice(
        what="scan faster",
        commands=(write("pages_to_scan", pace.pages_to_scan), *(f"{c}    # or" for c in by_itself)),
        why=f"a full scan of {count(now.rmap_items)} pages takes {seconds(now.scan_s)}"
        f" ({now.scan_words}; {_settings(now)}), and pages merge in their second at the earliest."
        f" The kernel's advisor aims at {TARGET_S} s.",
        brings=f"{_pace(pace)}: {count(now.visits_per_scan)} visits in batches of"
        f" {count(pace.pages_to_scan)}. What then merges: {UNKNOWN_GAIN}",
        risks=f"ksmd's CPU, now {_percent(now.core_percent)}.",
        confidence="likely" if still_growing else "possible",
        evidence=_evidence(now, pace),
    )


def _too_fast(now: Situation) -> Advice | None:
    pace = now.pace_for(now.frugal_s(TARGET_S))
    if not _by_hand(now) or pace is None or pace.cpu_percent is None or now.scan_s is None:
        return None
    spent = now.core_percent or 0.0
    churns = (now.copies or 0) * 100 > (now.saved_pages or 0) and not now.dear
    if spent < NEGLIGIBLE_PERCENT or now.steady is not True or churns or now.scan_s > TARGET_S:
        return None
    if pace.pages_to_scan >= (now.knob("pages_to_scan") or 0) or pace.cpu_percent > spent / 2:
        return None
    return Advice(
        what="scan slower: what is saved doesn't grow",
        commands=(write("pages_to_scan", pace.pages_to_scan),),
        why=f"{count(now.facts.scans)} full scans of {seconds(now.scan_s)} took"
        f" {_percent(spent)}, and the saving stood still at {size(now.saved_bytes)}.",
        brings=f"{_percent(spent - pace.cpu_percent)}: {_pace(pace)}"
        f" ({now.us_per_visit:.2f} µs a visit).",
        risks=f"new equal pages merge later: after up to {seconds(2 * pace.scan_s)}.",
        confidence="likely",
        evidence=_evidence(now, pace),
        gain_cpu_percent=spent - pace.cpu_percent,
    )


def _saturated(now: Situation) -> Advice | None:
    if not now.running or now.core_percent is None or now.core_percent < _FULL_CORE_PERCENT:
        return None
    asked = now.pace_for()
    sleep = now.knob("sleep_millisecs") or _DEFAULT_SLEEP_MS
    cost = now.us_per_visit
    # Half of the time asleep: a batch as long as a sleep.
    pages = round(sleep * 1000 / cost) if cost else (now.knob("pages_to_scan") or 2) // 2
    if asked is not None and asked.cpu_percent is not None and asked.cpu_percent < 50:
        pages = min(pages, asked.pages_to_scan)
    waking = () if now.knob("sleep_millisecs") else (write("sleep_millisecs", _DEFAULT_SLEEP_MS),)
    by_hand = (write("advisor_mode", "none"),) if now.advised else ()
    return Advice(
        what="leave ksmd some rest",
        commands=(*by_hand, *waking, write("pages_to_scan", max(1, pages))),
        why=f"ksmd takes {_percent(now.core_percent)} ({_settings(now)}). It is one thread: it"
        " can't go faster, and what runs beside it waits.",
        brings="half of a core or more: each batch lasts no longer than the sleep after it"
        + (f" ({cost:.2f} µs a visit)." if cost else "."),
        risks="a full scan takes about twice as long or more, and pages merge that much later.",
        confidence="sure" if cost else "likely",
        evidence=_evidence(now) | {"proposed_pages_to_scan": max(1, pages)},
        gain_cpu_percent=now.core_percent / 2,
    )


def _smart_scan_off(now: Situation) -> Advice | None:
    if not now.running or now.facts.knobs.get("smart_scan") != "0" or not now.rmap_items:
        return None
    least, most = _SPARED
    spent = now.core_percent
    if spent is not None and spent < NEGLIGIBLE_PERCENT:
        return None
    gain = None if spent is None else spent * least / 100
    told = "" if gain is None else f"; here {gain:.1f} to {most / least * gain:.1f} % of a core"
    return Advice(
        what="let ksmd skip pages that never merged",
        commands=(write("smart_scan", 1),),
        why=f"smart_scan is 0: all {count(now.rmap_items)} pages are visited in every full scan.",
        brings=f"{least} to {most} % fewer visits where its authors measured it{told}.",
        risks="an old page that gets a twin may wait up to 8 scans longer.",
        confidence="likely",
        evidence={
            "smart_scan": 0,
            "rmap_items": now.rmap_items,
            "ksmd_percent_of_one_core": spent,
        },
        gain_cpu_percent=gain,
    )


def _endless(now: Situation) -> Advice | None:
    mapped, items, profile = now.facts.mergeable_bytes, now.rmap_items, now.profile
    if not now.running or mapped is None or items is None or profile is None:
        return None
    if "range_walk" in profile.fixes or profile.has("6.19"):
        return None
    held = items * now.facts.page_bytes
    if mapped < _HUGE_BYTES or mapped < _SPARSE * held or now.facts.scans:
        return None
    return Advice(
        what="opt out huge sparse mappings, or boot a kernel that jumps over holes",
        commands=("ksmtrace why PID    # its regions, by size", "madvise(.., MADV_UNMERGEABLE)"),
        why=f"{size(mapped)} of addresses are opted in and {size(held)} of them hold pages; Linux"
        f" {now.facts.kernel} probes each address, and no full scan ended in"
        f" {seconds(now.facts.observed_s)}. 6.18.2, 6.12.117 and 6.1.192 jump over holes.",
        brings="full scans that end; without one nothing new merges.",
        risks="none for memory that holds no pages.",
        confidence="possible" if profile.version[:2] in ((6, 1), (6, 12)) else "likely",
        evidence={
            "mergeable_bytes": mapped,
            "rmap_items": items,
            "ksmd_percent_of_one_core": now.core_percent,
        },
        first=True,
    )


SCANS_TOO_SLOWLY = Rule(
    "scans_too_slowly",
    f"without the advisor, a full scan takes {_SLOW:g} × {TARGET_S} s or more",
    f"the `pages_to_scan` by which it takes {TARGET_S} s, or as much longer as keeps ksmd at"
    f" {100 * MOST_CPU:.0f} % of a core: visits × sleep / (time − visits × CPU a visit); or the"
    " advisor (6.8)",
    _too_slow,
)
SCANS_TOO_FAST = Rule(
    "scans_too_fast",
    f"without the advisor, ksmd takes {NEGLIGIBLE_PERCENT:g} % of a core or more while the saving"
    " stood still over three scans or more; not where pages are merged anew as fast as they are"
    " copied, unless the CPU is worth more than the memory",
    f"the `pages_to_scan` of the same formula for the time in which {NEGLIGIBLE_PERCENT:g} % of a"
    f" core suffices, {TARGET_S} s at most, if it halves the CPU",
    _too_fast,
)
KSMD_FULL_CORE = Rule(
    "ksmd_full_core",
    f"ksmd takes {_FULL_CORE_PERCENT:g} % of a core or more",
    "a `pages_to_scan` with which a batch lasts no longer than a sleep",
    _saturated,
)
SMART_SCAN_OFF = Rule(
    "smart_scan_off",
    f"`smart_scan` is 0 (it came with 6.7) and ksmd takes {NEGLIGIBLE_PERCENT:g} % of a core or"
    " more",
    "`smart_scan` 1",
    _smart_scan_off,
)
ENDLESS_SCAN = Rule(
    "endless_scan",
    "a kernel that probes every address, 64 GiB or more opted in, 100 times what holds pages, and"
    " no full scan ended",
    "opting such mappings out, or a kernel with the range walk",
    _endless,
)
