"""A timeline of a capture under way: takes what a recording would take, and aggregates at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ksmtrace.events.batch import EventBatch
from ksmtrace.recording.arrow import census_to_arrow, no_rows, rows_to_arrow
from ksmtrace.recording.pseudonyms import Namer, RawPointers, with_named_ips
from ksmtrace.recording.schema import TABLES
from ksmtrace.timeline.aggregator import SLOTS
from ksmtrace.timeline.build import Timeline, aggregator_for


class RowsInMemory:
    """The tables beside the stream, kept as they come. manifest: what is known of the capture."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self._batches: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}

    def add(self, name: str, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._batches[name].append(batch)

    def table(self, name: str) -> pa.Table:
        """A table so far. Raises KeyError for a name that is none."""
        return pa.Table.from_batches([no_rows(name), *self._batches[name]])


class LiveTimeline:
    """Consumer of a session's events and sink of its context, beside or in place of a recording.

    manifest: as a recording's; it may still change until `finish`. namer: renames pointers as the
    recording beside it does, so that both have the same tables.
    """

    def __init__(self, manifest: dict[str, Any], namer: Namer | None = None) -> None:
        self._namer = namer or RawPointers()
        self._rows = RowsInMemory(manifest)
        self._stream = aggregator_for(self._rows)

    def events(self, batch: EventBatch) -> None:
        """Take a batch; its memory may be used again after that."""
        columns = {name: batch[name].copy() for name in SLOTS}
        columns["pfn"] = self._namer.pfns(columns["pfn"])
        columns["item"] = self._namer.addresses(columns["item"])
        self._stream.feed(columns)

    def flush_if_due(self) -> None:
        """Nothing waits here."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows of a small table."""
        if rows:
            self._rows.add(name, rows_to_arrow(TABLES[name], rows))

    def census(self, ts: int, reason: str, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Take a chunk of a census."""
        if len(rows):
            self._rows.add("census", census_to_arrow(ts, reason, rows, self._namer))

    def code(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows of the table `code`; ip: the real address."""
        self.table("code", with_named_ips(rows, self._namer))

    def finish(self) -> Timeline:
        """The capture has ended: its timeline."""
        self._stream.finish()
        return Timeline(self._rows, self._stream)
