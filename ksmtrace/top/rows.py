"""Processes as columns, from readings of every process's ksm_stat and what events told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ksmtrace.processes.following import Snapshot
from ksmtrace.top.state import Labels, Rows
from ksmtrace.top.table import Floats


@dataclass(frozen=True)
class Counted:
    """What events told of processes up to a moment, by tgid; None: they don't tell."""

    ns: int
    merges: Mapping[int, int] | None
    breaks: Mapping[int, int] | None


class Reading:
    """A snapshot as columns, made once, however often it is shown.

    ns: when it was first seen. items: pages on ksmd's list, of all; None: not known. merged:
    ksm_merging_pages of each row; row_of: its row, by tgid. before: what rates begin from.
    """

    def __init__(
        self, snapshot: Snapshot, ns: int, page_bytes: int, before: Reading | None
    ) -> None:
        rows = snapshot.rows
        self.ns = ns
        self._tgids = np.array([row.identity.tgid for row in rows], np.int64)
        self.row_of = {tgid: number for number, tgid in enumerate(self._tgids.tolist())}

        def values(name: str) -> Floats:
            return np.array([row.values.get(name, np.nan) for row in rows], np.float64)

        merged = self.merged = values("ksm_merging_pages")
        items = values("ksm_rmap_items")
        # Of those that can't be read nobody knows how many pages they have.
        known = not snapshot.unreadable and not np.isnan(items).any()
        self.items = float(items.sum()) if known else None
        self._unreadable = snapshot.unreadable
        self._columns = {
            "saved_bytes": (merged + np.nan_to_num(values("ksm_zero_pages"))) * page_bytes,
            "merged_pages": merged,
            "profit_bytes": values("ksm_process_profit"),
            "items": items,
            "net_per_s": self._net(before),
        }
        self._labels = {
            "comm": labelled([row.identity.comm for row in rows]),
            "cgroup": labelled([row.identity.cgroup for row in rows]),
            "vm": labelled([row.identity.vm for row in rows]),
        }
        self.names = {row.identity.tgid: row.identity.vm or row.identity.comm for row in rows}

    def _net(self, before: Reading | None) -> Floats:
        net = np.full(len(self._tgids), np.nan)
        if before is None or before.ns >= self.ns or not len(before.merged):
            return net
        rows = np.array([before.row_of.get(tgid, -1) for tgid in self._tgids.tolist()], np.int64)
        known = rows >= 0
        change = self.merged[known] - before.merged[rows[known]]
        net[known] = change / ((self.ns - before.ns) / 1e9)
        return net

    def rows(self, before: Counted, now: Counted) -> Rows:
        """The processes. before: what the rates of events are counted from."""
        seconds = (now.ns - before.ns) / 1e9
        merges, breaks = self._of(now.merges), self._of(now.breaks)
        counted = {
            "merges": merges,
            "merges_per_s": _rate(merges, self._of(before.merges), seconds),
            "breaks": breaks,
            "breaks_per_s": _rate(breaks, self._of(before.breaks), seconds),
        }
        columns = {**self._columns, **counted}
        return Rows(self._tgids, columns, self._labels, self._unreadable)

    def _of(self, counts: Mapping[int, int] | None) -> Floats:
        values = np.full(len(self._tgids), 0.0 if counts is not None else np.nan)
        for tgid, count in (counts or {}).items():
            if (row := self.row_of.get(tgid)) is not None:
                values[row] = count
        return values


def labelled(names: Sequence[str | None]) -> Labels:
    """Names as codes."""
    known: dict[str, int] = {}
    codes = [-1 if n is None else known.setdefault(n, len(known)) for n in names]
    return Labels(np.array(codes, np.int64), list(known))


def _rate(now: Floats, before: Floats, seconds: float) -> Floats:
    """How many a second; a process that began anew since, under the same id, has lost nothing."""
    if seconds <= 0:
        return np.full(len(now), np.nan)
    rates: Floats = np.maximum((now - before) / seconds, 0)
    return rates
