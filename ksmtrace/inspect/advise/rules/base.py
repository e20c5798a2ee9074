"""What a rule is, and what rules say alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ksmtrace.amounts import size
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.facts import Process
from ksmtrace.inspect.advise.situation import Situation
from ksmtrace.kernel.sysfs import KSM

UNKNOWN_GAIN = "not known; ksmtrace estimate --all reads the memory and tells."
_MOST_NAMED = 3


@dataclass(frozen=True)
class Rule:
    """When to advise what. id: as JSON has it. when, advises: as docs/advise.md has them.

    find: the advice for a situation, None where there is none.
    """

    id: str
    when: str
    advises: str
    find: Callable[[Situation], Advice | None]

    def ask(self, now: Situation) -> Advice | None:
        """Its advice, named after it."""
        found = self.find(now)
        return None if found is None else replace(found, id=self.id)


def write(knob: str, value: object) -> str:
    """The command that sets a knob."""
    return f"echo {value} > {KSM / knob}"


def unmerged_first(now: Situation, knob: str, value: int) -> tuple[str, ...]:
    """The commands for a knob that can only be set while nothing is merged."""
    again = 0 if now.knob("run") == 0 and not now.facts.stepped else 1
    return write("run", 2), write(knob, value), write("run", again)


def opt_out(process: Process) -> str:
    """How one process is kept out of KSM."""
    unit = (process.cgroup or "").rpartition("/")[2]
    if process.vm is not None:
        return f"-machine mem-merge=off    # QEMU: {process.name}"
    if unit.endswith(".service"):
        return f"systemctl edit {unit}    # [Service] MemoryKSM=no"
    if process.merge_any:
        return f"prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0)    # in {process.name}"
    return f"madvise(.., MADV_UNMERGEABLE)    # in {process.name}"


def opt_outs(processes: Iterable[Process]) -> tuple[str, ...]:
    """How the first few are; each way once."""
    return tuple(dict.fromkeys(opt_out(process) for process in list(processes)[:_MOST_NAMED]))


def named(processes: list[Process], tell: Callable[[Process], str]) -> str:
    """The first few with what there is to say of them, and how many more there are."""
    told = ", ".join(f"{process.name} {tell(process)}" for process in processes[:_MOST_NAMED])
    more = len(processes) - _MOST_NAMED
    return f"{told} and {more:,} more" if more > 0 else told


def memory_for_unmerging(now: Situation) -> str:
    """What run=2, which must come first, needs."""
    needed = size(now.saved_bytes)
    first = f"Unmerging first takes {needed} of free memory"
    if now.unmerge_fits is None:
        return f"{first}; whether there is that much is not known."
    if now.unmerge_fits:
        return f"{first}, which there is; merging then begins anew."
    return f"{first}, and there is NOT that much: the host would run out of memory. Don't, yet."
