"""Who shares with whom: KSM pages by pairs of processes, cgroups or virtual machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ksmtrace.timeline.lives import STILL_MERGED
from ksmtrace.timeline.sorting import distinct

if TYPE_CHECKING:
    from ksmtrace.timeline.build import Timeline

By = Literal["process", "cgroup", "vm"]


def sharing(timeline: Timeline, by: By = "process", at_ns: int | None = None) -> pd.DataFrame:
    """How many KSM pages each pair maps both; on the diagonal: how many each maps at all.

    Rows and columns: rows of `processes`, or names of cgroups or VMs; those that map none are left
    out. at_ns: the moment; None: the last at which most was merged. Lives whose end can't be told
    exactly count until they had ended.
    """
    return sharing_of_fullest(timeline, by, None, at_ns)[0]


def sharing_of_fullest(
    timeline: Timeline, by: By, most: int | None, at_ns: int | None = None
) -> tuple[pd.DataFrame, int]:
    """The same of the groups that map most KSM pages, `most` at most; and how many there are."""
    pages, groups, names = mapped_by(timeline, by, at_ns)
    index: pd.Index[Any] = pd.Index(names, name=by)
    pairs = distinct(pages << np.uint64(32) | groups.astype(np.uint64))
    page = (pairs >> np.uint64(32)).astype(np.int64)
    group = (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if most is not None and most < len(names):
        chosen = np.argsort(-np.bincount(group, minlength=len(names)), kind="stable")[:most]
        place = np.full(len(names), -1, np.int64)
        place[chosen] = np.arange(most)
        kept = place[group] >= 0
        page, group, index = page[kept], place[group[kept]], index[chosen]
    shared = together(page, group, len(index))
    return pd.DataFrame(shared, index=index, columns=index), len(names)


def mapped_by(
    timeline: Timeline, by: By = "process", at_ns: int | None = None
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.uint64]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
    list[int] | list[str],
]:
    """Each mapping's KSM page, the number of the group it is in, and the groups' names.

    by, at_ns: as of `sharing`; mappings of no group are left out.
    """
    stream, ends = timeline.stream, timeline.ends
    lives = stream.lives.table
    mapped = lives["ksm_page"] >= 0
    if at_ns is None:
        chosen = mapped & (ends.end == STILL_MERGED)
        if not chosen.any():
            at_ns = _fullest_moment(timeline)
    if at_ns is not None:
        over = (ends.before > 0) & (ends.before <= at_ns)
        chosen = mapped & (lives["merged_ts"] <= at_ns) & ~over
    rows = np.flatnonzero(chosen)
    groups, names = _groups(timeline, lives["space"][rows], by)
    rows, groups = rows[groups >= 0], groups[groups >= 0]
    return lives["ksm_page"][rows].astype(np.uint64), groups, names


def _fullest_moment(timeline: Timeline) -> int | None:
    """The end of the scan after which most pages were merged."""
    history = timeline.process_history
    if not len(history):
        return None
    sums = history.groupby("scan")["merged"].sum()
    fullest = sums.index.to_numpy()[sums.to_numpy().argmax()]
    scan = timeline.index.scans[int(fullest)]
    return scan.end_ns or timeline.stream.last_ts


def _groups(
    timeline: Timeline, spaces: np.ndarray[tuple[int], np.dtype[np.int32]], by: By
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[int] | list[str]]:
    """The group of each life's address space, numbered among those that occur, and their names."""
    if by == "process":
        used, groups = np.unique(spaces, return_inverse=True)
        return groups.astype(np.int64), used.tolist()
    named = timeline.processes[by]
    codes, names = pd.factorize(named, sort=True)
    groups = codes[spaces]
    used, numbers = np.unique(groups[groups >= 0], return_inverse=True)
    found = np.full(len(groups), -1, np.int64)
    found[groups >= 0] = numbers
    return found, [str(names[code]) for code in used.tolist()]


def together(
    page: np.ndarray[tuple[int], np.dtype[np.int64]],
    group: np.ndarray[tuple[int], np.dtype[np.int64]],
    groups: int,
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Pages that each pair of groups maps; page, group: distinct pairs, sorted by page."""
    matrix = np.zeros((groups, groups), np.int64)
    if not len(page):
        return matrix
    starts = np.concatenate(([0], np.flatnonzero(page[1:] != page[:-1]) + 1, [len(page)]))
    sizes = np.diff(starts)
    # Pages with as many sharers are done at once, a pair of their places at a time.
    for size in np.unique(sizes).tolist():
        first = starts[:-1][sizes == size]
        members = group[first[:, None] + np.arange(size)]
        for left in range(size):
            pairs = (members[:, left, None] * groups + members).ravel()
            matrix += np.bincount(pairs, minlength=groups * groups).reshape(groups, groups)
    return matrix
