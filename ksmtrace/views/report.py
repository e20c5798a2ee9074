"""The report of a recording as rich renderables: a summary in, text out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.breaks import BreakTables
from ksmtrace.timeline.summary import Counters, Scan, Summary
from ksmtrace.views.breaks import render_breaks
from ksmtrace.views.text import Head, errno_name, name, named_table

_MOST_SCANS = 12
_MOST_PROCESSES = 15
_MOST_DECISIONS = 8
_MOST_PAIRS = 8
_BACKEND = "the backend can't see them"


def render_report(
    summary: Summary, breaks: BreakTables | None = None, shared: pd.DataFrame | None = None
) -> RenderableType:
    """What `ksmtrace report` prints; fits 80 columns.

    breaks: if they were watched. shared: KSM pages by pairs of virtual machines, as
    timeline.sharing.sharing gives them.
    """
    parts: list[RenderableType] = [_head(summary), _totals(summary)]
    if breaks is not None:
        named = {p.tgid: called for p in summary.processes if (called := p.vm or p.comm)}
        parts.append(render_breaks(breaks, named))
    if summary.scans:
        parts.append(_scans(summary.scans))
    if summary.processes:
        parts.append(_processes(summary))
    if shared is not None and len(shared) > 1:
        parts.append(_shared(shared, summary.page_bytes))
    if summary.advisor:
        parts.append(_advisor(summary))
    if summary.counters_last:
        parts.append(_counters(summary.counters_first, summary.counters_last))
    parts.extend(Text(clean(f"note: {note}"), style="yellow") for note in summary.notes)
    return Group(*parts)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = named_table(title, collapse_padding=True)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number < left else "right", style=None, no_wrap=True
        )
    return table


def _head(summary: Summary) -> RenderableType:
    manifest = summary.manifest
    head = Head()
    line = head.line
    line("host", host_words(manifest))
    line("backend", f"{manifest.get('backend')}: {manifest.get('backend_why')}")
    for topic, words in what_ran(manifest):
        line(topic, words)
    line("lasted", f"{seconds(summary.duration_s)}, ", ended_words(summary.ended, manifest))
    if summary.saved_pages_peak is not None and summary.saved_pages_last is not None:
        peak = summary.saved_pages_peak * summary.page_bytes
        last = summary.saved_pages_last * summary.page_bytes
        line("saved", f"{size(peak)} at most, {size(last)} at the end")
    lost = ("none lost", "green")
    if summary.lost:
        lost = (f"{count(summary.lost)} LOST", "bold red")
    elif not summary.loss_known:
        lost = ("losses not known", "yellow")
    line("events", f"{count(summary.events)}, ", lost)
    if set_knobs := manifest.get("knobs_set"):
        line("knobs set", ", ".join(f"{k}={v}" for k, v in set_knobs.items()))
    unknown = manifest.get("fields_unknown")
    if unknown:
        who = "the text doesn't have them" if "imported_from" in manifest else _BACKEND
        line("not known", f"{', '.join(map(str, unknown))} ({who})")
    if summary.ksmd_percent_of_one_core is not None:
        line(
            "ksmd CPU",
            f"{seconds(summary.ksmd_cpu_s)}: {summary.ksmd_percent_of_one_core:.1f} % of one core,"
            f" {summary.ksmd_percent_of_host:.1f} % of the host",
        )
    if manifest.get("only_pids"):
        line("only", f"process {', '.join(map(str, manifest['only_pids']))} (--pid)")
    return Group(head.table, "")


def host_words(manifest: Mapping[str, Any]) -> str:
    """Which machine it was."""
    machine = f"{_cpus(manifest.get('cpus'))}, {size(manifest.get('memory_bytes'))}"
    return f"Linux {manifest.get('kernel')}, {machine}"


def _cpus(number: int | None) -> str:
    return f"{count(number)} CPU{'' if number == 1 else 's'}"


def what_ran(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The command, or the scenario of the lab."""
    if manifest.get("command"):
        status = manifest.get("command_status")
        ended = "" if status is None else f", ended with status {status}"
        yield "command", f"{manifest['command']}{ended}"
    if title := _scenario_title(manifest.get("lab")):
        yield "scenario", title


def _scenario_title(lab: Any) -> str | None:
    """Its title. It may come from anywhere; whether it is whole is `replay --check`'s question."""
    scenario = lab.get("scenario") if isinstance(lab, dict) else None
    if not isinstance(scenario, str):
        return None
    try:
        title = tomllib.loads(scenario).get("title")
    except tomllib.TOMLDecodeError:
        return None
    return title if isinstance(title, str) else None


def ended_words(ended: str, manifest: Mapping[str, Any]) -> str | tuple[str, str]:
    """How a recording ended, perhaps with a style. ended: cut, or as the manifest has it."""
    if ended == "cut":
        _, _, where = str(manifest.get("ended") or "").partition(": ")
        return f"CUT: {where or 'the recorder was killed'}", "bold red"
    if ended.startswith("error"):
        return f"ended by an {ended}", "bold red"
    return f"ended by {ended}"


def _totals(summary: Summary) -> RenderableType:
    totals = summary.totals
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    inherited = f"{count(totals.inherited)} of them inherited by fork"
    table.add_row("merges", count(totals.merges), inherited)
    table.add_row("zero merges", count(totals.zero_merges), "onto the zero page")
    table.add_row("new KSM pages", count(totals.stable_pages_created), "")
    table.add_row("dead KSM pages", count(summary.stable_pages_removed), "noticed by ksmd")
    reasons = ", ".join(
        f"{count(number)} × {errno_name(error)} in {kind}"
        for kind, errors in summary.failures.items()
        for error, number in errors.items()
    )
    table.add_row("failed merges", count(totals.failed_merges), reasons)
    return Group(table, "")


def _scans(scans: list[Scan]) -> RenderableType:
    table = _table(
        f"full scans ({count(len(scans))})",
        "scan",
        "took",
        "items",
        "merges",
        "zero",
        "failed",
        "pages saved",
        "merges/s",
        left=0,
    )
    for group in _groups(scans):
        first, last = group[0], group[-1]
        times = [scan.duration_s for scan in group]
        whole = [time for time in times if time is not None]
        took: float | None = sum(whole) if len(whole) == len(times) else None
        merged = sum(scan.merges + scan.zero_merges for scan in group)
        saved = [scan.pages_saved for scan in group if scan.pages_saved is not None]
        table.add_row(
            str(first.seq) if first is last else f"{first.seq}–{last.seq}",
            "partly" if took is None else seconds(took),
            count(last.rmap_items),
            count(sum(scan.merges for scan in group)),
            count(sum(scan.zero_merges for scan in group)),
            count(sum(scan.failed_merges for scan in group)),
            f"{sum(saved):+,}" if saved else UNKNOWN,
            count(merged / took if took else None),
        )
    return Group(table, "")


def _groups(scans: list[Scan]) -> list[list[Scan]]:
    """Scans as rows: those in which much happened alone, what lies between in one."""

    def weight(scan: Scan) -> int:
        return scan.merges + scan.zero_merges + scan.failed_merges

    if len(scans) <= _MOST_SCANS:
        return [[scan] for scan in scans]
    heavy = sorted(range(len(scans)), key=lambda n: (-weight(scans[n]), n))[: _MOST_SCANS // 2]
    least = weight(scans[heavy[0]]) / 50
    alone = {n for n in heavy if weight(scans[n]) > least}
    groups: list[list[Scan]] = []
    for number, scan in enumerate(scans):
        # After run=2 the numbers begin again: such a row would read backwards.
        restarted = number > 0 and scan.seq < scans[number - 1].seq
        if not groups or number in alone or number - 1 in alone or restarted:
            groups.append([])
        groups[-1].append(scan)
    return groups


def _processes(summary: Summary) -> RenderableType:
    shown = summary.processes[:_MOST_PROCESSES]
    table = _table(
        f"processes ({count(len(summary.processes))})",
        "process",
        "name",
        "merges",
        "zero",
        "failed",
        "merged now",
        "saved",
        "profit",
        left=2,
    )
    # Where there is not room for all, the name gives way, never a number.
    table.columns[1].max_width = 20
    table.columns[1].no_wrap = False
    for process in shown:
        table.add_row(
            str(process.tgid) if process.tgid else "unknown",
            name(process.vm or process.comm),
            count(process.merges),
            count(process.zero_merges),
            count(process.failed_merges),
            count(process.ksm_merging_pages),
            size(process.saved_bytes(summary.page_bytes)),
            size(process.ksm_process_profit),
        )
    if len(summary.processes) > len(shown):
        table.add_row("…", Text("--json lists all"))
    return Group(table, "")


def _shared(shared: pd.DataFrame, page_bytes: int) -> RenderableType:
    """Pairs of virtual machines by what both map, most first."""
    names, pages = [str(name) for name in shared.index], shared.to_numpy(np.int64)
    left, right = np.triu_indices(len(names), 1)
    order = np.argsort(-pages[left, right], kind="stable")
    table = _table(
        f"shared by virtual machines ({count(len(names))})", "", "and", "KSM pages", "size", left=2
    )
    for pair in order[:_MOST_PAIRS].tolist():
        one, other = int(left[pair]), int(right[pair])
        both = int(pages[one, other])
        table.add_row(name(names[one]), name(names[other]), count(both), size(both * page_bytes))
    if len(order) > _MOST_PAIRS:
        table.add_row("…", Text("timeline --sharing vm lists all"))
    return Group(table, "")


def _advisor(summary: Summary) -> RenderableType:
    table = _table(
        f"advisor decisions ({count(len(summary.advisor))})",
        "scan took (s)",
        "ksmd CPU (%)",
        "new pages_to_scan",
        left=0,
    )
    for decision in summary.advisor[-_MOST_DECISIONS:]:
        table.add_row(
            count(decision["scan_time"]),
            count(decision["cpu_percent"]),
            count(decision["pages_to_scan"]),
        )
    return Group(table, "")


def _counters(first: Counters, last: Counters) -> RenderableType:
    table = _table("counters", "", "first", "last", "change")
    for counter, after in last.items():
        before = first.get(counter)
        if before is None and after is None:
            continue
        change = UNKNOWN if before is None or after is None else f"{after - before:+,}"
        table.add_row(counter, count(before), count(after), change)
    return table
