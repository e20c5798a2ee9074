"""tracefs' own text: the file `trace`, what `trace_pipe` gives, `trace-cmd show`.

Seen on 6.18. Pointers are hashed to 32 bits unless the option hash-ptr is off. Times are of
trace_clock, `local` unless somebody chose another: each CPU's own, and not CLOCK_MONOTONIC.
What was overwritten before the first line is told by the header alone (entries written less
those in the buffer); `trace_pipe` has a line where events are missing.
"""

from __future__ import annotations

import re

from ksmtrace.replay.foreign.ftrace import EVENT_LINE
from ksmtrace.replay.foreign.textformat import Facts, TextFormat

_ENTRIES = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18}) +#P:(\d{1,5})")
_LATENCY = re.compile(rb"# \w+ latency trace v\S+ on (\S{1,64})$")


def _header(line: bytes) -> Facts:
    if found := _ENTRIES.match(line):
        kept, written, cpus = map(int, found.groups())
        return {"promised": kept, "overwritten": max(0, written - kept), "cpus": cpus}
    if found := _LATENCY.match(line):
        return {"kernel": found[1].decode(errors="replace"), "latency_format": True}
    return {}


FORMAT = TextFormat(
    name="tracefs",
    tool="tracefs text",
    event=EVENT_LINE,
    loss=rb"CPU:(?P<lost_on>\d{1,5}) \[LOST (?:(?P<lost>\d{1,18}) )?EVENTS\]\r?",
    names_begin_with=b"",
    header=_header,
    marks=(b"# tracer: ", b"# entries-in-buffer/"),
    loss_told=True,
    prints_0x=False,
    make_it="cat /sys/kernel/tracing/trace > FILE",
)
