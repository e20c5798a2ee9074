"""A contest as plain data with stable names: what --json prints and what the view shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ksmtrace.lab.contest.contest import Contest
from ksmtrace.lab.contest.outcome import FRACTIONS, Outcome
from ksmtrace.lab.contest.protocols import Protocol
from ksmtrace.lab.contest.tuning import TOLERANCE
from ksmtrace.model.content import PAGE_SIZE

_DIGITS = 6


def contest_report(contest: Contest) -> dict[str, Any]:
    """Everything that a contest found.

    {"on": [...], "seconds", "optimum_pages", "page_bytes", "seed", "partial": bool, "costs":
    {"origin", "ns": {constant: value}}, "ground": [...], "protocols": [{"protocol", "title",
    "meaning", "outcomes": [{"on", "settings", "saved_pages", "saved_pages_mean", "time_to_50_s",
    ..., "work": {kind: count}, "curve": {"time_s", "cpu_s", "saved_pages"}}]}], "notes"}. What
    never happened, or can't be told, is null.
    """
    return {
        "scenario": contest.plan.scenario.name,
        "title": contest.plan.scenario.title,
        "about": contest.plan.scenario.about,
        "on": [place.name for place in contest.places],
        "seconds": contest.seconds,
        "optimum_pages": contest.optimum,
        "page_bytes": PAGE_SIZE,
        "seed": contest.seed if any(place.uksm for place in contest.places) else None,
        "partial": contest.interrupted,
        "costs": {"origin": contest.costs.origin, "ns": asdict(contest.costs.costs)},
        "ground": contest.ground(),
        "protocols": [
            told for protocol in contest.protocols if (told := _protocol(contest, protocol))
        ],
        "notes": [*contest.notes, *_misses(contest.outcomes)],
    }


def _protocol(contest: Contest, protocol: Protocol) -> dict[str, Any] | None:
    outcomes = contest.of_protocol(protocol)
    if not outcomes:
        return None
    return {
        "protocol": protocol.name,
        "title": protocol.title,
        "meaning": protocol.meaning,
        "outcomes": [outcome_dict(outcome) for outcome in outcomes],
    }


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """One scanner's figures."""
    times = {f"time_to_{part}_s": _rounded(outcome.time_to(part)) for part in FRACTIONS}
    return {
        "on": outcome.on,
        "settings": dict(outcome.settings),
        "partial": outcome.partial,
        "seconds": outcome.seconds,
        "saved_pages": outcome.saved,
        "saved_pages_mean": _rounded(outcome.curve.mean),
        **times,
        "page_visits": outcome.visits,
        "hashed_bytes": outcome.work.hashed_bytes,
        "compared_bytes": outcome.work.compared_bytes,
        "merges": outcome.work.merges,
        "breaks": outcome.breaks,
        "cpu_s": _rounded(outcome.cpu_s),
        "cpu_share": _rounded(outcome.cpu_share),
        "cpu_us_per_saved_page": _rounded(outcome.cpu_us_per_page),
        "off_target": _rounded(outcome.off),
        "work": asdict(outcome.work),
        "curve": {
            "time_s": outcome.curve.time_s.round(_DIGITS).tolist(),
            "cpu_s": outcome.curve.cpu_s.round(_DIGITS).tolist(),
            "saved_pages": outcome.curve.pages.tolist(),
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _misses(outcomes: list[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.off is not None and abs(outcome.off) > TOLERANCE and outcome.protocol:
            more = "more" if outcome.off > 0 else "less"
            yield (
                f"{outcome.on}, {outcome.protocol.title}: {abs(outcome.off):.1%} {more} than the "
                "UKSM; no setting was found that is nearer"
            )


def figures(report: Mapping[str, Any], protocol: str, on: str) -> Mapping[str, Any] | None:
    """One scanner's figures under one protocol in a report; None where there are none."""
    for told in report["protocols"]:
        if told["protocol"] == protocol:
            return next((o for o in told["outcomes"] if o["on"] == on), None)
    return None
