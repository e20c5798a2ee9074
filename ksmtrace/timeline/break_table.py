"""The table `breaks`, and whether the recording saw all that ends a mapping."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.events.registry import KERNEL_MODE, ZERO_PAGE
from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context
from ksmtrace.timeline.page_table import integers
from ksmtrace.timeline.scans import Scans
from ksmtrace.timeline.sorting import codes_of
from ksmtrace.timeline.tables import frame


def sees_all(stream: Aggregator, context: Context) -> bool:
    """Whether nothing that ends a mapping went unseen.

    That takes `record --cow` with system calls seen, no lost event, and no copy that vmstat counts
    beyond the breaks that were seen.
    """
    cow = context.manifest.get("cow")
    if not cow or cow.get("obstacles") or cow.get("hash_full") or len(stream.losses):
        return False
    copies = context.host.counters["cow_ksm"]
    copies = copies[np.isfinite(copies)]
    if not len(copies):
        return False
    seen = int(((stream.breaks["arg"] & ZERO_PAGE) == 0).sum())
    return bool(copies[-1] - copies[0] <= seen)


def breaks(stream: Aggregator, context: Context, index: Scans) -> pd.DataFrame:
    """The table `breaks` (`tables.TABLES`)."""
    table = stream.breaks
    space = table["space"]
    orders, lives = stream.lives.written["order"], stream.lives.written["life"]
    in_order = np.argsort(orders)
    orders, lives = orders[in_order], lives[in_order]
    at = np.minimum(np.searchsorted(orders, table["order"]), max(0, len(orders) - 1))
    ended = orders[at] == table["order"] if len(orders) else np.zeros(len(table), bool)
    page = lives[at] if len(orders) else np.zeros(len(table), np.int64)
    segment = np.searchsorted(stream.borders["order"], table["order"], "right")
    tgid = stream.spaces.table["tgid"][space]
    place, places = _places(tgid, table["ip"], context)
    return frame(
        "breaks",
        {
            "ts_ns": table["ts"].astype(np.int64),
            "scan": index.of_segment[segment],
            "process": integers(space, space >= 0),
            "tgid": tgid,
            "addr": table["addr"],
            "page": integers(page, ended),
            "kernel_mode": (table["arg"] & KERNEL_MODE) != 0,
            "zero_page": (table["arg"] & ZERO_PAGE) != 0,
            "file": pd.array([row.get("file") for row in places], dtype="string").take(place),
            "offset": pd.array([row.get("offset") for row in places], dtype="UInt64").take(place),
            "symbol": pd.array([row.get("symbol") for row in places], dtype="string").take(place),
        },
    )


def _places(
    tgid: npt.NDArray[np.uint32], ip: npt.NDArray[np.uint64], context: Context
) -> tuple[npt.NDArray[np.intp], list[dict[str, Any]]]:
    """For each break which place wrote, and the places as the table `code` has them."""
    code = {(row["tgid"], row["ip"]): row for row in context.code}
    instruction, instructions = codes_of(ip)
    place, pairs = pd.factorize(instruction << 32 | tgid)
    return place, [
        code.get((pair & 0xFFFFFFFF, int(instructions[pair >> 32])), {}) for pair in pairs.tolist()
    ]
