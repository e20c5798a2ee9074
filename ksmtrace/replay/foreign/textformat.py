"""What one tool's text looks like: a regular expression for a line, and what its header tells."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Facts = dict[str, Any]
"""What a header tells: kernel, machine, cpus, memory_bytes, overwritten, promised, lost_chunks."""

Part = Mapping[str, Sequence[bytes]]
"""Some lines by columns: what each group of the format's pattern found, empty where nothing."""

TIME = rb"(?:(?P<seconds>\d{1,9})\.(?P<fraction>\d{6,9})|(?P<ticks>\d{1,18}))"
"""A time in seconds, or in a counter's ticks."""

_GROUPS = ("cpu", "seconds", "fraction", "ticks", "name", "body", "lost_on", "lost", "rest")


@dataclass(frozen=True)
class TextFormat:
    """One kind of text.

    name: as --format has it. tool: what printed it. event: a regular expression of an event's line
    up to its end, with the groups cpu, seconds, fraction, ticks, name and body. loss: one of a line
    that tells of lost events, with the groups lost_on (CPU, may be empty) and lost (how many, may
    be empty). names_begin_with: what stands before a tracepoint's name. header: a line that is
    neither, to what it tells. marks: beginnings of a line that only this text has. loss_told:
    whether lost events are in the text whenever there were some. prints_0x: before pointers.
    make_it: a command that makes such a text.
    """

    name: str
    tool: str
    event: bytes
    loss: bytes
    names_begin_with: bytes
    header: Callable[[bytes], Facts]
    marks: tuple[bytes, ...]
    loss_told: bool
    prints_0x: bool
    make_it: str
    line: re.Pattern[bytes] = field(init=False)
    at: Mapping[str, int] = field(init=False)
    """Which place of a found line each group has."""

    def __post_init__(self) -> None:
        whole = rb"(?:" + self.event + rb"|" + self.loss + rb"|(?P<rest>[^\n]*))\n"
        line = re.compile(whole)
        object.__setattr__(self, "line", line)
        object.__setattr__(self, "at", {name: line.groupindex[name] - 1 for name in _GROUPS})
