"""Merge events and what became of each: a new KSM page is two of them, which belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.events.registry import INTO_EXISTING, KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE
from ksmtrace.timeline.sorting import Indices, Mask

Columns = Mapping[str, npt.NDArray[Any]]
"""A batch's slots by name: a structured array, or a column each."""

_PAIR_DISTANCE = 1 << 16
"""The halves of a new KSM page follow each other at once; other CPUs' events may stand between."""


class Merges:
    """Merge events among the events about pages, and what became of each: masks of their length.

    parted: rows of the stream that never stand between the halves of a pair.
    stood: attached to a KSM page. first: of a pair. created: a first half that stood. second: of a
    pair. zero: tries to map the zero page. failed: tries that failed; an undone first half is none.
    """

    def __init__(self, about: Columns, rows: Indices, parted: Indices) -> None:
        kind, err, arg, pfn = (about[name] for name in ("kind", "err", "arg", "pfn"))
        merge = kind == KSM_MERGE_WITH_KSM_PAGE.id
        self.zero: Mask = kind == KSM_MERGE_ONE_PAGE.id
        self.failed: Mask = (merge | self.zero) & (err < 0)
        self.first: Mask = _first_halves(kind, err, arg)
        at = np.flatnonzero(merge)
        here, after = at[:-1], at[1:]
        pair = self.first[here] & ((arg[after] & INTO_EXISTING) != 0)
        pair &= (pfn[here] == pfn[after]) & (rows[after] - rows[here] <= _PAIR_DISTANCE)
        if len(parted):
            # The second half may be among what is missing (lost, or another process's where only
            # some were recorded), and this one another page's.
            pair &= np.searchsorted(parted, rows[here]) == np.searchsorted(parted, rows[after])
        undone = here[pair & (err[after] < 0)]
        self.second: Mask = np.zeros(len(kind), bool)
        self.second[after[pair & (err[after] >= 0)]] = True
        self.stood: Mask = merge & (err >= 0)
        self.stood[undone] = False
        self.created: Mask = self.first & self.stood


def _first_halves(kind: npt.NDArray[Any], err: npt.NDArray[Any], arg: npt.NDArray[Any]) -> Mask:
    """Successful events that turn the scanned page itself into a KSM page."""
    mask: Mask = kind == KSM_MERGE_WITH_KSM_PAGE.id
    mask &= err == 0
    mask &= (arg & INTO_EXISTING) == 0
    return mask


def whole_pairs(events: Columns, rows: int) -> int:
    """How many of the first `rows` events to take so that no pair is cut in two."""
    begin = max(0, rows - _PAIR_DISTANCE)
    tail = {name: events[name][begin:rows] for name in ("kind", "err", "arg")}
    merges = np.flatnonzero(tail["kind"] == KSM_MERGE_WITH_KSM_PAGE.id)
    if not len(merges):
        return rows
    last = merges[-1:]
    open_pair = _first_halves(*(tail[name][last] for name in ("kind", "err", "arg")))[0]
    return begin + int(last[0]) if open_pair else rows
