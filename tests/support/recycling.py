"""A truth in which numbers are used again at once, as a kernel's allocators do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.support.truth import Truth

POINTERS = ("pfn", "item", "mm")


def recycled(truth: Truth) -> Truth:
    """The same with other numbers in events, marks, censuses and nodes; lives keep their mm."""
    names: dict[str, dict[int, int]] = {what: {} for what in POINTERS}
    free: dict[str, list[int]] = {what: [] for what in POINTERS}
    for what, number, taken in truth.allocations:
        if taken:
            names[what][number] = free[what].pop() if free[what] else number
        else:
            free[what].append(names[what].get(number, number))
    events = truth.events.copy()
    for slot in POINTERS:
        column = events[slot]
        distinct, where = np.unique(column, return_inverse=True)
        new = np.array([names[slot].get(int(n), int(n)) for n in distinct], column.dtype)
        events[slot] = new[where] if len(new) else column
    frames = names["pfn"]
    return replace(
        truth,
        events=events,
        nodes=[replace(node, pfn=frames.get(node.pfn, node.pfn)) for node in truth.nodes],
        begin=truth.begin,
        steps=[
            replace(
                step,
                mappings=[replace(m, pfn=frames.get(m.pfn, m.pfn)) for m in step.mappings],
            )
            for step in truth.steps
        ],
        marks=[(at, _renamed(row, names)) for at, row in truth.marks],
    )


def _renamed(row: dict[str, Any], names: dict[str, dict[int, int]]) -> dict[str, Any]:
    """A mark; its item is an instruction pointer."""
    return {
        **row,
        **{what: names[what].get(row[what], row[what]) for what in ("pfn", "mm") if what in row},
    }
