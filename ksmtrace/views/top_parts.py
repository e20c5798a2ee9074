"""The parts of the screen of `ksmtrace top` above its table, a line or some each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.top.state import ROUTINE, Burst, Decision, TopState
from ksmtrace.views.top_words import STYLES, burst_words

_LABEL = 9
_LONG = 6
"""Digits of a knob that there is no place for."""
_SHARE_OF_ROUTINE = 4
"""A line in so many may tell what comes again and again, if there is anything else to tell."""
_CELL = 26
_SCAN_BAR = 20
_SPARKS = (
    ("merges_per_s", "merges", "green"),
    ("breaks_per_s", "breaks", "red"),
    ("saved_bytes", "saved", "cyan"),
)
_SPARK_WORDS = 24
_WHEN = 9


def fitted(line: Text, width: int) -> Text:
    """The same line, cut where it is longer than width."""
    if line.cell_len > width:
        line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def label(words: str) -> Text:
    """What a line is about, at its left."""
    return Text.assemble((f"{words:<{_LABEL}}", "bold"))


def bar(share: float, cells: int, style: str) -> Text:
    """A bar of which a share is filled."""
    filled = round(min(max(share, 0.0), 1.0) * cells)
    return Text.assemble(("━" * filled, style), ("─" * (cells - filled), "dim"))


def system_lines(state: TopState, width: int) -> list[Text]:
    """What is saved, and what the pages are."""
    figures = state.figures
    ratio = figures.get("sharing_per_shared")
    skipped = figures.get("skipped_percent")
    profit = figures.get("profit_bytes")
    cells = [
        ("saved", size(figures.get("saved_bytes")), "bold green"),
        ("profit", size(profit), "bold red" if (profit or 0) < 0 else "bold green"),
        ("shared:sharing", UNKNOWN if ratio is None else f"1:{ratio:,.1f}", "bold"),
        ("shared", count(figures.get("pages_shared")), "bold"),
        ("sharing", count(figures.get("pages_sharing")), "bold"),
        ("zero pages", count(figures.get("ksm_zero_pages")), "bold"),
        ("volatile", count(figures.get("pages_volatile")), "bold"),
        ("unshared", count(figures.get("pages_unshared")), "bold"),
        ("skipped now", UNKNOWN if skipped is None else f"{skipped:.0f} %", "bold"),
    ]
    across = max(3, min(len(cells), width // _CELL))
    lines = []
    for first in range(0, len(cells), across):
        line = Text()
        for words, value, style in cells[first : first + across]:
            name = f"{words:<{_LABEL}}" if line.cell_len == 0 else f"{words} "
            cell = Text.assemble((name, "bold" if line.cell_len == 0 else "dim"), (value, style))
            cell.pad_right(_CELL - cell.cell_len)
            line.append_text(cell)
        lines.append(line)
    return lines


def ksmd_line(state: TopState, width: int) -> Text:
    """What ksmd does and takes. Where all that is too long, its share of the host is left out."""
    figures, knobs = state.figures, state.knobs
    one = figures.get("ksmd_percent_of_one_core")
    host = figures.get("ksmd_percent_of_host")
    line = label("ksmd")
    line.append(*_doing(state))
    line.append(f", {_percent(one)} of a core")
    settings = ["smart"] if knobs.get("smart_scan") == "1" else []
    if (pages := knobs.get("pages_to_scan")) is not None:
        settings.append(f"{_batch(pages, state)}/{_pause(knobs.get('sleep_millisecs'))}")
    share = f", {_percent(host)} of the host"
    after = f"  {', '.join(settings)}" if settings else ""
    if line.cell_len + len(share) + len(after) <= width:
        line.append(share)
    return line.append(after, style="dim")


def _batch(pages: str, state: TopState) -> str:
    """`pages_to_scan`: a number too long to be read says in words what it comes to."""
    if not pages.isdecimal() or len(pages) < _LONG:
        return f"{int(pages):,} pages" if pages.isdecimal() else pages
    items = state.scan.expected_pages
    if items is None and state.rows is not None:
        # NaN, where not all are known, is not less than anything.
        items = state.rows.columns["items"].sum()
    if items is not None and items <= int(pages):
        return "all pages"
    return f"{int(pages) / 1e6:,.0f} M pages"


def _pause(millisecs: str | None) -> str:
    if millisecs is None or not millisecs.isdecimal():
        return f"{millisecs or UNKNOWN} ms"
    days = int(millisecs) / 86_400_000
    if days >= 1:
        return f"{days:,.0f} d"
    return f"{millisecs} ms" if len(millisecs) < _LONG else seconds(int(millisecs) / 1000)


def _doing(state: TopState) -> tuple[str, str]:
    run = state.knobs.get("run")
    if run == "0":
        return "stopped (run=0)", "bold yellow"
    if run == "2":
        return "unmerged all (run=2)", "bold yellow"
    if run is None:
        return "unknown", ""
    busy = state.figures.get("ksmd_percent_of_one_core")
    return ("asleep", "") if busy is not None and busy == 0 else ("scanning", "green")


def _percent(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:.1f} %"


def scan_line(state: TopState, width: int) -> Text:
    """How far the full scan is."""
    scan = state.scan
    line = label("scan")
    line.append(UNKNOWN if scan.seq is None else f"{scan.seq:,}  ")
    last = "" if scan.last_s is None else f"; the last took {seconds(scan.last_s)}"
    if not scan.under_way:
        return line.append(f"none under way: {scan.basis}{last}" if scan.basis else "")
    if scan.fraction is None:
        since = "" if scan.elapsed_s is None else f"{seconds(scan.elapsed_s)}, "
        return line.append(f"{since}end unknown: {scan.basis}{last}")
    line.append_text(bar(scan.fraction, _SCAN_BAR + max(0, width - 100) // 3, "blue"))
    line.append(f" {100 * scan.fraction:.0f} %", style="bold")
    if scan.visited_pages is not None:
        line.append(f" {scan.visited_pages:,} of {count(scan.expected_pages)}")
    if scan.elapsed_s is not None:
        line.append(f"  {seconds(scan.elapsed_s)}")
    ends = f"ends in {seconds(scan.ends_in_s)}" if scan.ends_in_s is not None else "end unknown"
    return line.append(f", {ends}")


def spark_lines(state: TopState, width: int) -> list[Text]:
    """Rates and savings over time."""
    cells = max(width - _LABEL - _SPARK_WORDS, 8)
    lines = []
    for name, words, style in _SPARKS:
        values = [] if state.series is None else list(state.series.values.get(name, ()))[-cells:]
        drawn, most = _drawn(values)
        line = label(words)
        line.append(drawn.rjust(cells), style=style)
        line.append(f" {_now_and_most(state, name, most)}")
        lines.append(line)
    return lines


def _drawn(values: Sequence[float | None]) -> tuple[str, float | None]:
    """Blocks, and the most; numpy is imported only where there is something to draw."""
    known = [value for value in values if value is not None]
    if not known:
        return "", None
    import numpy as np

    from ksmtrace.views.timeline_strip import spark

    array = np.array([np.nan if value is None else value for value in values], np.float64)
    return spark(array), max(known)


def _now_and_most(state: TopState, name: str, most: float | None) -> str:
    now = state.figures.get(name)
    # The cell under way is none of those that are drawn.
    most = most if most is None or now is None else max(most, now)
    if name == "saved_bytes":
        return f"{size(now)}, most {size(most)}" if most is not None else size(now)
    if name == "merges_per_s" and now is None:
        now = state.figures.get("merged_net_per_s")
        return f"{_rate(now)} net" + ("" if most is None else f", most {_rate(most)}")
    return _rate(now) + ("" if most is None else f", most {_rate(most)}")


def _rate(number: float | None) -> str:
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}/s" if abs(number) >= 9.95 or number == 0 else f"{number:.1f}/s"


def advisor_line(state: TopState, width: int) -> Text:
    """The advisor's last decisions, as many as fit."""
    line = label("advisor")
    mode = state.knobs.get("advisor_mode")
    if mode is None and not state.decisions:
        return line.append(UNKNOWN)
    if mode == "none" and not state.decisions:
        return line.append("off", style="dim")
    line.append("off" if mode == "none" else mode or "on", style="magenta")
    if not state.decisions:
        why = "no capture" if state.place.origin == "counters" else "none yet"
        return line.append(f"  decisions: {why}", style="dim")
    for number, decision in enumerate(state.decisions):
        words = f"  {_decision(decision, state, brief=number > 0)}"
        if line.cell_len + len(words) > width:
            break
        line.append(words, style="" if number == 0 else "dim")
    return line


def _decision(decision: Decision, state: TopState, *, brief: bool) -> str:
    ago = seconds(max(state.moment.ns - decision.ns, 0) / 1e9)
    if brief:
        return f"{decision.pages_to_scan:,} ({ago} ago)"
    return (
        f"{decision.pages_to_scan:,} pages {ago} ago: scan {decision.scan_s} s,"
        f" {decision.cpu_percent} % CPU"
    )


def _chosen(recent: Sequence[Burst], most: int) -> list[Burst]:
    """As many as there are lines: scans and decisions leave room for all else that happened."""
    others = sum(burst.what not in ROUTINE for burst in recent)
    room = max(most - others, most // _SHARE_OF_ROUTINE, 1)
    chosen = []
    for burst in recent:
        if burst.what in ROUTINE:
            room -= 1
            if room < 0:
                continue
        chosen.append(burst)
    return chosen[: max(most, 0)]


def recent_lines(state: TopState, most: int) -> list[Text]:
    """What happened last, the newest first."""
    if not state.recent:
        if state.place.origin == "counters":
            why = "events need a capture" if not state.loading else ""
        else:
            why = "nothing yet"
        return [label("recent").append(why, style="dim")]
    lines = []
    for number, burst in enumerate(_chosen(state.recent, most)):
        line = label("recent" if number == 0 else "")
        if state.moment.end_ns is None:
            when = f"{max(state.moment.ns - burst.ns, 0) / 1e9:,.0f} s ago"
        else:
            when = f"{(burst.ns - state.moment.begin_ns) / 1e9:,.2f} s"
        line.append(f"{when:>{_WHEN}}  ", style="dim")
        line.append(burst_words(burst), style=STYLES.get(burst.what, ""))
        lines.append(line)
    return lines
