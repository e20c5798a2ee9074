"""Maps of processes' mappings: each cell a page, or some, in the colour of its state over time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.amounts import count, size
from ksmtrace.timeline.tables import HOW
from ksmtrace.views.html.markup import Html, Part, element, joined, paragraph, without_scripts
from ksmtrace.views.html.material import Material, fullest, left_out
from ksmtrace.views.html.packing import packed
from ksmtrace.views.html.page_states import STATES, Changes, Lives, Moments, changes_of, lives_of
from ksmtrace.views.timeline_parts import Run, known, process_label
from ksmtrace.views.timeline_regions import place

Ints = npt.NDArray[np.int64]

MOMENTS = 1001
"""What the slider can show."""
MOST_MAPS = 40
_MOST_CELLS = 32_768
"""Of a map."""
_MOST_CELLS_IN_ALL = 100_000
_FEWEST_CELLS = 64
_SAMPLED = 16
"""Of so many cells one is looked at, to tell how much changes in all."""
_MOST_CHANGES = 300_000
"""Of all maps: what a page still loads in a moment."""
_MOST_LIVES = 60_000
"""So many are told singly, with their KSM page and its sharers."""
_MERGED = ("merged", "inherited", "zero")
_GAP = 512
"""Pages apart, where mappings were not recorded, pages count as another mapping's."""

LEGEND = {
    "merged": ("merged", "", "mapped onto a KSM page, which it shares"),
    "inherited": ("by fork", "f", "on a KSM page that a fork already shared: nothing newly saved"),
    "zero": ("zero page", "0", "mapped onto the kernel's page of zeroes"),
    "doubtful": ("merged or over", "?", "it was merged, and its end was noticed only later"),
    "waiting": ("waiting", "·", "not merged yet; ksmd merges it later in this recording"),
    "broken": ("copied", "x", "it was merged and then written, so it has its own copy again"),
    "ended": ("given up", "-", "no longer merged: unmapped, unmerged, or gone with its process"),
    "never": ("not merged", "", "not merged in this recording, or not even there"),
}
"""Of each state the name, the mark in a cell, and what it means."""


@dataclass(frozen=True)
class Map:
    """A mapping to draw. first: the number of its first page over all maps; cells likewise."""

    process: int | None
    start: int
    pages: int
    name: str
    first: int
    pages_per_cell: int = 1
    first_cell: int = 0

    @property
    def cells(self) -> int:
        """How many it has; the last may be of fewer pages."""
        return -(-self.pages // self.pages_per_cell)


def page_maps_part(material: Material) -> Part:
    """The section of the page maps."""
    run = material.run
    if not run.addresses_known:
        return _without("This recording's source does not tell where pages lie: no map can be"
                        " drawn. The backends core and bcc do tell.")  # fmt: skip
    maps, rows, where, there = _maps(run)
    if not maps:
        return _without("No page was merged in a place that is known: there is nothing to draw.")
    moments = Moments(run.start_ns, run.end_ns, MOMENTS)
    lives = lives_of(run.tables.pages, rows, where, moments)
    maps, changes = _drawn(maps, lives)
    singly = len(lives) <= _MOST_LIVES and all(m.pages_per_cell == 1 for m in maps)
    data = {
        "duration_s": (run.end_ns - run.start_ns) / 1e9,
        "moments": MOMENTS,
        "page_bytes": run.page_bytes,
        "states": [{"name": state, **_legend(state)} for state in STATES],
        "how": list(HOW),
        "maps": [_map_data(run, one) for one in maps],
        "first_shown": _fullest_moment(changes),
        "changes": _changes_data(changes),
        "lives": _lives_data(lives) if singly else None,
    }
    cut = left_out(len(maps), there, "page maps")
    if (coarse := max(one.pages_per_cell for one in maps)) > 1:
        cut += (f"single pages: a cell of the maps is up to {count(coarse)} pages",)
    body = _body(run, maps, there, singly=singly)
    return Part("maps", "Page maps", body, {"maps": data}, cut)


def _without(words: str) -> Part:
    return Part("maps", "Page maps", paragraph(words))


def _legend(state: str) -> dict[str, str]:
    label, mark, meaning = LEGEND[state]
    return {"label": label, "mark": mark, "meaning": meaning}


def _maps(run: Run) -> tuple[list[Map], Ints, Ints, int]:
    """The mappings to draw, the rows of `pages` in them, these' page numbers; how many there were.

    Where no mapping is known of a page, pages near each other count as one.
    """
    pages = run.tables.pages
    region = pages["region"].to_numpy(np.int64, na_value=-1)
    addr = pages["addr"].to_numpy(np.uint64)
    ledger = run.tables.region_ledger
    chosen = fullest(ledger, MOST_MAPS)
    maps: list[Map] = []
    rows, where = [], []
    first = 0
    number = np.full(len(ledger) + 1, -1, np.int64)
    number[chosen] = np.arange(len(chosen))
    of_life = number[region]
    for row in ledger.iloc[chosen].to_dict("records"):
        size = max(1, int(row["pages"]))
        maps.append(Map(known(row["process"]), int(row["start"]), size, place(row), first))
        first += size
    if maps:
        inside = np.flatnonzero(of_life >= 0)
        of_life = of_life[inside]
        offset = addr[inside] - np.array([one.start for one in maps], np.uint64)[of_life]
        offset //= np.uint64(run.page_bytes)
        rows.append(inside)
        where.append(offset.view(np.int64) + np.array([one.first for one in maps])[of_life])
    homeless = np.flatnonzero((region < 0) & (addr != 0))
    there = len(ledger)
    if len(homeless):
        more, rows_of, where_of, groups = _by_neighbours(run, pages, homeless, first)
        there += groups
        maps += more
        rows.append(rows_of)
        where.append(where_of)
    if not maps:
        return [], np.empty(0, np.int64), np.empty(0, np.int64), 0
    return maps, np.concatenate(rows), np.concatenate(where), there


def _by_neighbours(
    run: Run, pages: pd.DataFrame, rows: Ints, first: int
) -> tuple[list[Map], Ints, Ints, int]:
    """Mappings guessed from where pages lie: those with most lives."""
    process = pages["process"].to_numpy(np.int64, na_value=-1)[rows]
    page = (pages["addr"].to_numpy(np.uint64)[rows] // np.uint64(run.page_bytes)).astype(np.int64)
    order = np.lexsort((page, process))
    rows, process, page = rows[order], process[order], page[order]
    new = np.ones(len(rows), bool)
    new[1:] = (process[1:] != process[:-1]) | (page[1:] - page[:-1] > _GAP)
    group = np.cumsum(new) - 1
    lengths = np.bincount(group)
    fullest_groups = np.argsort(-lengths, kind="stable")[:MOST_MAPS]
    begins = np.flatnonzero(new)
    ends = np.append(begins[1:], len(rows)) - 1
    maps, base = [], np.full(len(lengths), -1, np.int64)
    for one in fullest_groups.tolist():
        start, last = int(page[begins[one]]), int(page[ends[one]])
        owner = int(process[begins[one]])
        name = f"at {start * run.page_bytes:x}"
        many = last - start + 1
        maps.append(Map(owner if owner >= 0 else None, start * run.page_bytes, many, name, first))
        base[one] = first - start
        first += many
    inside = base[group] != -1
    return maps, rows[inside], (page + base[group])[inside], len(lengths)


def _drawn(maps: list[Map], lives: Lives) -> tuple[list[Map], Changes]:
    """The maps with cells, and what changes in them: coarser until it is little enough."""
    most = _MOST_CELLS
    while True:
        celled = _celled(maps, most)
        cells = celled[-1].first_cell + celled[-1].cells
        if cells > _MOST_CELLS_IN_ALL and most > _FEWEST_CELLS:
            most //= 2
            continue
        cell = _cells_of(celled, lives.place)
        if len(lives) <= _MOST_CHANGES or most <= _FEWEST_CELLS:
            break
        # So much takes seconds: how much there is, some of the cells tell.
        some = cell % _SAMPLED == 0
        about = _SAMPLED * len(changes_of(lives.some(some), cell[some], cells, MOMENTS))
        if about <= _MOST_CHANGES:
            break
        most = max(_FEWEST_CELLS, most >> max(1, (about // _MOST_CHANGES).bit_length() - 1))
    return celled, _map_by_map(celled, lives, cell)


def _map_by_map(maps: list[Map], lives: Lives, cell: Ints) -> Changes:
    """What changes in all maps; one at a time, which a processor's caches like.

    cell: of each life.
    """
    firsts = np.array([one.first_cell for one in maps], np.int64)
    # Sorting numbers of 16 bits takes a tenth of the time.
    number = (np.searchsorted(firsts, cell, "right") - 1).astype(np.uint16)
    order = np.argsort(number, kind="stable")
    borders = np.searchsorted(number[order], np.arange(len(maps) + 1))
    found = []
    for one, begin, end in zip(maps, borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        rows = order[begin:end]
        mine = changes_of(lives.some(rows), cell[rows] - one.first_cell, one.cells, MOMENTS)
        found.append(replace(mine, cell=mine.cell + one.first_cell))
    columns = (np.concatenate([getattr(one, c.name) for one in found]) for c in fields(Changes))
    changes = Changes(*columns)
    in_order = np.lexsort((changes.state, changes.cell, changes.moment))
    return Changes(*(getattr(changes, c.name)[in_order] for c in fields(Changes)))


def _celled(maps: list[Map], most: int) -> list[Map]:
    """The maps with at most so many cells each."""
    celled: list[Map] = []
    first = 0
    for one in maps:
        shift = max(0, (-(-one.pages // most) - 1).bit_length())
        celled.append(replace(one, pages_per_cell=1 << shift, first_cell=first))
        first += celled[-1].cells
    return celled


def _cells_of(maps: list[Map], place: Ints) -> Ints:
    """The cells of pages."""
    firsts = np.array([one.first for one in maps], np.int64)
    number = np.searchsorted(firsts, place, "right") - 1
    shift = np.array([one.pages_per_cell.bit_length() - 1 for one in maps], np.int64)
    first_cell = np.array([one.first_cell for one in maps], np.int64)
    cells: Ints = first_cell[number] + ((place - firsts[number]) >> shift[number])
    return cells


def _fullest_moment(changes: Changes) -> int:
    """What to show first: the end or, if much less is merged then, the last when most was."""
    merged = np.isin(changes.state, [STATES.index(name) for name in _MERGED])
    steps = np.bincount(changes.moment[merged], changes.pages[merged], MOMENTS)
    there = np.cumsum(steps)
    if 2 * there[-1] >= there.max():
        return MOMENTS - 1
    return MOMENTS - 1 - int(there[::-1].argmax())


def _map_data(run: Run, one: Map) -> dict[str, Any]:
    return {
        "process": process_label(run.tables.processes, one.process),
        "name": one.name,
        "start": f"{one.start:x}",
        "pages": one.pages,
        "pages_per_cell": one.pages_per_cell,
        "first_cell": one.first_cell,
        "cells": one.cells,
    }


def _changes_data(changes: Changes) -> dict[str, Any]:
    fresh = np.ones(len(changes), bool)
    fresh[1:] = changes.moment[1:] != changes.moment[:-1]
    step = np.diff(changes.cell, prepend=0)
    step[fresh] = changes.cell[fresh]
    return {
        "of_moment": packed(np.bincount(changes.moment, minlength=MOMENTS)),
        "cell_step": packed(step),
        "state": packed(changes.state),
        "pages": packed(changes.pages),
    }


def _lives_data(lives: Lives) -> dict[str, Any]:
    """Each life, for what is told of the cell pointed at; by page, then in time."""
    order = np.lexsort((lives.begin, lives.place))
    return {
        "place_step": packed(np.diff(lives.place[order], prepend=0)),
        "begin": packed(lives.begin[order]),
        "end": packed(lives.end[order]),
        "how": packed(lives.how[order]),
        "ksm_page": packed(lives.ksm_page[order]),
    }


def _body(run: Run, maps: list[Map], there: int, *, singly: bool) -> Html:
    coarse = max(one.pages_per_cell for one in maps)
    told = []
    if coarse > 1:
        much = f"{count(coarse)} pages ({size(coarse * run.page_bytes)})"
        told.append(
            f"A cell of the largest mapping is {much}, filled by the share in each state: single"
            " pages are cut from this file; ksmtrace timeline --page tells of one."
        )
    elif not singly:
        told.append("There are too many pages to tell of each its KSM page: that is cut.")
    if len(maps) < there:
        told.append(
            f"{count(len(maps))} of {count(there)} mappings are drawn, those with most merges."
        )
    keys = (
        element(
            "li",
            element("span", LEGEND[state][1] or " ", cls=f"key {state}", aria_hidden="true"),
            element("abbr", LEGEND[state][0], title=LEGEND[state][2]),
        )
        for state in LEGEND
    )
    return joined(
        [
            paragraph(
                "Every mapping in which pages merged, at the moment that the slider says. Each cell"
                " is a page, in address order, line by line."
            ),
            without_scripts("The maps are drawn by a script: with scripts off they are missing."),
            element("ul", *keys, cls="legend"),
            *(paragraph(words, cls="muted") for words in told),
            element("div", id="maps-drawn"),
        ]
    )
