"""Who a process is: name, parent, start, cgroup, and for a QEMU guest its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.sysfs import PROC

_GUEST_NAME = re.compile(r"(?:^|(?<!,),)guest=((?:[^,]|,,)+)")
_FIRST_WORD = re.compile(r"(?:[^,]|,,)*")

_PF_KTHREAD = 0x00200000
Standing = Literal["process", "kernel thread", "zombie", "gone"]


@dataclass(frozen=True)
class Identity:
    """One process as /proc shows it at one moment.

    start_ticks: start time since boot in clock ticks; with tgid it names a process for good.
    vm: a QEMU guest's name, None for anything else.
    """

    tgid: int
    parent_tgid: int
    start_ticks: int
    comm: str
    cgroup: str | None
    vm: str | None
    cmdline: str | None


def clean(raw: bytes | str) -> str:
    """A process's own words as harmless text: invalid UTF-8 and control characters escaped.

    A name is whatever the process says it is; it may try to steer the terminal that shows it.
    """
    text = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def guest_name(arguments: list[str]) -> str | None:
    """The name of the QEMU guest that these arguments start, by -name NAME or -name guest=NAME."""
    program = Path(arguments[0]).name if arguments else ""
    if not (program.startswith("qemu-system") or program in ("qemu-kvm", "kvm")):
        return None
    for option, value in pairwise(arguments):
        if option in ("-name", "--name"):
            named = _GUEST_NAME.search(value)
            word = named.group(1) if named else _FIRST_WORD.findall(value)[0]
            return word.replace(",,", ",")  # QEMU's way to write a comma
    return None


def _cgroup(text: str | None) -> str | None:
    """The cgroup path: version 2's, else that of the memory controller, which owns the pages."""
    paths = {}
    for line in (text or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    chosen = paths.get("memory") if paths.get("", "/") == "/" else paths[""]
    return clean(chosen or paths[""]) if paths.get("") or chosen else None


def stat_words(tgid: int, proc: Path = PROC) -> list[bytes] | None:
    """What /proc/PID/stat has behind the name, the state first (field 3); None if it is gone."""
    try:
        stat = (proc / str(tgid) / "stat").read_bytes()
    except OSError:
        return None
    # The name may itself contain a parenthesis: the last one closes it.
    return stat.rpartition(b")")[2].split()


def identify(tgid: int, proc: Path = PROC) -> Identity | None:
    """Who `tgid` is now, command line included; None if it is gone."""
    here = proc / str(tgid)
    numbers = stat_words(tgid, proc)
    try:
        comm = (here / "comm").read_bytes().removesuffix(b"\n")
        arguments = (here / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return None
    if numbers is None:
        return None
    words = [argument.decode(errors="backslashreplace") for argument in arguments]
    vm = guest_name(words)
    return Identity(
        tgid=tgid,
        parent_tgid=int(numbers[1]),
        start_ticks=int(numbers[19]),
        comm=clean(comm),
        cgroup=_cgroup(read_text(here / "cgroup")),
        vm=clean(vm) if vm is not None else None,
        cmdline=clean(" ".join(words)) if words else None,
    )


def identify_briefly(tgid: int, proc: Path = PROC) -> Identity | None:
    """As `identify`, without cgroup, guest and command line: waits for nobody's memory locks."""
    numbers, comm = stat_words(tgid, proc), read_text(proc / str(tgid) / "comm")
    if numbers is None or comm is None:
        return None
    return Identity(tgid, int(numbers[1]), int(numbers[19]), clean(comm), None, None, None)


def stands_as(tgid: int, proc: Path = PROC) -> Standing:
    """What a process id stands for now. A kernel thread, a zombie have no memory of their own."""
    words = stat_words(tgid, proc)
    if words is None:
        return "gone"
    if words[0] in (b"Z", b"X"):
        return "zombie"
    return "kernel thread" if int(words[6]) & _PF_KTHREAD else "process"


def leader_of(tid: int, proc: Path = PROC) -> int | None:
    """The process that a thread belongs to; /proc has threads too, without listing them."""
    text = read_text(proc / str(tid) / "status") or ""
    line = next((line for line in text.splitlines() if line.startswith("Tgid:")), None)
    return None if line is None else int(line.split()[1])


def all_tgids(proc: Path = PROC) -> Iterator[int]:
    """Every process there is, in no order."""
    # pathlib's objects would cost more than the kernel's answer.
    return (int(name) for name in os.listdir(proc) if name.isdecimal())  # noqa: PTH208
