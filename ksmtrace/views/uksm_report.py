"""The report of a recording of UKSM's counters as rich renderables: a summary in, text out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.kernel.uksm import COUNTERS, KNOBS, cpu_percent, parse_cpu_ratios
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.uksm import UksmSummary
from ksmtrace.views.report import ended_words, host_words, what_ran
from ksmtrace.views.text import Head, named_table

_NOT_KSMS = (
    "UKSM's full_scans are no full scans as KSM has them: a round that visited more than a quarter"
    " of all pages counts, and the number can stand still while scanning goes on"
)
_SAVED = "saved is pages_sharing and zero_pages: what a fork shares counts as if UKSM had saved it"
_ZERO_UNKNOWN = "zero_pages is not known, so saved is without the pages mapped to the zero page"


def render_uksm_report(summary: UksmSummary) -> RenderableType:
    """What `ksmtrace report` prints of UKSM; fits 80 columns."""
    parts: list[RenderableType] = [_head(summary)]
    notes = list(summary.notes)
    if summary.samples:
        parts += [_counters(summary), "", _knobs(summary), ""]
        known = summary.counters_last.get("zero_pages") is not None
        notes += [_NOT_KSMS, _SAVED if known else _ZERO_UNKNOWN]
    parts += [Text(clean(f"note: {note}"), style="yellow") for note in notes]
    return Group(*parts)


def _head(summary: UksmSummary) -> RenderableType:
    manifest = summary.manifest
    head = Head()
    line = head.line
    line("host", host_words(manifest))
    line("system", "UKSM, which stands in KSM's place")
    line("backend", f"{manifest.get('backend')}: {manifest.get('backend_why')}")
    for topic, words in what_ran(manifest):
        line(topic, words)
    line("lasted", f"{seconds(summary.duration_s)}, ", ended_words(summary.ended, manifest))
    line("samples", count(summary.samples))
    if summary.saved_pages_peak is not None:
        peak, last = map(summary.bytes_of, (summary.saved_pages_peak, summary.saved_pages_last))
        line("saved", f"{size(peak)} at most, {size(last)} at the end")
    if summary.uksmd_percent_of_one_core is not None:
        line(
            "uksmd CPU",
            f"{seconds(summary.uksmd_cpu_s)}: {summary.uksmd_percent_of_one_core:.1f} % of one"
            " core",
        )
    return Group(head.table, "")


def _counters(summary: UksmSummary) -> RenderableType:
    table = named_table("UKSM's counters", collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for column in ("first", "last", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    for counter in COUNTERS:
        before = summary.counters_first.get(counter.name)
        after = summary.counters_last.get(counter.name)
        if before is None and after is None:
            continue
        change = UNKNOWN if before is None or after is None else f"{after - before:+,}"
        table.add_row(counter.name, counter.unit, count(before), count(after), change)
    return table


def _knobs(summary: UksmSummary) -> RenderableType:
    table = named_table("UKSM's knobs", collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("value")
    for knob in KNOBS:
        before, after = (k.get(knob.name) for k in (summary.knobs_first, summary.knobs_last))
        if before is None and after is None:
            continue
        words = clean(after or UNKNOWN)
        if before != after:
            words = f"{clean(before or UNKNOWN)} at first, {words} at the end"
        table.add_row(knob.name, Text("\n".join([words, *_meant(knob.name, summary)])))
    return table


def _meant(name: str, summary: UksmSummary) -> list[str]:
    """What the last cpu_ratios come to."""
    shares = parse_cpu_ratios(summary.knobs_last.get("cpu_ratios") or "")
    most = summary.knobs_last.get("max_cpu_percentage") or ""
    if name != "cpu_ratios" or shares is None or not most.isascii() or not most.isdecimal():
        return []
    percents = (f"{cpu_percent(share, int(most)):.4g}" for share in shares)
    return [f"{', '.join(percents)} % of one CPU, the slowest rung first"]
