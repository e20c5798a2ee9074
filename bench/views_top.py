#!/usr/bin/env python3
"""What `ksmtrace top` costs: how soon it paints, how much of a core it takes, how fast it seeks.

The question: is the first screen there within 300 ms, does the screen take less than 3 % of a core
while ksmd is busy, is any moment of a recording of a million events there within half a second?
The work: a real `ksmtrace top` on a pseudo-terminal of 80 by 24; beside it (as root) ksmd at full
speed on 200,009 pages, of which some are rewritten all the time; and a made recording. It can't
tell what the terminal program itself spends on drawing.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
TICKS = os.sysconf("SC_CLK_TCK")
ANALYSIS = ROOT / "recordings" / "analysis.ksm"


@dataclass
class Run:
    """One `top`. first_ms: until its first screen. start_cpu_s: CPU of the first two seconds.

    percent: of a core after that. anon_kib: its own memory.
    """

    first_ms: float
    start_cpu_s: float
    percent: float
    anon_kib: int


def top(arguments: list[str], seconds: float) -> Run:
    """Run it on a terminal of its own for two seconds and then so many."""
    begin = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.execv(KSMTRACE, ["ksmtrace", "top", *arguments])
    seen = b""
    first = 0.0

    def read_until(moment: float) -> None:
        nonlocal seen, first
        while (left := moment - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                seen = seen[-4096:] + os.read(terminal, 1 << 16)
                if not first and b"ksmtrace top" in seen:
                    first = time.monotonic() - begin

    read_until(begin + 2.5)
    start, since = cpu_s(pid), time.monotonic()
    read_until(since + seconds)
    share = 100 * (cpu_s(pid) - start) / (time.monotonic() - since)
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    anon = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    os.write(terminal, b"q")
    with contextlib.suppress(OSError):
        # It has gone.
        read_until(time.monotonic() + 2)
    os.waitpid(pid, 0)
    os.close(terminal)
    return Run(1000 * first, start, share, anon)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


CHURN = """
import random, sys, time
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
pages = int(sys.argv[1])
memory = mergeable_memory(pages)
texts = [page_of(content) for content in range(1009)]
for number in range(pages):
    memory[number * PAGE : (number + 1) * PAGE] = texts[number % 1009]
print("ready", flush=True)
while True:
    for _ in range(500):
        number = random.randrange(pages)
        memory[number * PAGE : (number + 1) * PAGE] = texts[random.randrange(1009)]
    time.sleep(0.05)
"""


def busy(pages: int, seconds: float) -> dict[str, Run]:
    """Top beside ksmd at full speed, with and without a capture."""
    from ksmtrace.kernel.knobs import changed

    load = subprocess.Popen(
        [sys.executable, "-c", CHURN, str(pages)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert load.stdout is not None
        load.stdout.readline()
        knobs = {"run": "1", "pages_to_scan": "20000", "sleep_millisecs": "1", "smart_scan": "0"}
        with changed(knobs):
            return {
                "live, merging and rewritten": top([], seconds),
                "live --cow": top(["--cow"], seconds),
                "live --no-capture": top(["--no-capture"], seconds),
            }
    finally:
        load.kill()
        load.wait()


def million(path: Path, events: int, processes: int) -> None:
    """A recording of so many events of so many processes in a hundred seconds."""
    from ksmtrace.events.batch import EVENT
    from ksmtrace.events.registry import INTO_EXISTING, KSM_MERGE_WITH_KSM_PAGE
    from tests.support.batches import scan_starts, scan_stops
    from tests.support.recordings import BEGIN, SECOND, host_sample, make_recording

    batch = np.zeros(events, EVENT)
    batch["kind"] = KSM_MERGE_WITH_KSM_PAGE.id
    batch["ts"] = BEGIN + np.linspace(0, 100 * SECOND, events).astype(np.uint64)
    batch["tgid"] = 1 + np.arange(events) * processes // events
    batch["mm"] = batch["tgid"].astype(np.uint64) << np.uint64(12)
    batch["addr"] = np.arange(events, dtype=np.uint64) << np.uint64(12)
    batch["item"], batch["pfn"], batch["arg"] = 1 + np.arange(events), 7, INTO_EXISTING
    for number in range(1, 100):
        at = number * events // 100
        for row, where in ((scan_stops(number - 1, 0), at), (scan_starts(number, 0), at + 1)):
            batch[where] = 0
            batch["ts"][where] = BEGIN + number * SECOND
            for slot in ("kind", "addr", "arg"):
                batch[slot][where] = row[slot]
    samples = [
        host_sample(BEGIN + n * SECOND, pages_shared=1, pages_sharing=n * events // 100)
        for n in range(101)
    ]
    make_recording(path, [batch], tables={"counters": samples}, final={"duration_s": 100.0})


def seeking(events: int, processes: int) -> dict[str, float]:
    """Seconds to read a made recording, and to show moments of it in no order."""
    from ksmtrace.top.recorded import RecordedSource
    from ksmtrace.top.ui import Ui
    from ksmtrace.views.top import render_top

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ksm"
        million(path, events, processes)
        begin = time.perf_counter()
        source = RecordedSource(path)
        read = time.perf_counter() - begin
        took = []
        for share in np.random.default_rng(7).random(31):
            begin = time.perf_counter()
            state = source.state(source.begin_ns + int(share * (source.end_ns - source.begin_ns)))
            render_top(state, Ui(speed=1), 200, 60)
            took.append(time.perf_counter() - begin)
    return {"read_s": read, "seek_median_s": statistics.median(took), "seek_max_s": max(took)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pages", type=int, default=200_009)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    idle = [top([], 1) for _ in range(5)]
    runs = {"live, ksmd as it is": top([], args.seconds)}
    runs["a recording, 4×"] = top([str(ANALYSIS), "--speed", "4"], min(args.seconds, 7))
    if os.geteuid() == 0:
        runs |= busy(args.pages, args.seconds)
    found: dict[str, Any] = {
        "first_paint_ms_median": statistics.median(run.first_ms for run in idle),
        "first_paint_ms_max": max(run.first_ms for run in idle),
        "runs": {name: vars(run) for name, run in runs.items()},
        "a million events": seeking(1_000_003, 101),
        "a million events of a million processes": seeking(1_000_003, 1_000_003),
    }
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"first paint {found['first_paint_ms_median']:.0f} ms (median of {len(idle)}),"
        f" {found['first_paint_ms_max']:.0f} ms at most"
    )
    for name, run in runs.items():
        print(
            f"{name:<29} first paint {run.first_ms:4.0f} ms, start {run.start_cpu_s:.2f} s of CPU,"
            f" then {run.percent:.1f} % of a core, {run.anon_kib / 1024:.0f} MiB"
        )
    for name in ("a million events", "a million events of a million processes"):
        read, median, most = found[name].values()
        print(
            f"{name}: read in {read:.2f} s; a seek {median * 1e3:.0f} ms, at most {most * 1e3:.0f}"
        )


if __name__ == "__main__":
    main()
