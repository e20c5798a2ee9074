"""The bench's workload: many pages of few contents, merged by ksmd at full speed, then unmerged.

Run as `python bench/ksm_load.py PAGES CONTENTS`; prints one JSON line. The tracer to be measured
runs beside it. The caller has set the knobs; ksmd stands still (run=0) at the start.
"""

import json
import mmap
import sys
import time
from pathlib import Path

from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of

KSM = Path("/sys/kernel/mm/ksm")
SPAN = 4096


def fill(memory: mmap.mmap, pages: int, contents: int) -> None:
    """Write the pages; neighbours differ, as in real memory."""
    kinds = [page_of(content + 1) for content in range(contents)]
    for first in range(0, pages, SPAN):
        last = min(first + SPAN, pages)
        # A stride that is prime to the number of contents visits all of them in a mixed order.
        block = b"".join(kinds[number * 389 % contents] for number in range(first, last))
        memory[first * PAGE : last * PAGE] = block


def main(pages: int, contents: int) -> None:
    """Merge everything in two scans, then unmerge, and say how long each took."""
    memory = mergeable_memory(pages)
    fill(memory, pages, contents)
    sampler = HostSampler()
    before = sampler.counters()
    begin = time.perf_counter()
    (KSM / "run").write_text("1")
    merging = pages - contents
    while True:
        now = sampler.counters()
        if now["full_scans"] - before["full_scans"] >= 2:
            break
        time.sleep(0.002)
    end = time.perf_counter()
    (KSM / "run").write_text("0")
    unmerge_begin = time.perf_counter()
    (KSM / "run").write_text("2")
    unmerge_end = time.perf_counter()
    (KSM / "run").write_text("0")
    shared, sharing = now["pages_shared"], now["pages_sharing"]
    print(
        json.dumps(
            {
                "merged": shared + sharing,
                "expected": pages,
                "distinct_saved": merging,
                "merge_s": end - begin,
                "ksmd_cpu_s": (now["ksmd_cpu_ns"] - before["ksmd_cpu_ns"]) / 1e9,
                "unmerge_s": unmerge_end - unmerge_begin,
                "full_scans": now["full_scans"] - before["full_scans"],
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
