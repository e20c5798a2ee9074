"""What this host can and can't do for tracing KSM, each lack with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ksmtrace.capture.choose import SOURCES, load_source
from ksmtrace.capture.command import merge_fate_words
from ksmtrace.capture.cow import cow_obstacles
from ksmtrace.capture.uksm_doctor import uksm_findings
from ksmtrace.errors import Obstacle
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel import host, sysfs
from ksmtrace.kernel.diagnosis import Diagnosis, Finding
from ksmtrace.processes.census import census_obstacle
from ksmtrace.processes.lifecycle import ProcConnector


def examine() -> Diagnosis:
    """Look at everything; changes nothing."""
    if host.has_uksm():
        return Diagnosis([*uksm_findings(), *_surroundings()], can_trace=False, system="uksm")
    obstacles = {name: load_source(name).check() for name in SOURCES}
    able = [name for name, found in obstacles.items() if not found]
    findings = [
        *_ksm(),
        *_tracepoints(needed=not able),
        *_backends(obstacles, able[:1]),
        *_beside(core=not obstacles["core"]),
        *_surroundings(),
    ]
    return Diagnosis(findings, bool(able), None if host.ksm_obstacles() else "ksm")


def _ksm() -> Iterator[Finding]:
    missing = host.ksm_obstacles()
    if missing:
        yield Finding("KSM", "no", missing[0].what, missing[0].remedy)
        return
    yield Finding("KSM", "yes", f"Linux {host.kernel_release()}")
    running = sysfs.read_knob("run")
    if running == "1":
        yield Finding("ksmd", "yes", "running (run=1)")
    else:
        yield Finding(
            "ksmd",
            "note",
            f"switched off (run={running}): nothing is scanned",
            "record --run, or echo 1 > /sys/kernel/mm/ksm/run",
        )
    known = [(knob.name, knob.since) for knob in sysfs.KNOBS]
    known += [(c.name, c.since) for c in sysfs.COUNTERS if c.where == "ksm"]
    absent = [f"{name} ({since})" for name, since in known if sysfs.read_knob(name) is None]
    if absent:
        yield Finding("counters and knobs", "note", f"this kernel lacks {', '.join(absent)}")
    else:
        yield Finding("counters and knobs", "yes", "all that ksmtrace knows")


def _tracepoints(*, needed: bool) -> Iterator[Finding]:
    names = tuple(kind.name for kind in TRACEPOINTS)
    have = host.ksm_tracepoints(names)
    if len(have) == len(names):
        yield Finding("tracepoints", "yes", f"all {len(names)}")
    elif have:
        lacking = ", ".join(sorted(set(names) - set(have)))
        yield Finding("tracepoints", "note", f"{len(have)} of {len(names)}; no {lacking}")
    elif not needed:
        yield Finding("tracepoints", "note", "none: they came with Linux 6.4")
    else:
        obstacle = host.tracepoint_obstacle()
        if host.tracefs() is None and not host.has_btf():
            obstacle = host.tracefs_obstacle()
        yield Finding("tracepoints", "no", obstacle.what, obstacle.remedy)


def _backends(
    obstacles: Mapping[str, Sequence[Obstacle]], best: Sequence[str]
) -> Iterator[Finding]:
    for name, found in obstacles.items():
        topic = f"backend {name}"
        if not found:
            chosen = " (record takes it)" if name in best else ""
            yield Finding(topic, "yes", load_source(name).summary + chosen)
        for obstacle in found:
            yield Finding(topic, "no", obstacle.what, obstacle.remedy)


def _beside(*, core: bool) -> Iterator[Finding]:
    obstacle = census_obstacle()
    if obstacle is None:
        yield Finding("census", "yes", "who maps which KSM page, from pagemap and kpageflags")
    else:
        yield Finding("census", "no", obstacle.what.removeprefix("no census: "), obstacle.remedy)
    try:
        ProcConnector().close()
    except OSError as error:
        yield Finding("process events", "no", f"proc connector: {error.strerror}", "run with sudo")
    else:
        yield Finding("process events", "yes", "fork, exec, rename and exit as they happen")
    hidden = cow_obstacles()
    for found in hidden:
        yield Finding("record --cow", "no", found.what, found.remedy)
    if not hidden and not core:
        yield Finding("record --cow", "no", "only the core backend sees writes to merged pages")
    elif not hidden:
        yield Finding("record --cow", "yes", "writes to merged pages as they happen, and who")
    fate, words = merge_fate_words()
    yield Finding("record --merge", "yes" if fate == "kept" else "no", words)


def _surroundings() -> Iterator[Finding]:
    if not host.in_initial_pid_namespace():
        yield Finding(
            "process ids",
            "note",
            "this is a container: events carry the host's process ids, /proc shows others",
            "run on the host, or with --pid=host",
        )
    mode = host.lockdown()
    if mode not in (None, "none"):
        yield Finding(
            "lockdown", "note", f"{mode}: may forbid BPF and tracefs", "boot with lockdown=none"
        )
