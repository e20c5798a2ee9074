"""Regions: which mapping each merged page lies in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context

Numbers = npt.NDArray[np.int64]


@dataclass
class Region:
    """A mapping of one address space, as last seen; it may have grown since it was first seen."""

    space: int
    tgid: int
    start: int
    end: int
    name: str | None


@dataclass
class Regions:
    """The mappings in which pages merged. of_life: the mapping of each life, -1: not known."""

    regions: list[Region] = field(default_factory=list)
    of_life: Numbers = field(default_factory=lambda: np.empty(0, np.int64))


def regions_of(stream: Aggregator, context: Context) -> Regions:
    """Find each life's mapping among those that were seen of its address space.

    Readings that overlap and have one name are one mapping, which grew, shrank or was split; the
    latest reading that holds a page's address is the page's.
    """
    lives, spaces = stream.lives.table, stream.spaces.table
    of_life = np.full(len(lives), -1, np.int64)
    readings = _readings(context.regions, spaces["tgid"], spaces["entered_ts"], spaces["exited_ts"])
    found: list[Region] = []
    if not readings:
        return Regions(found, of_life)
    concerned = np.zeros(len(spaces), bool)
    concerned[list(readings)] = True
    space = lives["space"]
    addr = lives["addr"]
    # One address space after the other, whose lives a stable sort of small numbers finds.
    order = np.arange(len(space))
    if len(spaces) > 1:
        # Sorting numbers of 16 bits takes a tenth of the time.
        small = space.astype(np.uint16) if len(spaces) < 1 << 16 else space
        order = np.argsort(small, kind="stable")
    starts = np.searchsorted(space[order], np.arange(len(spaces) + 1))
    # By address spaces, so that a row's number does not depend on when which was read.
    for number, mappings in sorted(readings.items()):
        rows = order[starts[number] : starts[number + 1]]
        if len(rows):
            _place(found, of_life, rows, addr[rows], mappings)
    return Regions(found, of_life)


def _readings(
    rows: list[dict[str, Any]],
    tgids: npt.NDArray[np.uint32],
    entered: npt.NDArray[np.uint64],
    exited: npt.NDArray[np.uint64],
) -> dict[int, list[Region]]:
    """Each address space's mappings, the latest first."""
    spaces_of: dict[int, list[int]] = {}
    for space, tgid in enumerate(tgids.tolist()):
        spaces_of.setdefault(tgid, []).append(space)
    found: dict[int, list[Region]] = {}
    for row in sorted(rows, key=lambda r: -r["ts"]):
        owners = [
            space
            for space in spaces_of.get(row["tgid"], ())
            if entered[space] <= row["ts"] and (exited[space] == 0 or exited[space] >= row["ts"])
        ]
        if not owners:
            continue
        mappings = found.setdefault(owners[-1], [])
        name = row["name"] or None
        same = next(
            (
                m
                for m in mappings
                if m.name == name and m.start < row["end"] and row["start"] < m.end
            ),
            None,
        )
        if same is None:
            mappings.append(Region(owners[-1], row["tgid"], row["start"], row["end"], name))
        else:
            same.start, same.end = min(same.start, row["start"]), max(same.end, row["end"])
    return found


def _place(
    found: list[Region],
    of_life: Numbers,
    rows: Numbers,
    addr: npt.NDArray[np.uint64],
    mappings: list[Region],
) -> None:
    """Number those of an address space's mappings that lives lie in."""
    place = np.full(len(rows), -1, np.int64)
    for number in range(len(mappings) - 1, -1, -1):
        mapping = mappings[number]
        place[(addr >= mapping.start) & (addr < mapping.end)] = number
    used = np.unique(place[place >= 0])
    numbers = np.full(len(mappings) + 1, -1, np.int64)
    numbers[used] = np.arange(len(found), len(found) + len(used))
    found += [mappings[number] for number in used.tolist()]
    of_life[rows] = numbers[place]
