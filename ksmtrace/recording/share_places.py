"""Process ids and addresses of a copy to pass on: new ones, in the old order.

A process and all it forked are a family: a child's memory lies where its parent's does, and that
tells what was inherited. So a family is moved as one, by a multiple of 2 MiB, to where the lowest
of its addresses has a fixed place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_ALIGNED = 2 << 20
_LOWEST = 256 << 20
_FIRST_TGID = 1001


class Places:
    """Learns what there is (`see`, `fork`), then renames."""

    def __init__(self) -> None:
        self._lowest: dict[int, int] = {}
        self._parent: dict[int, int] = {}
        self._tgids: U64 | None = None
        self._shifts: U64 | None = None

    def see(self, tgids: npt.NDArray[Any], addresses: U64 | None = None) -> None:
        """Learn of processes, and of addresses of theirs; 0 is none."""
        if addresses is None:
            for tgid in np.unique(tgids).tolist():
                self._lowest.setdefault(tgid, 0)
            return
        present, at = np.unique(tgids, return_inverse=True)
        lowest = np.full(len(present), np.iinfo(np.uint64).max, np.uint64)
        real = addresses != 0
        np.minimum.at(lowest, at[real], addresses[real])
        for tgid, addr in zip(present.tolist(), lowest.tolist(), strict=True):
            before = self._lowest.get(tgid, 0)
            found = 0 if addr == np.iinfo(np.uint64).max else addr
            self._lowest[tgid] = min(before, found) if before and found else before or found

    def fork(self, parents: npt.NDArray[Any], children: npt.NDArray[Any]) -> None:
        """Learn who forked whom; 0 is not known."""
        self.see(parents)
        self.see(children)
        pairs = np.unique(np.stack((parents.astype(np.int64), children.astype(np.int64))), axis=1)
        for parent, child in pairs.T.tolist():
            if parent and child:
                self._parent[self._family(child)] = self._family(parent)

    def _family(self, tgid: int) -> int:
        while (above := self._parent.get(tgid, tgid)) != tgid:
            self._parent[tgid] = self._parent.get(above, above)
            tgid = above
        return tgid

    def _learnt(self) -> tuple[U64, U64]:
        if self._tgids is None or self._shifts is None:
            lowest: dict[int, int] = {}
            for tgid, addr in self._lowest.items():
                family = self._family(tgid)
                if addr:
                    lowest[family] = min(addr, lowest.get(family, addr))
            known = sorted({0, *self._lowest})
            base = np.array([lowest.get(self._family(t), _LOWEST) for t in known], np.uint64)
            self._tgids = np.array(known, np.uint64)
            # Unsigned numbers wrap: moving down is adding, too.
            self._shifts = np.uint64(_LOWEST) - base // np.uint64(_ALIGNED) * np.uint64(_ALIGNED)
        return self._tgids, self._shifts

    def tgids(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """New process ids, of the same dtype; 0 stays."""
        known, _ = self._learnt()
        ranks = np.searchsorted(known, values.astype(np.uint64))
        return np.where(values == 0, 0, ranks + (_FIRST_TGID - 1)).astype(values.dtype)

    def addresses(self, values: U64, tgids: npt.NDArray[Any]) -> U64:
        """New addresses in these processes; 0 stays."""
        known, shifts = self._learnt()
        moved: U64 = values + shifts[np.searchsorted(known, tgids.astype(np.uint64))]
        return np.where(values == 0, values, moved)
