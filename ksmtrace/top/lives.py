"""Who is who in a recording: a process id that is used again is another process."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.top.state import Labels
from ksmtrace.top.table import Numbers

U64 = npt.NDArray[np.uint64]
_TGID_BITS = np.uint64(32)
_TIMES = np.uint64(0xFFFFFFFF)
"""In a key: how often its process id had exited before."""
NEVER = np.iinfo(np.uint64).max


class Lives:
    """The processes of a recording, numbered; each lasts until its exit.

    exits: process id and time (ns) of each exit. seen: ids and times of everything that names one.
    faint: the same of what names only one of an id that has not exited before.
    Columns: tgid; first (ns: first named), gone (ns; NEVER).
    """

    def __init__(
        self,
        exits: tuple[U64, U64],
        seen: list[tuple[U64, U64]],
        faint: tuple[U64, U64] | None = None,
    ) -> None:
        tgid, ts = exits
        order = np.argsort(ts, kind="stable")
        self._exit_ts = ts[order]
        # Each exit as its process id, and above that its place among all exits.
        packed = tgid[order] << _TGID_BITS | np.arange(len(order), dtype=np.uint64)
        self._exits = np.sort(packed)
        if faint is not None:
            fresh = self._keys(*faint) & _TIMES == 0
            seen = [*seen, (faint[0][fresh], faint[1][fresh])]
        named = [self._keys(*one) for one in seen]
        every = np.concatenate(named) if named else np.empty(0, np.uint64)
        times = np.concatenate([t for _, t in seen]) if seen else np.empty(0, np.uint64)
        self._known, numbers = np.unique(every, return_inverse=True)
        self.tgid: Numbers = (self._known >> _TGID_BITS).astype(np.int64)
        self.first = np.full(len(self._known), NEVER, np.uint64)
        np.minimum.at(self.first, numbers, times)
        self.gone = self._ends()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, tgid: U64, ts: U64) -> Numbers:
        """The number of the process that had an id at a moment; -1: it is none of those seen."""
        keys = self._keys(tgid, ts)
        if not len(self._known):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._known, keys), len(self._known) - 1)
        found: Numbers = np.where((self._known[at] == keys) & (tgid > 0), at, -1).astype(np.int64)
        return found

    def up_to(self, tgid: U64, ts: U64) -> Numbers:
        """The number of the process that has an id at a moment, or had it last; -1: none."""
        keys = self._keys(tgid, ts)
        at = np.searchsorted(self._known, keys, "right").astype(np.int64) - 1
        same = at >= 0
        same[same] = self._known[at[same]] >> _TGID_BITS == tgid[same]
        found: Numbers = np.where(same & (tgid > 0), at, -1)
        return found

    def _keys(self, tgid: U64, ts: U64) -> U64:
        """The process id above, below it how often that had exited before."""
        base = tgid << _TGID_BITS
        if not len(self._exits):
            return base
        rank = np.searchsorted(self._exit_ts, ts, "left").astype(np.uint64)
        before = np.searchsorted(self._exits, base | rank) - np.searchsorted(self._exits, base)
        keys: U64 = base | before.astype(np.uint64)
        return keys

    def _ends(self) -> U64:
        gone = np.full(len(self._known), NEVER, np.uint64)
        if not len(self._exits):
            return gone
        base = self._known >> _TGID_BITS << _TGID_BITS
        at = np.searchsorted(self._exits, base) + (self._known - base).astype(np.int64)
        inside = at < len(self._exits)
        inside[inside] = self._exits[at[inside]] >> _TGID_BITS == self._known[inside] >> _TGID_BITS
        order = (self._exits[at[inside]] & _TIMES).astype(np.int64)
        gone[inside] = self._exit_ts[order]
        return gone


class Latest:
    """The last row of each process up to a moment, of a table of rows in time's order.

    who: each row's process, -1 for none.
    """

    def __init__(self, who: Numbers, ts: U64, processes: int) -> None:
        mine = np.flatnonzero(who >= 0)
        self._rows = mine[np.argsort(ts[mine], kind="stable")]
        self._who, self._ts = who[self._rows], ts[self._rows]
        self._at = 0
        self._last = np.full(processes, -1, np.int64)
        # What a row takes the place of, to go back.
        self._before = np.full(len(self._rows), -1, np.int64)
        order = np.argsort(self._who, kind="stable")
        same = np.flatnonzero(self._who[order][1:] == self._who[order][:-1])
        self._before[order[same + 1]] = order[same]
        self._processes = processes

    def at(self, ns: int) -> Numbers:
        """The row of each process; -1: it has none yet."""
        to = int(np.searchsorted(self._ts, np.uint64(max(ns, 0)), "right"))
        if to > self._at:
            step = np.arange(self._at, to)
            # In time's order: the last one stays.
            self._last[self._who[step]] = step
        elif to < self._at:
            step = np.arange(to, self._at)[::-1]
            self._last[self._who[step]] = self._before[step]
        self._at = to
        if not len(self._rows):
            return self._last.copy()
        rows: Numbers = np.where(self._last >= 0, self._rows[self._last], -1)
        return rows


class Counts:
    """How many events each process has had up to a moment. ts ascending; who: -1 for nobody."""

    def __init__(self, who: Numbers, ts: U64, processes: int) -> None:
        mine = who >= 0
        self._who, self._ts = who[mine], ts[mine]
        self._processes = processes
        self._at = 0
        self._counts = np.zeros(processes, np.int64)

    def at(self, ns: int) -> Numbers:
        """The counts, a copy."""
        to = int(np.searchsorted(self._ts, np.uint64(max(ns, 0)), "right"))
        first, last = sorted((self._at, to))
        change = np.bincount(self._who[first:last], minlength=self._processes)
        self._counts += change if to >= self._at else -change
        self._at = to
        return self._counts.copy()


def labelled_rows(column: Any) -> Labels:
    """A column of words of an Arrow table as codes, -1 for null."""
    if column.num_chunks == 0:
        return Labels(np.empty(0, np.int64), [])
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Labels(codes, [str(word) for word in encoded.dictionary.to_pylist()])
