"""Which format a text has, and in plain words what a file is that has none."""

from __future__ import annotations

import re

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.replay.foreign.formats import FORMATS
from ksmtrace.replay.foreign.textformat import TextFormat

LONGEST_LINE = 1 << 20
"""Bytes; no tool prints longer ones, so this is no text."""
_MAGIC: dict[bytes, tuple[str, str]] = {
    b"PERFILE2": (
        "is perf's own binary file",
        "type: perf script -i {name} --header --show-lost-events > FILE",
    ),
    b"\x17\x08Dtracing": (
        "is trace-cmd's own binary file",
        "type: trace-cmd report {name} > FILE",
    ),
    b"\x1f\x8b": ("is compressed", "type: zcat {name} | ksmtrace import - -o NAME.ksm"),
    b"\x28\xb5\x2f\xfd": ("is compressed", "type: zstdcat {name} | ksmtrace import - -o NAME.ksm"),
    b"\xfd7zXZ": ("is compressed", "type: xzcat {name} | ksmtrace import - -o NAME.ksm"),
    b"PAR1": (
        "is a Parquet table, perhaps of a recording",
        "name the .ksm folder: ksmtrace report",
    ),
}


_POINTER = re.compile(rb"\bmm (0x)?[0-9a-f]")


def refuse_binary(start: bytes, name: str) -> None:
    """Raise KsmtraceError (exit code 4) for a file that is no text, with what to type instead.

    start: its first bytes.
    """
    for magic, (what, hint) in _MAGIC.items():
        if start.startswith(magic):
            raise KsmtraceError(f"{name} {what}", hint.format(name=name), Exit.BAD_RECORDING)


def detect(sample: bytes) -> TextFormat | None:
    """The format of a text's beginning; None if no line of it is an event's, nor a header's.

    sample: whole lines. ftrace's and trace-cmd's lines are alike: where the header is missing,
    pointers with 0x are trace-cmd's.
    """
    scores = {name: _score(one, sample) for name, one in FORMATS.items()}
    best = max(scores.values())
    if best == (0, 0, 0):
        return None
    return FORMATS[next(name for name, score in scores.items() if score == best)]


def _score(one: TextFormat, sample: bytes) -> tuple[int, int, int]:
    """Whether a header's mark is there; events; and how many are written in its own manner."""
    found = one.line.findall(sample)
    marked = any(row[one.at["rest"]].startswith(one.marks) for row in found)
    bodies = [row[one.at["body"]] for row in found if row[one.at["name"]]]
    pointers = [shown for body in bodies for shown in _POINTER.findall(body)]
    manner = sum(bool(prefix) == one.prints_0x for prefix in pointers)
    return int(marked), len(bodies), manner
