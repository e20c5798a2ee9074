"""Whether two recordings tell the same, made at different times and with different pseudonyms.

A scenario performed twice on a real ksmd gives two streams that differ in every time, frame and
process id, and in nothing else. What must be equal: the rows of each derived table, in their
order; every column that holds no time and does not follow from one; which rows have a time, and
the order of those times; and names, up to one renaming for both recordings as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.timeline.tables import TABLES

if TYPE_CHECKING:
    from ksmtrace.timeline.build import Timeline

_RENAMED = {
    "tgid": "tgid", "parent_tgid": "tgid", "pfn": "pfn", "addr": "address", "start": "address",
    "end": "address",
}  # fmt: skip
"""Columns of names, and what kind of name each is: equal names of a kind are one thing."""
_MEASURED = ("_s", "cpu_percent")
"""Ends of the names of columns that hold durations, or what follows from them."""
_NOT_MEASURED = ("target_scan_time_s",)
_BOUNDS = {
    "accounts": (
        "shared_least", "shared_most", "merged_least", "merged_most", "silent", "unnoticed",
        "open", "zero_least", "zero_most",
    ),
}  # fmt: skip
"""Columns, by table, that are wider where a sample was taken close to what ksmd did."""
_SHOWN = 3


def same_timeline(one: Timeline, other: Timeline) -> list[str]:
    """Where the two differ, as lines of text; none: they tell the same.

    A line names the table, the column, how many rows differ and some of them.
    """
    found = []
    names = {kind: _Renaming() for kind in set(_RENAMED.values())}
    for table in TABLES.values():
        left, right = getattr(one, table.name), getattr(other, table.name)
        if len(left) != len(right):
            found.append(f"{table.name}: {len(left):,} rows, {len(right):,} in the other")
            continue
        for column in left.columns:
            if column in _BOUNDS.get(table.name, ()):
                continue
            differs = _differing(left[column], right[column], str(column), names)
            rows = np.flatnonzero(differs)
            if len(rows):
                shown = "; ".join(
                    f"row {row}: {left[column].iloc[row]}, {right[column].iloc[row]} in the other"
                    for row in rows[:_SHOWN].tolist()
                )
                found.append(f"{table.name}.{column}: {len(rows):,} rows differ ({shown})")
    return found


def _differing(
    left: pd.Series, right: pd.Series, name: str, names: dict[str, _Renaming]
) -> npt.NDArray[np.bool_]:
    unknown = left.isna().to_numpy()
    differs: npt.NDArray[np.bool_] = unknown != right.isna().to_numpy()
    if name.endswith(_MEASURED) and name not in _NOT_MEASURED:
        return differs
    both = ~unknown & ~differs
    known = left[both], right[both]
    if name.endswith("_ns"):
        ranks = [series.rank(method="dense").to_numpy() for series in known]
        differs[both] = ranks[0] != ranks[1]
    elif name in _RENAMED and left.dtype.kind in "iu":
        differs[both] = names[_RENAMED[name]].differing(*known)
    else:
        differs[both] = (known[0].astype(object) != known[1].astype(object)).to_numpy()
    return differs


class _Renaming:
    """Which name of one recording is which of the other's, as far as they have been met."""

    def __init__(self) -> None:
        # 0 is a name that is not known.
        self._there: dict[int, int] = {0: 0}
        self._back: dict[int, int] = {0: 0}

    def differing(self, left: pd.Series, right: pd.Series) -> list[bool]:
        """For each pair whether it contradicts what was met before."""
        pairs = zip(left.tolist(), right.tolist(), strict=True)
        return [
            self._there.setdefault(a, b) != b or self._back.setdefault(b, a) != a for a, b in pairs
        ]
