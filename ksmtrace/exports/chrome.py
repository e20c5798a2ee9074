"""The JSON trace event format, which Chrome's trace viewer and Perfetto's open.

Format: "Trace Event Format", the document that Chromium's trace viewer is built on. Slices are
complete events (X), merges and breaks thread-scoped instants (i), counters C, names M. Rows are put
together by Arrow, a column at a time, and go to disk as they are made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ksmtrace.exports.trace import Arg, Points, Trace

_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)]).view(np.uint8).reshape(256, 2)
_UNIT_NAMES = {"count": "count", "bytes": "bytes", "percent": "percent"}


def write_chrome(
    trace: Trace, sink: BinaryIO, progress: Callable[[float], None] = lambda _share: None
) -> None:
    """Write a trace. Times are microseconds since the recording's start. progress: share, 0..1."""
    told: dict[str, Any] = {"clock": "CLOCK_MONOTONIC", "begin_monotonic_ns": str(trace.begin_ns)}
    if trace.wall_ns is not None:
        told["begin_wall_ns"] = str(trace.wall_ns)
    head = f'{{"displayTimeUnit":"ms","otherData":{json.dumps(told)},"traceEvents":[\n'
    sink.write(head.encode())
    sink.write(",\n".join(map(json.dumps, _names(trace))).encode())
    done, total = 0, len(trace) or 1
    for points in trace.points:
        for part in points.parts():
            sink.write(_rows(trace, part))
            done += len(part)
            progress(done / total)
    sink.write(b"\n]}\n")


def _names(trace: Trace) -> Iterator[dict[str, Any]]:
    for number, process in enumerate(trace.processes):
        told: dict[str, Any] = {"process_name": {"name": process.name}}
        told["process_sort_index"] = {"sort_index": number}
        if process.labels:
            told["process_labels"] = {"labels": ",".join(process.labels)}
        for name, args in told.items():
            yield {"ph": "M", "pid": process.pid, "tid": 0, "ts": 0, "name": name, "args": args}
    for number, track in enumerate(trace.tracks):
        if track.kind != "counter":
            head = {"ph": "M", "pid": trace.processes[track.process].pid, "tid": _tid(number)}
            head["ts"] = 0
            yield {**head, "name": "thread_name", "args": {"name": track.name}}
            yield {**head, "name": "thread_sort_index", "args": {"sort_index": number}}


def _tid(track: Any) -> Any:
    return track + 1


def _rows(trace: Trace, part: Points) -> memoryview | bytes:
    """Events, each with a comma before it."""
    if not len(part):
        return b""
    pids = np.array([trace.processes[track.process].pid for track in trace.tracks], np.int64)
    pieces = [',\n{"ph":"', {"slice": "X", "instant": "i", "counter": "C"}[part.kind]]
    pieces += ['","pid":', _text(pids[part.track]), ',"ts":', _microseconds(part.ts, trace)]
    if part.kind == "counter":
        names = [json.dumps(track.name) for track in trace.tracks]
        units = [json.dumps(_UNIT_NAMES[track.unit]) for track in trace.tracks]
        pieces += [',"name":', _words(names, part.track)]
        pieces += [',"args":{', _words(units, part.track), ":", _text(part.value), "}}"]
        return _joined(pieces)
    assert part.name is not None
    pieces += [',"tid":', _text(_tid(part.track.astype(np.int64)))]
    pieces += [',"name":', _words([json.dumps(name) for name in part.names], part.name)]
    if part.kind == "slice":
        assert part.duration_ns is not None
        pieces += [',"dur":', _thousandths(part.duration_ns)]
    else:
        pieces.append(',"s":"t"')
    return _joined([*pieces, ',"cat":"ksm","args":{', *_arguments(part.args), "}}"])


def _joined(pieces: list[Any]) -> memoryview | bytes:
    rows = _side_by_side(pieces)
    offsets = np.frombuffer(rows.buffers()[1], np.int32)[rows.offset : rows.offset + len(rows) + 1]
    return memoryview(rows.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def _side_by_side(pieces: Sequence[Any]) -> pa.Array:
    scalars = [pa.scalar(piece) if isinstance(piece, str) else piece for piece in pieces]
    return pc.binary_join_element_wise(*scalars, "", null_handling="skip")


def _arguments(args: Sequence[Arg]) -> list[pa.Array]:
    """Each with a comma before it but the first."""
    return [pc.utf8_slice_codeunits(_side_by_side([_argument(a) for a in args]), 1)] if args else []


def _argument(arg: Arg) -> pa.Array:
    if arg.words is not None:
        text = _words([json.dumps(word) for word in arg.words], arg.values)
    elif arg.address:
        text = _hex(arg.values)
    else:
        text = _text(arg.values)
    whole = pc.binary_join_element_wise(pa.scalar(f",{json.dumps(arg.name)}:"), text, "")
    known = arg.known
    if arg.values.dtype.kind == "f":
        finite = np.isfinite(arg.values)
        known = finite if known is None else known & finite
    if known is None:
        return whole
    return pc.if_else(pa.array(known), whole, pa.scalar(None, pa.string()))


def _text(values: Any) -> pa.Array:
    return pc.cast(pa.array(values), pa.string())


def _words(words: list[str], positions: npt.NDArray[Any]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(positions))


def _microseconds(ts: npt.NDArray[np.int64], trace: Trace) -> pa.Array:
    return _thousandths(ts - trace.begin_ns)


def _thousandths(nanoseconds: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds with three places; none is negative."""
    places = pc.utf8_lpad(_text(nanoseconds % 1000), 3, "0")
    return pc.binary_join_element_wise(_text(nanoseconds // 1000), places, ".")


def _hex(values: npt.NDArray[np.uint64]) -> pa.Array:
    """Addresses as strings: JavaScript's numbers end at 2^53."""
    digits = _HEX[values.astype(">u8").view(np.uint8)].reshape(len(values), 16)
    text = np.empty((len(values), 20), np.uint8)
    text[:, :3] = np.frombuffer(b'"0x', np.uint8)
    text[:, 3:19] = digits
    text[:, 19] = ord('"')
    offsets = np.arange(len(values) + 1, dtype=np.int32) * 20
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)
