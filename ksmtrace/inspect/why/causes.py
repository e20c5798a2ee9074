"""Why a page is not merged: every cause, in the order in which ksmd would meet it.

docs/why.md lists them from here. Kernel facts: mm/ksm.c of 6.12 and 6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ksmtrace.processes.eligibility import BARS

Level = Literal["host", "process", "region", "page"]


@dataclass(frozen=True)
class Cause:
    """One cause. name: stable, as in --json. what: a few words. remedy: what to do, if anything."""

    name: str
    level: Level
    what: str
    meaning: str
    remedy: str


_FROM_BARS: dict[str, Cause] = {
    bar.cause: Cause(bar.cause, "region", bar.why, f"flag {bar.vm_flag}", bar.remedy)
    for bar in reversed(BARS)
}

_ALL: tuple[Cause, ...] = (
    Cause(
        "stopped", "host", "ksmd is stopped (run=0)",
        "KSM's switch is off; what is merged stays merged",
        "echo 1 > /sys/kernel/mm/ksm/run; check what sets it: ksmtuned, MOM, a boot script",
    ),
    Cause(
        "unmerging", "host", "everything was unmerged (run=2)",
        "the last who wrote to run undid all merging and stopped ksmd",
        "echo 1 > /sys/kernel/mm/ksm/run",
    ),
    Cause(
        "no_pages_to_scan", "host", "ksmd looks at no page (pages_to_scan=0)",
        "each batch is empty",
        "echo 1000 > /sys/kernel/mm/ksm/pages_to_scan",
    ),
    Cause(
        "asleep", "host", "ksmd sleeps for hours between batches",
        "sleep_millisecs is so long that nothing seems to happen",
        "echo 20 > /sys/kernel/mm/ksm/sleep_millisecs",
    ),
    Cause(
        "no_memory", "process", "the process has no memory of its own",
        "a kernel thread or a zombie",
        "none: choose another process",
    ),
    Cause(
        "unregistered", "process", "nobody registered this memory",
        "neither madvise(MADV_MERGEABLE) nor prctl(PR_SET_MEMORY_MERGE) was called for it",
        "",
    ),
    *_FROM_BARS.values(),
    Cause(
        "absent", "page", "never touched, or given back",
        "there is no page at these addresses; there is nothing to save",
        "none is needed",
    ),
    Cause(
        "swapped", "page", "in swap",
        "ksmd looks only at pages in memory, and never brings one in",
        "none, until it is used again; if much of the process is here, memory is short",
    ),
    Cause(
        "file", "page", "a file's page, not written by the process",
        "the page cache shares it already",
        "none is needed",
    ),
    Cause(
        "zero_page", "page", "mapped to the zero page",
        "takes no memory: it was only read, or ksmd put it there (use_zero_pages)",
        "none is needed",
    ),
    Cause(
        "merged", "page", "it is a KSM page",
        "shared, or the one that others share",
        "none is needed",
    ),
    Cause(
        "unread", "page", "not looked at",
        "it could not be read, a program handles its faults (userfaultfd), or it was too late",
        "look again; --seconds gives more time",
    ),
    Cause(
        "changing", "page", "its content changes",
        "written between two looks: ksmd waits until a page held still from one scan to the next",
        "none; if most of a region is like this, don't register it: it only costs rmap_items",
    ),
    Cause(
        "unique", "page", "no other registered page is equal",
        "nothing to merge with on this host now",
        "register the processes that hold the same: ksmtrace estimate --all finds them",
    ),
    Cause(
        "forked", "page", "shared by fork already, with no other equal",
        "parent and child map the same page; ksmd leaves that alone, there is nothing to save",
        "none is needed",
    ),
    Cause(
        "numa", "page", "its equals are on other NUMA nodes",
        "merge_across_nodes=0 keeps KSM from sharing over nodes",
        "echo 2 > run; echo 1 > merge_across_nodes; echo 1 > run (needs memory for unmerging)",
    ),
    Cause(
        "sharing_limit", "page", "max_page_sharing is reached",
        "each KSM page with this content has as many mappings as one may have, and a new one needs"
        " two pages that are not merged yet",
        "none for one page; a higher max_page_sharing saves more, and makes reclaim slower",
    ),
    Cause(
        "not_reached", "page", "ksmd has not been there twice yet",
        "a page is merged at the second visit at the earliest",
        "wait, or raise pages_to_scan",
    ),
    Cause(
        "smart_scan", "page", "smart scan may be skipping it",
        "a page that did not merge for long is visited in every 2nd, 4th, then 8th scan only",
        "wait for 8 scans, or echo 0 > /sys/kernel/mm/ksm/smart_scan",
    ),
    Cause(
        "held", "page", "somebody holds it, or the equal that it would merge with",
        "it has equals, ksmd was there, and still it is not merged: a reference (O_DIRECT,"
        " io_uring, RDMA, VFIO, vmsplice) keeps it or its twin in ksmd's tree from being replaced;"
        " the kernel doesn't tell which",
        "find who pins it or its equals; with a guest's device passthrough nothing can be done",
    ),
)  # fmt: skip

CAUSES: Mapping[str, Cause] = MappingProxyType({cause.name: cause for cause in _ALL})

HARMLESS = ("absent", "file", "zero_page", "merged", "forked")
"""Causes that cost nothing: no memory could be saved there."""
