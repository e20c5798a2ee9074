"""A copy of a recording to pass on: what happened, without saying to whom.

Replaced are the names of programs, cgroups, guests, files and memory, process ids, addresses, and
kernel pointers if they were stored raw; command lines are left out. Of the manifest only that is
taken over which can't tell the host. Equal stays equal, so what can be computed from the original
can be computed from the copy.

It hides names: not how much memory there is, what became of it, or when (since boot).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ksmtrace.events.registry import KINDS, KSM_ENTER, VIA_FORK
from ksmtrace.recording.arrow import arrow_schema, no_rows, numbers
from ksmtrace.recording.disk import disk_errors
from ksmtrace.recording.pseudonyms import Namer, Pseudonyms, RawPointers
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import TABLES
from ksmtrace.recording.share_manifest import shared_manifest
from ksmtrace.recording.share_names import Names
from ksmtrace.recording.share_places import Places
from ksmtrace.recording.target import Target, private_files
from ksmtrace.recording.writer import seal_table, write_manifest

NAMED: Mapping[tuple[str, str], Callable[[Names, str], str | None]] = {
    ("identities", "comm"): lambda names, text: names.of("process", text),
    ("identities", "cgroup"): Names.of_cgroup,
    ("identities", "vm"): lambda names, text: names.of("vm", text),
    ("identities", "cmdline"): lambda _names, _text: None,
    ("regions", "name"): Names.of_mapping,
    ("code", "file"): Names.of_mapping,
    ("code", "symbol"): lambda _names, text: text,
}
"""The stored strings that may hold names. The others are words of the kernel's or of ksmtrace's."""
_PLACES = {"regions": ("start", "end"), "census": ("addr",), "contents": ("addr",)}
_PFNS = ("events", "census", "contents")
_KERNEL_ADDRESSES = {"events": ("item", "mm"), "code": ("ip",)}
_KERNEL = "[kernel]"


def share(
    recording: StoredRecording,
    target: Target,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Write a copy to pass on. Raises KsmtraceError where the recording is damaged.

    progress: the share that is done, 0..1. Memory: a few chunks of a table.
    """
    folder = target.begin()
    try:
        with disk_errors(target.path), private_files():
            _Copy(recording, folder, progress).make()
            target.publish()
        target.done()
    except BaseException:
        target.leave()
        raise


class _Copy:
    """One copy being made."""

    def __init__(
        self, recording: StoredRecording, folder: Path, progress: Callable[[float], None]
    ) -> None:
        self._recording = recording
        self._folder = folder
        self._progress = progress
        self._names = Names()
        self._places = Places()
        raw = recording.manifest.get("pseudonyms") is not True
        self._namer: Namer = Pseudonyms() if raw else RawPointers()
        # Without the lab's scenario nobody can tell from contents alone what ksmd had to do.
        self._left_out = ("contents", "ranks") if recording.manifest.get("lab") else ()
        # Every table is read twice: once to see what there is.
        self._steps = 2 * len(TABLES)
        self._done = 0

    def make(self) -> None:
        """Read, rename, write."""
        only_pids = self._recording.manifest.get("only_pids") or []
        self._places.see(np.array(only_pids, np.uint64))
        for name in TABLES:
            for batch in self._recording.record_batches(name):
                self._see(name, batch)
            self._step()
        rows = {}
        for name in TABLES:
            rows[name] = self._write(name)
            self._step()
        manifest = self._recording.manifest
        tgids = self._places.tgids(np.array(only_pids, np.uint64)).tolist()
        write_manifest(self._folder, shared_manifest(manifest, self._names, tgids, rows))

    def _step(self) -> None:
        self._done += 1
        self._progress(self._done / self._steps)

    def _see(self, name: str, batch: pa.RecordBatch) -> None:
        if "tgid" not in arrow_schema(name).names:
            return
        tgid = _values(batch, "tgid")
        self._places.see(tgid)
        for column in _PLACES.get(name, ()):
            self._places.see(tgid, _values(batch, column))
        if name == "identities":
            self._places.fork(_values(batch, "parent_tgid"), tgid)
        if name == "events":
            addr = _values(batch, "addr")
            addressed, parents = _addr_means(batch)
            self._places.see(tgid[addressed], addr[addressed])
            self._places.fork(addr[parents], tgid[parents])

    def _write(self, name: str) -> int:
        rows = 0
        schema = arrow_schema(name)
        path = self._folder / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            stream.write_batch(no_rows(name))
            batches = self._recording.record_batches(name) if name not in self._left_out else ()
            for batch in batches:
                stream.write_batch(self._renamed(name, batch))
                rows += batch.num_rows
        for _ in seal_table(self._folder, name):
            pass
        return rows

    def _renamed(self, name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {field.name: batch.column(field.name) for field in arrow_schema(name)}
        tgid = _values(batch, "tgid") if "tgid" in columns else np.zeros(len(batch), np.uint64)
        for column in ("tgid", "parent_tgid"):
            if column in columns:
                old = columns[column]
                columns[column] = _with_nulls(self._places.tgids(_values(batch, column)), old)
        for column in _PLACES.get(name, ()):
            moved = self._places.addresses(_values(batch, column), tgid)
            columns[column] = _with_nulls(moved, columns[column])
        if name == "events":
            columns["addr"] = self._event_addr(batch, tgid)
        if name in _PFNS:
            columns["pfn"] = _with_nulls(self._namer.pfns(_values(batch, "pfn")), columns["pfn"])
        for column in _KERNEL_ADDRESSES.get(name, ()):
            renamed = self._namer.addresses(_values(batch, column))
            columns[column] = _with_nulls(renamed, columns[column])
        if name == "code":
            known = pc.fill_null(pc.equal(columns["file"], _KERNEL), False)
            columns["symbol"] = pc.if_else(known, columns["symbol"], pa.scalar(None, pa.string()))
        for (table, column), rename in NAMED.items():
            if table == name:
                columns[column] = self._named(columns[column], rename)
        schema = arrow_schema(name)
        arrays = [_as(columns[field.name], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _event_addr(self, batch: pa.RecordBatch, tgid: npt.NDArray[Any]) -> pa.Array:
        addr = _values(batch, "addr")
        addressed, parents = _addr_means(batch)
        renamed = addr.copy()
        renamed[addressed] = self._places.addresses(addr[addressed], tgid[addressed])
        renamed[parents] = self._places.tgids(addr[parents])
        return _with_nulls(renamed, batch.column("addr"))

    def _named(self, column: pa.Array, rename: Callable[[Names, str], str | None]) -> pa.Array:
        texts = column.dictionary_encode()
        new = [rename(self._names, text) for text in texts.dictionary.to_pylist()]
        return pa.array(new, pa.string()).take(texts.indices)


def _values(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """A column of numbers, 0 where it is null."""
    column = batch.column(name)
    if column.null_count:
        column = column.fill_null(0)
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _with_nulls(values: npt.NDArray[Any], like: pa.Array) -> pa.Array:
    null = like.is_null().to_numpy(zero_copy_only=False) if like.null_count else None
    return numbers(np.ascontiguousarray(values), null)


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    # Another tool has rewritten the table: the kinds' names are strings, or another dictionary.
    encoded = column.cast(kind.value_type).dictionary_encode()
    return encoded.cast(kind)


def _addr_means(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of which events `addr` is an address of the process, and of which its parent's id."""
    kind = batch.column("kind").cast(pa.string())
    places = [each.name for each in KINDS if "addr" in each.fields]
    addressed = pc.is_in(kind, pa.array(places)).to_numpy(zero_copy_only=False)
    enters = pc.equal(kind, KSM_ENTER.name).fill_null(False).to_numpy(zero_copy_only=False)
    return addressed, enters & (_values(batch, "arg") == VIA_FORK)
