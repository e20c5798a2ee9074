"""How fast a full scan is, by how many pages there are: `make bench-scale`.

The fast engine from 10^5 pages to a terabyte, beside the readable engine and the real ksmd as far
as they go. All scan the same mix of zero, equal, unique and volatile pages (simulated_host.Mix).
`second` is the scan that merges; `later` one after 1 % of the merged pages were written. Each size
runs in a process of its own, so that its peak memory is its own; set-up is not in the scans' time.
--converge: a host of 64 GiB until nothing more is saved.
"""

from __future__ import annotations

import argparse
import json
import mmap
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from simulated_host import Mix, SimulatedHost

from ksmtrace.cli.status import StatusLine
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.stepper import parked
from ksmtrace.lab.alone import prove_alone, refuse_strangers
from ksmtrace.model import KsmScanner, Memory
from ksmtrace.model.content import PAGE_SIZE

SIZES = (10**5, 10**6, 10**7, 3 * 10**7, 10**8, 268_435_456)
_READABLE_AT_MOST = _REAL_AT_MOST = 10**6
_START = 0x7000_0000_0000
_STILL = 3


def timed(scan: Callable[[], None], visits: Callable[[], int]) -> dict[str, float]:
    """One scan's time and rate."""
    before, begun = visits(), time.perf_counter()
    scan()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "visits_per_second": (visits() - before) / seconds}


def fast(pages: int) -> dict[str, Any]:
    """The fast engine."""
    line = StatusLine(sys.stderr)
    name = ""

    def going(progress: Any) -> None:
        line.working(f"{pages:,} pages: {name} scan, {progress.pages:,} visited")

    begun = time.perf_counter()
    host = SimulatedHost(pages, progress=line.working, on_progress=going)
    told: dict[str, Any] = {"set_up_seconds": time.perf_counter() - begun}
    warm_up()
    visits = lambda: host.scanner.work.visits  # noqa: E731 used twice below
    for name in ("first", "second", "third", "later"):
        begun = time.perf_counter()
        if name == "later":
            told["pages_written"] = host.write_merged(0.01)
        if name != "first":
            host.change_volatile()
        told[f"{name}_change_seconds"] = time.perf_counter() - begun
        told[name] = timed(host.scanner.finish_scan, visits)
    line.clear()
    counters = host.scanner.counters
    told["pages_saved"] = counters["pages_sharing"] + counters["ksm_zero_pages"]
    told["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return told


def warm_up() -> None:
    """Load what is compiled."""
    SimulatedHost(1000).scanner.scan(2)


def converge(pages: int) -> dict[str, Any]:
    """A host until nothing more is saved, its volatile pages changing between scans."""
    line = StatusLine(sys.stderr)
    begun = time.perf_counter()
    host = SimulatedHost(pages, progress=line.working)
    told: dict[str, Any] = {"set_up_seconds": time.perf_counter() - begun}
    warm_up()
    saved: list[int] = []
    scanning = 0.0
    all_begun = time.perf_counter()
    while len(saved) < _STILL + 24 or len(set(saved[-_STILL:])) > 1:
        host.change_volatile()
        begun = time.perf_counter()
        host.scanner.finish_scan()
        scanning += time.perf_counter() - begun
        counters = host.scanner.counters
        saved.append(counters["pages_sharing"] + counters["ksm_zero_pages"])
        line.working(f"scan {len(saved)}: {saved[-1]:,} pages saved")
    line.clear()
    return {
        **told, "pages": pages, "scans": len(saved), "pages_saved": saved[-1],
        "scanning_seconds": scanning, "all_seconds": time.perf_counter() - all_begun,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def contents_of(pages: int) -> np.ndarray:
    """The same mix as SimulatedHost's, of one process."""
    host = SimulatedHost(pages)
    return host.memory.tables.frame["content"][
        host.memory.tables.place["frame"][host.memory.rows[0].place_of(_START) :][:pages]
    ].copy()


def readable(pages: int) -> dict[str, Any]:
    """The readable engine."""
    memory = Memory()
    scanner = KsmScanner(memory, knobs={"pages_to_scan": 4_000_000_000, "use_zero_pages": 1})
    mm = memory.spawn(1)
    memory.map(mm, _START, pages)
    memory.madvise_mergeable(mm, _START, _START + pages * PAGE_SIZE)
    for page, content in enumerate(contents_of(pages).tolist()):
        memory.write(mm, _START + page * PAGE_SIZE, content.to_bytes(8, "big").rstrip(b"\0"))
    visits = lambda: scanner.counters["pages_scanned"]  # noqa: E731 used twice below
    return {name: timed(scanner.finish_scan, visits) for name in ("first", "second", "third")}


def real(pages: int) -> dict[str, Any]:
    """The real ksmd; nothing of it changes meanwhile."""
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    words = np.frombuffer(memory, ">u8").reshape(pages, PAGE_SIZE // 8)
    with parked({"use_zero_pages": "1"}) as stepper:
        refuse_strangers()
        prove_alone(stepper)
        words[:, 0] = contents_of(pages)
        memory.madvise(mmap.MADV_MERGEABLE)
        visits = lambda: int(open("/sys/kernel/mm/ksm/pages_scanned").read())  # noqa: E731, PTH123, SIM115
        return {name: timed(stepper.scan, visits) for name in ("first", "second", "third")}


_KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "fast": fast, "readable": readable, "real": real, "converge": converge,
}  # fmt: skip


def apart(kind: str, pages: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, str(pages)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise KsmtraceError(f"measuring {kind} with {pages:,} pages failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--converge", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="pages of the largest host")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_KINDS[args.one[0]](int(args.one[1]))))
        return
    if args.converge:
        told = apart("converge", 64 * 2**30 // PAGE_SIZE)
        print(json.dumps(told, indent=1))
        return
    rows = [measured(pages) for pages in SIZES if pages <= args.most]
    if args.json:
        print(json.dumps({"mix": vars(Mix()), "rows": rows}, indent=1))
        return
    Console(width=100).print(table_of(rows))


def measured(pages: int) -> dict[str, Any]:
    """One size, by all that can do it."""
    row: dict[str, Any] = {"pages": pages, "fast": apart("fast", pages)}
    if pages <= _READABLE_AT_MOST:
        row["readable"] = apart("readable", pages)
    if pages <= _REAL_AT_MOST:
        row["real"] = apart("real", pages)
    return row


def table_of(rows: list[dict[str, Any]]) -> Table:
    """A line for each size and scanner."""
    table = Table(title="thousand page visits a second (time of the scan)")
    for name in ("pages", "scanner", "first", "second", "third", "later", "peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        for kind in ("fast", "readable", "real"):
            if kind in row:
                table.add_row(f"{row['pages']:,}", kind, *_cells(row[kind]))
    return table


def _cells(told: dict[str, Any]) -> list[str]:
    cells = [
        f"{told[name]['visits_per_second'] / 1000:,.0f} ({told[name]['seconds']:.1f} s)"
        if name in told
        else "-"
        for name in ("first", "second", "third", "later")
    ]
    return [*cells, f"{told['peak_gib']:.1f} GiB" if "peak_gib" in told else "-"]


if __name__ == "__main__":
    main()
