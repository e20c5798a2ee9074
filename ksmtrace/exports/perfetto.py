"""Perfetto's native format: a Trace of TracePackets.

Few of its messages are needed here, so they are encoded by `protobuf` and nothing is to be
installed; a dependency on the 5 MB of Google's and Perfetto's Python packages would encode packet
by packet, a hundred times slower. The tests read what is written with just these packages.

Field numbers: protos/perfetto/trace in Perfetto's source, stable by that project's rules. Times
stay those of CLOCK_MONOTONIC, and a clock snapshot says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from ksmtrace.exports.protobuf import Rows, double, message, nested, texts, whole
from ksmtrace.exports.trace import Arg, Ints, Points, Trace

_TRACE_PACKET = 1
# TracePacket
_CLOCK_SNAPSHOT, _TIMESTAMP, _SEQUENCE, _TRACK_EVENT, _INTERNED, _FLAGS = 6, 8, 10, 11, 12, 13
_CLOCK_ID, _DEFAULTS, _TRACK_DESCRIPTOR, _FIRST_PACKET = 58, 59, 60, 87
_STATE_CLEARED, _NEEDS_STATE = 1, 2
# ClockSnapshot
_REALTIME, _MONOTONIC = 1, 3
# InternedData
_EVENT_NAMES, _ARG_NAMES, _ARG_WORDS = 2, 3, 29
# TrackEvent
_ARGS, _TYPE, _NAME_IID, _TRACK_UUID, _COUNTER_VALUE, _COUNTER_DOUBLE = 4, 9, 10, 11, 30, 44
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
# DebugAnnotation
_ARG_NAME_IID, _BOOL, _UINT, _INT, _DOUBLE, _POINTER, _WORD_IID = 1, 2, 3, 4, 5, 7, 17
_UNITS = {"count": 2, "bytes": 3, "percent": 0}
_ONE_SEQUENCE = 1
_AT_ONCE = 1 << 12
"""Descriptors encoded together: the longest name makes all of them as wide."""


def write_perfetto(
    trace: Trace, sink: BinaryIO, progress: Callable[[float], None] = lambda _share: None
) -> None:
    """Write a trace. progress: the share that is done, 0..1."""
    names = _numbered(name for points in trace.points for name in points.names)
    args = _numbered(arg.name for points in trace.points for arg in points.args)
    words = _numbered(w for points in trace.points for arg in points.args for w in arg.words or ())
    sink.write(_packets(_first()))
    sink.write(_packets(_on_sequence(_clock(trace))))
    for number, table in ((_EVENT_NAMES, names), (_ARG_NAMES, args), (_ARG_WORDS, words)):
        sink.writelines(
            _packets(_on_sequence(nested(_INTERNED, nested(number, content))))
            for content in _interned(table)
        )
    sink.writelines(
        _packets(_on_sequence(nested(_TRACK_DESCRIPTOR, content)))
        for content in _descriptors(trace)
    )
    done, total = 0, len(trace) or 1
    for points in trace.points:
        for part in points.parts():
            sink.write(_packets(_events(trace, part, names, args, words)))
            done += len(part)
            progress(done / total)


def _packets(content: Rows) -> bytes:
    return nested(_TRACE_PACKET, content).to_bytes()


def _same(value: int, rows: int) -> Ints:
    return np.full(rows, value, np.int64)


def _numbered(values: Iterable[str]) -> dict[str, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(values), 1)}


def _on_sequence(content: Rows) -> Rows:
    rows = len(content.data)
    return message(
        content,
        whole(_SEQUENCE, _same(_ONE_SEQUENCE, rows)),
        whole(_FLAGS, _same(_NEEDS_STATE, rows)),
    )


def _first() -> Rows:
    """Begins the sequence, whose times are all of one clock."""
    one = _same(1, 1)
    return message(
        nested(_DEFAULTS, whole(_CLOCK_ID, _same(_MONOTONIC, 1))),
        whole(_SEQUENCE, one * _ONE_SEQUENCE),
        whole(_FLAGS, one * _STATE_CLEARED),
        whole(_FIRST_PACKET, one),
    )


def _clock(trace: Trace) -> Rows:
    moments = {_MONOTONIC: trace.begin_ns}
    if trace.wall_ns is not None:
        moments[_REALTIME] = trace.wall_ns
    clocks = [
        nested(1, message(whole(1, _same(clock, 1)), whole(2, np.array([now], np.uint64))))
        for clock, now in moments.items()
    ]
    return nested(_CLOCK_SNAPSHOT, message(*clocks, whole(2, _same(_MONOTONIC, 1))))


def _interned(table: dict[str, int]) -> Iterable[Rows]:
    values = list(table)
    for first in range(0, len(values), _AT_ONCE):
        part = values[first : first + _AT_ONCE]
        numbers = np.arange(first + 1, first + 1 + len(part))
        yield message(whole(1, numbers), texts(2, part))


def _process_uuids(trace: Trace) -> Ints:
    return np.arange(1, len(trace.processes) + 1)


def _track_uuids(trace: Trace) -> Ints:
    return np.arange(1, len(trace.tracks) + 1) + len(trace.processes)


def _descriptors(trace: Trace) -> Iterator[Rows]:
    uuids = _process_uuids(trace)
    for first in range(0, len(trace.processes), _AT_ONCE):
        processes = trace.processes[first : first + _AT_ONCE]
        numbers = np.arange(first, first + len(processes))
        content = [
            whole(1, np.array([process.pid for process in processes])),
            whole(3, numbers),
            texts(6, [process.name for process in processes]),
        ]
        for place in range(max(len(process.labels) for process in processes)):
            has = np.array([place < len(process.labels) for process in processes])
            labels = [p.labels[place] if h else "" for p, h in zip(processes, has, strict=True)]
            content.append(texts(8, labels).only(has))
        yield message(whole(1, uuids[numbers]), nested(3, message(*content)))
    own = _track_uuids(trace)
    for first in range(0, len(trace.tracks), _AT_ONCE):
        tracks = trace.tracks[first : first + _AT_ONCE]
        units = whole(3, np.array([_UNITS[track.unit] for track in tracks]))
        counter = message(units, texts(6, [_unit_name(track.unit) for track in tracks]))
        counts = np.array([track.kind == "counter" for track in tracks])
        yield message(
            whole(1, own[first : first + len(tracks)]),
            texts(2, [track.name for track in tracks]),
            whole(5, uuids[[track.process for track in tracks]]),
            nested(8, counter, counts),
        )


def _unit_name(unit: str) -> str:
    return {"percent": "%"}.get(unit, "")


def _events(
    trace: Trace,
    part: Points,
    names: dict[str, int],
    arg_names: dict[str, int],
    words: dict[str, int],
) -> Rows:
    uuid = _track_uuids(trace)[part.track]
    on_track = whole(_TRACK_UUID, uuid)
    if part.kind == "counter":
        assert part.value is not None
        decimal = part.value.dtype.kind == "f"
        value = (double if decimal else whole)(
            _COUNTER_DOUBLE if decimal else _COUNTER_VALUE, part.value
        )
        kind = whole(_TYPE, _same(_COUNTER, len(part)))
        return _at(part.ts, message(kind, on_track, value))
    assert part.name is not None
    name = whole(_NAME_IID, _iids(part.names, names)[part.name])
    details = [nested(_ARGS, _annotation(arg, arg_names, words), arg.known) for arg in part.args]
    kind = whole(_TYPE, _same(_BEGIN if part.kind == "slice" else _INSTANT, len(part)))
    begins = _at(part.ts, message(*details, kind, name, on_track))
    if part.kind == "instant":
        return begins
    assert part.duration_ns is not None
    ends = message(whole(_TYPE, _same(_END, len(part))), on_track)
    return _in_turn(begins, _at(part.ts + part.duration_ns, ends))


def _at(ts: Ints, event: Rows) -> Rows:
    return _on_sequence(message(whole(_TIMESTAMP, ts), nested(_TRACK_EVENT, event)))


def _in_turn(first: Rows, second: Rows) -> Rows:
    """A row of the one, a row of the other: a slice ends before the next begins."""
    width = max(first.data.shape[1], second.data.shape[1])
    data = np.zeros((2 * len(first.data), width), np.uint8)
    used = np.zeros(data.shape, bool)
    for at, rows in enumerate((first, second)):
        data[at::2, : rows.data.shape[1]] = rows.data
        used[at::2, : rows.used.shape[1]] = rows.used
    return Rows(data, used)


def _iids(values: Sequence[str], table: dict[str, int]) -> Ints:
    return np.array([table[value] for value in values], np.int64)


def _annotation(arg: Arg, names: dict[str, int], words: dict[str, int]) -> Rows:
    name = whole(_ARG_NAME_IID, _same(names[arg.name], len(arg.values)))
    if arg.words is not None:
        # What is not known has no word: any will do, for it is not written.
        numbers = _iids(arg.words, words) if arg.words else _same(0, 1)
        return message(name, whole(_WORD_IID, numbers[arg.values]))
    kind = arg.values.dtype.kind
    if arg.address:
        return message(name, whole(_POINTER, arg.values))
    if kind == "f":
        return message(name, double(_DOUBLE, arg.values))
    return message(name, whole({"b": _BOOL, "u": _UINT}.get(kind, _INT), arg.values))
