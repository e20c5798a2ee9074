"""What all pages held at a moment, from a recording: what every what-if starts from.

A snapshot (`ksmtrace estimate --save`) is such a moment. A recording with contents (`record
--contents`, `lab run --record`) has many: its last one counts, and pages that changed between any
two of them are taken to go on changing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.sysfs import KNOBS
from ksmtrace.recording.reader import StoredRecording

ZERO = 0
"""The content of the zero page."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moment:
    """All pages, in order of process and address; arrays have one entry a page.

    contents: numbers that are ordered as the pages are, ZERO the zero page, all below
    `different`. frames: pages with the same share a frame by fork. changing: whether it won't hold
    still. regions: (start, end) by process. knobs: those of the host then. page_bytes: of a page.
    ksmd_cpu_ns: ksmd's CPU time since boot, 0 where unknown; the advisor's first decision knows it.
    """

    tgids: Numbers
    addresses: Numbers
    contents: Numbers
    frames: Numbers
    changing: npt.NDArray[np.bool_]
    different: int
    regions: Mapping[int, list[tuple[int, int]]]
    knobs: Mapping[str, str]
    page_bytes: int
    ksmd_cpu_ns: int = 0

    def __len__(self) -> int:
        return len(self.tgids)


def read_moment(recording: StoredRecording) -> Moment:
    """The last moment of a recording. Raises KsmtraceError (bad recording) where there is none."""
    recording.need_events()
    rows = _rows(recording, "contents", ("tgid", "addr", "digest", "pfn", "ksm"))
    ranks = _rows(recording, "ranks", ("digest", "rank", "zero"))
    if not len(rows["tgid"]) or not len(ranks["digest"]):
        raise KsmtraceError(
            f"{recording.path} doesn't tell what pages held",
            "ksmtrace estimate --save DIR keeps that, and so does record --contents",
            Exit.BAD_RECORDING,
        )
    order = np.lexsort((np.arange(len(rows["tgid"])), rows["addr"], rows["tgid"]))
    rows = {name: column[order] for name, column in rows.items()}
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (np.diff(rows["tgid"]) != 0) | (np.diff(rows["addr"]) != 0)
    ends = np.append(begins[1:], True)
    other = np.append(False, rows["digest"][1:] != rows["digest"][:-1]) & ~begins
    changed = np.add.reduceat(other, np.flatnonzero(begins)) > 0
    last = {name: column[ends] for name, column in rows.items()}
    there = last["digest"] != _GONE
    contents, different = _numbered(recording, last["digest"][there], ranks)
    start = _start(recording)
    return Moment(
        tgids=last["tgid"][there],
        addresses=last["addr"][there],
        contents=contents,
        frames=_frames(last["pfn"][there], last["ksm"][there], contents),
        changing=changed[there],
        different=different,
        regions=_regions(recording),
        knobs={k.name: v for k in KNOBS if (v := start.get(f"knob_{k.name}")) is not None},
        page_bytes=int(recording.manifest["page_bytes"]),
        ksmd_cpu_ns=start.get("ksmd_cpu_ns") or 0,
    )


_GONE = -1
"""The digest of a page that is not there any more; real ones have 64 bits without sign."""


def _rows(recording: StoredRecording, table: str, names: tuple[str, ...]) -> dict[str, Numbers]:
    """Columns of a table as numbers; what is not known is _GONE."""
    parts: dict[str, list[Numbers]] = {name: [np.empty(0, np.int64)] for name in names}
    for batch in recording.record_batches(table):
        for name in names:
            column = batch.column(name)
            known = np.asarray(column.is_valid())
            values = column.fill_null(False if str(column.type) == "bool" else 0)
            numbers = np.asarray(values)
            if name == "digest":
                # One bit less, so that _GONE is none of them; equal stays equal.
                numbers = numbers >> 1
            parts[name].append(np.where(known, numbers.astype(np.int64), _GONE))
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def _numbered(
    recording: StoredRecording, digests: Numbers, ranks: Mapping[str, Numbers]
) -> tuple[Numbers, int]:
    """(each page's content as a number, one more than the largest)."""
    by_digest = np.argsort(ranks["digest"], kind="stable")
    known = ranks["digest"][by_digest]
    at = np.minimum(np.searchsorted(known, digests), len(known) - 1)
    if np.any(known[at] != digests):
        raise KsmtraceError(
            f"{recording.path} lacks the order of its contents",
            "it was cut short; record it anew",
            Exit.BAD_RECORDING,
        )
    rank = ranks["rank"][by_digest][at]
    zero = ranks["zero"][by_digest][at] == 1
    different, numbers = np.unique(np.where(zero, _GONE, rank), return_inverse=True)
    has_zero = bool(len(different)) and different[0] == _GONE
    return numbers.astype(np.int64) + (not has_zero), len(different) + (not has_zero)


def _frames(pfns: Numbers, ksm: Numbers, contents: Numbers) -> Numbers:
    """A number for each frame. What is merged is taken as pages of their own."""
    alone = (pfns <= 0) | (ksm == 1)
    _, frames = np.unique(np.stack([pfns, contents]), axis=1, return_inverse=True)
    numbers: Numbers = frames.reshape(-1).astype(np.int64)
    numbers[alone] = len(pfns) + np.flatnonzero(alone)
    return numbers


def _regions(recording: StoredRecording) -> dict[int, list[tuple[int, int]]]:
    regions: dict[int, list[tuple[int, int]]] = {}
    for batch in recording.record_batches("regions"):
        columns = [batch.column(n).to_pylist() for n in ("tgid", "start", "end")]
        for tgid, start, end in zip(*columns, strict=True):
            regions.setdefault(tgid, []).append((start, end))
    return regions


def _start(recording: StoredRecording) -> Mapping[str, Any]:
    """The host's counters and knobs at the beginning; empty where there are none."""
    rows = recording.table("counters").to_pylist()
    return next((row for row in rows if row["tgid"] is None), {})
