"""A recording as HTML for notebooks: tables in, text out; no scripts, no styles of its own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.processes.identity import clean


def recording_as_html(
    path: str,
    manifest: Mapping[str, Any],
    counters: pd.DataFrame,
    identities: pd.DataFrame,
    *,
    cut: bool,
) -> str:
    """A small table. counters, identities: the stored tables. cut: its end is missing."""
    host = counters[counters["tgid"].isna()].sort_values("ts")
    rows = {
        "kernel": f"Linux {manifest.get('kernel')}",
        "backend": str(manifest.get("backend")),
        "duration": "cut" if cut else seconds(manifest.get("duration_s")),
        "events": f"{count(manifest.get('events'))}, {_lost(manifest)}",
        "full scans": count(_scans(host)),
        "merged at the end": _merged(host),
        "saved at the end": size(_saved(host, manifest)),
        "processes": _processes(identities),
    }
    body = "".join(
        f'<tr><th style="text-align:left">{escape(topic)}</th>'
        f'<td style="text-align:left">{escape(clean(words))}</td></tr>'
        for topic, words in rows.items()
    )
    return f"<table><caption>{escape(clean(path))}</caption><tbody>{body}</tbody></table>"


def _lost(manifest: Mapping[str, Any]) -> str:
    lost = manifest.get("lost")
    if lost is None or manifest.get("loss_known") is False:
        return "losses not known"
    return f"{count(lost)} lost" if lost else "none lost"


def _scans(host: pd.DataFrame) -> int | None:
    """Full scans counted; run=2 lets the kernel's number begin again."""
    numbers = host["full_scans"].dropna()
    if not len(numbers):
        return None
    steps = numbers.diff().iloc[1:]
    return int(steps.where(steps >= 0, numbers.iloc[1:]).sum())


def _last(host: pd.DataFrame, name: str) -> int | None:
    """A counter's value in the last sample."""
    if not len(host) or pd.isna(host[name].iloc[-1]):
        return None
    return int(host[name].iloc[-1])


def _merged(host: pd.DataFrame) -> str:
    shared, sharing = (_last(host, name) for name in ("pages_shared", "pages_sharing"))
    if shared is None or sharing is None:
        return UNKNOWN
    return f"{count(shared + sharing)} pages in {count(shared)} KSM pages"


def _saved(host: pd.DataFrame, manifest: Mapping[str, Any]) -> int | None:
    sharing = _last(host, "pages_sharing")
    if sharing is None:
        return None
    return (sharing + (_last(host, "ksm_zero_pages") or 0)) * int(manifest["page_bytes"])


def _processes(identities: pd.DataFrame) -> str:
    """How many, and the commonest names."""
    each = identities.drop_duplicates(["tgid", "start_ticks"], keep="last")
    names = each["comm"].dropna().value_counts(sort=False).sort_index(kind="stable")
    names = names.sort_values(ascending=False, kind="stable")
    told = [f"{name} ({count(n)})" if n > 1 else str(name) for name, n in names.head(5).items()]
    more = ", …" if len(names) > len(told) else ""
    return f"{count(len(each))}: {', '.join(told)}{more}" if told else count(len(each))
