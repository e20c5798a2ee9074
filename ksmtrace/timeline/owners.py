"""Which address space a process had at a moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.growing import GrowingTable
from ksmtrace.timeline.sorting import Indices, run_starts

U64 = npt.NDArray[np.uint64]


def spaces_at(spaces: GrowingTable, tgid: npt.NDArray[np.integer], ts: U64) -> Indices:
    """The number of the address space of each process at each moment; -1: none is known.

    spaces: as `address_spaces.AddressSpaces.table`. Where one ends as the next begins, the next.
    """
    entered, exited = spaces["entered_ts"], spaces["exited_ts"]
    of_owner: dict[int, list[int]] = {}
    for number, owner in enumerate(spaces["tgid"].tolist()):
        of_owner.setdefault(owner, []).append(number)
    found = np.full(len(tgid), -1, np.int64)
    order = np.argsort(tgid, kind="stable")
    starts = run_starts(tgid[order])
    for first, last in zip(starts, np.append(starts, len(tgid))[1:], strict=True):
        rows = order[first:last]
        for number in of_owner.get(int(tgid[rows[0]]), ()):
            then = ts[rows]
            lived = (entered[number] <= then) & ((exited[number] == 0) | (then <= exited[number]))
            found[rows[lived]] = number
    return found
