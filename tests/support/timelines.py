"""Timelines of hand-made streams, without a recording on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ksmtrace.events.batch import EventBatch
from ksmtrace.recording.arrow import rows_to_arrow
from ksmtrace.recording.schema import TABLES
from ksmtrace.timeline.aggregator import CHUNK
from ksmtrace.timeline.build import Timeline, stream_of
from ksmtrace.timeline.live import RowsInMemory
from tests.support.recordings import FACTS, FINAL


def timeline_in_memory(
    batches: Sequence[EventBatch],
    *,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    facts: Mapping[str, Any] | None = None,
    chunk: int = CHUNK,
) -> Timeline:
    """The timeline of a stream.

    tables: rows of the stored ones. facts: of the manifest. chunk: events aggregated at once.
    """
    stored = RowsInMemory({**FACTS, **FINAL, "ended": "duration", **(facts or {})})
    for name, rows in (tables or {}).items():
        stored.add(name, rows_to_arrow(TABLES[name], list(rows)))
    return Timeline(stored, stream_of(stored, batches, chunk=chunk))
