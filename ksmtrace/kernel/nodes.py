"""Which NUMA node a frame belongs to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.sysfs import PROC

_ZONE = re.compile(r"^Node (\d+), zone", re.MULTILINE)
_SPANNED = re.compile(r"^\s+spanned\s+(\d+)$", re.MULTILINE)
_START = re.compile(r"^\s+start_pfn:\s+(\d+)$", re.MULTILINE)

Span = tuple[int, int, int]
"""(first frame, frame after the last, node)."""


def parse_zoneinfo(text: str) -> list[Span]:
    """The frames of each zone of /proc/zoneinfo that has memory, ascending."""
    spans = []
    heads = list(_ZONE.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=False):
        spanned, start = (
            _SPANNED.search(text, head.end(), end),
            _START.search(text, head.end(), end),
        )
        if spanned and start and int(spanned[1]):
            first = int(start[1])
            spans.append((first, first + int(spanned[1]), int(head[1])))
    return sorted(spans)


def spans_of_nodes(proc: Path = PROC) -> list[Span]:
    """This host's; empty where /proc/zoneinfo can't be read."""
    return parse_zoneinfo(read_text(proc / "zoneinfo") or "")


def nodes_of(frames: npt.NDArray[np.unsignedinteger], spans: list[Span]) -> npt.NDArray[np.int64]:
    """Each frame's node; -1 where none is known. Spans of two nodes may lie within each other."""
    nodes = np.full(len(frames), -1, np.int64)
    # The narrowest span that holds a frame says most about it.
    for first, end, node in sorted(spans, key=lambda span: span[0] - span[1]):
        nodes[(frames >= first) & (frames < end)] = node
    return nodes
