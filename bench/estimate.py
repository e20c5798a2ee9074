"""How fast is memory read and digested, and how much memory does that take?

make bench-estimate
.venv/bin/python bench/estimate.py --rounds 5 --gib 2 --json

A process fills memory with random pages, of 4 KiB and as huge pages; `ksmtrace estimate`'s reader,
in a process of its own, reads it once: regions, page tables, contents, digests. Beside it, in turn:
reading without digesting, with two readers, and copying as much memory from a buffer to another
(numpy, both touched before), which is the limit. Rates are medians of the rounds with their span.
Peak memory is VmHWM at the end of reading and reckoning, less what it was after the imports, by
page: over dense memory, all different and all zero-filled, and over a mapping of 64 GiB of address
space in which each 64th page is there. The first answer is timed from the command's start to its
end. Not measured: memory that other programs are writing to, and hosts with NUMA nodes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ksmtrace.inspect.estimate.read import HowToRead, read_memory
from ksmtrace.inspect.estimate.savings import Terms, reckon
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import identify
from ksmtrace.processes.memory import ProcessMemory
from ksmtrace.processes.regions import all_regions

KSMTRACE = Path(sys.executable).parent / "ksmtrace"
GIB = 1 << 30
COPIED_AT_ONCE = 1 << 26
LOAD = """
import mmap, sys
import numpy
kind, size, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
memory.madvise(14 if kind == "huge" else 15)
words = numpy.frombuffer(memory, numpy.uint64)
random = numpy.random.default_rng(7)
if every > 1:
    words[:: 512 * every] = random.integers(1, 1 << 63, len(words[:: 512 * every]), numpy.uint64)
elif kind == "zero":
    words[:] = 0
else:
    for at in range(0, len(words), 1 << 21):
        words[at : at + (1 << 21)] = random.integers(0, 1 << 63, 1 << 21, numpy.uint64)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Figure:
    """One measurement. unit: of its values, one a round."""

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)


@contextmanager
def load(kind: str, size: int, every: int = 1) -> Iterator[int]:
    """A process with memory to read; its id. every: how many pages lie from one to the next."""
    with subprocess.Popen(
        [sys.executable, "-c", LOAD, kind, str(size), str(every)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("the memory to read could not be filled")
        yield process.pid
        process.stdin.close()


def peak_bytes() -> int:
    """The most memory this process ever had."""
    found = re.search(r"VmHWM:\s+(\d+)", (PROC / "self" / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def one_reading(pid: int, jobs: int) -> dict[str, float]:
    """Read and reckon once, in this process: bytes, seconds, pages, peak memory."""
    identity = identify(pid)
    assert identity is not None
    before = peak_bytes()
    begun = time.perf_counter()
    sample = read_memory([identity], HowToRead(interval=None, jobs=jobs, process_seconds=1e5))
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    savings = reckon(sample, Terms(use_zero_pages=False, max_page_sharing=256,
                                   rmap_item_bytes=64, page_bytes=PAGE_BYTES))  # fmt: skip
    return {
        "bytes": sample.bytes_read,
        "seconds": seconds,
        "reckoned_s": time.perf_counter() - begun,
        "pages": savings.candidates,
        "peak_bytes": peak_bytes() - before,
    }


def only_read(pid: int) -> dict[str, float]:
    """Read the largest region without digesting anything."""
    region = max(all_regions(pid), key=lambda region: region.present_bytes or 0)
    numbers = np.arange(region.start // PAGE_BYTES, region.end // PAGE_BYTES)
    begun = time.perf_counter()
    with ProcessMemory(pid) as memory:
        got = sum(len(view) for _, view in memory.read(numbers))
    return {"bytes": got, "seconds": time.perf_counter() - begun}


def only_copied(size: int) -> dict[str, float]:
    """Copy as much memory, from a buffer that has been touched to another."""
    source, target = (np.ones(COPIED_AT_ONCE, np.uint8) for _ in range(2))
    times = size // COPIED_AT_ONCE
    begun = time.perf_counter()
    for _ in range(times):
        target[:] = source
    return {"bytes": times * COPIED_AT_ONCE, "seconds": time.perf_counter() - begun}


def apart(*words: object) -> dict[str, float]:
    """One of the above, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", *map(str, words)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def alone(words: list[str]) -> dict[str, float]:
    """What `apart` has asked for."""
    what, *numbers = words
    if what == "copy":
        return only_copied(int(numbers[0]))
    if what == "read":
        return only_read(int(numbers[0]))
    return one_reading(int(numbers[0]), int(numbers[1]))


def rates(args: argparse.Namespace) -> list[Figure]:
    """GB/s of each way to read, and of copying."""
    found: dict[str, list[float]] = {}

    def add(name: str, result: dict[str, float]) -> None:
        found.setdefault(name, []).append(result["bytes"] / result["seconds"] / 1e9)

    for _ in range(args.rounds):
        for kind in ("4 KiB", "huge"):
            with load(kind, args.gib * GIB) as pid:
                add("copying as much", apart("copy", args.gib * GIB))
                add(f"{kind} pages: reading only", apart("read", pid))
                add(f"{kind} pages: read and digested", apart("estimate", pid, 1))
                add(f"{kind} pages: with two readers", apart("estimate", pid, 2))
    return [Figure(name, "GB/s", values) for name, values in found.items()]


def memory(args: argparse.Namespace) -> list[Figure]:
    """Peak memory by page, and the time to reckon."""
    kinds = (("all different", "4 KiB", args.dense_gib, 1), ("zero-filled", "zero", 4, 1),
             ("64 GiB, each 64th page", "4 KiB", 64, 64))  # fmt: skip
    found = []
    for name, kind, gib, every in kinds:
        with load(kind, gib * GIB, every) as pid:
            result = apart("estimate", pid, 1)
        found += [
            Figure(f"memory, {name}", "bytes a page", [result["peak_bytes"] / result["pages"]]),
            Figure(f"memory, {name}", "MiB in all", [result["peak_bytes"] / 2**20]),
            Figure(f"reading, {name}", "s", [result["seconds"]]),
            Figure(f"reckoning, {name}", "s", [result["reckoned_s"]]),
        ]
    return found


def first_answer(args: argparse.Namespace) -> list[Figure]:
    """Seconds from the command's start to its end."""
    found = []
    with load("4 KiB", GIB // 8) as pid:
        for name, options in (("--once", ["--once"]), ("two readings", [])):
            times = []
            for _ in range(args.rounds):
                begun = time.perf_counter()
                subprocess.run([KSMTRACE, "estimate", str(pid), "--json", *options], check=True,
                               stdout=subprocess.DEVNULL)  # fmt: skip
                times.append(time.perf_counter() - begun)
            found.append(Figure(f"first answer, 128 MiB, {name}", "s", times))
    return found


MEASURED: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "rates": rates,
    "memory": memory,
    "first-answer": first_answer,
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=int, default=1, help="to read in a round")
    parser.add_argument("--dense-gib", type=int, default=8, help="to measure memory over")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(args.alone)))
        return 0
    figures = [figure for name in args.only for figure in MEASURED[name](args)]
    copied = next((f.median for f in figures if f.name == "copying as much"), None)
    if args.json:
        print(json.dumps([{**asdict(f), "median": f.median} for f in figures], indent=1))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("", "median", "", "span", "of copying"):
        table.add_column(title, justify="left" if title == "" else "right")
    for f in figures:
        share = f"{f.median / copied:.0%}" if copied and f.unit == "GB/s" else ""
        span = f"{min(f.values):.2f} to {max(f.values):.2f}" if len(f.values) > 1 else ""
        table.add_row(f.name, f"{f.median:,.2f}", f.unit, span, share)
    Console(highlight=False).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
