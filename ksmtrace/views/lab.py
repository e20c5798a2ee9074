"""What `lab run` and `simulate` print: a run's report in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.processes.identity import clean

_MOST_EVENTS = 12
_MOST_VISITS = 40
_USUAL = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


def render_lab(report: Mapping[str, Any]) -> RenderableType:
    """Counters after each scan side by side, the events, and the verdict; fits 80 columns."""
    parts: list[RenderableType] = [Text(clean(report["title"]), style="bold")]
    if report["about"]:
        parts.append(Text(_in_one_line(report["about"])))
    before: dict[str, dict[str, int]] = {}
    for step in report["steps"]:
        parts.append(Text(""))
        parts.append(_head(step))
        if step["say"]:
            parts.append(Padding(Text(_in_one_line(step["say"]), style="cyan"), (0, 0, 0, 2)))
        for seen in step["seen"]:
            parts += _seen(report["kinds"], seen, before)
            if seen["scan"] is not None:
                before = seen["counters"]
    parts.append(Text(""))
    parts += _verdict(report)
    return Group(*parts)


def _in_one_line(text: str) -> str:
    return clean(" ".join(text.split()))


def _head(step: Mapping[str, Any]) -> Text:
    does = ", ".join(f"{key} = {_short(value)}" for key, value in step["does"].items())
    return Text.assemble((f"{step['step']:>3}  ", "dim"), does or "(nothing)")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_short(v)}" for key, v in value.items())
    return clean(str(value))


def _seen(
    kinds: list[list[str]], seen: Mapping[str, Any], before: Mapping[str, Mapping[str, int]]
) -> list[RenderableType]:
    parts: list[RenderableType] = []
    parts += _visits(seen)
    parts += _events(kinds, seen)
    refused = {name: word for name, word in seen["refused"].items() if word}
    if refused:
        told = ", ".join(f"{name}: {word}" for name, word in refused.items())
        parts.append(Padding(Text(f"refused: {told}", style="yellow"), (0, 0, 0, 5)))
    if seen["scan"] is not None or not seen["counters_agree"]:
        parts.append(Padding(_counters(kinds, seen, before), (0, 0, 0, 5)))
    return parts


def _counters(
    kinds: list[list[str]], seen: Mapping[str, Any], before: Mapping[str, Mapping[str, int]]
) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    title = f"after scan {seen['scan']}" if seen["scan"] is not None else "counters"
    table.add_column(title, no_wrap=True, header_style="bold")
    on = [name for kind in kinds for name in kind]
    for name in on:
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    for name, values in seen["counters"].items():
        differs = any(len({values[o] for o in kind if o in values}) > 1 for kind in kinds)
        changed = values != before.get(name, {})
        if name == "full_scans" and not differs and len(kinds) == 1:
            continue
        shown = name in _USUAL or differs or (changed and any(values.values()))
        if shown:
            style = "bold red" if differs else ("" if changed else "dim")
            cells = [count(values[o]) if o in values else UNKNOWN for o in on]
            table.add_row(name, *cells, style=style)
    return table


def _events(kinds: list[list[str]], seen: Mapping[str, Any]) -> list[RenderableType]:
    events = {name: _without_scans(lines) for name, lines in seen["events"].items()}
    if not seen["events_agree"]:
        return [_list(events[name], f"{name}: ", "red") for kind in kinds for name in kind]
    if not any(events.values()):
        return []
    heads = [f"{', '.join(kind)}: " if len(kinds) > 1 else "" for kind in kinds]
    return [_list(events[kind[0]], head, "green") for kind, head in zip(kinds, heads, strict=True)]


def _without_scans(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("START ", "STOP "))]


def _list(lines: list[str], head: str, style: str) -> RenderableType:
    shown = ", ".join(lines[:_MOST_EVENTS]) or "no events"
    if len(lines) > _MOST_EVENTS:
        shown += f", and {count(len(lines) - _MOST_EVENTS)} more"
    return Padding(Text(head + shown, style=style), (0, 0, 0, 5))


def _visits(seen: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for name, visits in seen["visits"].items():
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for page, what in visits[:_MOST_VISITS]:
            grid.add_row(page, what)
        if len(visits) > _MOST_VISITS:
            grid.add_row("", f"and {count(len(visits) - _MOST_VISITS)} more visits")
        parts.append(Padding(Group(Text(f"visits on {name}", style="bold"), grid), (0, 0, 0, 5)))
    return parts


def _verdict(report: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    parts += [Text(f"note: {note}", style="yellow") for note in report["notes"]]
    parts += [
        Text(f"expected otherwise: {disappointment}", style="bold red")
        for disappointment in report["disappointments"]
    ]
    difference = report["first_difference"]
    if difference is not None:
        parts += _difference(difference)
    names = ", ".join(report["on"])
    if len(report["on"]) == 1:
        if report["as_expected"]:
            parts.append(Text(f"{names}: as expected", style="bold green"))
        return parts
    compared = "; ".join(", ".join(kind) for kind in report["kinds"] if len(kind) > 1)
    if compared and report["agree"]:
        words = f"{compared}: agree in every counter and every event"
        parts.append(Text(words, style="bold green"))
    elif compared:
        parts.append(Text(f"{compared}: differ", style="bold red"))
    return parts


def _difference(difference: Mapping[str, Any]) -> list[RenderableType]:
    one, other = difference["between"]
    scan = f" (scan {difference['scan']})" if difference["scan"] is not None else ""
    parts: list[RenderableType] = [
        Text(f"the first difference is at step {difference['step']}{scan}, {difference['where']}")
    ]
    event = difference["event"]
    if event is not None:
        if event["before"]:
            parts.append(Text(f"  after {', '.join(event['before'])}"))
        parts.append(Text(f"  {one}: {event['told'][0]}"))
        parts.append(Text(f"  {other}: {event['told'][1]}"))
        parts.append(Text(f"  they differ in: {event['why']}"))
    for name, (mine, theirs) in difference["counters"].items():
        parts.append(Text(f"  {name}: {one} {_number(mine)}, {other} {_number(theirs)}"))
    return parts


def _number(number: int | None) -> str:
    return UNKNOWN if number is None else count(number)
