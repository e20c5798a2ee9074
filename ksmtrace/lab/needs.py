"""What a scenario needs of a machine, beyond KSM: told by what its steps do.

A model always has it. A host without it can't perform the scenario, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.errors import Obstacle
from ksmtrace.lab import operations as op
from ksmtrace.lab.plan import Plan

CGROUPS = Path("/sys/fs/cgroup")
_NODES = Path("/sys/devices/system/node")
_SWAPS = Path("/proc/swaps")


@dataclass(frozen=True)
class Need:
    """Something that not every machine has. obstacles: what is missing here; none if it's there."""

    name: str
    operation: Callable[[op.Operation], bool]
    obstacles: Callable[[], list[Obstacle]]


def _no_second_node() -> list[Obstacle]:
    if {0, 1} <= _numbers(_text(_NODES / "has_memory")):
        return []
    return [
        Obstacle(
            "there are no two NUMA nodes with memory",
            "run it on a machine that has them, or in a guest: --on vm:6.12",
        )
    ]


def _numbers(text: str) -> set[int]:
    """A list of the kernel's, as 0-2,4."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _no_swap() -> list[Obstacle]:
    found = []
    if len(_text(_SWAPS).splitlines()) < 2:
        found.append(
            Obstacle(
                "there is no swap", "mkswap and swapon a disk, or run it in a guest: --on vm:6.12"
            )
        )
    if "memory" not in _text(CGROUPS / "cgroup.controllers").split():
        found.append(
            Obstacle(
                "there is no memory controller in cgroup v2",
                "mount cgroup2 at /sys/fs/cgroup, without cgroup_disable=memory",
            )
        )
    return found


def _a_parked_ksmd() -> list[Obstacle]:
    return [
        Obstacle(
            "ksmd works in steps here, and a step of the scenario lets it run at its own pace",
            "that is for models: ksmtrace simulate",
        )
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


TWO_NODES = Need(
    "two nodes",
    lambda o: isinstance(o, op.Map | op.Place | op.Migrate) and o.node > 0,
    _no_second_node,
)
SWAP = Need("swap", lambda o: isinstance(o, op.SwapOut), _no_swap)
OWN_PACE = Need("its own pace", lambda o: isinstance(o, op.Run), _a_parked_ksmd)
NEEDS = (TWO_NODES, SWAP, OWN_PACE)


def needs_of(plan: Plan) -> tuple[Need, ...]:
    """What a scenario needs."""
    operations = [operation for step in plan.steps for operation in step.operations]
    return tuple(need for need in NEEDS if any(map(need.operation, operations)))


def missing(needs: Iterable[Need]) -> list[Obstacle]:
    """What this machine lacks of it; empty if the scenario can be performed here."""
    return [obstacle for need in needs for obstacle in need.obstacles()]
