"""Writing a recording: Arrow streams while it runs, sealed to Parquet at the end.

Killed at any moment it leaves a folder that opens: everything is built in a hidden folder beside
the target and renamed once it is whole, and a stream that stops in the middle is readable up to
there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.batch import EventBatch, counts_by_kind, lost_count
from ksmtrace.events.registry import LOST
from ksmtrace.recording.arrow import (
    arrow_schema,
    census_to_arrow,
    events_to_arrow,
    no_rows,
    rows_to_arrow,
)
from ksmtrace.recording.pseudonyms import Namer, with_named_ips
from ksmtrace.recording.schema import FORMAT, MANIFEST, TABLES
from ksmtrace.recording.target import Target, give_to_user, private_files

_BUFFERED_EVENTS = 1 << 17
_BUFFERED_ROWS = 1 << 12
_FLUSH_SECONDS = 0.4
"""Whoever kills us loses at most this, and what was not read yet."""
_ROW_GROUP = 1 << 18
_COMPRESSION_LEVEL = 3


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace a folder's manifest in one step."""
    fresh = folder / (MANIFEST + ".new")
    fresh.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    fresh.replace(folder / MANIFEST)


class RecordingWriter:
    """An open recording. target: where, see `Target`. facts: what the manifest says from the start.

    partial: whether a part of it is worth keeping. Raises KsmtraceError where the disk is full or
    not writable; what was written stays readable, or goes if a part is worth nothing.
    """

    def __init__(
        self, target: Target, facts: Mapping[str, Any], namer: Namer, *, partial: bool = True
    ) -> None:
        self._target = target
        self._partial = partial
        self._begun = False
        self._namer = namer
        self._batches: list[EventBatch] = []
        self._buffered = 0
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}
        self._due = time.monotonic() + _FLUSH_SECONDS
        self.manifest: dict[str, Any] = {
            "format": FORMAT,
            **facts,
            "lost": 0,
            "ended": None,
            "sealed": False,
            "tables": {name: {"rows": None} for name in TABLES},
        }
        self.rows = dict.fromkeys(TABLES, 0)
        self._files: dict[str, pa.OSFile] = {}
        self._streams: dict[str, pa.RecordBatchStreamWriter] = {}
        self._broken = False
        try:
            self._begin(target)
        except BaseException:
            target.leave()
            raise

    def _begin(self, target: Target) -> None:
        with self.disk_errors():
            folder = target.begin()
            for name in TABLES:
                self._files[name] = pa.OSFile(str(folder / f"{name}.arrow"), "wb")
                stream = pa.ipc.new_stream(self._files[name], arrow_schema(name))
                # The schema is written with the first batch: a table without one would not open.
                stream.write_batch(no_rows(name))
                self._streams[name] = stream
            write_manifest(folder, self.manifest)
            target.publish()
        self._begun = True

    @property
    def folder(self) -> Path:
        """Where the recording is."""
        return self._target.path

    def events(self, batch: EventBatch) -> None:
        """Take a batch; it reaches the disk within half a second if `flush_if_due` is called."""
        if counts_by_kind(batch)[LOST.id]:
            self.manifest["lost"] += lost_count(batch)
        self._batches.append(batch)
        self._buffered += len(batch)
        if self._buffered >= _BUFFERED_EVENTS:
            self._flush()

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to one of the small tables; they too wait for the next flush."""
        waiting = self._waiting.setdefault(name, [])
        waiting.extend(rows)
        if len(waiting) >= _BUFFERED_ROWS:
            self._flush_table(name)

    def census(self, ts: int, reason: str, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Append a chunk of a census; rows: as `processes.census.CENSUS`."""
        if not len(rows):
            return
        self._write("census", census_to_arrow(ts, reason, rows, self._namer))

    def code(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows of the table `code`; ip: the real address, stored as events store it."""
        self.table("code", with_named_ips(rows, self._namer))

    def flush_if_due(self) -> None:
        """Hand what is buffered to the kernel if it has waited long enough."""
        if time.monotonic() >= self._due:
            self._flush_all()

    def _flush_all(self) -> None:
        self._flush()
        for name in self._waiting:
            self._flush_table(name)

    def _flush(self) -> None:
        if self._buffered:
            self._write("events", events_to_arrow(self._batches, self._namer))
        self._batches.clear()
        self._buffered = 0
        self._due = time.monotonic() + _FLUSH_SECONDS

    def _flush_table(self, name: str) -> None:
        rows = self._waiting[name]
        if rows:
            self._write(name, rows_to_arrow(TABLES[name], rows))
            rows.clear()

    def _write(self, name: str, batch: pa.RecordBatch) -> None:
        with self.disk_errors():
            self._streams[name].write_batch(batch)
        self.rows[name] += batch.num_rows

    def finish(
        self,
        ended: str,
        facts: Mapping[str, Any],
        progress: Callable[[float], None] = lambda _share: None,
    ) -> None:
        """End the recording: say how it ended, then seal each table. progress: share done, 0..1."""
        self._flush_all()
        self._close_streams()
        self.manifest.update(facts)
        self.manifest["events"] = self.rows["events"]
        self.manifest["ended"] = ended
        with self.disk_errors():
            write_manifest(self.folder, self.manifest)
            total = sum(self.rows.values()) or 1
            done = 0
            for name in TABLES:
                try:
                    for rows in seal_table(self.folder, name):
                        done += rows
                        progress(done / total)
                except BaseException:
                    (self.folder / f"{name}.parquet.new").unlink(missing_ok=True)
                    raise
                self.manifest["tables"][name]["rows"] = self.rows[name]
            self.manifest["sealed"] = True
            write_manifest(self.folder, self.manifest)
        self._target.done()

    def abandon(self, ended: str) -> Path | None:
        """End without sealing, after an error: keep what is there and, if possible, say why.

        Where a part is worth nothing it goes, and what it was to replace comes back. Returns where
        the recording is that this one was to replace, if it was and is not back.
        """
        if not self._partial:
            with contextlib.suppress(OSError, KsmtraceError, pa.ArrowInvalid):
                self._close_streams()
            self._target.discard()
            return None
        with contextlib.suppress(OSError, KsmtraceError, pa.ArrowInvalid):
            # Behind a half-written message nothing could be read any more.
            if not self._broken:
                self._flush_all()
                self._close_streams()
        self.manifest["ended"] = ended
        with contextlib.suppress(OSError), private_files():
            write_manifest(self.folder, self.manifest)
        return self._target.leave()

    def _close_streams(self) -> None:
        with self.disk_errors():
            for name, stream in self._streams.items():
                stream.close()
                self._files[name].close()
            self._streams.clear()

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """For all that is written to the recording's folder: tells errors, and what is kept then.

        Raises KsmtraceError in place of OSError.
        """
        try:
            with private_files():
                yield
        except OSError as error:
            self._broken = True
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise KsmtraceError(
                    f"no space left for {self._target.path}",
                    f"{self._kept()}; free some space or use another disk",
                ) from error
            raise KsmtraceError(
                f"{self._target.path} can't be written: {os.strerror(error.errno or errno.EIO)}",
                self._kept(),
            ) from error

    def _kept(self) -> str:
        if not self._begun:
            return "nothing was recorded"
        if not self._partial:
            return "the unfinished recording was removed"
        return "what was recorded until then is kept"


def seal_table(folder: Path, name: str) -> Iterator[int]:
    """Turn a table's Arrow stream into Parquet, a row group at a time; yields rows done.

    The Parquet file appears whole or not at all; then the stream goes.
    """
    source = folder / f"{name}.arrow"
    fresh = folder / f"{name}.parquet.new"
    columns = TABLES[name].columns
    encodings = {c.name: c.encoding for c in columns if c.encoding}
    dictionary = [c.name for c in columns if not c.encoding]
    with (
        pa.OSFile(str(source), "rb") as file,
        pa.ipc.open_stream(file) as stream,
        pq.ParquetWriter(
            fresh,
            stream.schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=dictionary,
            column_encoding=encodings or None,
            write_statistics=["ts"],
        ) as writer,
    ):
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in stream:
            waiting.append(batch)
            rows += batch.num_rows
            if rows >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                yield rows
                waiting, rows = [], 0
        if rows:
            writer.write_table(pa.Table.from_batches(waiting))
            yield rows
    give_to_user(fresh)
    fresh.replace(folder / f"{name}.parquet")
    source.unlink()
