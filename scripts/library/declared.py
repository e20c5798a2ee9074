"""The library: every recording in recordings/, declared once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ksmtrace.cli import demo
from library.makers import InGuest, Lab, Live, Maker, Script, TwoGuests


@dataclass(frozen=True)
class Declared:
    """A recording. shows: in a sentence or two. look: commands, with REC for its path.

    quoted: pages of docs that quote it, so that it is made again by its name only.
    """

    name: str
    title: str
    shows: str
    made: Maker
    look: tuple[str, ...]
    quoted: tuple[str, ...] = ()


_PACE = ("--set", "run=1", "pages_to_scan=100", "sleep_millisecs=20")
_EMULATED = (
    "The guest's CPU is emulated in software: times in it and ksmd's CPU say nothing about a real"
    " machine."
)
_REPORT, _TIMELINE, _CHECK = "report REC", "timeline REC", "replay REC --check"

LIBRARY: tuple[Declared, ...] = (
    Declared(
        "first-merges",
        "First merges",
        "Three processes hold the same pages and arrive one after the other. Nothing merges before"
        " its second scan; pairs make KSM pages, and who comes later joins them.",
        Lab("first-merges"),
        (_REPORT, _CHECK, "timeline REC --sharing"),
    ),
    Declared(
        "convergence",
        "Convergence",
        "Five tenants start 1.7 seconds apart while ksmd runs at 100 pages every 20 ms. How long"
        " each takes until half, 90 and 99 % of what it will share is shared.",
        Live(("--duration", "14", *_PACE), ("tenants.py",)),
        (_TIMELINE, "timeline REC --process tenant-3", "timeline REC --sharing"),
    ),
    Declared(
        "smart-scan",
        "Smart scan's skip pattern",
        "Pages that never merge are visited in scans 1, 2, 3, 4, 6, 9, 14, 23, 32 and 41 and"
        " skipped in between. Two that become equal after scan 24 have to wait until 41.",
        Lab("smart-scan"),
        ("timeline REC --scan", "timeline REC --scan 41", _CHECK),
    ),
    Declared(
        "volatile-pages",
        "Volatile pages",
        "31 pairs of equal pages are rewritten before each scan, once only a byte of each: while"
        " they change they never merge; one scan after the last change they do.",
        Lab("volatile-pages"),
        (_REPORT, "timeline REC --scan 10", _CHECK),
    ),
    Declared(
        "copy-on-write",
        "Copy-on-write churn",
        "Three processes keep writing to what they share: one flips a byte, one copies whole pages"
        " over, one reads a file into them. `--cow` sees each write, who did it and from where.",
        Live(("--cow", "--set", "run=1", "pages_to_scan=100", "sleep_millisecs=20", "smart_scan=0"),
             ("writers.py",)),
        ("timeline REC --breaks", _TIMELINE, "timeline REC --process counter"),
    ),
    Declared(
        "sharing-limit",
        "Chains by max_page_sharing",
        "159 equal pages, at most seven to a KSM page: a chain of 23. Then some are written,"
        " newcomers fill the room, a process exits and ksmd prunes the chain. No event tells of"
        " chains, but two counters do: `stable_node_chains` and `stable_node_dups`, first and last"
        " in the report, from scan to scan in the table of samples.",
        Lab("sharing-limit"),
        (_REPORT, "export REC --to csv --table counters -o -", _CHECK),
    ),
    Declared(
        "zero-pages",
        "Zero pages, off and on",
        "Zero-filled pages with `use_zero_pages` off (a KSM page like any other), on (the kernel's"
        " zero page, counted in `ksm_zero_pages` only), after `run=2`, and off again.",
        Lab("zero-pages"),
        (_REPORT, _TIMELINE, "timeline REC --accounts"),
    ),
    Declared(
        "fork-and-exit",
        "Fork, exec and exit",
        "A server with merged pages forks three workers: 303 merges of pages that the fork shared"
        " already, so no memory came free, though the kernel counts them as saved"
        " (`pages_sharing`). One writes, one execs, all exit; what they held ends without an"
        " event.",
        Lab("fork-and-exit"),
        (_REPORT, "timeline REC --process", "timeline REC --accounts"),
    ),
    Declared(
        "advisor",
        "The advisor settling",
        "The scan-time advisor is told that a scan is to take 4 seconds. With 2,003 pages it goes"
        " to its maximum; then there are thirty times as many, and it settles on what lets a scan"
        " of them take that long.",
        Live(("--duration", "40", "--set", "run=1", "sleep_millisecs=20", "smart_scan=0",
              "advisor_max_pages_to_scan=1999", "advisor_target_scan_time=4",
              "advisor_mode=scan-time"), ("growing.py",), ksmd_nice=-10),
        ("timeline REC --advisor", "timeline REC --scan", _REPORT),
    ),
    Declared(
        "unmerge-all",
        "run=2",
        "Two processes are merged; `run=2` gives every page a copy of its own and `full_scans`"
        " begins at 0; then all merges again.",
        Lab("unmerge-all"),
        (_TIMELINE, "timeline REC --scan", _CHECK),
    ),
    Declared(
        "two-guests",
        "Two virtual machines",
        "QEMU registers its guests' memory with KSM by itself. guest-a boots, then guest-b: what"
        " their kernels and files have in common is merged, and what both own is shared.",
        TwoGuests("6.12", ("guest-a", "guest-b"),
                  ("--set", "run=1", "pages_to_scan=2000", "sleep_millisecs=20",
                   "use_zero_pages=1"),
                  seconds=14),
        (_REPORT, "timeline REC --sharing vm", "timeline REC --process guest-b"),
    ),
    Declared(
        "python",
        "Five Python processes",
        "Five identical interpreters, opted in as they are by `record --merge`: what their heaps"
        " and their libraries' data have in common.",
        Live(("--duration", "11", "--run", "--set", "pages_to_scan=1000", "--merge"),
             ("interpreters",)),
        (_REPORT, "timeline REC --region", "timeline REC --sharing"),
    ),
    Declared(
        "node",
        "Three Node processes",
        "The same for three workers in JavaScript, whose heaps are laid out anew in each.",
        Live(("--duration", "11", "--run", "--set", "pages_to_scan=3000", "--merge"),
             ("node-workers",)),
        (_REPORT, "timeline REC --region", "timeline REC --sharing"),
    ),
    Declared(
        "linux-6.12",
        "The same on Linux 6.12",
        f"The scenario of `fork-and-exit` on a stock Debian kernel 6.12. {_EMULATED}",
        InGuest("6.12", "fork-and-exit"),
        (_REPORT, "diff recordings/fork-and-exit.ksm REC", _CHECK),
    ),
    Declared(
        "linux-6.1",
        "The same on Linux 6.1",
        "The scenario of `fork-and-exit` on a stock Debian kernel 6.1, which has no tracepoints of"
        " KSM: what its functions tell. There a forked child's `ksm_stat` begins with its parent's"
        f" numbers, so the report leaves out what it would have merged now. {_EMULATED}",
        InGuest("6.1", "fork-and-exit"),
        (_REPORT, "diff recordings/fork-and-exit.ksm REC", _CHECK),
    ),
    Declared(
        "demo",
        "The demo",
        "What `make demo` records: several processes with something of everything.",
        Live(("--set", *(f"{knob}={value}" for knob, value in demo.KNOBS.items())),
             (sys.executable, "-m", "ksmtrace.lab.workload", demo.SECONDS)),
        (_REPORT, _TIMELINE, "timeline REC --sharing"),
        quoted=("docs/timeline.md", "docs/diff.md", "docs/report.svg"),
    ),
    Declared(
        "analysis",
        "Two tenants",
        "A shop and its reports share a host for three quarters of a minute, with the advisor and"
        " `--cow`. [Ten questions](../docs/analysis.md) are asked of it.",
        Script("scripts/record-analysis"),
        (_REPORT, "timeline REC --breaks", "timeline REC --sharing cgroup"),
        quoted=("docs/analysis.md", "docs/diff.md"),
    ),
)  # fmt: skip
