"""A recording's timeline: the stream aggregated once, each table derived when first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.releases import checksum_comes_first
from ksmtrace.recording.ahead import read_ahead
from ksmtrace.timeline import (
    accounts as accounts_table,
)
from ksmtrace.timeline import (
    advisor as advisor_table,
)
from ksmtrace.timeline import (
    break_table,
    page_table,
    process_tables,
    scan_table,
)
from ksmtrace.timeline.aggregator import CHUNK, SLOTS, Aggregator
from ksmtrace.timeline.before import add_lives_of_before
from ksmtrace.timeline.context import Context, Tables
from ksmtrace.timeline.ends import Ends, ends_of
from ksmtrace.timeline.merging import Columns
from ksmtrace.timeline.regions import Regions, regions_of
from ksmtrace.timeline.scans import Scans, begun_in, scans_of

if TYPE_CHECKING:
    import pandas as pd

    from ksmtrace.recording.reader import StoredRecording


def timeline_of(recording: StoredRecording) -> Timeline:
    """The timeline of a recording. Raises KsmtraceError (bad recording) for one without events."""
    recording.need_events()
    return Timeline(recording, stream_of(recording, read_ahead(_columns(recording))))


def _columns(recording: StoredRecording) -> Iterator[Columns]:
    """A stored stream, less what nothing looks at: reading a column takes time."""
    manifest = recording.manifest
    if "addr" in manifest["fields_unknown"] or manifest.get("cow"):
        yield from recording.event_columns(SLOTS)
        return
    # Pages are told by address, and no break has an instruction pointer.
    for columns in recording.event_columns([slot for slot in SLOTS if slot != "item"]):
        yield {**columns, "item": columns["addr"]}


def stream_of(tables: Tables, batches: Iterable[Columns], *, chunk: int = CHUNK) -> Aggregator:
    """Aggregate a recording's stream, in whatever batches it comes."""
    stream = aggregator_for(tables, chunk=chunk)
    for batch in batches:
        stream.feed(batch)
    stream.finish()
    return stream


def aggregator_for(tables: Tables, *, chunk: int = CHUNK) -> Aggregator:
    """An aggregator that knows what the recording's source can't tell."""
    manifest = tables.manifest
    unknown = manifest["fields_unknown"]
    return Aggregator(
        first_sight_known="first_sight" not in unknown and checksum_comes_first(manifest["kernel"]),
        addresses_known="addr" not in unknown,
        chunk=chunk,
    )


class Timeline:
    """What happened, as tables (docs/timeline-tables.md). recording: the stored tables.

    stream: the recording's events, aggregated and finished.
    """

    def __init__(self, recording: Tables, stream: Aggregator) -> None:
        self.recording = recording
        self.stream = stream
        self.context = Context(recording)

    @cached_property
    def sees_breaks(self) -> bool:
        """Whether nothing that ends a mapping went unseen."""
        return break_table.sees_all(self.stream, self.context)

    @cached_property
    def index(self) -> Scans:
        """The scans, and which one an event belongs to."""
        return scans_of(self.stream)

    @cached_property
    def ends(self) -> Ends:
        """How each life ended; those of before the recording are added to the stream first."""
        if not self.context.manifest["fields_unknown"].count("addr"):
            add_lives_of_before(self.stream, self.context.census("start"))
        return ends_of(self.stream, self.context, self.index, sees_breaks=self.sees_breaks)

    @cached_property
    def regions(self) -> Regions:
        """The mappings, and which one each life lies in."""
        _ = self.ends
        return regions_of(self.stream, self.context)

    @cached_property
    def merged_in(self) -> npt.NDArray[np.int64]:
        """The scan in which each life began, -1 for before."""
        return page_table.merged_in(self.stream, self.index, self.ends)

    @cached_property
    def scans(self) -> pd.DataFrame:
        """See `tables.TABLES`, as of all that follow."""
        told_in = begun_in(self.stream, self.index)
        return scan_table.scans(self.stream, self.context, self.index, told_in)

    @cached_property
    def pages(self) -> pd.DataFrame:
        """Each merged page's life."""
        return page_table.pages(
            self.stream, self.index, self.ends, self.merged_in, self.regions.of_life
        )

    @cached_property
    def stable_pages(self) -> pd.DataFrame:
        """Each KSM page."""
        return page_table.stable_pages(self.stream, self.context, self.index, self.ends)

    @cached_property
    def _shared(self) -> process_tables.Shared:
        return process_tables.shared_growth(self.stream, self.ends, self.regions)

    @cached_property
    def processes(self) -> pd.DataFrame:
        """Each address space."""
        return process_tables.processes(self.stream, self.context, self.ends, self._shared)

    @cached_property
    def process_history(self) -> pd.DataFrame:
        """Each address space, scan by scan."""
        return process_tables.process_history(
            self.stream, self.context, self.index, self.ends, self.merged_in
        )

    @cached_property
    def region_ledger(self) -> pd.DataFrame:
        """Each mapping in which pages merged."""
        return process_tables.region_ledger(
            self.stream, self.context, self.ends, self.regions, self._shared
        )

    @cached_property
    def region_history(self) -> pd.DataFrame:
        """Each mapping, scan by scan."""
        return process_tables.region_history(
            self.context, self.index, self.ends, self.merged_in, self.regions
        )

    @cached_property
    def breaks(self) -> pd.DataFrame:
        """Each write to a merged page that was seen."""
        _ = self.ends
        return break_table.breaks(self.stream, self.context, self.index)

    @cached_property
    def advisor(self) -> pd.DataFrame:
        """The advisor's decisions."""
        return advisor_table.advisor(self.stream, self.context, self.index)

    @cached_property
    def accounts(self) -> pd.DataFrame:
        """Events against counters."""
        return accounts_table.accounts(
            self.stream, self.context, self.index, self.ends, sees_breaks=self.sees_breaks
        )
