"""What `trace-cmd report` prints, also with -t (nanoseconds), -l (flags) or --ts-diff.

Seen with 3.1.6. Pointers are as they were: trace-cmd formats the raw records itself. Times are of
the recording's clock, `local` unless -C chose another. Lost events have a line of their own, with
their number where the kernel kept it. With -R it prints other words, which are not read.
"""

from __future__ import annotations

import re

from ksmtrace.replay.foreign.ftrace import EVENT_LINE
from ksmtrace.replay.foreign.textformat import Facts, TextFormat

_CPUS = re.compile(rb"cpus=(\d{1,5})\r?$")


def _header(line: bytes) -> Facts:
    found = _CPUS.match(line)
    return {"cpus": int(found[1])} if found else {}


FORMAT = TextFormat(
    name="trace-cmd",
    tool="trace-cmd report",
    event=EVENT_LINE,
    loss=rb"CPU:(?P<lost_on>\d{1,5}) \[(?:LOST )?(?:(?P<lost>\d{1,18}) )?EVENTS(?: DROPPED)?\]\r?",
    names_begin_with=b"",
    header=_header,
    marks=(b"cpus=",),
    loss_told=True,
    prints_0x=True,
    make_it="trace-cmd report trace.dat > FILE",
)
