"""What `ksmtrace stat` found, as rich renderables; fits 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.inspect.stat.figures import STAT_MEASURES, STAT_MEASURES_BY_NAME
from ksmtrace.inspect.stat.result import Comparison, Contrast, Run, Spread, StatResult, spread
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.host_figures import Missing, Unit
from ksmtrace.views.diff import SHOWN
from ksmtrace.views.text import named_table

_WORDS = 26
_NUMBER = 11
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STYLES = {"real": "bold", "not shown": "", "equal": "dim", "not judged": "dim"}


def render_stat(result: StatResult) -> RenderableType:
    """What `ksmtrace stat` prints."""
    parts: list[RenderableType] = [_head(result), ""]
    if result.comparison is not None:
        parts += [_contrasts(result, result.comparison), "", *_how(result.comparison)]
    elif len(result.runs) > 1:
        parts += [*_tables(_spreads, result.runs)]
    elif result.runs:
        parts += [*_tables(_singles, result.runs)]
    parts += [Text(f"{UNKNOWN} {why}: {', '.join(words)}") for why, words in _unknown(result)]
    return Group(*parts, *(Text(clean(note)) for note in result.notes))


def _head(result: StatResult) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold")
    lines.add_column(overflow="fold")
    lines.add_row("KSM", Text(clean(result.subject)))
    if result.knobs:
        lines.add_row("with", " ".join(f"{name}={value}" for name, value in result.knobs.items()))
    if compared := result.comparison:
        for letter, value in (("A", compared.a), ("B", compared.b)):
            runs = len(result.of(value))
            lines.add_row(letter, f"{compared.knob}={value}, {runs} run{'s' * (runs > 1)}")
    elif len(result.runs) > 1:
        lines.add_row("runs", str(len(result.runs)))
    elif result.runs:
        lines.add_row("until", _ended(result.runs[0]))
    return lines


def _ended(run: Run) -> str:
    words = {
        "command": "the command ended",
        "process": "the process ended",
        "duration": "the time was over",
        "quiet": "saving grew no more",
    }
    return words.get(run.ended, run.ended)


Row = tuple[str | Text, ...]


def _tables(
    row_of: Callable[[Sequence[Run], str], Row | None], runs: Sequence[Run]
) -> Iterator[RenderableType]:
    """A table a group of figures, its rows by `row_of`; those of pages stand beside the bytes."""
    groups: dict[str, Table] = {}
    for measure in STAT_MEASURES:
        if measure.name.endswith("_pages") or not _worth_telling(runs, measure.name):
            continue
        row = row_of(runs, measure.name)
        if row is None:
            continue
        if measure.group not in groups:
            groups[measure.group] = _table(
                measure.group, len(row), header=not groups and len(runs) > 1
            )
        groups[measure.group].add_row(measure.words, *row)
    for table in groups.values():
        yield table
        yield ""


def _table(title: str, columns: int, *, header: bool) -> Table:
    table = named_table(title)
    table.show_header = header
    table.add_column("", width=_WORDS)
    names = ("", "") if columns == 2 else ("mean", "±", "median", "least", "most")
    widths = (_NUMBER + 2, 24) if columns == 2 else (_NUMBER, 5, *(_NUMBER,) * 3)
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, width=width, justify="right", no_wrap=columns != 2)
    return table


def _worth_telling(runs: Sequence[Run], name: str) -> bool:
    """Others' savings only where there are some; losses the same."""
    if name in ("saved_first_bytes", "events_lost"):
        return any(run.known(name) for run in runs)
    return True


def _singles(runs: Sequence[Run], name: str) -> Row | None:
    (run,) = runs
    value = run.values[name]
    if isinstance(value, Missing):
        return None if name.startswith("process_") else (UNKNOWN, "")
    pages = name.replace("_bytes", "_pages")
    beside = ""
    if pages != name and pages in run.values:
        beside = f"{count(run.known(pages))} pages"
    return SHOWN[_unit(name)](value), beside


def _spreads(runs: Sequence[Run], name: str) -> Row | None:
    found = spread(runs, name)
    if isinstance(found, Missing):
        return None if name.startswith("process_") else (UNKNOWN, *[""] * 4)
    shown = SHOWN[_unit(name)]
    share = _share(found)
    return shown(found.mean), share, *map(shown, (found.median, found.least, found.most))


def _share(found: Spread) -> str:
    """The standard deviation as a share of the mean."""
    if found.sd is None or not found.mean:
        return ""
    return f"{100 * found.sd / abs(found.mean):.0f} %"


def _unit(name: str) -> Unit:
    return STAT_MEASURES_BY_NAME[name].unit


def _contrasts(result: StatResult, compared: Comparison) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("medians", width=20)
    table.add_column("A", width=10, justify="right", overflow="fold")
    table.add_column("B", width=10, justify="right", overflow="fold")
    table.add_column("B less A [95 %]", width=26, justify="right", overflow="fold")
    table.add_column("", width=9)
    sides = [result.of(value) for value in (compared.a, compared.b)]
    for contrast in compared.contrasts:
        found = [spread(runs, contrast.name) for runs in sides]
        if all(isinstance(one, Missing) for one in found):
            continue
        shown = SHOWN[_unit(contrast.name)]
        table.add_row(
            STAT_MEASURES_BY_NAME[contrast.name].words,
            *(UNKNOWN if isinstance(one, Missing) else shown(one.median) for one in found),
            _interval(contrast),
            Text(
                UNKNOWN if contrast.verdict == "not judged" else contrast.verdict,
                style=_STYLES[contrast.verdict],
            ),
        )
    return table


def _interval(contrast: Contrast) -> str:
    if contrast.difference is None:
        return UNKNOWN
    if contrast.verdict == "equal":
        return "0"
    known = [n for n in (contrast.difference, contrast.low, contrast.high) if n is not None]
    scale, unit = _scale(_unit(contrast.name), max(map(abs, known)))
    digits = [_signed(number / scale) for number in known]
    bounds = f" [{', '.join(digits[1:])}]" if len(digits) == 3 else ""
    return f"{digits[0]}{bounds} {unit}".rstrip()


def _scale(unit: Unit, most: float) -> tuple[float, str]:
    """What to divide numbers of a unit by, and the unit's name then."""
    if unit == "bytes":
        power = 0
        while most >= 1024 and power < len(_BYTES) - 1:
            most, power = most / 1024, power + 1
        return 1024.0**power, _BYTES[power]
    if unit in ("s", "cpu_s"):
        return (1.0, "s") if most >= 0.9995 else (0.001, "ms")
    return 1.0, {"percent": "%", "us": "µs"}.get(unit, "")


def _signed(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:+,.0f}"
    return f"{number:+.2f}" if abs(number) < 10 else f"{number:+.1f}"


def _how(compared: Comparison) -> Iterator[RenderableType]:
    order = compared.order if len(compared.order) <= 24 else f"{compared.order[:21]}..."
    if compared.metric is None:
        judged = f"{compared.judged} figures judged, adjusted by Holm's method"
    else:
        judged = "one figure judged"
    yield Text(
        f"real: {compared.test}, p <= {compared.level:g}; {judged}. B less A: Hodges–Lehmann,"
        f" with each one's own 95 % interval. Runs in the order {order}."
    )


def _unknown(result: StatResult) -> Iterator[tuple[str, list[str]]]:
    """Why there are dashes: a reason, and the figures."""
    reasons: dict[str, list[str]] = {}
    for measure in STAT_MEASURES:
        found = spread(result.runs, measure.name)
        whole_host = measure.group == "process" and "no command" in getattr(found, "why", "")
        if isinstance(found, Missing) and not measure.name.endswith("_pages") and not whole_host:
            reasons.setdefault(found.why, []).append(measure.words)
    yield from reasons.items()
