"""What does a scrape of `ksmtrace exporter` cost on a host with many processes?

make bench-exporter
.venv/bin/python bench/exporter.py --processes 0 1000 10000 --rounds 31 --json

Starts so many real processes that opt in to KSM and as many that don't (forked, asleep),
then the exporter as a process of its own, and asks it for /metrics by HTTP, a connection
each, over and over. `first` is the time from its start to its first answer, names looked up. CPU is
the exporter's own for one scrape, the kernel's part included. Then two clients ask at the same
time. Medians and span of the rounds. The peer is the plain way: open, read and close each
process's ksm_stat by `read_ksm_stat`, in this program, without names and without a page. ksmd stays
as it is. Not measured: processes of many regions, where the kernel itself takes longer to answer.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ksmtrace.kernel.sysfs import read_ksm_stat
from ksmtrace.processes.identity import all_tgids

PR_SET_PDEATHSIG, PR_SET_MEMORY_MERGE = 1, 67
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
QUESTIONS = ("first", "scrape", "CPU a scrape", "two at once", "plain reading")


@contextmanager
def herd(count: int) -> Iterator[None]:
    """`count` registered processes and as many plain ones, children of one that is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready, told = os.pipe()
    parent = os.fork()
    if parent == 0:
        for number in range(2 * count):
            if os.fork() == 0:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if number < count and libc.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0):
                    os.write(told, b"!")
                os.close(told)
                signal.pause()
        os.write(told, b".")
        os.close(told)
        signal.pause()
    os.close(told)
    try:
        answer = os.read(ready, 1)
        assert answer == b".", "this kernel has no PR_SET_MEMORY_MERGE"
        time.sleep(1)
        yield
    finally:
        os.close(ready)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        time.sleep(1 + count / 2000)


def scrape(port: int) -> bytes:
    """The page, by a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read()
    connection.close()
    return page


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def cpu_ms(pid: int) -> float:
    """CPU time of a process so far, threads that have ended included (clock_getcpuclockid(3))."""
    return 1000 * time.clock_gettime((~pid << 3) | 2)


def two_at_once(port: int) -> None:
    """Two clients."""
    other = threading.Thread(target=scrape, args=(port,))
    other.start()
    scrape(port)
    other.join()


def read_plainly() -> None:
    """Every process, the simple way."""
    for tgid in all_tgids():
        read_ksm_stat(tgid)


@contextmanager
def running_exporter() -> Iterator[subprocess.Popen[str]]:
    """The exporter on a free port; it ends in any case."""
    command = [str(KSMTRACE), "exporter", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as exporter:
        try:
            yield exporter
        finally:
            exporter.terminate()


def measure(rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds by question, and facts about the exporter."""
    found: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    begin = time.perf_counter()
    with running_exporter() as exporter:
        assert exporter.stderr is not None
        port = None
        while port is None:
            line = exporter.stderr.readline()
            port = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        number = int(port[1])
        page = scrape(number)
        found["first"].append(1000 * (time.perf_counter() - begin))
        for _ in range(rounds):
            before = cpu_ms(exporter.pid)
            found["scrape"].append(timed(lambda: scrape(number)))
            found["CPU a scrape"].append(cpu_ms(exporter.pid) - before)
            found["two at once"].append(timed(lambda: two_at_once(number)))
            found["plain reading"].append(timed(read_plainly))
        status = Path(f"/proc/{exporter.pid}/status").read_text()
        resident = re.search(r"RssAnon:\s+(\d+) kB", status)
        facts = {
            "page_bytes": len(page),
            "series": sum(not line.startswith(b"#") for line in page.splitlines()),
            "rss_anon_mib": int(resident[1]) / 1024 if resident else float("nan"),
        }
    return found, facts


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    for count in args.processes:
        with herd(count):
            results[count] = measure(args.rounds)
    if args.json:
        print(json.dumps({str(n): {"ms": ms, **facts} for n, (ms, facts) in results.items()}))
        return 0
    columns = (*(f"{question}, ms" for question in QUESTIONS), "series", "page", "RssAnon")
    table = Table("registered + plain", *columns, box=None)
    for count, (found, facts) in results.items():
        cells = []
        for question in QUESTIONS:
            values = found[question]
            span = f" ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{statistics.median(values):.1f}{span}")
        table.add_row(
            f"{count:,} + {count:,}", *cells, f"{facts['series']:,.0f}",
            f"{facts['page_bytes'] / 1024:.0f} KiB", f"{facts['rss_anon_mib']:.0f} MiB",
        )  # fmt: skip
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
