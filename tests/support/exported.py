"""A recording with a bit of everything, and what readers that are not ours make of its traces."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from support.batches import (
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)
from support.recordings import BEGIN, host_sample, make_recording

from ksmtrace.events.registry import (
    COW_BREAK,
    KERNEL_MODE,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    VIA_FORK,
)
from ksmtrace.exports.trace import Trace
from ksmtrace.recording.pseudonyms import Namer

MILLION = 1_000_000
HEAP, FILE, PAGE = 0x5555_5560_0000, 0x7F12_3400_0000, 4096
DB, GUEST, CHILD = 4242, 4999, 5003
MM = {DB: 0xFFFF_8881_0000_1000, GUEST: 0xFFFF_8881_0000_3000, CHILD: 0xFFFF_8881_0000_5000}
IP, KERNEL_IP = 0x7F12_AAAA_B123, 0xFFFF_FFFF_8123_4567
NAMES = {
    "sekrit-db", "/machine.slice/sekrit.scope", "sekrit-guest", "sekrit vm", "sekrit cache",
    "/home/sekrit/heap file.bin", "/opt/sekrit/lib.so", "sekrit-db --password sekrit-word",
    "sekrit-run.sh",
}  # fmt: skip


def _page(tgid: int, number: int, start: int = HEAP) -> dict[str, int]:
    item = 0xFFFF_8882_0000_0000 + tgid * 64 * 1024 + number * 64 + (start == FILE) * 32
    return {"tgid": tgid, "mm": MM[tgid], "addr": start + number * PAGE, "item": item}


def _rows() -> list[dict[str, Any]]:
    t = BEGIN
    rows = [
        event(KSM_ENTER, t + 1 * MILLION, mm=MM[DB], tgid=DB, arg=1),
        event(KSM_ENTER, t + 2 * MILLION, mm=MM[GUEST], tgid=GUEST, arg=1),
        event(KSM_ENTER, t + 3 * MILLION, mm=MM[CHILD], addr=DB, arg=VIA_FORK),
        scan_starts(7, t + 5 * MILLION, 60),
        scan_stops(7, t + 50 * MILLION, 60),
        event(KSM_ADVISOR, t + 50 * MILLION + 7, err=1, addr=1013, arg=3),
        scan_starts(8, t + 60 * MILLION, 60),
    ]
    for number in range(11):
        at = t + (61 + number) * MILLION
        rows += [
            makes_ksm_page(101 + number, at, **_page(DB, number)),
            joins_ksm_page(101 + number, at + 11, mapcount=2, **_page(GUEST, number, FILE)),
            joins_ksm_page(101 + number, at + 13, mapcount=3, **_page(CHILD, number)),
        ]
    rows += [
        scan_stops(8, t + 100 * MILLION, 60),
        event(KSM_ADVISOR, t + 100 * MILLION + 7, err=1, addr=2017, arg=5),
        loses(29, t + 110 * MILLION, cpu=1),
        scan_starts(9, t + 120 * MILLION, 60),
        event(
            COW_BREAK, t + 130 * MILLION + 1, pfn=101, mm=MM[DB], tgid=DB, addr=HEAP, item=IP
        ),
        event(
            COW_BREAK, t + 131 * MILLION, pfn=102, mm=MM[GUEST], tgid=GUEST, addr=FILE + PAGE,
            item=KERNEL_IP, arg=KERNEL_MODE,
        ),
        event(
            COW_BREAK, t + 132 * MILLION, pfn=103, mm=MM[DB], tgid=DB, addr=HEAP + 2 * PAGE,
            item=IP + 1,
        ),
        scan_stops(9, t + 160 * MILLION, 60),
        event(KSM_EXIT, t + 170 * MILLION, mm=MM[GUEST], tgid=GUEST),
        scan_starts(10, t + 180 * MILLION, 40),
    ]  # fmt: skip
    return rows


def _tables() -> dict[str, list[dict[str, Any]]]:
    identity = {"ts": BEGIN + 4 * MILLION, "what": "enter", "start_ticks": 5}
    samples = [
        host_sample(
            BEGIN + at * MILLION, "scan" if at else "start", pages_shared=shared,
            pages_sharing=sharing, pages_unshared=3, pages_volatile=5, ksm_zero_pages=zero,
            ksmd_cpu_ns=at * 300_000, full_scans=scans,
        )
        for at, shared, sharing, zero, scans in (
            (0, 0, 0, 0, 7), (50, 0, 0, 0, 8), (100, 11, 22, 1, 9), (160, 11, 19, 1, 10),
        )
    ]  # fmt: skip
    own = [
        {"ts": BEGIN + 101 * MILLION, "reason": "scan", "tgid": DB, "ksm_merging_pages": 11,
         "ksm_rmap_items": 20, "ksm_process_profit": 40_000, "ksm_zero_pages": 0},
    ]  # fmt: skip
    return {
        "counters": samples + own,
        "identities": [
            {**identity, "tgid": DB, "parent_tgid": 77, "comm": "sekrit-db",
             "cgroup": "/machine.slice/sekrit.scope",
             "cmdline": "sekrit-db --password sekrit-word"},
            {**identity, "tgid": GUEST, "parent_tgid": 1, "comm": "sekrit-guest", "vm": "sekrit vm",
             "cgroup": "/"},
            {**identity, "what": "fork", "tgid": CHILD, "parent_tgid": DB, "comm": "sekrit-db",
             "cgroup": "/machine.slice/sekrit.scope"},
        ],
        "regions": [
            {"ts": BEGIN + 4 * MILLION, "tgid": tgid, "start": start, "end": start + size * PAGE,
             "permissions": "rw-p", "name": name, "mergeable": True, "ksm_bytes": 0}
            for tgid, start, size, name in (
                (DB, HEAP, 40, "[heap]"),
                (DB, FILE, 20, "[anon:sekrit cache]"),
                (CHILD, HEAP, 40, "[heap]"),
                (GUEST, FILE, 40, "/home/sekrit/heap file.bin"),
            )
        ],
        "code": [
            {"ts": BEGIN, "tgid": DB, "ip": IP, "file": "/opt/sekrit/lib.so", "offset": 0xB123},
            {"ts": BEGIN, "tgid": GUEST, "ip": KERNEL_IP, "file": "[kernel]", "offset": 0x80,
             "symbol": "_copy_to_iter"},
        ],
    }  # fmt: skip


def busy_recording(
    path: Path,
    namer: Namer | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    **facts: Any,
) -> Path:
    """Three processes, three scans and a half, 11 KSM pages, breaks, a loss, the advisor.

    One of the writers' places is not known. By default pointers are stored raw. names: what to call
    things instead.
    """
    tables = {
        table: [
            {k: names.get(v, v) if isinstance(v, str) else v for k, v in row.items()}
            for row in rows
        ]
        for table, rows in _tables().items()
    }
    cow = {"seen_by": ["page_fault_user"], "obstacles": [], "write_faults": 31, "breaks": 3,
           "unchecked": 0, "locations_left_out": 1}  # fmt: skip
    told = {
        "pseudonyms": namer is not None,
        "kernel_build": "#1 SMP sekrit-build",
        "kernel": "6.18.2-sekrit",
        "command": "sekrit-run.sh",
        "cow": cow,
        **facts,
    }
    final = {"notes": ["/home/sekrit/heap file.bin and sekrit-db were seen at /srv/sekrit/x"]}
    return make_recording(
        path, [batch_of(_rows())], tables=tables, facts=told, namer=namer,
        final={"duration_s": 0.2, "command_status": 0, **final},
    )  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """One point as a reader sees it. ts, duration: nanoseconds, since the recording's start."""

    process: str
    track: str
    kind: str
    ts: int
    name: str | None = None
    duration: int | None = None
    value: float | None = None
    args: dict[str, Any] = field(default_factory=dict)


def written(trace: Trace, write: Callable[..., None]) -> bytes:
    """What a format makes of a trace."""
    sink = io.BytesIO()
    write(trace, sink)
    return sink.getvalue()


def read_chrome(raw: bytes) -> list[Shown]:
    """What the trace event format's document says that these events mean."""
    events = json.loads(raw)["traceEvents"]
    processes, threads = {}, {}
    for one in events:
        if one["ph"] == "M" and one["name"] == "process_name":
            assert one["pid"] not in processes
            processes[one["pid"]] = f"{one['args']['name']} {one['pid']}"
        if one["ph"] == "M" and one["name"] == "thread_name":
            assert (one["pid"], one["tid"]) not in threads
            threads[one["pid"], one["tid"]] = one["args"]["name"]
    shown = []
    for one in events:
        if one["ph"] == "M":
            continue
        ts = round(one["ts"] * 1000)
        if one["ph"] == "C":
            (value,) = one["args"].values()
            point = Shown(processes[one["pid"]], one["name"], "counter", ts, value=value)
        else:
            assert one["ph"] in ("X", "i")
            assert one["ph"] == "X" or one["s"] == "t"
            track = threads[one["pid"], one["tid"]]
            duration = round(one["dur"] * 1000) if one["ph"] == "X" else None
            kind = "slice" if one["ph"] == "X" else "instant"
            args = {
                name: int(value, 16) if isinstance(value, str) and value[:2] == "0x" else value
                for name, value in one["args"].items()
            }
            point = Shown(processes[one["pid"]], track, kind, ts, one["name"], duration, args=args)
        shown.append(point)
    return shown


def read_perfetto(raw: bytes) -> list[Shown]:
    """What Perfetto's documents say that these packets mean, parsed by its own library."""
    trace = pb.Trace.FromString(raw)
    trace.DiscardUnknownFields()
    assert trace.ByteSize() == len(raw), "there are fields that Perfetto does not know"
    begin = next(
        clock.timestamp
        for packet in trace.packet
        for clock in packet.clock_snapshot.clocks
        if clock.clock_id == pb.BUILTIN_CLOCK_MONOTONIC
    )
    names: dict[int, str] = {}
    arg_names: dict[int, str] = {}
    words: dict[int, str] = {}
    tracks: dict[int, Any] = {}
    open_slices: dict[int, tuple[int, str, dict[str, Any]]] = {}
    shown: list[Shown] = []
    clock = None
    for number, packet in enumerate(trace.packet):
        assert packet.trusted_packet_sequence_id == 1
        assert packet.first_packet_on_sequence == (number == 0)
        if packet.sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
            clock = packet.trace_packet_defaults.timestamp_clock_id
            continue
        assert packet.sequence_flags == pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        names |= {one.iid: one.name for one in packet.interned_data.event_names}
        arg_names |= {one.iid: one.name for one in packet.interned_data.debug_annotation_names}
        words |= {
            one.iid: one.str.decode() for one in packet.interned_data.debug_annotation_string_values
        }
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid
            assert descriptor.uuid not in tracks
            tracks[descriptor.uuid] = descriptor
        if not packet.HasField("track_event"):
            continue
        assert clock == pb.BUILTIN_CLOCK_MONOTONIC
        happened = packet.track_event
        track = tracks[happened.track_uuid]
        owner = tracks[track.parent_uuid].process
        process = f"{owner.process_name} {owner.pid}"
        ts = packet.timestamp - begin
        args = {arg_names[a.name_iid]: _annotation(a, words) for a in happened.debug_annotations}
        name = names[happened.name_iid] if happened.name_iid else ""
        if happened.type == pb.TrackEvent.TYPE_COUNTER:
            assert track.HasField("counter")
            which = happened.WhichOneof("counter_value_field")
            shown.append(Shown(process, track.name, "counter", ts, value=getattr(happened, which)))
        elif happened.type == pb.TrackEvent.TYPE_INSTANT:
            shown.append(Shown(process, track.name, "instant", ts, name, args=args))
        elif happened.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            assert track.uuid not in open_slices, "scans don't nest"
            open_slices[track.uuid] = (ts, name, args)
        else:
            assert happened.type == pb.TrackEvent.TYPE_SLICE_END
            begun, name, args = open_slices.pop(track.uuid)
            shown.append(Shown(process, track.name, "slice", begun, name, ts - begun, args=args))
    assert not open_slices
    return shown


def _annotation(one: Any, words: dict[int, str]) -> Any:
    which = one.WhichOneof("value")
    return words[one.string_value_iid] if which == "string_value_iid" else getattr(one, which)
