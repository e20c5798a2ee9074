"""What the kernel prints behind an event's name, read for each kind as the registry declares it.

Format: the TP_printk lines of include/trace/events/ksm.h, the same from 6.4 to 6.19: labels and
numbers in the order of the registry's fields. `ksm ` in front says that ksm_page is not NULL where
the kind has one, and means nothing elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ksmtrace.capture.trace_pages import NOT_IN_RECORDS
from ksmtrace.events.batch import EVENT
from ksmtrace.events.registry import INTO_EXISTING, TRACEPOINTS, EventKind, Field

_LABELS = {
    "err": "error",
    "rmap_entries": "rmap size",
    "scan_time": "scan time",
    "cpu_percent": "cpu percent",
}
"""Where what is printed is not the field's name."""
_SIGNED = ("seq", "rmap_entries")
"""Unsigned 32-bit numbers that the kernel prints as signed ones."""
_POINTER = rb"(?:0x)?[0-9a-f]{1,16}|\(nil\)|\(null\)|\(_+ptrval_+\)"
_NUMBER = rb"-?\d{1,18}"
HASH_BITS = 32
"""A hashed %p has so many bits; a raw kernel address of a 64-bit kernel has more."""


@dataclass
class Pointers:
    """How the pointers looked that were read: each a number of them."""

    hashed: int = 0
    raw: int = 0


@dataclass(frozen=True)
class FieldParser:
    """Reads the fields of one kind."""

    kind: EventKind
    fields: dict[str, Field]
    pattern: re.Pattern[bytes]

    def parse(
        self, bodies: Sequence[bytes], pointers: Pointers
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
        """Events with their fields alone, and which of them could be read.

        bodies: what stands behind the name and its colon, without the line's end. pointers: is
        told how they look.
        """
        events = np.zeros(len(bodies), EVENT)
        events["kind"] = self.kind.id
        prefixes, *columns = zip(*self.pattern.findall(b"\n".join(bodies) + b"\n"), strict=True)
        # Where the kind's pattern doesn't fit every group is empty.
        good = np.fromiter(map(bool, columns[0]), bool, len(bodies))
        for (name, where), column in zip(self.fields.items(), columns, strict=False):
            if where.slot in ("item", "mm"):
                addresses = events[where.slot] = _addresses(column)
                _note(pointers, addresses, column)
            else:
                values, fits = _numbers(name, where, column)
                good &= fits
                events[where.slot] = values.astype(events.dtype[where.slot])
        if "into_existing" in self.kind.fields:
            events["arg"] = np.fromiter(map(bool, prefixes), np.uint32, len(bodies)) * INTO_EXISTING
        return events, good


def _parser(kind: EventKind) -> FieldParser:
    fields = {
        name: one
        for name, one in kind.fields.items()
        if name not in NOT_IN_RECORDS and name != "into_existing"
    }
    told = rb" ".join(
        re.escape(_LABELS.get(name, name).encode())
        + rb" +("
        + (_POINTER if one.slot in ("item", "mm") else _NUMBER)
        + rb")"
        for name, one in fields.items()
    )
    # Behind it `perf script` can show an instruction pointer and its symbol.
    whole = rb" *(ksm )?" + told + rb"(?: +[0-9a-f]{6,16} .*| *)\r?\n|.*\n"
    return FieldParser(kind, fields, re.compile(whole))


def _addresses(column: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    try:
        return np.fromiter(map(partial(int, base=16), column), np.uint64, len(column))
    except ValueError:
        return np.fromiter(map(_address, column), np.uint64, len(column))


def _address(text: bytes) -> int:
    return 0 if not text or text.startswith(b"(") else int(text, 16)


def _note(pointers: Pointers, values: npt.NDArray[np.uint64], column: Sequence[bytes]) -> None:
    """A tool that has the number itself prints it with 0x; the kernel's own %p is without."""
    known = int(np.count_nonzero(values))
    wide = int(np.count_nonzero(values >> np.uint64(HASH_BITS)))
    raw = known if any(text.startswith(b"0x") for text in column) else wide
    pointers.raw += raw
    pointers.hashed += known - raw


def _numbers(
    name: str, where: Field, column: Sequence[bytes]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """A column's numbers, and which of them the kernel's own field can hold."""
    values = np.fromiter((int(text or b"0") for text in column), np.int64, len(column))
    if name in _SIGNED:
        values = np.where((values < 0) & (values >= -(1 << 31)), values + (1 << 32), values)
        return values, (values >= 0) & (values < 1 << 32)
    limits = np.iinfo(EVENT[where.slot])
    return values, (values >= int(limits.min)) & (values <= min(int(limits.max), 1 << 62))


PARSERS: dict[str, FieldParser] = {kind.name: _parser(kind) for kind in TRACEPOINTS}
