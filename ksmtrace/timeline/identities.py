"""Who an address space is: the identity that was recorded for its process while it lived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context

_LATE_NS = 1_000_000_000
"""A process is looked up a little after its ksm_enter, and its exit told of a little after that."""


@dataclass(frozen=True)
class Identity:
    """comm: the program's name. vm: a QEMU guest's. None: not known."""

    comm: str | None = None
    cgroup: str | None = None
    vm: str | None = None


def identities_of(stream: Aggregator, context: Context) -> list[Identity]:
    """The identity of each address space, by number.

    Of a pid that was used again each process has its own; after an exec the same pid has a new
    address space and a new name.
    """
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in context.identities:
        if row["comm"] is not None:
            rows.setdefault(row["tgid"], []).append(row)
    for told in rows.values():
        told.sort(key=lambda row: row["ts"])
    table = stream.spaces.table
    spans = list(
        zip(*(table[c].tolist() for c in ("tgid", "entered_ts", "exited_ts")), strict=True)
    )
    since: list[int] = []
    gone: dict[int, int] = {}
    for tgid, _entered, exited in spans:
        since.append(gone.get(tgid, 0))
        if exited:
            gone[tgid] = exited
    found: list[Identity] = []
    later: dict[int, int] = {}
    for (tgid, entered, exited), begin in zip(reversed(spans), reversed(since), strict=True):
        # Up to its exit, or until the next address space of that pid.
        until = min(exited + _LATE_NS if exited else 1 << 63, later.get(tgid, 1 << 63))
        # What is told after an exit is of the next one, but for the exit itself.
        mine = [
            row
            for row in rows.get(tgid, ())
            if row["ts"] < until and (not begin or (row["ts"] > begin and row["what"] != "exit"))
        ]
        last = mine[-1] if mine else {}
        found.append(Identity(last.get("comm"), last.get("cgroup"), last.get("vm")))
        if entered:
            later[tgid] = entered
    return found[::-1]
