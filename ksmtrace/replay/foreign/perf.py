"""What `perf script` prints, whatever its -F leaves out but time, event and trace.

Seen with 6.1. Pointers are as they were: perf formats the raw records itself. Times are of perf's
clock, not CLOCK_MONOTONIC unless recorded with -k. Lost events are told only if it was asked with
--show-lost-events; otherwise a warning on stderr gives the number of gaps, not of events. With
--header it tells the kernel.
"""

from __future__ import annotations

import re

from ksmtrace.replay.foreign.textformat import TIME, Facts, TextFormat

_KERNEL = re.compile(rb"# os release : (\S{1,64})")
_MACHINE = re.compile(rb"# arch : (\S{1,64})")
_CPUS = re.compile(rb"# nrcpus online : (\d{1,5})")
_MEMORY = re.compile(rb"# total memory : (\d{1,15}) kB")
_CHUNKS = re.compile(rb"Processed \d+ events and lost (\d{1,18}) chunks!")


def _header(line: bytes) -> Facts:
    if found := _KERNEL.match(line):
        return {"kernel": found[1].decode(errors="replace")}
    if found := _MACHINE.match(line):
        return {"machine": found[1].decode(errors="replace")}
    if found := _CPUS.match(line):
        return {"cpus": int(found[1])}
    if found := _MEMORY.match(line):
        return {"memory_bytes": int(found[1]) * 1024}
    if found := _CHUNKS.match(line):
        return {"lost_chunks": int(found[1])}
    return {}


FORMAT = TextFormat(
    name="perf",
    tool="perf script",
    # Before the time: command, process/thread, CPU and --misc's letters, as far as shown. Most
    # often the CPU stands behind the first bracket: to look there first saves a third of the time.
    event=(
        rb"(?:[^\n\[]{0,48}(?=\[\d)|[^\n]{0,48}?)(?:\[(?P<cpu>\d{1,5})\] +)?(?:[A-Z]{1,8} +)?"
        + TIME
        + rb": +(?:\d+ +)?(?P<name>[\w-]+:\w+): ?(?P<body>[^\n]*)"
    ),
    loss=(
        rb"[^\n]{0,48}?(?:\[(?P<lost_on>\d{1,5})\] +)?\d{1,9}\.\d{6,9}: +"
        rb"PERF_RECORD_LOST(?:_SAMPLES)?:? +(?:lost +)?(?P<lost>\d{1,18})[^\n]*"
    ),
    names_begin_with=b"ksm:",
    header=_header,
    marks=(b"# os release : ", b"# perf version : "),
    loss_told=False,
    prints_0x=True,
    make_it="perf script -i perf.data --header --show-lost-events > FILE",
)
