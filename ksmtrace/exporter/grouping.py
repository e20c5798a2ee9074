"""Which processes, cgroups and guests get a series of their own; the others are summed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ksmtrace.processes.following import Row, Values, weight

OTHER = "other"
"""The label of the sum of all that have no series of their own."""
_LONGEST = 256
"""Characters of a label: a name is whatever a process says, at any length."""

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Ranked(Generic[_Key]):
    """listed: the first, each with its sums and how many processes it has. rest: of all others."""

    listed: list[tuple[_Key, Values, int]]
    rest: Values
    rest_processes: int
    left_out: int


def label(name: str | None) -> str | None:
    """A name as a label's value: cut where it is too long."""
    return None if name is None else name[:_LONGEST]


def ranked(rows: Iterable[Row], key: Callable[[Row], _Key | None], most: int) -> Ranked[_Key]:
    """Rows summed by key, those with most merging pages first; at most `most` are listed.

    A row whose key is None belongs nowhere. A key that reads `other` is never listed, so that it
    can't be taken for the sum.
    """
    sums: dict[_Key, dict[str, int]] = {}
    counts: dict[_Key, int] = {}
    for row in rows:
        name = key(row)
        if name is not None:
            _add(sums.setdefault(name, {}), row.values)
            counts[name] = counts.get(name, 0) + 1
    order = sorted(sums, key=lambda name: (_heaviest_first(sums[name]), str(name)))
    able = [name for name in order if name != OTHER][:most]
    rest: dict[str, int] = {}
    others = sums.keys() - set(able)
    for name in others:
        _add(rest, sums[name])
    return Ranked(
        listed=[(name, sums[name], counts[name]) for name in able],
        rest=rest,
        rest_processes=sum(counts[name] for name in others),
        left_out=len(others),
    )


def _heaviest_first(values: Values) -> tuple[int, int]:
    merging, items = weight(values)
    return -merging, -items


def _add(sums: dict[str, int], values: Values) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value
