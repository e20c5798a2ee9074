"""Between our tables and pyarrow's. The only place that knows both."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import BY_ID, SLOTS, role_of
from ksmtrace.recording.pseudonyms import Namer
from ksmtrace.recording.schema import KIND_NAMES, TABLES, Table

Mask = npt.NDArray[np.bool_]

_POINTER_SLOTS = {"pfn": "pfns", "item": "addresses", "mm": "addresses"}


@functools.cache
def arrow_schema(name: str) -> pa.Schema:
    """The schema of a stored table."""
    return pa.schema([(c.name, _arrow_type(c.type)) for c in TABLES[name].columns])


def _arrow_type(name: str) -> pa.DataType:
    if name == "kind":
        return pa.dictionary(pa.int8(), pa.string())
    return pa.bool_() if name == "bool" else getattr(pa, name)()


@functools.cache
def _null_rules(slot: str) -> tuple[Mask, Mask]:
    """For each kind id: is the slot unused (always null), and does its zero mean unknown."""
    roles = [role_of(BY_ID[i], slot) if i in BY_ID else "value" for i in range(len(KIND_NAMES))]
    return np.array([r is None for r in roles]), np.array([r not in (None, "value") for r in roles])


def _nulls(
    slot: str, kind: npt.NDArray[np.int8], present: npt.NDArray[np.intp], values: npt.NDArray[Any]
) -> Mask | None:
    """Which values of a slot are not known; None if all are. present: the kinds there are."""
    unused, zero_is_unknown = (rule[present] for rule in _null_rules(slot))
    if not unused.any() and (not zero_is_unknown.any() or values.all()):
        return None
    if unused.all():
        return np.ones(len(values), bool)
    unused, zero_is_unknown = _null_rules(slot)
    null: Mask = unused[kind] | (zero_is_unknown[kind] & (values == 0))
    return null


# Arrays are put together from buffers because pa.array() imports pandas on its first call, which
# takes half a second in the middle of a capture.


def numbers(values: npt.NDArray[Any], null: Mask | None = None) -> pa.Array:
    """An Arrow array of numpy numbers or booleans; null: which are not known."""
    validity = None
    if null is not None and null.any():
        validity = pa.py_buffer(np.packbits(~null, bitorder="little"))
    if values.dtype == bool:
        packed = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [validity, pa.py_buffer(packed)])
    kind = pa.from_numpy_dtype(values.dtype)
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [validity, data])


def texts(values: Sequence[str | None]) -> pa.Array:
    """An Arrow array of strings; None is null."""
    null = np.array([value is None for value in values], bool)
    raw = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(raw) + 1, np.int32)
    np.cumsum([len(text) for text in raw], out=offsets[1:])
    validity = pa.py_buffer(np.packbits(~null, bitorder="little"))
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)


def events_to_arrow(batches: Sequence[EventBatch], namer: Namer) -> pa.RecordBatch:
    """Batches, one at least, as they are stored: pointers renamed, what a kind doesn't say null."""
    kind = np.concatenate([batch["kind"] for batch in batches]).astype(np.int8)
    present = np.flatnonzero(np.bincount(kind))
    columns: list[pa.Array] = []
    for slot in SLOTS:
        if slot.name == "kind":
            columns.append(pa.DictionaryArray.from_arrays(numbers(kind), texts(KIND_NAMES)))
            continue
        values = np.concatenate([batch[slot.name] for batch in batches])
        null = _nulls(slot.name, kind, present, values)
        if slot.name in _POINTER_SLOTS:
            values = getattr(namer, _POINTER_SLOTS[slot.name])(values)
        columns.append(numbers(values, null))
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema("events"))


def columns_from_arrow(
    table: pa.Table | pa.RecordBatch, slots: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """The inverse, but for names of pointers, an array a slot: a null is a zero again."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for slot in slots:
        column = table.column(slot)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if slot == "kind":
            if not isinstance(column, pa.DictionaryArray):
                # Another tool has rewritten the table.
                column = column.cast(pa.string()).dictionary_encode()
            ids = {name: number for number, name in enumerate(KIND_NAMES)}
            here = np.array([ids.get(n, 0) for n in column.dictionary.to_pylist()], np.uint16)
            columns["kind"] = here[column.indices.to_numpy(zero_copy_only=False)]
            continue
        if column.null_count:
            column = column.fill_null(0)
        columns[slot] = column.to_numpy(zero_copy_only=False)
    return columns


def events_from_arrow(table: pa.Table | pa.RecordBatch) -> EventBatch:
    """The same as a batch."""
    batch = np.zeros(table.num_rows, EVENT)
    for name, column in columns_from_arrow(table, EVENT.names or ()).items():
        batch[name] = column
    return batch


def rows_to_arrow(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows of a small table; a key that is missing is null."""
    columns = []
    for column in table.columns:
        values = [row.get(column.name) for row in rows]
        if column.type == "string":
            columns.append(texts(values))
            continue
        dtype = np.dtype(column.type)
        null = np.array([value is None for value in values], bool)
        filled = [0 if value is None else value for value in values]
        columns.append(numbers(np.array(filled, dtype), null))
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema(table.name))


def no_rows(name: str) -> pa.RecordBatch:
    """An empty batch of a stored table."""
    schema = arrow_schema(name)
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)


def census_to_arrow(
    ts: int, reason: str, rows: npt.NDArray[np.void], namer: Namer
) -> pa.RecordBatch:
    """A chunk of a census; rows: as `processes.census.CENSUS`."""
    columns = [
        numbers(np.full(len(rows), ts, np.uint64)),
        texts([reason] * len(rows)),
        numbers(rows["tgid"]),
        numbers(rows["addr"]),
        numbers(namer.pfns(np.ascontiguousarray(rows["pfn"]))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema("census"))
