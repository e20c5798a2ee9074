"""Two recordings side by side: a difference in, text or JSON out; fits 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.difference import SETUP, Compared, Difference, Pair, Setting, Side
from ksmtrace.timeline.host_figures import Missing, Unit, Value
from ksmtrace.views.text import named_table

_MOST_PROCESSES = 8
_WORDS, _VALUE, _CHANGE = 31, 14, 17
_KNOB, _SETTING = 34, 21


def _number(number: float) -> str:
    """Whole numbers whole, small ones to three digits."""
    if number.is_integer() or abs(number) >= 100:
        return count(number)
    return f"{number:.3g}" if abs(number) < 10 else f"{number:.1f}"


SHOWN: Mapping[Unit, Callable[[float], str]] = MappingProxyType(
    {
        "number": _number,
        "per_s": _number,
        "s": seconds,
        "cpu_s": seconds,
        "us": lambda number: f"{_number(number)} µs",
        "bytes": size,
        "percent": lambda number: f"{_number(number)} %",
    }
)
"""How a figure looks, by its unit."""


def render_diff(difference: Difference, a: str, b: str) -> RenderableType:
    """What `ksmtrace diff` prints. a, b: what the recordings are called."""
    parts: list[RenderableType] = [_head(difference, a, b)]
    if difference.setup or difference.knobs:
        parts.append(_setup(difference))
    parts.extend(_figures(difference))
    if difference.processes:
        parts.append(_processes(difference.processes))
    notes = [*_notes(difference), *_reasons(difference.figures)]
    return Group(*parts, *(Text(clean(note)) for note in notes))


def _head(difference: Difference, a: str, b: str) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold")
    lines.add_column(overflow="fold")
    lines.add_column(justify="right", no_wrap=True)
    for letter, path, length in zip("AB", (a, b), difference.durations_s, strict=True):
        lines.add_row(letter, Text(clean(path)), seconds(length))
    return Group(lines, "")


def _table(title: str) -> Table:
    table = named_table(title)
    table.add_column("", width=_WORDS)
    table.add_column("A", width=_VALUE, justify="right", overflow="fold")
    table.add_column("B", width=_VALUE, justify="right", overflow="fold")
    table.add_column("B against A", width=_CHANGE, no_wrap=True, justify="right")
    return table


def _setup(difference: Difference) -> RenderableType:
    table = named_table("made differently")
    table.add_column("", width=_KNOB)
    table.add_column("A", width=_SETTING, justify="right", overflow="fold")
    table.add_column("B", width=_SETTING, justify="right", overflow="fold")
    for name, both in difference.setup.items():
        table.add_row(SETUP[name], *(Text(clean(_fact(name, value))) for value in both))
    if all(difference.knobs_known):
        for name, settings in difference.knobs.items():
            table.add_row(name, *(Text(clean(_knob(setting))) for setting in settings))
    return Group(table, "")


def _knob(setting: Setting) -> str:
    if setting.first is None or setting.last is None:
        return UNKNOWN
    return setting.first if setting.first == setting.last else f"{setting.first} → {setting.last}"


def _fact(name: str, value: Any) -> str:
    if value is None:
        return UNKNOWN
    if name.endswith("_bytes"):
        return size(value)
    return (", ".join(map(str, value)) or "nothing") if isinstance(value, list) else str(value)


def _figures(difference: Difference) -> list[RenderableType]:
    groups: dict[str, Table] = {}
    for figure in difference.figures:
        if isinstance(figure.a, Missing) and isinstance(figure.b, Missing):
            continue
        measure = figure.measure
        if measure.group not in groups:
            groups[measure.group] = _table(measure.group)
            groups[measure.group].show_header = len(groups) == 1
        incomparable = measure.scales and not difference.same_length
        groups[measure.group].add_row(
            measure.words + "*" * incomparable,
            *(_shown(measure.unit, value) for value in (figure.a, figure.b)),
            Text("") if incomparable else _change(figure),
        )
    return [part for table in groups.values() for part in (table, "")]


def _shown(unit: Unit, value: Value) -> str:
    return UNKNOWN if isinstance(value, Missing) else SHOWN[unit](value)


def _change(figure: Compared) -> Text:
    if figure.equal:
        return Text("=")
    if figure.delta is None:
        return Text("")
    if figure.ratio is None:
        shown = SHOWN[figure.measure.unit](abs(figure.delta))
        change = f"{'+' if figure.delta > 0 else '-'}{shown}"
    elif 0.1 <= figure.ratio < 100:
        change = f"×{figure.ratio:.2f}"
    else:
        change = f"×{_number(figure.ratio)}"
    if figure.b_is_better is None:
        return Text(change)
    word, style = ("better", "green") if figure.b_is_better else ("worse", "red")
    return Text.assemble(change, " ", (f"{word:>6}", style))


def _processes(pairs: tuple[Pair, ...]) -> RenderableType:
    table = named_table(f"processes by name ({count(len(pairs))})")
    table.add_column("name", max_width=17, no_wrap=True, overflow="ellipsis")
    table.add_column("cgroup", max_width=14, no_wrap=True, overflow="ellipsis")
    for column in ("peak A", "peak B", "profit A", "profit B"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in pairs[:_MOST_PROCESSES]:
        sides = (pair.a, pair.b)
        table.add_row(
            Text(_name(pair)),
            Text(UNKNOWN if pair.cgroup is None else clean(pair.cgroup)),
            *(count(side.merged_peak if side else None) for side in sides),
            *(size(side.profit_bytes if side else None) for side in sides),
        )
    if len(pairs) > _MOST_PROCESSES:
        table.add_row("…", Text("--json lists all"))
    return Group(table, "")


def _name(pair: Pair) -> str:
    number = max(side.processes for side in (pair.a, pair.b) if side)
    return UNKNOWN if pair.name is None else clean(pair.name) + (f" ×{number}" * (number > 1))


def _notes(difference: Difference) -> list[str]:
    if difference.equal:
        return ["Nothing differs."]
    notes = []
    unknown = [
        letter for letter, known in zip("AB", difference.knobs_known, strict=True) if not known
    ]
    if unknown:
        notes.append(f"{UNKNOWN} in {' and '.join(unknown)}: no knobs were recorded")
    if difference.setup.get("kernel"):
        notes.append("What differs between the kernels: ksmtrace kernels RELEASE")
    if not difference.same_length:
        lengths = " and ".join(seconds(length) for length in difference.durations_s)
        notes.append(f"The recordings last {lengths}: rates and means are by the time recorded.")
        notes.append("* is a sum over that time, so the two don't compare.")
    return notes


def _reasons(figures: tuple[Compared, ...]) -> list[str]:
    """Why there are dashes, one line a reason."""
    reasons: dict[str, dict[str, list[Compared]]] = {}
    for figure in figures:
        missing = {n: v.why for n, v in _sides(figure).items() if isinstance(v, Missing)}
        for why in dict.fromkeys(missing.values()):
            letters = " and ".join(n for n, other in missing.items() if other == why)
            reasons.setdefault(why, {}).setdefault(letters, []).append(figure)
    return [
        f"{UNKNOWN} in {letters}: {why} ({_topic(concerned, figures)})"
        for why, by_letters in reasons.items()
        for letters, concerned in by_letters.items()
    ]


def _sides(figure: Compared) -> dict[str, Value]:
    return {"A": figure.a, "B": figure.b}


def _topic(concerned: list[Compared], figures: tuple[Compared, ...]) -> str:
    """What figures are about: their group's name stands for all of a group."""
    groups: dict[str, list[Compared]] = {}
    for figure in concerned:
        groups.setdefault(figure.measure.group, []).append(figure)
    words: list[str] = []
    for group, members in groups.items():
        whole = len(members) == sum(figure.measure.group == group for figure in figures)
        words += [group] if whole else [figure.measure.words for figure in members]
    return ", ".join(words)


def diff_as_dict(difference: Difference, a: str, b: str) -> dict[str, Any]:
    """For --json; units are in the names. A null is not known, `why_a` and `why_b` say why."""
    return {
        "a": {"recording": a, "duration_s": difference.durations_s[0]},
        "b": {"recording": b, "duration_s": difference.durations_s[1]},
        "equal": difference.equal,
        "same_length": difference.same_length,
        "setup": {name: _both(*both) for name, both in difference.setup.items()},
        "knobs": {name: _both(*map(_setting, both)) for name, both in difference.knobs.items()},
        "measures": {f.measure.name: _figure(f) for f in difference.figures},
        "processes": [
            {
                "name": pair.name,
                "vm": pair.vm,
                "cgroup": pair.cgroup,
                **_both(*map(_side, (pair.a, pair.b))),
            }
            for pair in difference.processes
        ],
    }


def _both(a: Any, b: Any) -> dict[str, Any]:
    return {"a": a, "b": b}


def _setting(setting: Setting) -> dict[str, str | None]:
    return asdict(setting)


def _side(side: Side | None) -> dict[str, Any] | None:
    return asdict(side) if side else None


def _figure(figure: Compared) -> dict[str, Any]:
    a, b = figure.a, figure.b
    return {
        "group": figure.measure.group,
        **_both(*(None if isinstance(v, Missing) else v for v in (a, b))),
        "delta": figure.delta,
        "ratio": figure.ratio,
        "better": figure.measure.better,
        "grows_with_length": figure.measure.scales,
        **{f"why_{n}": v.why for n, v in (("a", a), ("b", b)) if isinstance(v, Missing)},
    }
