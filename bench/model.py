"""How fast is the reference scanner, and how much memory does a page of it take?

make bench-model
.venv/bin/python bench/model.py --rounds 5 --json

Each kind of visit is measured apart: a memory is made in which a whole scan does nothing else,
and that scan is timed. The demo workload's mix (smart_scan=0) is what the aim of 200,000 visits a
second is about. Where it may (root, and ksmd for itself) the real ksmd scans the same contents,
interleaved with the model, and its own CPU time is taken. Medians and the span of the rounds.
Not measured: the cost of many processes, and of events being looked at.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table

from ksmtrace.errors import KsmtraceError
from ksmtrace.lab import workload
from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import scenario_of
from ksmtrace.model import Clock, KsmScanner, Memory, Mm
from ksmtrace.model.content import PAGE_SIZE

START = 0x1000_0000_0000
ALL = 1 << 31


def scanner_with(contents: list[bytes], **knobs: object) -> tuple[KsmScanner, Memory, Mm]:
    """A scanner over one process with these pages."""
    memory = Memory()
    knobs = {"smart_scan": 0, "pages_to_scan": ALL, **knobs}
    scanner = KsmScanner(memory, kernel="6.18", knobs=knobs, clock=Clock())
    mm = memory.spawn(1)
    memory.map(mm, START, len(contents))
    memory.madvise_mergeable(mm, START, START + len(contents) * PAGE_SIZE)
    for number, content in enumerate(contents):
        memory.write(mm, START + number * PAGE_SIZE, content)
    return scanner, memory, mm


def unique(count: int, salt: int = 0) -> list[bytes]:
    """Distinct contents in an order that a tree doesn't like too much."""
    return [
        b"unique %d %d" % ((number * 2_654_435_761) % (1 << 32), salt) for number in range(count)
    ]


def timed(scanner: KsmScanner) -> float:
    """Seconds of one full scan."""
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    scanner.scan()
    seconds = time.perf_counter() - begin
    gc.enable()
    return seconds


def already_merged(pages: int) -> float:
    """Visits that find everything as it was."""
    scanner, _, _ = scanner_with([b"%d" % (n % (pages // 100)) for n in range(pages)])
    scanner.scan(2)
    return pages / timed(scanner)


def skipped(pages: int) -> float:
    """Pages that smart scan leaves out."""
    scanner, _, _ = scanner_with(unique(pages), smart_scan=1)
    scanner.scan(14)
    return pages / timed(scanner)


def changed(pages: int) -> float:
    """Pages that were written since."""
    scanner, memory, mm = scanner_with(unique(pages))
    scanner.scan(2)
    for number, content in enumerate(unique(pages, 1)):
        memory.write(mm, START + number * PAGE_SIZE, content)
    return pages / timed(scanner)


def inserted(pages: int) -> float:
    """Pages that wait in the unstable tree."""
    scanner, _, _ = scanner_with(unique(pages))
    scanner.scan(1)
    return pages / timed(scanner)


def merged(pages: int) -> float:
    """Pages that merge in this scan, a hundred of each."""
    scanner, _, _ = scanner_with([b"%d" % (n % (pages // 100)) for n in range(pages)])
    scanner.scan(1)
    return pages / timed(scanner)


def mix_contents() -> list[list[bytes]]:
    """The demo workload's pages, by process."""
    shared = [b"shared %d" % c for c in range(workload.SHARED_CONTENTS)]
    return [
        [c for c in shared for _ in range(workload.COPIES_OF_EACH)]
        + [b""] * workload.ZERO_PAGES
        + [b"own %d %d" % (worker, n) for n in range(workload.UNIQUE_PAGES)]
        + [b"changing %d %d" % (worker, n) for n in range(workload.CHANGING_PAGES)]
        for worker in range(workload.WORKERS)
    ]


def demo_mix(scans: int) -> float:
    """The demo workload, its changing pages written before every scan."""
    memory = Memory()
    scanner = KsmScanner(
        memory, kernel="6.18", knobs={"smart_scan": 0, "pages_to_scan": ALL}, clock=Clock()
    )
    mms = []
    pages = workload.PAGES
    for worker, contents in enumerate(mix_contents()):
        mm = memory.spawn(worker + 1)
        memory.map(mm, START, pages)
        memory.madvise_mergeable(mm, START, START + pages * PAGE_SIZE)
        for number, content in enumerate(contents):
            memory.write(mm, START + number * PAGE_SIZE, content)
        mms.append(mm)
    scanner.scan(2)
    seconds = 0.0
    visits = scanner.counters["pages_scanned"]
    for turn in range(scans):
        for worker, mm in enumerate(mms):
            for number in range(pages - workload.CHANGING_PAGES, pages):
                content = b"turn %d %d %d" % (turn, worker, number)
                memory.write(mm, START + number * PAGE_SIZE, content)
        seconds += timed(scanner)
    return (scanner.counters["pages_scanned"] - visits) / seconds


def bytes_a_page(contents: list[bytes]) -> float:
    """Memory of the whole model by page, after a scan in which all is merged or in a tree."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = scanner_with(contents)
    kept[0].scan(2)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / len(contents)


def real_rate(host: Host, steps: list[dict[str, object]], scan_steps: int) -> float:
    """Visits of ksmd in a second of its CPU, in the last `scan_steps` scans of a scenario."""
    scenario = scenario_of({"knobs": {"smart_scan": 0}, "step": steps}, "bench")
    seen = host.perform(plan_scenario(scenario)).observations
    last = [one for one in seen if one.begin is not None and one.end is not None][-scan_steps:]
    first = seen[seen.index(last[0]) - 1]
    visits = last[-1].counters["pages_scanned"] - first.counters["pages_scanned"]
    cpu = sum(one.end.ksmd_cpu_ns - one.begin.ksmd_cpu_ns for one in last if one.begin and one.end)
    return visits / (cpu / 1e9)


def filled(pages: int, content: dict[str, object]) -> list[dict[str, object]]:
    """Steps that make one process with `pages` pages."""
    return [{"map": "a.p", "pages": pages}, {"write": "a.p", **content}]


def real_kinds(pages: int) -> dict[str, tuple[list[dict[str, object]], int]]:
    """The same kinds of visits for the real ksmd: steps, and how many last scans count."""
    same = {"content": "random", "of": pages // 100, "seed": 1}
    return {
        "already merged": ([*filled(pages, same), {"scan": 3}], 1),
        "changed": (
            [*filled(pages, {"content": "unique"}), {"scan": 2},
             {"write": "a.p", "content": "unique"}, {"scan": 1}],
            1,
        ),
        f"inserted, tree of {pages:,}": ([*filled(pages, {"content": "unique"}), {"scan": 2}], 1),
        "merged": ([*filled(pages, same), {"scan": 2}], 1),
    }  # fmt: skip


def experiments(pages: int, large: int) -> Iterator[tuple[str, Callable[[], float]]]:
    """(name, measurement of visits a second)."""
    yield "demo workload's mix", lambda: demo_mix(60)
    yield "already merged", lambda: already_merged(pages)
    yield "skipped", lambda: skipped(pages)
    yield "changed", lambda: changed(pages)
    yield f"inserted, tree of {pages:,}", lambda: inserted(pages)
    if large:
        yield f"inserted, tree of {large:,}", lambda: inserted(large)
    yield "merged", lambda: merged(pages)


def main() -> None:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="interleaved rounds")
    parser.add_argument("--pages", type=int, default=100_000, metavar="N", help="pages of most")
    parser.add_argument("--large", type=int, default=1_000_000, metavar="N", help="the large tree")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    model: dict[str, list[float]] = {}
    real: dict[str, list[float]] = {}
    with ExitStack() as stack:
        host = None
        try:
            host = stack.enter_context(host_stage())
        except KsmtraceError as error:
            print(f"without the real ksmd: {error.message}", file=sys.stderr)
        for number in range(args.rounds):
            # The largest takes long and says the same each time.
            large = args.large if number == 0 else 0
            for name, measure in experiments(args.pages, large):
                print(f"round {number + 1}: {name}", file=sys.stderr)
                model.setdefault(name, []).append(measure())
            for name, (steps, last) in real_kinds(args.pages).items() if host else ():
                real.setdefault(name, []).append(real_rate(host, steps, last))
    sizes = {
        "all merged": bytes_a_page([b"%d" % (n % 1000) for n in range(100_000)]),
        "merged in pairs": bytes_a_page([b"%d" % (n // 2) for n in range(100_000)]),
        "all unique": bytes_a_page(unique(100_000)),
    }
    if args.json:
        told = {
            name: {
                "visits_per_second": statistics.median(rates),
                "real_ksmd_visits_per_second": statistics.median(real[name])
                if name in real
                else None,
                "rounds": rates,
            }
            for name, rates in model.items()
        }
        print(json.dumps({"visits": told, "bytes_a_page": sizes}, indent=1))
        return
    table = Table("visit", "model /s", "span", "ksmd /s", "model : ksmd", box=None)
    for name, rates in model.items():
        middle = statistics.median(rates)
        own = statistics.median(real[name]) if name in real else None
        table.add_row(
            name,
            f"{middle:,.0f}",
            f"{min(rates) / 1e3:,.0f}-{max(rates) / 1e3:,.0f} k",
            "–" if own is None else f"{own:,.0f}",
            "–" if own is None else f"1 : {own / middle:.1f}",
        )
    console = Console(highlight=False)
    console.print(table)
    for name, size in sizes.items():
        console.print(f"memory a page, {name}: {size:,.0f} bytes")


if __name__ == "__main__":
    main()
