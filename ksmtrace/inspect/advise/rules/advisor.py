"""The kernel's scan-time advisor (6.8) at one of its bounds; its formula: `kernel.advisor`."""

from __future__ import annotations

from ksmtrace.amounts import count, seconds
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.rules.base import Rule, write
from ksmtrace.inspect.advise.situation import NEGLIGIBLE_PERCENT, Situation

_LATE = 1.25
_NEAR = 0.9
_EARLY = 0.25
_FLOOR_PERCENT = 10
"""Of one core: the formula never settles below (constant in mm/ksm.c)."""


def _target(now: Situation) -> int | None:
    """The scan time asked for, where the advisor is at work."""
    if not now.running or not now.advised or not now.rmap_items:
        return None
    return now.knob("advisor_target_scan_time")


def _evidence(now: Situation) -> dict[str, float | int | str | None]:
    return {
        "advisor_target_scan_time_s": now.knob("advisor_target_scan_time"),
        "advisor_max_pages_to_scan": now.knob("advisor_max_pages_to_scan"),
        "advisor_max_cpu_percent": now.knob("advisor_max_cpu"),
        "pages_to_scan": now.knob("pages_to_scan"),
        "scan_s": now.scan_s,
        "rmap_items": now.rmap_items,
        "ksmd_percent_of_one_core": now.core_percent,
    }


def _page_limit(now: Situation) -> Advice | None:
    target, most = _target(now), now.knob("advisor_max_pages_to_scan")
    pages, spent = now.knob("pages_to_scan"), now.core_percent
    if target is None or most is None or pages is None or now.scan_s is None:
        return None
    if pages < most or now.scan_s < _LATE * target:
        return None
    if spent is not None and spent >= _NEAR * (now.knob("advisor_max_cpu") or 100):
        return None
    pace = now.pace_for(target)
    proposed = max(2 * most, pace.pages_to_scan if pace else 0)
    cost = "not known" if pace is None or pace.cpu_percent is None else f"{pace.cpu_percent:.1f} %"
    return Advice(
        what="let the advisor go faster",
        commands=(write("advisor_max_pages_to_scan", proposed),),
        why=f"it is at its limit of {count(most)} pages a batch, and a full scan takes"
        f" {seconds(now.scan_s)} ({now.scan_words}) where {target} s are asked for.",
        brings=f"full scans of {target} s, if its CPU limit allows; that takes {cost} of a core.",
        risks=f"ksmd's CPU, up to advisor_max_cpu ({now.knob('advisor_max_cpu')} % of a core).",
        confidence="likely",
        evidence=_evidence(now) | {"proposed_pages_to_scan": proposed},
    )


def _cpu_limit(now: Situation) -> Advice | None:
    target, most, spent = _target(now), now.knob("advisor_max_cpu"), now.core_percent
    if target is None or not most or spent is None or now.scan_s is None:
        return None
    if spent < _NEAR * most or now.scan_s < _LATE * target:
        return None
    longer = round(now.scan_s)
    return Advice(
        what="ask the advisor for a scan time that its CPU limit allows, or raise the limit",
        commands=(
            write("advisor_target_scan_time", longer),
            f"{write('advisor_max_cpu', 100)}    # or",
        ),
        why=f"ksmd takes {spent:.1f} % of a core, its limit is {most} %, and a full scan takes"
        f" {seconds(now.scan_s)} ({now.scan_words}) where {target} s are asked for.",
        brings="a setting that says what happens anyway; or scans at most"
        f" {100 / spent:.1f} times as fast with a whole core.",
        risks="a whole core for ksmd, or pages that merge late as they do now.",
        confidence="likely",
        evidence=_evidence(now),
    )


def _floor(now: Situation) -> Advice | None:
    target, spent = _target(now), now.core_percent
    if target is None or spent is None or now.scan_s is None or spent < NEGLIGIBLE_PERCENT:
        return None
    pace = now.pace_for(now.frugal_s(target))
    if now.scan_s > _EARLY * target or pace is None or pace.cpu_percent is None:
        return None
    if pace.cpu_percent > spent / 2:
        return None
    return Advice(
        what="set pages_to_scan by hand: the advisor scans far more than it was asked to",
        commands=(write("advisor_mode", "none"), write("pages_to_scan", pace.pages_to_scan)),
        why=f"{target} s are asked for, and a full scan takes {seconds(now.scan_s)}"
        f" ({now.scan_words}): the formula raises pages_to_scan until ksmd takes"
        f" {_FLOOR_PERCENT} % of a core, however little there is to scan.",
        brings=f"{spent - pace.cpu_percent:.1f} % of a core: {spent:.1f} % now,"
        f" {pace.cpu_percent:.2f} % at a full scan in {seconds(pace.scan_s)}.",
        risks="it no longer follows the load: set it anew when there is much more to scan.",
        confidence="likely",
        evidence=_evidence(now) | {"proposed_pages_to_scan": pace.pages_to_scan},
        gain_cpu_percent=spent - pace.cpu_percent,
    )


ADVISOR_PAGE_LIMIT = Rule(
    "advisor_page_limit",
    "the advisor is at `advisor_max_pages_to_scan` and scans take a quarter longer than"
    " `advisor_target_scan_time`, or more",
    "twice the limit, or what the formula above gives, if that is more",
    _page_limit,
)
ADVISOR_CPU_LIMIT = Rule(
    "advisor_cpu_limit",
    "ksmd is within a tenth of `advisor_max_cpu` and scans take a quarter longer than asked for",
    "a longer `advisor_target_scan_time`, or a higher `advisor_max_cpu`",
    _cpu_limit,
)
ADVISOR_FLOOR = Rule(
    "advisor_floor",
    "scans take less than a quarter of `advisor_target_scan_time`: the advisor never settles below"
    " 10 % of a core",
    "`advisor_mode` none, with the `pages_to_scan` for the time asked for",
    _floor,
)
