"""The binary pages of a ftrace ring buffer (trace_pipe_raw), parsed many pages at a time.

Format: events/header_page and events/header_event in tracefs, kernel/trace/ring_buffer.c. A page
is a chain of records of different lengths, so one page can only be walked record by record; but
all pages are walked at once, each step a handful of numpy operations over the pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EVENT, EventBatch, concatenate, empty
from ksmtrace.events.registry import INTO_EXISTING, LOST, EventKind

PAGE_HEADER_BYTES = 16
_COMMIT_BYTES = (1 << 20) - 1
_MISSED_EVENTS = 1 << 31
_MISSED_STORED = 1 << 30
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_TIME_BITS = np.uint64(27)
_STAMP_TOP = np.uint64(~((1 << 59) - 1) & (1 << 64) - 1)

_FIELD = re.compile(r"field:[^;]*?(?P<name>\w+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")
_KSM_PAGE = "ksm_page"


@dataclass(frozen=True)
class TraceFormat:
    """How one tracepoint's records look: its number, and where each field lies in the record."""

    kind: EventKind
    number: int
    fields: dict[str, tuple[int, int]]
    """Offset and size in bytes."""


def parse_format(kind: EventKind, text: str) -> TraceFormat:
    """A `format` file of tracefs. Raises ValueError for a text that is none."""
    number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
    if number is None:
        raise ValueError(f"no ID in the format of {kind.name}")
    fields = {f["name"]: (int(f["offset"]), int(f["size"])) for f in _FIELD.finditer(text)}
    missing = set(_wanted(kind)) - fields.keys()
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))} in the format of {kind.name}")
    return TraceFormat(kind, int(number[1]), fields)


NOT_IN_RECORDS = ("addr", "tgid", "via", "parent_tgid", "first_sight", "mapcount")
"""Fields that only a BPF program can read: the kernel's records don't have them."""


def _wanted(kind: EventKind) -> dict[str, str]:
    """Fields of the kernel's record and the slots they go to."""
    wanted = {}
    for name, field in kind.fields.items():
        if name == "into_existing":
            wanted[_KSM_PAGE] = "arg"
        elif name not in NOT_IN_RECORDS:
            wanted[name] = field.slot
    return wanted


@dataclass(frozen=True)
class ParsedPages:
    """Events of some pages of one CPU, in order; pids: the task each was emitted in."""

    events: EventBatch
    pids: npt.NDArray[np.int32]


def parse_pages(
    pages: npt.NDArray[np.uint8], cpu: int, formats: dict[int, TraceFormat]
) -> ParsedPages:
    """Parse pages of one CPU.

    pages: shape (number, page bytes), in the order read. formats: by tracepoint number. Loss
    that a page reports becomes a `lost` event before its first. A record that makes no sense ends
    its page; records of other tracepoints are left out.
    """
    if not len(pages):
        return ParsedPages(empty(), np.empty(0, np.int32))
    commit = pages[:, 8:12].copy().view("<u4")[:, 0]
    start = pages[:, :8].copy().view("<u8")[:, 0]
    length = np.minimum(commit & _COMMIT_BYTES, pages.shape[1] - PAGE_HEADER_BYTES)
    page, at, ts = _walk(pages, start, length)
    events, pids = _decode(pages, page, at, ts, cpu, formats)
    lost = _losses(pages, commit, start, length, cpu)
    if lost is not None:
        lost_events, lost_page = lost
        # A page's loss comes before its events.
        order = np.argsort(np.concatenate((lost_page * 2, page * 2 + 1)), kind="stable")
        events = concatenate([lost_events, events])[order]
        pids = np.concatenate((np.zeros(len(lost_page), np.int32), pids))[order]
    known = events["kind"] != 0
    return ParsedPages(events[known], pids[known])


def _walk(
    pages: npt.NDArray[np.uint8], start: npt.NDArray[np.uint64], length: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Page, byte offset and time of every data record, in order."""
    words = pages.view("<u4")
    end = PAGE_HEADER_BYTES + length.astype(np.int64)
    position = np.full(len(pages), PAGE_HEADER_BYTES, np.int64)
    now = start.copy()
    found: list[tuple[npt.NDArray[np.intp], ...]] = []
    live = np.flatnonzero(position + 4 <= end)
    while len(live):
        at = position[live]
        header = words[live, at // 4]
        length_code = header & 31
        delta = (header >> 5).astype(np.uint64)
        # The word behind the header; where there is none it is never used.
        extra = words[live, np.minimum(at // 4 + 1, words.shape[1] - 1)].astype(np.int64)
        long_form = (length_code == 0) | (length_code == _PADDING)
        timing = length_code >= _TIME_EXTEND
        size = np.where(timing, 8, np.where(long_form, 4 + extra, 4 + 4 * length_code))
        size = (size + 3) & ~np.int64(3)
        far = (extra.astype(np.uint64) << _TIME_BITS) + delta
        stamp = length_code == _TIME_STAMP
        time = now[live] + np.where(length_code == _TIME_EXTEND, far, delta)
        time = np.where(stamp, far | (now[live] & _STAMP_TOP), time)
        sane = (at + size <= end[live]) & (size > 4)
        sane &= ~((length_code == _PADDING) & (delta == 0))
        is_data = sane & ~timing & (length_code != _PADDING)
        body = at + np.where(length_code == 0, 8, 4)
        found.append((live[is_data], body[is_data], time[is_data].view(np.int64)))
        now[live] = time
        position[live] = at + size
        live = live[sane & (position[live] + 4 <= end[live])]
    if not found:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing.view(np.uint64)
    page, body, when = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(page, kind="stable")
    return page[order], body[order], when[order].view(np.uint64)


def _decode(
    pages: npt.NDArray[np.uint8],
    page: npt.NDArray[np.intp],
    at: npt.NDArray[np.int64],
    ts: npt.NDArray[np.uint64],
    cpu: int,
    formats: dict[int, TraceFormat],
) -> tuple[EventBatch, npt.NDArray[np.int32]]:
    events = np.zeros(len(page), EVENT)
    events["ts"] = ts
    events["cpu"] = cpu
    numbers = _gather(pages, page, at, 0, 2)
    pids = _gather(pages, page, at, 4, 4).astype(np.uint32).view(np.int32)
    for number in np.unique(numbers).tolist():
        known = formats.get(number)
        if known is None:
            continue
        rows = np.flatnonzero(numbers == number)
        events["kind"][rows] = known.kind.id
        for name, slot in _wanted(known.kind).items():
            offset, size = known.fields[name]
            values = _gather(pages, page[rows], at[rows], offset, size)
            if name == _KSM_PAGE:
                values = np.where(values != 0, np.uint64(INTO_EXISTING), np.uint64(0))
            events[slot][rows] = values.astype(events.dtype[slot])
    return events, pids


def _gather(
    pages: npt.NDArray[np.uint8],
    page: npt.NDArray[np.intp],
    at: npt.NDArray[np.int64],
    offset: int,
    size: int,
) -> npt.NDArray[np.uint64]:
    """A little-endian field of every record."""
    last = pages.shape[1] - 1
    values = np.zeros(len(page), np.uint64)
    for byte in range(size):
        column = np.minimum(at + offset + byte, last)
        values |= pages[page, column].astype(np.uint64) << np.uint64(8 * byte)
    return values


def _losses(
    pages: npt.NDArray[np.uint8],
    commit: npt.NDArray[np.uint32],
    start: npt.NDArray[np.uint64],
    length: npt.NDArray[np.uint32],
    cpu: int,
) -> tuple[EventBatch, npt.NDArray[np.intp]] | None:
    missed = np.flatnonzero(commit & _MISSED_EVENTS)
    if not len(missed):
        return None
    events = np.zeros(len(missed), EVENT)
    events["ts"] = start[missed]
    events["kind"] = LOST.id
    events["cpu"] = cpu
    stored = (commit[missed] & _MISSED_STORED) != 0
    at = PAGE_HEADER_BYTES + length[missed].astype(np.int64)
    fits = stored & (at + 8 <= pages.shape[1])
    events["addr"] = np.where(fits, _gather(pages, missed, at, 0, 8), 1)
    return events, missed
