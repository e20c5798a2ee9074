"""The facts that a running host shows, watched for a while. Needs no BPF, changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ksmtrace.errors import host_cannot
from ksmtrace.inspect.advise.advice import SharedBy
from ksmtrace.inspect.advise.domains import shared_by
from ksmtrace.inspect.advise.facts import Facts, Process, Series
from ksmtrace.kernel import host
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.kernel.sysfs import KSM, PROC, HostSampler, read_ksm_stat
from ksmtrace.processes.census import census_obstacle, take_census
from ksmtrace.processes.identity import identify
from ksmtrace.processes.regions import all_regions
from ksmtrace.processes.registered import registered_tgids

_SAMPLES = 200
_SHORTEST_S = 0.05
CENSUS_S = 30.0
"""The longest that looking for shared pages may take."""
_NODES = Path("/sys/devices/system/node")


def facts_of_host(
    duration_s: float, *, tell: Callable[[str], None] = lambda _words: None, proc: Path = PROC
) -> Facts:
    """What this host shows in `duration_s` seconds. tell: is told what is being done.

    Raises KsmtraceError (exit code 3) where the kernel has no KSM.
    """
    obstacles = host.ksm_obstacles()
    if obstacles:
        raise host_cannot(obstacles, "be advised on KSM")
    sampler = HostSampler()
    try:
        series = watch(sampler.counters, duration_s, tell)
        knobs = sampler.knobs()
    finally:
        sampler.close()
    tell("looking at registered processes")
    unknown: list[str] = []
    processes = _processes(proc, unknown)
    shared, mergeable_bytes = None, None
    if processes is not None:
        tell("looking who shares with whom")
        mergeable_bytes = _mergeable_bytes(processes, proc)
        shared = _shared(processes, proc, unknown)
    memory = host.meminfo(host.read_text(proc / "meminfo") or "")
    scan_s, scans = scans_in(series)
    return Facts(
        source="this host",
        kernel=host.kernel_release(),
        kernel_build=host.kernel_build(),
        live=True,
        series=series,
        knobs=knobs,
        page_bytes=host.PAGE_BYTES,
        rmap_item_bytes=rmap_item_bytes(),
        cpus=host.CPUS,
        memory_bytes=host.memory_bytes(),
        observed_s=series.span_s,
        processes=processes,
        scan_s=scan_s,
        scans=scans,
        nodes=_nodes(),
        mergeable_bytes=mergeable_bytes,
        mem_available_bytes=memory.get("MemAvailable"),
        swap_free_bytes=memory.get("SwapFree"),
        shared=shared,
        unknown=tuple(unknown),
    )


def watch(
    counters: Callable[[], dict[str, int]], duration_s: float, tell: Callable[[str], None]
) -> Series:
    """Sample the counters until the time is over, the ends included."""
    begin = time.monotonic()
    pause = max(_SHORTEST_S, duration_s / _SAMPLES)
    at, samples = [0.0], [counters()]
    while (now := time.monotonic() - begin) < duration_s:
        tell(f"watching {duration_s - now:.0f} s more")
        time.sleep(min(pause, duration_s - now))
        samples.append(counters())
        at.append(time.monotonic() - begin)
    names = {name for sample in samples for name in sample}
    return Series(
        np.array(at),
        {name: np.array([s.get(name, np.nan) for s in samples], np.float64) for name in names},
    )


def scans_in(series: Series) -> tuple[float | None, int]:
    """Seconds of a full scan, between two ends that were seen, and how many ends were."""
    scans = series.values("full_scans")
    steps = np.diff(scans)
    ends = np.flatnonzero(steps > 0) + 1
    if not len(ends) or (steps < 0).any():
        return None, 0
    seen = int(steps[ends - 1].sum())
    if len(ends) < 2:
        return None, seen
    first, last = ends[0], ends[-1]
    seconds = float(series.at_s[last] - series.at_s[first]) / float(scans[last] - scans[first])
    return seconds, seen


def _nodes() -> int | None:
    try:
        return len([entry for entry in _NODES.iterdir() if re.fullmatch(r"node\d+", entry.name)])
    except OSError:
        # A kernel without CONFIG_NUMA has no such folder, and no merge_across_nodes either.
        return None if (KSM / "merge_across_nodes").exists() else 1


def _processes(proc: Path, unknown: list[str]) -> tuple[Process, ...] | None:
    have = host.capabilities()
    if "CAP_SYS_ADMIN" not in have:
        unknown.append("which processes are registered and who shares with whom: run with sudo.")
        return None
    if not host.in_initial_pid_namespace():
        unknown.append("processes outside this container: run on the host.")
    return tuple(one for tgid in registered_tgids(proc) if (one := _process(tgid, proc)))


def _process(tgid: int, proc: Path) -> Process | None:
    who, stat = identify(tgid, proc), read_ksm_stat(tgid, proc)
    if who is None or stat is None:
        return None
    any_memory = stat.get("ksm_merge_any")
    return Process(
        tgid=tgid,
        comm=who.comm,
        vm=who.vm,
        cgroup=who.cgroup,
        rmap_items=stat.get("ksm_rmap_items"),
        merging_pages=stat.get("ksm_merging_pages"),
        zero_pages=stat.get("ksm_zero_pages"),
        profit_bytes=stat.get("ksm_process_profit"),
        merge_any=None if any_memory is None else bool(any_memory),
    )


def _mergeable_bytes(processes: Iterable[Process], proc: Path) -> int:
    return sum(
        region.end - region.start
        for process in processes
        for region in all_regions(process.tgid, proc)
        if region.mergeable
    )


def _shared(
    processes: tuple[Process, ...], proc: Path, unknown: list[str]
) -> tuple[SharedBy, ...] | None:
    obstacle = census_obstacle(proc)
    if obstacle is not None:
        unknown.append(f"who shares with whom: {obstacle}.")
        return None
    until = time.monotonic() + CENSUS_S
    pages: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
    owners: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    chunks = (
        (number, chunk)
        for number, process in enumerate(processes)
        for chunk in take_census(process.tgid, proc)
    )
    for number, chunk in chunks:
        pages.append(chunk["pfn"].astype(np.uint64))
        owners.append(np.full(len(chunk), number, np.int64))
        if time.monotonic() > until:
            unknown.append(
                f"who else shares: looking through {number + 1:,} of {len(processes):,} processes"
                f" took {CENSUS_S:.0f} s."
            )
            break
    page = np.concatenate(pages) if pages else np.empty(0, np.uint64)
    owner = np.concatenate(owners) if owners else np.empty(0, np.int64)
    found = []
    for by in ("vm", "cgroup"):
        called = [process.vm if by == "vm" else process.cgroup for process in processes]
        names = sorted({name for name in called if name is not None})
        place = {name: number for number, name in enumerate(names)}
        groups = np.array([-1 if name is None else place[name] for name in called], np.int64)
        if names:
            found.append(
                shared_by(
                    "vm" if by == "vm" else "cgroup", page, groups[owner], names, host.PAGE_BYTES
                )
            )
    return tuple(found)
