"""What a recording holds: its tables, their columns and units, and its format version.

A recording is a folder with `manifest.json` and one file a table: Arrow IPC streams while it is
being made, Parquet once it is sealed. `docs/recording.md` is generated from what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ksmtrace.events.registry import KINDS, SLOTS
from ksmtrace.kernel import uksm
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS

FORMAT = 1
"""Raised when a reader of the format before could misread a recording."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Column:
    """A stored column. type: a pyarrow type's name. Every column but ts may be null: not known."""

    name: str
    type: str
    meaning: str
    encoding: str | None = None


@dataclass(frozen=True)
class Table:
    """A stored table."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    only_with: str | None = None
    """The option that fills it; None: it always has rows."""

    @property
    def optional(self) -> bool:
        """Whether a recording may lack it; then it has no rows."""
        return self.only_with is not None


_TS = Column("ts", "uint64", "nanoseconds of CLOCK_MONOTONIC")
_ARROW_OF_NUMPY = {
    "<u8": "uint64",
    "<u4": "uint32",
    "<i4": "int32",
    "<u2": "uint16",
}
_CONTENTS = "`record --contents` or `lab run --record`"
_EVENT_ENCODINGS = {
    "ts": "DELTA_BINARY_PACKED",
    "item": "BYTE_STREAM_SPLIT",
    "addr": "DELTA_BINARY_PACKED",
}


def _event_column(slot_name: str, numpy: str, meaning: str) -> Column:
    if slot_name == "kind":
        return Column("kind", "kind", "the event kind's name, see docs/events.md")
    return Column(slot_name, _ARROW_OF_NUMPY[numpy], meaning, _EVENT_ENCODINGS.get(slot_name))


def _counter_columns() -> tuple[Column, ...]:
    shared = {"ksm_zero_pages": "; with a tgid: of that process"}
    counters = tuple(
        Column(c.name, "int64", f"{c.meaning} ({c.unit}, since {c.since}){shared.get(c.name, '')}")
        for c in COUNTERS
    )
    knobs = tuple(Column(f"knob_{k.name}", "string", k.meaning) for k in KNOBS)
    return counters + knobs


def _uksm_columns() -> tuple[Column, ...]:
    counters = tuple(Column(c.name, "int64", f"{c.meaning} ({c.unit})") for c in uksm.COUNTERS)
    knobs = tuple(Column(f"knob_{k.name}", "string", k.meaning) for k in uksm.KNOBS)
    return counters + knobs


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        table.name: table
        for table in (
            Table(
                "events",
                "the stream, in the order of arrival",
                tuple(_event_column(s.name, s.numpy, s.meaning) for s in SLOTS),
            ),
            Table(
                "counters",
                "samples of sysfs, vmstat and ksmd (tgid null) and of ksm_stat (tgid set)",
                (
                    _TS,
                    Column("reason", "string", "start, scan, interval, step (in the lab) or end"),
                    Column("seq", "uint64", "the last full scan that had ended, if reason is scan"),
                    Column("tgid", "uint32", "the process; null for the host"),
                    *_counter_columns(),
                ),
            ),
            Table(
                "identities",
                "processes that are or were registered, as they come, change and go",
                (
                    _TS,
                    Column("what", "string", "present, enter, fork, exec, comm or exit"),
                    Column("tgid", "uint32", "process id"),
                    Column("parent_tgid", "uint32", "its parent's process id"),
                    Column("start_ticks", "uint64", "start since boot in clock ticks"),
                    Column("comm", "string", "name; control characters escaped"),
                    Column("cgroup", "string", "cgroup path"),
                    Column("vm", "string", "a QEMU guest's name"),
                    Column("cmdline", "string", "arguments, only with --cmdlines"),
                ),
            ),
            Table(
                "regions",
                "mappings that ksmd scans or that hold KSM pages",
                (
                    _TS,
                    Column("tgid", "uint32", "process id"),
                    Column("start", "uint64", "first virtual address"),
                    Column("end", "uint64", "virtual address after the last"),
                    Column("permissions", "string", "as in /proc/PID/maps"),
                    Column("name", "string", "[heap], [stack], [anon:...], a file, or nothing"),
                    Column("mergeable", "bool", "VM_MERGEABLE is set"),
                    Column("ksm_bytes", "int64", "mapped KSM pages, in bytes (since 6.6)"),
                ),
            ),
            Table(
                "census",
                "which KSM page each registered process maps where, at some moments",
                (
                    _TS,
                    Column("reason", "string", "start, interval or end"),
                    Column("tgid", "uint32", "process id"),
                    Column("addr", "uint64", "virtual address"),
                    Column("pfn", "uint64", "frame of the KSM page, named as in events"),
                ),
            ),
            Table(
                "contents",
                "what mergeable pages held before and after each full scan, while ksmd stood"
                " still: a row where that differs from the row before",
                (
                    _TS,
                    Column("seq", "uint64", "the full scan"),
                    Column("phase", "string", "before or after it"),
                    Column("tgid", "uint32", "process id"),
                    Column("addr", "uint64", "virtual address"),
                    Column("digest", "uint64", "keyed digest of the page; null: no page there"),
                    Column("pfn", "uint64", "its frame, named as in events"),
                    Column("ksm", "bool", "it is a KSM page"),
                ),
                only_with=_CONTENTS,
            ),
            Table(
                "ranks",
                "the order of all contents, as memcmp() has it, which a digest loses",
                (
                    _TS,
                    Column("digest", "uint64", "as in contents"),
                    Column("rank", "uint64", "how many contents of this recording are smaller"),
                    Column("zero", "bool", "it is the page full of zeroes"),
                ),
                only_with=_CONTENTS,
            ),
            Table(
                "code",
                "where the instructions lie that wrote to merged pages",
                (
                    _TS,
                    Column("tgid", "uint32", "process id"),
                    Column("ip", "uint64", "instruction, named as `item` of cow_break in events"),
                    Column("file", "string", "mapped file, `[kernel]`, or the mapping's name"),
                    Column("offset", "uint64", "into the file; in the kernel into the symbol"),
                    Column("symbol", "string", "the kernel's function, if it may be known"),
                ),
                only_with="`record --cow`",
            ),
            Table(
                "uksm",
                "samples of UKSM's counters and knobs; then the table counters has no rows",
                (_TS, Column("reason", "string", "start, interval or end"), *_uksm_columns()),
                only_with="a kernel that has UKSM in KSM's place",
            ),
        )
    }
)

KIND_NAMES: tuple[str, ...] = ("", *(kind.name for kind in sorted(KINDS, key=lambda k: k.id)))
"""The dictionary of the events table's kind column: position is id."""
