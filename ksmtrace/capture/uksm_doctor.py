"""What a host with UKSM in KSM's place can and can't do, in the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.capture.uksm import UksmSource
from ksmtrace.kernel import host
from ksmtrace.kernel.diagnosis import Finding
from ksmtrace.kernel.uksm import (
    COUNTERS,
    DAEMON,
    KNOBS,
    SYSFS_COUNTERS,
    UksmSampler,
    parse_governors,
)
from ksmtrace.kernel.uksm_ports import PORTS, port_of

_OTHER = "boot a kernel with KSM (the build's choice KSM_LEGACY, or one without the patch)"


def uksm_findings() -> Iterator[Finding]:
    """Which system it is, what is known of its release, and what of it can be seen."""
    release = host.kernel_release()
    yield Finding("UKSM", "yes", f"Linux {release}, with UKSM in KSM's place ({host.UKSM})")
    yield Finding("KSM", "note", f"not in this kernel ({host.KSM} is missing)", _OTHER)
    yield _port(release)
    sampler = UksmSampler()
    try:
        counters, knobs = sampler.counters(), sampler.knobs()
    finally:
        sampler.close()
    yield _daemon(knobs)
    yield from _governor(knobs)
    known = {*SYSFS_COUNTERS, *(knob.name for knob in KNOBS)}
    if absent := sorted(known - counters.keys() - knobs.keys()):
        yield Finding("counters and knobs", "note", f"this kernel lacks {', '.join(absent)}")
    else:
        yield Finding("counters and knobs", "yes", "all that ksmtrace knows of UKSM")
    beside = {c.name: c.meaning for c in COUNTERS if c.where != "uksm"}
    seen = [name for name in beside if name in counters]
    yield Finding("beside them", "yes" if seen else "no", ", ".join(seen) or "none of the others")
    yield Finding("tracepoints", "no", "none: UKSM has none in any release", _OTHER)
    yield Finding(f"backend {UksmSource.name}", "yes", f"{UksmSource.summary} (record takes it)")
    yield Finding(
        "processes",
        "no",
        "who shares what can't be told: UKSM asks nobody to register and keeps no figures for a"
        " process that ksmtrace knows how to read",
        "estimate --all counts equal pages in processes, whatever merges them",
    )


def _port(release: str) -> Finding:
    """What the kernel's number tells; UKSM itself says its release nowhere."""
    port = port_of(release)
    if port is None:
        return Finding(
            "release",
            "note",
            f"UKSM tells none, and no port to Linux {release} is known: the last is to"
            f" {PORTS[-1].last}",
        )
    return Finding(
        "release",
        "note",
        f"UKSM tells none; ports to Linux {port.kernels} carry {port.uksm}",
        f"ksmtrace kernels --uksm {port.first} says what of it can be observed",
    )


def _daemon(knobs: dict[str, str]) -> Finding:
    run = knobs.get("run")
    if run is None:
        return Finding(DAEMON, "no", f"{host.UKSM}/run can't be read", "run with sudo")
    if run != "1":
        words = f"paused (run={run}): nothing is scanned, what is merged stays merged"
        return Finding(DAEMON, "note", words, f"echo 1 > {host.UKSM}/run")
    return Finding(DAEMON, "yes", "running (run=1)")


def _governor(knobs: dict[str, str]) -> Iterator[Finding]:
    text = host.read_text(host.UKSM / "cpu_governor")
    if text is None:
        return
    governors = parse_governors(text)
    most = knobs.get("max_cpu_percentage")
    limit = "" if most is None else f", at most {most} % of one CPU"
    yield Finding("governor", "yes", f"{governors.chosen or text}{limit}")
    if governors.unpublished:
        yield Finding(
            "vendor",
            "note",
            f"{', '.join(governors.unpublished)}: no governor of the published release, so this is"
            " a vendor's UKSM, whose defaults may differ too",
        )
