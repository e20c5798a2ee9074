"""Every metric, declared once: names and help follow from the kernel's counters and knobs.

The documentation's table (`exporter.docs`) and the tests of the dashboard read the same list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from prometheus_client.metrics_core import Metric as Family

from ksmtrace.kernel.sysfs import COUNTERS, COUNTERS_BY_NAME, KNOBS, Counter, Knob

Kind = Literal["gauge", "counter", "histogram", "info"]

SCAN_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Upper bounds of the histogram's buckets; the advisor aims at 200 s unless told otherwise."""

_BASE_UNITS: Mapping[str, tuple[str, float]] = MappingProxyType({
    "bytes": ("bytes", 1),
    "ns": ("seconds", 1e-9),
    "milliseconds": ("seconds", 1e-3),
    "seconds": ("seconds", 1),
})  # fmt: skip
_SUFFIXES: Mapping[Kind, str] = MappingProxyType({"counter": "_total", "info": "_info"})


@dataclass(frozen=True)
class Metric:
    """One metric. name: as a query has it; a histogram's without its suffixes.

    unit: base unit that the name contains. since: the Linux that brought it. only: the option it
    needs. source: the kernel's name for it, "" for ksmtrace's own. scale: from the kernel's unit.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    since: str = ""
    only: str = ""
    source: str = ""
    scale: float = 1

    def family(self) -> Family:
        """An empty family of it."""
        name = self.name.removesuffix(_SUFFIXES.get(self.kind, ""))
        return Family(name, self.meaning, self.kind, self.unit)

    def add(self, family: Family, value: float, *labels: str) -> None:
        """Put a value, in the kernel's unit, into a family; labels: values in order."""
        scaled = value if self.scale == 1 else value * self.scale
        family.add_sample(self.name, dict(zip(self.labels, labels, strict=True)), scaled)


def _of_kernel(
    prefix: str, fact: Counter | Knob, labels: tuple[str, ...] = (), meaning: str | None = None
) -> Metric:
    """The metric of a counter or knob: PREFIX_NAME, its base unit, and _total if it only grows."""
    cumulative = isinstance(fact, Counter) and fact.cumulative
    unit, scale = _BASE_UNITS.get(fact.unit, ("", 1.0))
    stem = fact.name.removeprefix("ksm_").removeprefix("process_")
    if unit:
        stem = stem.removesuffix("_millisecs").removesuffix("_ns") + f"_{unit}"
    kind: Kind = "counter" if cumulative else "gauge"
    return Metric(
        name=f"{prefix}_{stem}{_SUFFIXES.get(kind, '')}",
        kind=kind,
        meaning=meaning or fact.meaning.removeprefix("milliseconds of "),
        labels=labels,
        unit=unit,
        since=fact.since,
        source=fact.name,
        scale=scale,
    )


NODE_EXPORTERS = (
    "full_scans", "general_profit", "merge_across_nodes", "pages_shared", "pages_sharing",
    "pages_to_scan", "pages_unshared", "pages_volatile", "run", "sleep_millisecs",
)  # fmt: skip
"""The files that node_exporter's ksmd collector exports (its collector/ksmd_linux.go): they keep
its names. It reads general_profit as unsigned."""


def _of_host(fact: Counter | Knob) -> Metric:
    prefix = "node_ksmd" if fact.name in NODE_EXPORTERS else "ksmtrace"
    words = isinstance(fact, Knob) and not fact.default.isdecimal()
    return _of_kernel(prefix, fact, ("value",) if words else ())


HOST: tuple[Metric, ...] = (
    *(_of_host(counter) for counter in COUNTERS if counter.where != "process"),
    *map(_of_host, KNOBS),
)
"""The host's counters and knobs. A knob whose value is a word has it as label, and is 1."""

PER_PROCESS: tuple[Counter, ...] = (
    *(c for c in COUNTERS if c.where == "process" and c.unit != "yes/no"),
    COUNTERS_BY_NAME["ksm_zero_pages"],
)
"""What ksm_stat says of one process."""

PROCESS: tuple[Metric, ...] = tuple(
    _of_kernel("ksmtrace_process", counter, ("tgid", "comm")) for counter in PER_PROCESS
)


def _summed(scope: str, words: str) -> tuple[Metric, ...]:
    prefix = f"ksmtrace_{scope}"
    return (
        Metric(f"{prefix}_processes", "gauge", f"registered processes {words}", (scope,)),
        *(
            _of_kernel(prefix, counter, (scope,), f"sum over its processes: {counter.meaning}")
            for counter in PER_PROCESS
        ),
    )


CGROUP = _summed("cgroup", "of the cgroup")
VM = _summed("vm", "of the QEMU guest")

SAVED = Metric(
    "ksmtrace_saved_bytes", "gauge",
    "memory saved: (pages_sharing + ksm_zero_pages) * page size", unit="bytes",
)  # fmt: skip
PAGE_SIZE = Metric("ksmtrace_page_size_bytes", "gauge", "bytes of a page", unit="bytes")

REGISTERED = Metric("ksmtrace_processes_registered", "gauge", "processes on ksmd's list")
UNREADABLE = Metric(
    "ksmtrace_processes_unreadable", "gauge",
    "processes whose ksm_stat could not be read: they are in no other figure",
)  # fmt: skip
AGE = Metric(
    "ksmtrace_processes_age_seconds", "gauge",
    "how long ago the reading of the processes began that these figures are from", unit="seconds",
)  # fmt: skip
PROCESSES_LEFT_OUT = Metric(
    "ksmtrace_processes_left_out", "gauge", "registered processes that are summed as `other`"
)
CGROUPS_LEFT_OUT = Metric("ksmtrace_cgroups_left_out", "gauge", "cgroups summed as `other`")
VMS_LEFT_OUT = Metric("ksmtrace_vms_left_out", "gauge", "QEMU guests summed as `other`")

_CAPTURE, _COW = "--capture", "--cow"
CAPTURE_UP = Metric(
    "ksmtrace_capture_up", "gauge", "1 while events are captured", ("backend",), only=_CAPTURE
)
SCAN_DURATION = Metric(
    "ksmtrace_scan_duration_seconds", "histogram",
    "how long full scans took, of those seen from start to end", unit="seconds", only=_CAPTURE,
)  # fmt: skip
MERGES = Metric(
    "ksmtrace_merges_total", "counter", "pages attached to a KSM page that stayed so",
    only=_CAPTURE,
)  # fmt: skip
ZERO_MERGES = Metric(
    "ksmtrace_zero_merges_total", "counter", "pages mapped to the zero page", only=_CAPTURE
)
FAILED_MERGES = Metric(
    "ksmtrace_failed_merges_total", "counter", "merges that the kernel tried and gave up",
    only=_CAPTURE,
)  # fmt: skip
EVENTS = Metric("ksmtrace_events_total", "counter", "events by kind", ("kind",), only=_CAPTURE)
LOST_EVENTS = Metric(
    "ksmtrace_events_lost_total", "counter",
    "events that found no place in the ring, counted with the next event on their CPU",
    only=_CAPTURE,
)  # fmt: skip
BREAKS = Metric(
    "ksmtrace_cow_breaks_total", "counter",
    "writes to merged pages that were seen as they happened", only=_COW,
)  # fmt: skip
PROCESS_BREAKS = Metric(
    "ksmtrace_process_cow_breaks_total", "counter",
    "the same by process; `other` has those of processes without a place of their own",
    ("tgid", "comm"), only=_COW,
)  # fmt: skip

BUILD = Metric("ksmtrace_build_info", "info", "which ksmtrace on which kernel",
               ("version", "kernel"))  # fmt: skip
SCRAPE_SECONDS = Metric(
    "ksmtrace_scrape_duration_seconds", "gauge", "how long this scrape took to collect",
    unit="seconds",
)  # fmt: skip
SCRAPE_ERRORS = Metric(
    "ksmtrace_scrape_errors_total", "counter", "scrapes and readings of processes that failed"
)

METRICS: tuple[Metric, ...] = (
    *HOST, SAVED, PAGE_SIZE,
    *PROCESS, *CGROUP, *VM,
    REGISTERED, UNREADABLE, AGE, PROCESSES_LEFT_OUT, CGROUPS_LEFT_OUT, VMS_LEFT_OUT,
    CAPTURE_UP, SCAN_DURATION, MERGES, ZERO_MERGES, FAILED_MERGES, EVENTS, LOST_EVENTS,
    BREAKS, PROCESS_BREAKS,
    BUILD, SCRAPE_SECONDS, SCRAPE_ERRORS,
)  # fmt: skip
"""All of them, in the order of a scrape."""
