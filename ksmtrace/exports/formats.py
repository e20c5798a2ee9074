"""The formats there are: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO

from ksmtrace.exports.chrome import write_chrome
from ksmtrace.exports.perfetto import write_perfetto
from ksmtrace.exports.tables import Write, write_csv, write_parquet
from ksmtrace.exports.trace import Trace

WriteTrace = Callable[[Trace, BinaryIO, Callable[[float], None]], None]


@dataclass(frozen=True)
class TableFormat:
    """A format of tables: a file each. suffix: of the files; with a dash before, of the folder."""

    suffix: str
    write: Write
    binary: bool = False


@dataclass(frozen=True)
class TraceFormat:
    """A format of traces, one file. look: what opens it."""

    suffix: str
    write: WriteTrace
    look: str
    binary: bool = False


FORMATS: Mapping[str, TableFormat | TraceFormat] = MappingProxyType(
    {
        "csv": TableFormat("csv", write_csv),
        "parquet": TableFormat("parquet", write_parquet, binary=True),
        "perfetto": TraceFormat("pftrace", write_perfetto, "https://ui.perfetto.dev", binary=True),
        "chrome": TraceFormat(
            "json", write_chrome, "https://ui.perfetto.dev or, in older browsers, chrome://tracing"
        ),
    }
)
