"""From a timeline, what exports are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ksmtrace.exports.tables import frame_batches
from ksmtrace.exports.tracks import LIMIT, TABLES, Run, trace_of
from ksmtrace.recording.arrow import arrow_schema
from ksmtrace.recording.schema import TABLES as STORED_TABLES
from ksmtrace.timeline import tables as derived

if TYPE_CHECKING:
    from ksmtrace.exports.trace import Trace
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.timeline.build import Timeline

DERIVED = tuple(derived.TABLES)
STORED = tuple(STORED_TABLES)
_SAMPLED = (
    "ts", "tgid", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
    "ksm_zero_pages", "ksmd_cpu_ns",
)  # fmt: skip


def table_of(
    recording: StoredRecording, timeline: Timeline | None, name: str
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A derived or a stored table of a recording; of a stored one the timeline may be None.

    Raises KeyError for a name that is none.
    """
    if name in DERIVED:
        assert timeline is not None
        return frame_batches(getattr(timeline, name))
    batches = recording.record_batches(name)
    first = next(batches, None)
    if first is None:
        return arrow_schema(name), batches
    return first.schema, itertools.chain([first], batches)


def trace(timeline: Timeline, limit: int = LIMIT) -> Trace:
    """The trace of a timeline; limit: see `trace_of`."""
    return trace_of({name: getattr(timeline, name) for name in TABLES}, _run(timeline), limit)


def _run(timeline: Timeline) -> Run:
    import pandas as pd

    manifest = timeline.recording.manifest
    nullable = {
        pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.uint32(): pd.UInt32Dtype(),
    }  # fmt: skip
    samples = timeline.recording.table("counters").select(list(_SAMPLED))
    frame = samples.to_pandas(types_mapper=nullable.get)
    begin = int(manifest["clock"]["monotonic_ns"])
    ends = [begin, begin + round(1e9 * (manifest.get("duration_s") or 0)), timeline.stream.last_ts]
    losses = timeline.stream.losses
    return Run(
        begin_ns=begin,
        end_ns=int(max([*ends, *frame["ts"].tail(1).astype(int)])),
        wall_ns=manifest["clock"].get("wall_ns"),
        page_bytes=manifest["page_bytes"],
        samples=frame,
        lost_ts=np.asarray(losses["ts"]).astype(np.int64),
        lost=np.asarray(losses["count"]).astype(np.int64),
    )
