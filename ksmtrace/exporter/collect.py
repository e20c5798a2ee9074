"""One scrape: everything that is declared and known at this moment, as metric families."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from ksmtrace import __version__
from ksmtrace.capture.pump import Capture
from ksmtrace.exporter import metrics as m
from ksmtrace.exporter.events import EventSums
from ksmtrace.exporter.grouping import OTHER, Ranked, label, ranked
from ksmtrace.kernel.host import PAGE_BYTES, kernel_release
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.processes.background import Background
from ksmtrace.processes.following import Snapshot, Values

_PATIENCE = 2.0
"""Seconds that a scrape waits for the processes; Prometheus itself gives up after 10."""

_Key = TypeVar("_Key", bound=Hashable)


class KsmCollector(Collector):
    """What prometheus_client asks for metrics; many threads may at once.

    processes: None where the kernel tells nothing of them. listed: most processes, and most
    cgroups and guests, that get series of their own.
    """

    def __init__(
        self,
        sampler: HostSampler,
        processes: Background | None,
        capture: Capture[EventSums] | None,
        listed: tuple[int, int],
    ) -> None:
        self._sampler = sampler
        self._processes = processes
        self._capture = capture
        self._listed = listed
        self.errors = 0
        """Scrapes that failed."""

    def collect(self) -> Iterator[Family]:
        """Families with at least one sample each."""
        begin = time.perf_counter()
        families = list(self._host())
        if self._processes is not None:
            snapshot = self._processes.latest(_PATIENCE)
            if snapshot is not None:
                families += self._of_processes(snapshot)
        if self._capture is not None:
            families += _of_capture(self._capture)
        families.append(_one(m.BUILD, 1, __version__, kernel_release()))
        failures = self._processes.failures if self._processes is not None else 0
        families.append(_one(m.SCRAPE_ERRORS, self.errors + failures))
        families.append(_one(m.SCRAPE_SECONDS, time.perf_counter() - begin))
        return (family for family in families if family.samples)

    def _host(self) -> Iterator[Family]:
        values: dict[str, int | str] = {**self._sampler.counters(), **self._sampler.knobs()}
        for metric in m.HOST:
            if (value := values.get(metric.source)) is not None:
                yield _one(metric, 1, str(value)) if metric.labels else _one(metric, int(value))
        if (sharing := values.get("pages_sharing")) is not None:
            saved = int(sharing) + int(values.get("ksm_zero_pages", 0))
            yield _one(m.SAVED, saved * PAGE_BYTES)
        yield _one(m.PAGE_SIZE, PAGE_BYTES)

    def _of_processes(self, snapshot: Snapshot) -> Iterator[Family]:
        processes, groups = self._listed
        rows = snapshot.rows
        single = ranked(rows, lambda row: (row.identity.tgid, row.identity.comm), processes)
        yield from _families(m.PROCESS, single, lambda key: (str(key[0]), key[1]), (OTHER, OTHER))
        by_cgroup = ranked(rows, lambda row: label(row.identity.cgroup), groups)
        by_vm = ranked(rows, lambda row: label(row.identity.vm), groups)
        for declared, found in ((m.CGROUP, by_cgroup), (m.VM, by_vm)):
            yield from _families(declared, found, lambda key: (key,), (OTHER,))
        yield _one(m.REGISTERED, len(rows))
        yield _one(m.UNREADABLE, snapshot.unreadable)
        yield _one(m.AGE, time.monotonic() - snapshot.begun)
        yield _one(m.PROCESSES_LEFT_OUT, single.left_out)
        yield _one(m.CGROUPS_LEFT_OUT, by_cgroup.left_out)
        yield _one(m.VMS_LEFT_OUT, by_vm.left_out)


def _one(metric: m.Metric, value: float, *labels: str) -> Family:
    family = metric.family()
    metric.add(family, value, *labels)
    return family


def _families(
    declared: Iterable[m.Metric],
    found: Ranked[_Key],
    labels: Callable[[_Key], tuple[str, ...]],
    other: tuple[str, ...],
) -> Iterator[Family]:
    lines: list[tuple[tuple[str, ...], Values, int]] = [
        (labels(key), values, count) for key, values, count in found.listed
    ]
    if found.left_out:
        lines.append((other, found.rest, found.rest_processes))
    for metric in declared:
        family = metric.family()
        for names, values, count in lines:
            value = values.get(metric.source) if metric.source else count
            if value is not None:
                metric.add(family, value, *names)
        yield family


def _of_capture(capture: Capture[EventSums]) -> Iterator[Family]:
    yield _one(m.CAPTURE_UP, int(capture.working), capture.backend)
    totals = capture.sums.totals()
    yield _scan_histogram(totals.scans.tolist(), totals.scan_seconds)
    yield _one(m.MERGES, totals.merges)
    yield _one(m.ZERO_MERGES, totals.zero_merges)
    yield _one(m.FAILED_MERGES, totals.failed_merges)
    by_kind = totals.by_kind()
    events = m.EVENTS.family()
    for kind, count in by_kind.items():
        m.EVENTS.add(events, count, kind)
    yield events
    yield _one(m.LOST_EVENTS, totals.lost)
    if (breaks := capture.sums.breaks()) is not None:
        listed, others = breaks
        yield _one(m.BREAKS, by_kind["cow_break"])
        family = m.PROCESS_BREAKS.family()
        for tgid, comm, count in listed:
            m.PROCESS_BREAKS.add(family, count, tgid, comm)
        m.PROCESS_BREAKS.add(family, others, OTHER, OTHER)
        yield family


def _scan_histogram(counts: list[int], seconds: float) -> Family:
    family = m.SCAN_DURATION.family()
    bounds = [*map(float, m.SCAN_SECONDS), float("inf")]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        name = "+Inf" if bound == float("inf") else str(bound)
        family.add_sample(f"{family.name}_bucket", {"le": name}, count)
    family.add_sample(f"{family.name}_count", {}, sum(counts))
    family.add_sample(f"{family.name}_sum", {}, seconds)
    return family
