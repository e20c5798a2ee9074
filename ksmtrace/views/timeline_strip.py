"""Strips: numbers over time as one line of block characters each, above an axis of seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.text import Text

Floats = npt.NDArray[np.float64]

LEVELS = "▁▂▃▄▅▆▇█"
"""Nothing is the first, anything more at least the second; a blank is a thing not known."""
_LABEL = 12
_SCALE = 19
_LEAST_CELLS = 4
_TICK_CELLS = 9
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Strip:
    """A line: label, its cells, and what the scale of it is."""

    label: str
    cells: str
    scale: str


@dataclass(frozen=True)
class Span:
    """The time that a strip shows, in nanoseconds, cut into cells."""

    start_ns: int
    end_ns: int
    cells: int

    @property
    def cell_s(self) -> float:
        """Seconds a cell."""
        return max(self.end_ns - self.start_ns, 1) / self.cells / 1e9

    def places(self, ts: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The cells of moments; those outside are put into the first or last one."""
        length = max(self.end_ns - self.start_ns, 1)
        places = (np.asarray(ts, np.float64) - self.start_ns) * (self.cells / length)
        return np.clip(places, 0, self.cells - 1).astype(np.int64)


def cells_of(width: int) -> int:
    """How many cells a strip has on a terminal of so many columns."""
    return max(width - _LABEL - _SCALE - 2, _LEAST_CELLS)


def rates(ts: npt.ArrayLike, span: Span) -> Floats:
    """How many of the moments fall into each cell, a second."""
    counted = np.bincount(span.places(ts), minlength=span.cells)
    return np.asarray(counted / span.cell_s, np.float64)


def gauge(ts: npt.ArrayLike, values: Floats, span: Span) -> Floats:
    """A sampled value in each cell: the most in it, or else what it was before; NaN: not known.

    ts ascending.
    """
    told = ~np.isnan(values)
    where, values = span.places(np.asarray(ts)[told]), values[told]
    cells = np.full(span.cells, np.nan)
    if not len(values):
        return cells
    most = np.full(span.cells, -np.inf)
    np.maximum.at(most, where, values)
    # What is carried on is a cell's last value, not its most.
    last = np.full(span.cells, -1)
    last[where] = np.arange(len(where))
    last = np.maximum.accumulate(last)
    carried = np.where(last >= 0, values[last], np.nan)
    return np.where(np.isfinite(most), most, carried)


def spark(values: Floats, least: float = 0.0, most: float | None = None) -> str:
    """Values as block characters, `least` the lowest; NaN a blank. most: the values' own."""
    finite = values[np.isfinite(values)]
    top = (float(finite.max()) if len(finite) else 0.0) if most is None else most
    height = top - least
    shares = np.where(np.isfinite(values), values - least, 0.0)
    shares = shares / height if height > 0 else np.zeros_like(values)
    levels = np.ceil(np.clip(shares, 0, 1) * (len(LEVELS) - 1) - _ROUNDING).astype(np.int64)
    levels = np.maximum(levels, np.where(np.isfinite(values), values, least) > least)
    blocks = np.array(list(LEVELS))[np.clip(levels, 0, len(LEVELS) - 1)]
    return "".join(np.where(np.isfinite(values), blocks, " "))


def marks(places: npt.NDArray[np.int64], cells: int) -> str:
    """An x in each of these cells."""
    line = np.full(cells, " ")
    line[places] = "x"
    return "".join(line)


def segments(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], names: list[str],
             cells: int) -> str:  # fmt: skip
    """Stretches as │1────│2───, each named where its name fits. starts, ends: cells."""
    line = [" "] * cells
    following = [*starts.tolist()[1:], cells][: len(names)]
    for begin, end, after, name in zip(
        starts.tolist(), ends.tolist(), following, names, strict=True
    ):
        drawn = max(min(end, after - 1) - begin, 0)
        line[begin : begin + 1 + drawn] = "│" + "─" * drawn
        if len(name) < after - begin:
            line[begin + 1 : begin + 1 + len(name)] = name
    return "".join(line[:cells])


def axis(span: Span, origin_ns: int | None = None) -> tuple[str, str]:
    """A line with a tick every round number of seconds, and the numbers below it."""
    offset = (span.start_ns - (span.start_ns if origin_ns is None else origin_ns)) / 1e9
    length = span.cell_s * span.cells
    step = _round_step(length / max(span.cells // _TICK_CELLS, 1))
    line, words = ["─"] * span.cells, [" "] * (span.cells + _SCALE)
    digits = max(0, -int(np.floor(np.log10(step) + _ROUNDING)))
    free = 0
    first = int(np.ceil(offset / step - _ROUNDING))
    for number in range(first, first + span.cells + 1):
        place = int((number * step - offset) / span.cell_s + _ROUNDING)
        if place >= span.cells:
            break
        line[place] = "┼" if place else "├"
        word = f"{number * step:,.{digits}f}" + ("" if free else " s")
        if place >= free:
            words[place : place + len(word)] = word
            free = place + len(word) + 1
    return "".join(line), "".join(words).rstrip()


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and the like below 1) that is not less."""
    unit = 10.0 ** np.floor(np.log10(max(least, 1e-9)))
    return float(next(unit * m for m in (1, 2, 5, 10) if unit * m >= least * (1 - _ROUNDING)))


def chart(strips: Iterable[Strip], span: Span, width: int) -> Text:
    """The strips, one below the other, and the axis; no line is longer than width."""
    lines = [
        f"{strip.label[:_LABEL]:<{_LABEL}} {strip.cells:<{span.cells}} {strip.scale[:_SCALE]}"
        for strip in strips
    ]
    lines += [f"{'':<{_LABEL}} {line}" for line in axis(span)]
    return Text("\n".join(line.rstrip()[:width] for line in lines), no_wrap=True, overflow="crop")
