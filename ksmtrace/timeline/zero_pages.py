"""Zero pages that children have from their parents: counted by the kernel, told by no event.

A forked child maps what zero pages ksmd had placed in its parent. Up to Linux 6.17 (6.18.2 brought
the change) the count did not grow by them, but shrinks as the child drops them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.ends import Ends
from ksmtrace.timeline.lives import STILL_MERGED
from ksmtrace.timeline.scans import IN_TRANSIT_NS

U64 = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


def inherited_zero_pages(
    stream: Aggregator, ends: Ends, at: U64, before: int
) -> tuple[Numbers, Numbers]:
    """At most how many zero pages children had from their parents at each moment.

    before: how many there were before the recording, which nothing names. Returns those of living
    children, and those that any child ever had by then.
    """
    spaces, lives = stream.spaces.table, stream.lives.table
    rows = np.flatnonzero(lives["ksm_page"] < 0)
    living, ever = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    if not (len(rows) or before) or not spaces["parent_tgid"].any():
        return living, ever
    owner, begun = lives["space"][rows], lives["merged_ts"][rows]
    over = np.where(ends.end[rows] == STILL_MERGED, np.iinfo(np.uint64).max, ends.before[rows])
    tgids, entered, exited = (spaces[name] for name in ("tgid", "entered_ts", "exited_ts"))
    had = np.zeros(len(spaces), np.int64)
    forked = np.flatnonzero(spaces["parent_tgid"])
    for child in forked[np.argsort(entered[forked], kind="stable")].tolist():
        when = entered[child]
        parents = np.flatnonzero((tgids == spaces["parent_tgid"][child]) & (entered < when))
        # A forked process that nothing was told of since has no known number: it may be any.
        unknown = forked[(tgids[forked] == 0) & (entered[forked] < when)]
        had[child] = max(before, int(had[unknown].max(initial=0)))
        if len(parents):
            parent = parents[-1]
            own = int(((owner == parent) & (begun <= when) & (over > when)).sum())
            unnamed = 0 if entered[parent] else before
            had[child] = own + had[parent] + unnamed
        ever += had[child] * (at >= when)
        # A ksm_exit comes before the process's memory goes.
        gone = (
            exited[child] + np.uint64(IN_TRANSIT_NS) if exited[child] else np.iinfo(np.uint64).max
        )
        living += had[child] * ((at + np.uint64(IN_TRANSIT_NS) >= when) & (at <= gone))
    return living, ever
