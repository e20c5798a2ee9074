"""Causes of the host and of the process: read first, because they keep everything from merging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ksmtrace.inspect.estimate.cost import Pages, cost, pace_of
from ksmtrace.inspect.why.answer import Found
from ksmtrace.inspect.why.causes import CAUSES
from ksmtrace.kernel.costs import host_costs
from ksmtrace.kernel.host import kernel_release, read_text
from ksmtrace.kernel.releases import merge_any_at_exec
from ksmtrace.kernel.sysfs import PROC, HostSampler
from ksmtrace.processes.identity import Identity
from ksmtrace.processes.regions import Region

_LONG_SLEEP_MS = 3_600_000


@dataclass
class HostFacts:
    """Counters and knobs, first and last seen."""

    knobs: Mapping[str, str]
    counters: dict[str, int]
    first: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.first or dict(self.counters)

    def again(self) -> None:
        """Read the counters once more."""
        self.counters = _read()[0]

    def number(self, name: str) -> int | None:
        """A knob that is a number; None where the kernel lacks it."""
        text = self.knobs.get(name)
        return None if text is None else int(text)

    def grown(self, name: str) -> int:
        """How much a counter rose meanwhile."""
        return self.counters.get(name, 0) - self.first.get(name, 0)

    def seconds_to_meet(self, pages: int) -> float | None:
        """Until ksmd has been twice at so many pages, by its settings; None: never."""
        if self.knobs.get("run") != "1":
            return None
        return cost(Pages(pages, 0), pace_of(dict(self.knobs)), host_costs().costs).seconds


def _read() -> tuple[dict[str, int], dict[str, str]]:
    sampler = HostSampler()
    try:
        return sampler.counters(), sampler.knobs()
    finally:
        sampler.close()


def host_facts() -> HostFacts:
    """The host as it is now."""
    counters, knobs = _read()
    return HostFacts(knobs, counters)


def found(cause: str, evidence: str, remedy: str | None = None) -> Found:
    """A cause with its evidence; the remedy is the cause's own unless another fits better."""
    return Found(cause, evidence, CAUSES[cause].remedy if remedy is None else remedy)


def host_causes(facts: HostFacts) -> list[Found]:
    """What keeps ksmd from merging anything at all."""
    causes = []
    run = facts.knobs.get("run")
    merged = facts.counters.get("pages_sharing", 0)
    if run == "0":
        causes.append(found("stopped", f"run=0, pages_sharing={merged:,}"))
    elif run == "2":
        causes.append(found("unmerging", f"run=2, pages_sharing={merged:,}"))
    if facts.number("pages_to_scan") == 0:
        causes.append(found("no_pages_to_scan", "pages_to_scan=0"))
    sleep = facts.number("sleep_millisecs") or 0
    if sleep > _LONG_SLEEP_MS:
        causes.append(found("asleep", f"sleep_millisecs={sleep} ({sleep / 3_600_000:,.0f} hours)"))
    return causes


def registration(
    identity: Identity, regions: list[Region], counters: Mapping[str, int]
) -> list[Found]:
    """Whether anybody registered this process. counters: its ksm_stat."""
    if any(region.mergeable for region in regions):
        return []
    evidence = "no region has the flag mg (VM_MERGEABLE)"
    if "ksm_merge_any" in counters:
        evidence += f", ksm_merge_any is {'yes' if counters['ksm_merge_any'] else 'no'}"
    if counters.get("ksm_merge_any"):
        evidence += ": opted in by prctl, but it has no region that can be merged"
        return [found("unregistered", evidence, "none: it has no private memory of its own")]
    return [found("unregistered", evidence, how_to_register(identity))]


def how_to_register(identity: Identity) -> str:
    """What to type so that this very process is registered, by what it is."""
    release = kernel_release()
    unit = next(
        (
            part
            for part in reversed((identity.cgroup or "").split("/"))
            if part.endswith(".service")
        ),
        None,
    )
    fate = merge_any_at_exec(release)
    if identity.vm is not None:
        return "start QEMU with -machine mem-merge=on (its default), and without share=on"
    if fate == "absent":
        return f"the program itself must call madvise(MADV_MERGEABLE) (Linux {release})"
    if unit is not None:
        return (
            f"systemctl edit {unit}: [Service] MemoryKSM=yes (systemd 254), then restart it; or"
            " madvise(MADV_MERGEABLE) in the program"
        )
    lost = "" if fate == "kept" else f"; Linux {release} loses the prctl at exec (fixed in 6.10)"
    return (
        "start it by something that calls prctl(PR_SET_MEMORY_MERGE, 1) before exec"
        f" (ksmtrace stat --merge -- CMD), or madvise(MADV_MERGEABLE) in the program{lost}"
    )


def pinned_bytes(tgid: int) -> int | None:
    """VmPin of a process: memory pinned for good by io_uring, RDMA or VFIO."""
    text = read_text(PROC / str(tgid) / "status") or ""
    line = next((line for line in text.splitlines() if line.startswith("VmPin:")), None)
    return None if line is None else int(line.split()[1]) * 1024
