"""The report of a recording as rich renderables: a summary in, text out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.timeline.summary import Counters, Scan, Summary
from ksmtrace.views.text import count, errno_name, name, seconds, size

_MOST_SCANS = 12
_MOST_PROCESSES = 15
_MOST_DECISIONS = 8


def render_report(summary: Summary) -> RenderableType:
    """What `ksmtrace report` prints; fits 80 columns."""
    parts: list[RenderableType] = [_head(summary), _totals(summary)]
    if summary.scans:
        parts.append(_scans(summary.scans))
    if summary.processes:
        parts.append(_processes(summary))
    if summary.advisor:
        parts.append(_advisor(summary))
    parts.append(_counters(summary.counters_first, summary.counters_last))
    parts.extend(
        Text(f"note: {note}", style="yellow") for note in summary.manifest.get("notes", [])
    )
    return Group(*parts)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number < left else "right", style=None, no_wrap=True
        )
    return table


def _head(summary: Summary) -> RenderableType:
    manifest = summary.manifest
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold")
    lines.add_column()
    lines.add_row(
        "host",
        f"Linux {manifest.get('kernel')}, {manifest.get('cpus')} CPUs,"
        f" {size(manifest.get('memory_bytes'))}",
    )
    lines.add_row("backend", f"{manifest.get('backend')}: {manifest.get('backend_why')}")
    if manifest.get("command"):
        status = manifest.get("command_status")
        told = "" if status is None else f", ended with status {status}"
        lines.add_row("command", name(f"{manifest['command']}{told}"))
    lines.add_row("lasted", f"{seconds(summary.duration_s)}, {_ended(summary)}")
    events = Text(f"{count(summary.events)}, ")
    lost = (f"{count(summary.lost)} LOST", "bold red") if summary.lost else ("none lost", "green")
    lines.add_row("events", events.append(*lost))
    if set_knobs := manifest.get("knobs_set"):
        lines.add_row("knobs set", ", ".join(f"{k}={v}" for k, v in set_knobs.items()))
    unknown = manifest.get("fields_unknown")
    if unknown:
        lines.add_row("not known", f"{', '.join(unknown)} (the backend can't see them)")
    cpu = summary.ksmd_cpu_s
    if cpu is not None and summary.duration_s:
        share = 100 * cpu / summary.duration_s
        lines.add_row(
            "ksmd CPU",
            f"{seconds(cpu)}: {share:.1f} % of one core,"
            f" {share / manifest.get('cpus', 1):.1f} % of the host",
        )
    return Group(lines, "")


def _ended(summary: Summary) -> Text:
    if summary.ended == "cut":
        return Text("CUT: the recorder was killed", style="bold red")
    if summary.ended.startswith("error"):
        return Text(f"ended by an {summary.ended}", style="bold red")
    return Text(f"ended by {summary.ended}")


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
    shown = _interesting(scans)
    previous = -1
    for number in shown:
        if number != previous + 1:
            table.add_row("…")
        previous = number
        scan = scans[number]
        table.add_row(
            count(scan.seq),
            seconds(scan.duration_s) if scan.duration_s is not None else "partly",
            count(scan.rmap_items),
            count(scan.merges),
            count(scan.zero_merges),
            count(scan.failed_merges),
            "–" if scan.pages_saved is None else f"{scan.pages_saved:+,}",
            count(scan.merges_per_s),
        )
    if previous != len(scans) - 1:
        table.add_row("…")
    return Group(table, "")


def _interesting(scans: list[Scan]) -> list[int]:
    """The scans in which most happened, in order of time."""
    order = sorted(
        range(len(scans)),
        key=lambda n: (-(scans[n].merges + scans[n].zero_merges + scans[n].failed_merges), n),
    )
    return sorted(order[:_MOST_SCANS])


def _processes(summary: Summary) -> RenderableType:
    page_bytes = summary.manifest.get("page_bytes", 4096)
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
    table.columns[1].max_width = 20
    for process in shown:
        table.add_row(
            str(process.tgid) if process.tgid else "unknown",
            name(process.vm or process.comm),
            count(process.merges),
            count(process.zero_merges),
            count(process.failed_merges),
            count(process.ksm_merging_pages),
            size(process.saved_bytes(page_bytes)),
            size(process.ksm_process_profit),
        )
    if len(summary.processes) > len(shown):
        table.add_row("…", Text("--json lists all"))
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
        change = None if before is None or after is None else after - before
        table.add_row(
            counter, count(before), count(after), "–" if change is None else f"{change:+,}"
        )
    return table
