"""`ksmtrace top --json`: one state, with stable names and units in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ksmtrace.top.figures import is_count
from ksmtrace.top.state import Decision, TopState
from ksmtrace.top.ui import Ui
from ksmtrace.views.top_words import burst_words

_MOST_LINES = 1000


def top_dict(state: TopState, ui: Ui) -> dict[str, Any]:
    """As JSON has it. What is not known is null."""
    place, moment = state.place, state.moment
    return {
        "origin": place.origin,
        "recording": place.name,
        "backend": place.backend,
        "cow": place.cow,
        "kernel": place.kernel,
        "page_bytes": place.page_bytes,
        "cpus": place.cpus,
        "at_s": (moment.ns - moment.begin_ns) / 1e9,
        "duration_s": None if moment.end_ns is None else (moment.end_ns - moment.begin_ns) / 1e9,
        "figures": _numbers(state.figures),
        "knobs": dict(state.knobs),
        "scan": asdict(state.scan),
        "advisor": [_decision(decision, state) for decision in state.decisions],
        ui.by: _lines(state, ui),
        "recent": [
            {"seconds_ago": (moment.ns - burst.ns) / 1e9, "what": burst.what, "count": burst.count}
            | {"tgid": burst.tgid or None, "comm": burst.name, "words": burst_words(burst)}
            for burst in state.recent
        ],
        "lost": state.lost,
        "notes": list(state.notes),
    }


def _decision(decision: Decision, state: TopState) -> dict[str, Any]:
    return {
        "seconds_ago": (state.moment.ns - decision.ns) / 1e9,
        "pages_to_scan": decision.pages_to_scan,
        "scan_s": decision.scan_s,
        "cpu_percent": decision.cpu_percent,
    }


def _lines(state: TopState, ui: Ui) -> list[dict[str, Any]] | None:
    if state.rows is None:
        return None
    from ksmtrace.top.table import listed

    found = listed(state.rows, ui.by, ui.sort, _MOST_LINES, reverse=ui.reverse)
    if not found.lines and state.rows.unreadable:
        return None
    who = "comm" if ui.by == "process" else ui.by
    return [
        {who: line.name, "tgid": line.tgid, "processes": line.processes, "exited": line.exited}
        | _numbers(line.values)
        for line in found.lines
    ]


def _numbers(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """By name; a count is an integer, however it came."""
    return {
        name: round(value) if value is not None and is_count(name) else value
        for name, value in values.items()
    }
