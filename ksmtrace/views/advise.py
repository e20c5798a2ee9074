"""Advice as rich renderables: an answer in, a page out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.inspect.advise.advice import Advice, Answer, SharedBy, Verdict
from ksmtrace.processes.identity import clean

_MOST_WHOLE = 4
_MOST_PAIRS = 3
_STYLES = {
    "pays": "green",
    "dear": "yellow",
    "loses": "bold red",
    "idle": "yellow",
    "off": "yellow",
    "unknown": "yellow",
}


def render_answer(answer: Answer) -> RenderableType:
    """What `ksmtrace advise` prints; fits 80 columns."""
    title = f"{answer.source}, Linux {answer.kernel}, {seconds(answer.observed_s)}"
    parts: list[RenderableType] = [
        Text(clean(title), style="bold"),
        Text(clean(answer.verdict.sentence), style=_STYLES[answer.verdict.state]),
        _figures(answer.verdict),
        _heading(f"What to change ({count(len(answer.advice))})"),
    ]
    if not answer.advice:
        parts.append(_said(["Nothing: no rule finds anything."]))
    parts += [_whole(number, one) for number, one in enumerate(answer.advice[:_MOST_WHOLE], 1)]
    rest = answer.advice[_MOST_WHOLE:]
    if rest:
        parts.append(_said([f"also: {one.what} ({one.id}; --json has it whole)" for one in rest]))
    parts += [_heading("If all sharing broke"), _said([answer.overcommit.sentence])]
    parts += [_heading("Who shares with whom"), _said(_sharing(answer.shared))]
    if answer.caveats:
        parts.append(_heading("About these numbers"))
        parts.append(_said([caveat.sentence for caveat in answer.caveats]))
    if answer.not_known:
        parts += [_heading("Not known"), _said(answer.not_known)]
    return Group(*parts)


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")


def _said(lines: Iterable[str]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("", Text(clean(line)))
    return table


def _figures(verdict: Verdict) -> RenderableType:
    figures = verdict.figures
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def line(topic: str, known: float | None, words: str) -> None:
        table.add_row(f"  {topic}", Text(words if known is not None else UNKNOWN))

    def number(name: str, form: str) -> str:
        value = figures.get(name)
        return UNKNOWN if value is None else format(value, form)

    saved = figures["saved_bytes"]
    memory = figures["memory_bytes"]
    of_host = f", {100 * (saved or 0) / memory:.1f} % of memory" if memory else ""
    line("saved", saved, f"{size(saved)} in {count(figures['saved_pages'])} pages{of_host}")
    line(
        "profit",
        figures["profit_bytes"],
        f"{size(figures['profit_bytes'])}: saved, less"
        f" {count(figures['rmap_item_bytes'])} bytes for each of"
        f" {count(figures['rmap_items'])} pages on the list",
    )
    line(
        "ksmd",
        figures["ksmd_percent_of_one_core"],
        f"{number('ksmd_percent_of_one_core', '.1f')} % of one core,"
        f" {number('ksmd_percent_of_host', '.1f')} % of the host"
        + (
            ""
            if figures["ksmd_cpu_s_per_gib_saved_hour"] is None
            else f"; {number('ksmd_cpu_s_per_gib_saved', ',.2f')} CPU-seconds for each GiB"
            f" saved, {number('ksmd_cpu_s_per_gib_saved_hour', ',.0f')} an hour"
        ),
    )
    line("trend", figures["saved_bytes_per_s"], _trend(figures["saved_bytes_per_s"]))
    return table


def _trend(bytes_per_s: float | None) -> str:
    if not bytes_per_s:
        return "the saving stands still"
    words = "growing" if bytes_per_s > 0 else "shrinking"
    return f"{words} by {size(abs(bytes_per_s))} a second"


def _whole(number: int, advice: Advice) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3, justify="right")
    table.add_column(width=6, no_wrap=True)
    table.add_column(overflow="fold")
    parts = Table.grid()
    parts.add_column(overflow="fold")
    sure = "sure" if advice.confidence == "sure" else f"{advice.confidence}, not sure"
    parts.add_row(Text.assemble((f"{number:>3} {clean(advice.what)}", "bold"), f" ({sure})"))
    for place, command in enumerate(advice.commands):
        table.add_row("", "" if place else "type", Text(clean(command), style="cyan"))
    table.add_row("", "why", Text(clean(advice.why)))
    table.add_row("", "brings", Text(clean(advice.brings)))
    table.add_row("", "risks", Text(clean(advice.risks)))
    return Group(parts, table)


def _sharing(shared: tuple[SharedBy, ...] | None) -> list[str]:
    if shared is None:
        return ["It can't be told: see what is not known."]
    lines = [line for one in shared for line in _domain(one)]
    if not shared:
        return ["Nobody: no registered process is known."]
    if any(one.ksm_pages_across for one in shared):
        lines.append(
            "Who can write memory can tell by timing whether another domain holds an equal page."
            " Keep one out: MemoryKSM=no, prctl(PR_SET_MEMORY_MERGE, 0), QEMU's mem-merge=off."
        )
    return lines


def _domain(one: SharedBy) -> list[str]:
    kind = {"vm": "virtual machine", "cgroup": "cgroup"}[one.by]
    number = len(one.domains)
    if not one.ksm_pages:
        return [f"No KSM page is mapped by any {kind}."]
    if number == 1:
        return [f"One {kind} only, {one.domains[0]}: nothing is shared across {kind}s."]
    if not one.ksm_pages_across:
        return [f"{count(number)} {kind}s map KSM pages, and none maps another's."]
    across = f"{count(one.ksm_pages_across)} of {count(one.ksm_pages)} KSM pages"
    lines = [f"{across} ({size(one.bytes_across)}) are shared across {count(number)} {kind}s:"]
    lines += [
        f"  {pair.one} and {pair.other}: {count(pair.ksm_pages)} pages, {size(pair.bytes)}"
        for pair in one.pairs[:_MOST_PAIRS]
    ]
    if len(one.pairs) > _MOST_PAIRS:
        lines.append(f"  and {count(len(one.pairs) - _MOST_PAIRS)} more pairs (--json lists all)")
    return lines
