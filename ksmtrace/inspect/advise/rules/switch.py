"""KSM that does nothing, because it is off or because nobody opted in."""

from __future__ import annotations

from ksmtrace.amounts import count, size
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.rules.base import UNKNOWN_GAIN, Rule, named, write
from ksmtrace.inspect.advise.situation import Situation


def _items(now: Situation) -> int:
    return sum(process.rmap_items or 0 for process in now.facts.processes or ())


def _waits(now: Situation) -> bool:
    return bool(now.facts.processes) or bool(now.rmap_items)


def _who(now: Situation) -> str:
    processes = sorted(now.facts.processes or (), key=lambda p: -(p.rmap_items or 0))
    if not processes:
        return f"{count(now.rmap_items)} pages are on ksmd's list"
    told = named(processes, lambda p: f"with {count(p.rmap_items)} pages")
    return f"{count(len(processes))} registered: {told}"


def _stopped(now: Situation) -> Advice | None:
    if now.knob("run") != 0 or now.facts.stepped or not _waits(now):
        return None
    kept = f" What was merged before ({size(now.saved_bytes)}) stays." if now.saved_pages else ""
    return Advice(
        what="start ksmd",
        commands=(write("run", 1),),
        why=f"run is 0, so ksmd doesn't scan; {_who(now)}.{kept}",
        brings=UNKNOWN_GAIN,
        risks="CPU for ksmd, and a copy at each write to a merged page.",
        confidence="sure",
        evidence={
            "run": 0,
            "registered_processes": _registered(now),
            "rmap_items": _items(now) or now.rmap_items,
        },
        first=True,
    )


def _unmerged(now: Situation) -> Advice | None:
    if now.knob("run") != 2 or not _waits(now):
        return None
    return Advice(
        what="let ksmd merge again",
        commands=(write("run", 1),),
        why=f"run is 2: all was unmerged and ksmd is stopped; {_who(now)}.",
        brings=UNKNOWN_GAIN,
        risks="whoever unmerged may have had a reason: a program that ran out of time, or a leak.",
        confidence="sure",
        evidence={"run": 2, "registered_processes": _registered(now)},
        first=True,
    )


def _stopped_for_whom(now: Situation) -> Advice | None:
    if now.knob("run") not in (0, 2) or now.facts.stepped or _waits(now):
        return None
    if now.facts.processes is not None:
        return None
    return Advice(
        what="find out whether anybody waits for ksmd",
        commands=("sudo ksmtrace advise",),
        why=f"run is {now.knob('run')}, so ksmd doesn't scan, and without root nobody can tell"
        " whether a process is registered.",
        brings=UNKNOWN_GAIN,
        risks="none: it only looks.",
        confidence="sure",
        evidence={"run": now.knob("run"), "registered_processes": None},
    )


def _registered(now: Situation) -> int | None:
    return None if now.facts.processes is None else len(now.facts.processes)


def _nothing_registered(now: Situation) -> Advice | None:
    if now.facts.processes != () or now.rmap_items != 0:
        return None
    ways = (
        "ksmtrace record --run --merge -- COMMAND    # try any program",
        "systemctl edit NAME.service    # [Service] MemoryKSM=yes",
        "-machine mem-merge=on    # QEMU; its default",
        "prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0)    # all of a program, Linux 6.4",
        "madvise(addr, length, MADV_MERGEABLE)    # one range of it",
    )
    start = () if now.knob("run") == 1 else (write("run", 1),)
    fate = now.profile.behaviour.merge_any if now.profile is not None else "kept"
    exec_loses = (
        f" On Linux {now.facts.kernel} an exec undoes prctl, and so MemoryKSM= too: madvise it is."
        if fate in ("lost", "unscanned")
        else ""
    )
    return Advice(
        what="opt programs in: one of these ways",
        commands=(*start, *ways),
        why="no process has offered memory to KSM, and ksmd looks at nothing else.",
        brings=UNKNOWN_GAIN,
        risks="equal pages can be told by timing: offer only memory of one domain of trust."
        + exec_loses,
        confidence="sure",
        evidence={"registered_processes": 0, "rmap_items": now.rmap_items},
        first=True,
    )


STOPPED = Rule(
    "ksmd_stopped",
    "`run` is 0 though processes are registered, or pages are on ksmd's list",
    "`run` 1",
    _stopped,
)
UNMERGED = Rule(
    "all_unmerged",
    "`run` is 2 though processes are registered",
    "`run` 1",
    _unmerged,
)
STOPPED_FOR_WHOM = Rule(
    "ksmd_stopped_unseen",
    "`run` is 0 or 2 and processes can't be read",
    "to look again as root",
    _stopped_for_whom,
)
NOTHING_REGISTERED = Rule(
    "nothing_registered",
    "no process is registered and ksmd's list is empty",
    "how to register: prctl, `MemoryKSM=`, QEMU's `mem-merge`, madvise",
    _nothing_registered,
)
