"""Which processes a question is about: by id, all, by cgroup, by name, or all virtual machines."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import Identity, all_tgids, identify, leader_of, stands_as

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Wanted:
    """What a person chose. cgroup: a path below the cgroup root, its children included."""

    tgids: Sequence[int] = ()
    everything: bool = False
    cgroup: str | None = None
    vms: bool = False
    name: str | None = None


@dataclass
class Selection:
    """Chosen processes, by id. missing: id -> why one that was asked for is not among them."""

    processes: list[Identity] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)


def select(wanted: Wanted, proc: Path = PROC) -> Selection:
    """The processes that exist now and have memory of their own; kernel threads never do.

    Raises KsmtraceError if a process was named that never was one, or if nothing is chosen.
    """
    selection = Selection()
    for tgid in dict.fromkeys(wanted.tgids):
        _named(tgid, selection, proc)
    if wanted.everything or wanted.cgroup is not None or wanted.vms or wanted.name is not None:
        known = {process.tgid for process in selection.processes}
        for tgid in sorted(set(all_tgids(proc)) - known):
            # Who asks is not asked about.
            if tgid == os.getpid() or stands_as(tgid, proc) != "process":
                continue
            identity = identify(tgid, proc)
            if identity is not None and _is_wanted(identity, wanted):
                selection.processes.append(identity)
    if not selection.processes and not selection.missing:
        raise KsmtraceError(*_nobody(wanted), exit_code=_nobody_code(wanted))
    selection.processes.sort(key=lambda identity: identity.tgid)
    return selection


def _named(tgid: int, selection: Selection, proc: Path) -> None:
    standing = stands_as(tgid, proc)
    identity = identify(tgid, proc) if standing == "process" else None
    leader = leader_of(tgid, proc)
    if leader not in (None, tgid):
        selection.missing[tgid] = f"is a thread of process {leader}"
    elif identity is not None:
        selection.processes.append(identity)
    elif standing in ("kernel thread", "zombie"):
        selection.missing[tgid] = f"is a {standing} and has no memory of its own"
    else:
        selection.missing[tgid] = "does not exist"


def _is_wanted(identity: Identity, wanted: Wanted) -> bool:
    if wanted.everything or (wanted.vms and identity.vm is not None):
        return True
    if wanted.cgroup is not None and identity.cgroup is not None:
        place = PurePosixPath(identity.cgroup)
        if place.is_relative_to(_below_root(wanted.cgroup)):
            return True
    if wanted.name is None:
        return False
    return any(
        name is not None and fnmatch.fnmatchcase(name, wanted.name)
        for name in (identity.comm, identity.vm)
    )


def _below_root(path: str) -> PurePosixPath:
    """A cgroup as /proc/PID/cgroup names it; people also give its folder."""
    place = PurePosixPath(path)
    if place.is_relative_to(CGROUPS):
        place = place.relative_to(CGROUPS)
    return PurePosixPath("/") / place


def _nobody_code(wanted: Wanted) -> Exit:
    chosen = wanted.vms or wanted.cgroup is not None or wanted.name is not None
    return Exit.FAILED if chosen else Exit.USAGE


def _nobody(wanted: Wanted) -> tuple[str, str]:
    if wanted.vms:
        return "no QEMU guest is running here", "name a process, or use --name or --all"
    if wanted.cgroup is not None:
        return f"no process is in cgroup {wanted.cgroup}", "systemd-cgls lists cgroups"
    if wanted.name is not None:
        return f"no process is called {wanted.name}", "the pattern matches whole names: 'redis*'"
    return "no process was chosen", "give a process id, or --all, --vms, --cgroup or --name"
