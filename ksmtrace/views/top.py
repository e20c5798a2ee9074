"""`ksmtrace top` as one screen: a state, a size and the person's choices in, lines out."""

from __future__ import annotations

import textwrap

from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import seconds
from ksmtrace.processes.identity import clean
from ksmtrace.top.state import TopState
from ksmtrace.top.ui import KEYS, Ui
from ksmtrace.views.top_parts import (
    advisor_line,
    bar,
    fitted,
    ksmd_line,
    recent_lines,
    scan_line,
    spark_lines,
    system_lines,
)
from ksmtrace.views.top_table import table_lines

LEAST_WIDTH, LEAST_HEIGHT = 80, 24
_WIDE = 132
_AIRY = 27
_FEWEST_RECENT = 4
_LEAST_TABLE = 6
"""Lines that stay the table's, so that all doesn't jump as processes come."""
_MOST_NOTES = 2
_PLAIN = "ksmtrace top"


def render_top(state: TopState, ui: Ui, width: int, height: int | None) -> RenderableType:
    """The screen: no line longer than width, not more of them than height.

    height: None: as many as it takes, without keys, for printing once.
    """
    if height is not None and (width < LEAST_WIDTH or height < LEAST_HEIGHT):
        return _too_small(width, height)
    lines = screen_lines(state, ui, width, height)
    return Group(*lines)


def screen_lines(state: TopState, ui: Ui, width: int, height: int | None) -> list[Text]:
    """The lines of `render_top`, each as wide as it is."""
    head = [_title(state, width)]
    if state.moment.end_ns is not None:
        head.append(_position(state, width))
    if ui.help:
        body = _help(state)
        foot = [Text("any key goes back, q quits", style="dim")]
    else:
        body = _body(state, ui, width, None if height is None else height - len(head) - 1)
        foot = [] if height is None else [_keys(state)]
    if height is not None:
        room = height - len(head) - len(foot)
        body = body[:room] + [Text()] * (room - len(body))
    return [fitted(line, width) for line in (*head, *body, *foot)]


def _body(state: TopState, ui: Ui, width: int, height: int | None) -> list[Text]:
    notes = [Text(f"note: {clean(note)}", style="yellow") for note in state.notes]
    if height is not None:
        notes = notes[:_MOST_NOTES]
    if state.loading is not None:
        notes.append(Text(f"{clean(state.loading)} ...", style="yellow"))
    upper = [
        *system_lines(state, width),
        ksmd_line(state, width),
        scan_line(state, width),
        *spark_lines(state, width),
        advisor_line(state, width),
    ]
    if height is None:
        recent = recent_lines(state, 12)
        table = table_lines(state, ui, width, 40)
        return [*upper, *recent, Text(), *table, *notes]
    room = height - len(upper) - len(notes)
    if width >= _WIDE:
        left = width * 3 // 5
        table = table_lines(state, ui, left - 2, room - 2)
        beside = recent_lines(state, room - 1)
        return [*upper, Text(), *_side_by_side(table, beside, left), *notes]
    gap = [Text()] if height >= _AIRY else []
    room -= len(gap)
    table = table_lines(state, ui, width, room - _FEWEST_RECENT)
    recent = recent_lines(state, room - max(len(table), _LEAST_TABLE))
    below = [Text()] * (room - len(recent) - len(table))
    return [*upper, *recent, *gap, *table, *below, *notes]


def _side_by_side(left: list[Text], right: list[Text], at: int) -> list[Text]:
    lines = []
    for number in range(max(len(left), len(right))):
        line = fitted(left[number].copy(), at - 2) if number < len(left) else Text()
        line.pad_right(at - line.cell_len)
        if number < len(right):
            line.append_text(right[number])
        lines.append(line)
    return lines


def _title(state: TopState, width: int) -> Text:
    place = state.place
    if place.origin == "recording":
        what, style = clean(place.name or "a recording"), "cyan"
    elif place.origin == "capture":
        what, style = f"live, {place.backend}{' --cow' if place.cow else ''}", "green"
    else:
        what = "live" if state.loading else "live, from counters alone"
        style = "green" if state.loading else "yellow"
    cpus = "" if place.cpus is None else f", {place.cpus} CPU{'' if place.cpus == 1 else 's'}"
    right = f"Linux {clean(place.kernel)}{cpus}" if place.kernel else ""
    if state.moment.paused and state.moment.end_ns is None:
        right = "PAUSED  " + right
    line = Text.assemble((_PLAIN, "bold"), "  ", (what, style))
    if state.lost:
        line.append(f"  {state.lost:,} events LOST", style="bold red")
    gap = width - line.cell_len - len(right)
    return line.append(" " * gap + right) if gap > 1 else line


def _position(state: TopState, width: int) -> Text:
    moment = state.moment
    assert moment.end_ns is not None
    length = max(moment.end_ns - moment.begin_ns, 1)
    done = min(max((moment.ns - moment.begin_ns) / length, 0.0), 1.0)
    speed = "" if moment.speed is None else f"{moment.speed:g}×  "
    how = "at the end" if done >= 1 else "paused" if moment.paused else "playing"
    words = f" {seconds((moment.ns - moment.begin_ns) / 1e9)} of {seconds(length / 1e9)}  {speed}"
    words += how if moment.speed is not None else ""
    return Text.assemble(bar(done, max(width - len(words) - 1, 8), "cyan"), words)


def _help(state: TopState) -> list[Text]:
    recording = state.moment.end_ns is not None
    lines = [Text(), Text("keys", style="bold")]
    lines += [
        Text.assemble((f"  {key.shown:<8}", "bold cyan"), key.words)
        for key in KEYS
        if recording or not key.recording
    ]
    return [
        *lines,
        Text(),
        Text("Nothing on the host is changed. What each figure is: docs/top.md", style="dim"),
    ]


def _keys(state: TopState) -> Text:
    keys = [("q", "quit"), ("?", "help"), ("s", "sort"), ("g", "group"), ("space", "pause")]
    if state.moment.end_ns is None:
        keys.append(("r", "reverse"))
    else:
        keys += [("←→", "5 s"), (".,", "scan"), ("+-", "speed")]
    parts: list[str | tuple[str, str]] = []
    for key, words in keys:
        parts += [(key, "bold cyan"), (f" {words}  ", "dim")]
    line = Text.assemble(*parts)
    line.rstrip()
    return line


def _too_small(width: int, height: int) -> RenderableType:
    words = (
        f"This terminal has {width} columns and {height} lines; ksmtrace top needs {LEAST_WIDTH}"
        f" and {LEAST_HEIGHT}. Make it larger, or press q."
    )
    lines = textwrap.wrap(words, max(width, 1))
    return Group(*(Text(line) for line in lines[: max(height, 1)]))
