"""Reading a recording, sealed or cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EventBatch
from ksmtrace.recording.arrow import arrow_schema, columns_from_arrow, events_from_arrow
from ksmtrace.recording.schema import FORMAT, MANIFEST, TABLES

_BATCH_ROWS = 1 << 17


_MANIFEST_TYPES: dict[str, Any] = {
    "kernel": str,
    "system": str | None,
    "backend": str,
    "backend_why": str,
    "clock.monotonic_ns": int,
    "cpus": int | None,
    "page_bytes": int,
    "memory_bytes": int | None,
    "fields_unknown": list,
    "knobs_set": dict,
    "ended": str | None,
    "duration_s": int | float | None,
    "notes": list | None,
    "doubts": list | None,
    "command": str | None,
}
"""What views count on; None also stands for a key that is missing."""


def _look_up(manifest: dict[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    value = manifest.get(first)
    return _look_up(value, rest) if rest and isinstance(value, dict) else value


def _same_type(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can be read; other tools write a dictionary's values plainly."""
    if pa.types.is_dictionary(wanted):
        return bool(stored in (wanted, wanted.value_type))
    return bool(stored == wanted)


def is_cut(manifest: dict[str, Any]) -> bool:
    """Whether the end is missing: the recorder was killed, or an imported text was cut."""
    ended = manifest.get("ended")
    return ended is None or ended.startswith("cut")


def is_uksm(manifest: dict[str, Any]) -> bool:
    """Whether UKSM's counters are what was recorded: then there are no events."""
    return manifest.get("system") == "uksm"


def _bad(message: str, hint: str | None = None) -> KsmtraceError:
    return KsmtraceError(message, hint, Exit.BAD_RECORDING)


class StoredRecording:
    """An opened recording: its manifest, and its tables on request.

    Raises KsmtraceError (exit code 4) for anything that is not a whole recording of a format that
    this version reads.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            found = self.path.exists()
        except OSError as error:
            raise _bad(f"{path} can't be read: {error.strerror}", "check the name") from None
        if not found:
            raise _bad(f"there is no {path}", "list recordings with: ls -d *.ksm")
        if not self.path.is_dir():
            raise _bad(f"{path} is a file; a recording is a folder", "name the .ksm folder")
        self.manifest = self._manifest()
        for name in TABLES:
            if self._file(name) is None and not TABLES[name].optional:
                raise _bad(
                    f"{path} is incomplete: its table {name} is missing",
                    "copy the whole folder again",
                )

    def _manifest(self) -> dict[str, Any]:
        try:
            text = (self.path / MANIFEST).read_text()
        except FileNotFoundError:
            raise _bad(
                f"{self.path} is not a ksmtrace recording: it has no {MANIFEST}",
                "recordings are made with: ksmtrace record -o NAME.ksm",
            ) from None
        except OSError as error:
            raise _bad(f"{self.path} can't be read: {error.strerror}", "try sudo") from None
        except UnicodeDecodeError:
            raise _bad(f"{self.path / MANIFEST} is damaged", "copy the folder again") from None
        try:
            manifest = json.loads(text)
            version = manifest["format"]
            newer = isinstance(version, int) and version > FORMAT
            whole = newer or all(
                isinstance(_look_up(manifest, key), kind) for key, kind in _MANIFEST_TYPES.items()
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _bad(f"{self.path / MANIFEST} is damaged", "copy the folder again") from None
        if not whole or not isinstance(version, int) or version < 1:
            raise _bad(f"{self.path / MANIFEST} is damaged", "copy the folder again")
        if version > FORMAT:
            raise _bad(
                f"{self.path} was made by a newer ksmtrace"
                f" (format {version}; this one reads up to {FORMAT})",
                "upgrade with: pip install -U ksmtrace",
            )
        return dict(manifest)

    def _file(self, name: str) -> Path | None:
        for path in (self.path / f"{name}.parquet", self.path / f"{name}.arrow"):
            if path.is_file():
                return path
        return None

    @property
    def cut(self) -> bool:
        """See `is_cut`."""
        return is_cut(self.manifest)

    def need_events(self) -> None:
        """Raises KsmtraceError (bad recording) if it is one of UKSM's counters."""
        if is_uksm(self.manifest):
            raise _bad(
                f"{self.path} is of a kernel with UKSM: it holds counters, and this needs events",
                f"see: ksmtrace report {self.path}",
            )

    def record_batches(
        self, name: str, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A table's rows, a chunk at a time. Of an unsealed table, as far as it was written.

        columns: those that are needed at least; None: all.
        """
        path = self._file(name)
        if path is None:
            return
        try:
            if path.suffix == ".parquet":
                with pq.ParquetFile(path) as file:
                    self._expect_columns(name, file.schema_arrow)
                    yield from file.iter_batches(_BATCH_ROWS, columns=columns)
            else:
                yield from self._unsealed(name, path)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise _bad(f"{path} is damaged ({reason})", "copy the folder again") from None

    def _unsealed(self, name: str, path: Path) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(path), "rb") as file:
            stream = pa.ipc.open_stream(file)
            self._expect_columns(name, stream.schema)
            while True:
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    return
                except (pa.ArrowException, OSError):
                    # The recorder was killed while it wrote this batch.
                    return
                yield batch

    def _expect_columns(self, name: str, schema: pa.Schema) -> None:
        for field in arrow_schema(name):
            index = schema.get_field_index(field.name)
            if index < 0 or not _same_type(schema.field(index).type, field.type):
                what = "no" if index < 0 else f"{schema.field(index).type} in its"
                raise _bad(
                    f"{self.path}: the table {name} has {what} column {field.name}",
                    "it is foreign or damaged; copy the folder again",
                )

    def table(self, name: str) -> pa.Table:
        """A whole table. Raises KeyError for a name that is none."""
        schema = arrow_schema(name)
        batches = list(self.record_batches(name))
        return pa.Table.from_batches(batches, None if batches else schema)

    def event_columns(self, slots: Sequence[str]) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The stream, in order: as `event_batches`, but each of the `slots` an array of its own."""
        batches = self.record_batches("events", slots)
        return (columns_from_arrow(batch, slots) for batch in batches)

    def event_batches(self) -> Iterator[EventBatch]:
        """The stream, in order."""
        return (events_from_arrow(batch) for batch in self.record_batches("events"))
