"""Tables as CSV and Parquet: what is not known is empty, or null."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd

Write = Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], None]

_ROWS_AT_ONCE = 1 << 17


def frame_batches(frame: pd.DataFrame) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A DataFrame as Arrow. Its dtypes are noted: pandas gets them back from Parquet."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.schema, iter(table.to_batches(_ROWS_AT_ONCE))


def write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    """Write CSV with a head line. Strings are quoted, so an empty one is not what is not known."""
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])
    with pa.csv.CSVWriter(sink, plain) as writer:
        for batch in batches:
            writer.write_batch(batch.cast(plain))


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) else kind


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    """Write Parquet, as compressed as a recording."""
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
