"""Address spaces: what an mm's kernel address stands for, which the kernel uses again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.events.registry import KSM_ENTER, KSM_EXIT, VIA_EXEC, VIA_FORK
from ksmtrace.timeline.growing import GrowingTable
from ksmtrace.timeline.sorting import Indices, codes_of, distinct, run_starts, stable_order

Columns = Mapping[str, npt.NDArray[Any]]

NEVER = np.iinfo(np.int64).max
"""An order that no event has: it has not happened."""
_ROW_BITS = np.uint64(32)


class AddressSpaces:
    """The address spaces of a stream, numbered as they appear.

    A ksm_enter makes a new one, and so does an mm that another process owns all of a sudden: its
    ksm_enter was lost. Columns: mm, tgid (0: not known yet), parent_tgid (0: none known),
    entered_ts (0: before the stream), exited_ts (0: has not), exited (order; NEVER). One whose
    mm is another's all of a sudden has exited by then.
    """

    def __init__(self) -> None:
        self.table = GrowingTable(
            {
                "mm": np.uint64,
                "tgid": np.uint32,
                "parent_tgid": np.uint32,
                "entered_ts": np.uint64,
                "exited_ts": np.uint64,
                "exited": np.int64,
            }
        )
        self._current: dict[int, int] = {}
        # Address spaces whose mm became another's, and the row in which it did.
        self._replaced: list[tuple[int, int]] = []

    def assign(self, events: Columns, rows: Indices, first_order: int) -> Indices:
        """The address space of each of `rows`, which name an mm, after a chunk of the stream.

        events: the chunk's columns. first_order: the order of its first event.
        """
        kind = events["kind"]
        enters = np.flatnonzero(kind == KSM_ENTER.id)
        exits = np.flatnonzero(kind == KSM_EXIT.id)
        named = rows if not len(exits) else np.sort(np.concatenate((rows, exits)))
        mm, owners = events["mm"][named], events["tgid"][named]
        # Only where something changes there is something to find out.
        change = np.concatenate(
            (run_starts(mm), run_starts(owners), np.searchsorted(named, enters))
        )
        heads = distinct(change[change < len(named)].astype(np.uint64)).astype(np.int64)
        codes, mms = codes_of(mm[heads])
        base = np.array([self._current.get(int(m), -1) for m in mms], np.int64)
        spaces = self._by_versions(
            events, named[heads], codes, mms, base, owners[heads], enters, exits
        )
        self._learn_owners(spaces, owners[heads])
        spaces = np.repeat(spaces, np.diff(np.append(heads, len(named))))
        at_rows = spaces
        if len(exits):
            gone = spaces[np.searchsorted(named, exits)]
            alive = self.table["exited"][gone] == NEVER
            gone, exits = gone[alive], exits[alive]
            self.table["exited"][gone] = first_order + exits
            self.table["exited_ts"][gone] = events["ts"][exits]
            at_rows = spaces[np.searchsorted(named, rows)]
        # Whose mm is another's now is gone, though nobody told.
        for space, row in self._replaced:
            if self.table["exited"][space] == NEVER:
                self.table["exited"][space] = first_order + row
                self.table["exited_ts"][space] = events["ts"][row] - np.uint64(1)
        self._replaced.clear()
        return at_rows

    def _by_versions(
        self,
        events: Columns,
        named: Indices,
        codes: Indices,
        distinct: npt.NDArray[np.uint64],
        base: Indices,
        owners: npt.NDArray[np.uint32],
        enters: Indices,
        exits: Indices,
    ) -> Indices:
        """Spaces of the rows `named`; new ones begin at `enters`, at new owners, at first sight."""
        number_of = {int(m): number for number, m in enumerate(distinct)}
        begins: list[tuple[int, int, int]] = []
        seen = dict(
            zip(
                distinct.tolist(), zip(*self._first(codes, named, owners), strict=True), strict=True
            )
        )
        for row in self._entering(events, enters, exits, seen):
            m = int(events["mm"][row])
            if m not in number_of:
                number_of[m] = len(number_of)
            begins.append((number_of[m], row, 1))
        mms = list(number_of)
        first_enter: dict[int, int] = {}
        for number, row, _ in begins:
            first_enter.setdefault(number, row)
        first_row = np.full(len(distinct), NEVER)
        heads = run_starts(codes)
        np.minimum.at(first_row, codes[heads], named[heads])
        begins += [
            (number, int(first_row[number]), 0)
            for number in np.flatnonzero(base < 0).tolist()
            if first_row[number] < first_enter.get(number, NEVER)
        ]
        begins += self._new_owners(codes, base, owners, named, begins)
        begins.sort(key=lambda b: b[1])
        if not begins:
            return base[codes]
        fresh = self._create(events, mms, begins)
        changed = np.zeros(len(mms), bool)
        changed[[b[0] for b in begins]] = True
        spaces = base[codes]
        concerned = np.flatnonzero(changed[codes])
        packed = np.array([b[0] << 32 | b[1] for b in begins], np.uint64)
        order = np.argsort(packed)
        packed, ids = packed[order], fresh[order]
        mine = codes[concerned].astype(np.uint64) << _ROW_BITS | named[concerned].astype(np.uint64)
        at = np.searchsorted(packed, mine, "right") - 1
        same = (at >= 0) & ((packed[at] >> _ROW_BITS) == (mine >> _ROW_BITS))
        spaces[concerned[same]] = ids[at[same]]
        return spaces

    @staticmethod
    def _first(
        codes: Indices, named: Indices, owners: npt.NDArray[np.uint32]
    ) -> tuple[list[int], list[int]]:
        """The row in which each mm is named first, and its owner there."""
        _, first = np.unique(codes, return_index=True)
        return named[first].tolist(), owners[first].tolist()

    def _entering(
        self,
        events: Columns,
        enters: Indices,
        exits: Indices,
        seen: Mapping[int, tuple[int, int]],
    ) -> Iterator[int]:
        """The rows of `enters` that begin an address space. seen: first row and owner of each mm.

        The others are of one that ksmd had dropped from its list, without a word, and that came
        back: its owner registers it again, and no ksm_exit was seen.
        """
        owner_of: dict[int, int | None] = {}
        for row in np.sort(np.concatenate((enters, exits))).tolist():
            m, tgid = int(events["mm"][row]), int(events["tgid"][row])
            if events["kind"][row] == KSM_EXIT.id:
                owner_of[m] = None
                continue
            if m not in owner_of:
                owner_of[m] = self._living_owner(m)
                if owner_of[m] is None and m in seen and seen[m][0] < row:
                    owner_of[m] = seen[m][1]
            before = owner_of[m]
            back = before is not None and (before in (0, tgid) if tgid else False)
            if not back or events["arg"][row] in (VIA_FORK, VIA_EXEC):
                yield row
            owner_of[m] = tgid

    def _living_owner(self, mm: int) -> int | None:
        space = self._current.get(mm)
        if space is None or self.table["exited"][space] != NEVER:
            return None
        return int(self.table["tgid"][space])

    def _new_owners(
        self,
        codes: Indices,
        base: Indices,
        owners: npt.NDArray[np.uint32],
        named: Indices,
        begins: list[tuple[int, int, int]],
    ) -> list[tuple[int, int, int]]:
        """Rows at which an mm's owner is not who it was, though no ksm_enter came between."""
        # Compare each run of (mm, owner) with the mm's run before; few runs are looked at.
        heads = run_starts(codes.astype(np.uint64) << _ROW_BITS | owners.astype(np.uint64))
        heads = heads[owners[heads] != 0]
        if not len(heads):
            return []
        code, owner, row = codes[heads], owners[heads], named[heads]
        entered = {(number, r) for number, r, known in begins if known}
        enter_rows: dict[int, list[int]] = {}
        for number, r in sorted(entered):
            enter_rows.setdefault(number, []).append(r)
        order = stable_order(code.astype(np.uint64))
        code, owner, row = code[order], owner[order], row[order]
        before = np.empty_like(owner)
        before[1:] = owner[:-1]
        group = np.concatenate(([True], code[1:] != code[:-1]))
        known = self.table["tgid"]
        bases = base[code[group]]
        before[group] = np.where(bases >= 0, known[bases] if len(known) else 0, 0)
        suspects = np.flatnonzero((before != 0) & (before != owner))
        found = []
        for at in suspects.tolist():
            since = -1 if group[at] else int(row[at - 1])
            number, here = int(code[at]), int(row[at])
            if not any(since < r < here for r in enter_rows.get(number, ())):
                found.append((number, here, 0))
        return found

    def _create(
        self, events: Columns, mms: list[int], begins: list[tuple[int, int, int]]
    ) -> Indices:
        first = len(self.table)
        rows = np.array([row for _, row, _ in begins], np.int64)
        entered = np.array([known == 1 for _, _, known in begins])
        forked = entered & (events["arg"][rows] == VIA_FORK)
        self.table.extend(
            mm=np.array([mms[number] for number, _, _ in begins], np.uint64),
            tgid=np.where(forked, 0, events["tgid"][rows]),
            parent_tgid=np.where(forked, events["addr"][rows], 0),
            entered_ts=np.where(entered, events["ts"][rows], 0),
            exited_ts=0,
            exited=NEVER,
        )
        for space, (number, row, _) in enumerate(begins, first):
            before = self._current.get(mms[number])
            if before is not None:
                self._replaced.append((before, row))
            self._current[mms[number]] = space
        return np.arange(first, first + len(begins))

    def _learn_owners(self, spaces: Indices, owners: npt.NDArray[np.uint32]) -> None:
        tgid = self.table["tgid"]
        told = np.flatnonzero((owners != 0) & (tgid[spaces] == 0))
        # The first owner told wins: assign backwards.
        tgid[spaces[told[::-1]]] = owners[told[::-1]]
