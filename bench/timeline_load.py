"""The timeline bench's workload: several processes merged, rewritten here and there, unmerged.

Run as `python bench/timeline_load.py PAGES CYCLES`. Each cycle is about twice as many events as
there are pages: all of them merge, some are written again for a few scans, run=2 ends it. The
caller has set the knobs; ksmd stands still (run=0) at the start and the end.
"""

import multiprocessing as mp
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of

KSM = Path("/sys/kernel/mm/ksm")
WORKERS = 7
CONTENTS = 5_003
CHURN_SCANS = 3
REWRITTEN = 101
"""One page in so many is written before each of the churn scans."""


def worker(pages: int, number: int, orders: Connection) -> None:
    """Hold memory, and write some of it when told."""
    memory = mergeable_memory(pages)
    for page in range(pages):
        at = page * PAGE
        memory[at : at + PAGE] = page_of((page * 389 + number) % CONTENTS + 1)
    orders.send("ready")
    while (turn := orders.recv()) is not None:
        for page in range(turn % REWRITTEN, pages, REWRITTEN):
            memory[page * PAGE] = memory[page * PAGE]
        orders.send("written")


def scan(sampler: HostSampler, scans: int) -> None:
    """Let ksmd do some full scans, then stand still."""
    before = sampler.counters()["full_scans"] or 0
    (KSM / "run").write_text("1")
    while (sampler.counters()["full_scans"] or 0) < before + scans:
        time.sleep(0.002)
    (KSM / "run").write_text("0")


def main(pages: int, cycles: int) -> None:
    """Run the cycles."""
    sampler = HostSampler()
    pipes = []
    for number in range(WORKERS):
        ours, theirs = mp.Pipe()
        mp.Process(target=worker, args=(pages // WORKERS, number, theirs), daemon=True).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    turn = 0
    for _ in range(cycles):
        scan(sampler, 2)
        for _ in range(CHURN_SCANS):
            turn += 1
            for pipe in pipes:
                pipe.send(turn)
            for pipe in pipes:
                pipe.recv()
            scan(sampler, 1)
        (KSM / "run").write_text("2")
        (KSM / "run").write_text("0")
    for pipe in pipes:
        pipe.send(None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
