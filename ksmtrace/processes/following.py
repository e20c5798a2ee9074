"""Every process's ksm_stat, read again and again at little cost.

Each process's file stays open: that saves four fifths of opening it anew, and a file that is open
belongs to one process for good, so that a process id used again can't be mistaken.
"""

from __future__ import annotations

import heapq
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC, parse_ksm_stat, read_number
from ksmtrace.processes.identity import Identity, all_tgids, identify, stands_as
from ksmtrace.processes.registered import registered_by

_RENEWED = 32
"""Identities looked up anew at each reading, oldest first: programs exec, and change cgroups."""
_MERGING = "ksm_merging_pages"
_MOST_FILES = 1 << 17
_OTHER_FILES = 256

Values = Mapping[str, int]
"""Counters by the kernel's name; one that the kernel doesn't tell is missing."""


@dataclass(frozen=True)
class Row:
    """One registered process at one moment."""

    identity: Identity
    values: Values


@dataclass(frozen=True)
class Snapshot:
    """All registered processes at one reading. begun: when it began, of time.monotonic()."""

    rows: list[Row]
    unreadable: int
    begun: float


@dataclass(slots=True)
class _Followed:
    """fd: its open ksm_stat, None if there was no place for one more. looked_up: when, in readings.

    said: what the file said last. values: that, parsed; empty unless the process is registered.
    """

    fd: int | None
    said: bytes = b""
    values: dict[str, int] = field(default_factory=dict)
    identity: Identity | None = None
    looked_up: int = 0


class Processes:
    """Reads all processes. listed: how many will be shown, whose names must be right.

    most_open: how many files may stay open. Raises nothing for processes that come and go.
    """

    def __init__(self, listed: int, most_open: int, proc: Path = PROC) -> None:
        self._proc = proc
        self._listed = listed
        self._most_open = most_open
        self._open = 0
        self._followed: dict[int, _Followed] = {}
        self._readings = 0

    def take(self) -> Snapshot:
        """Read them all, now."""
        begun = time.monotonic()
        self._readings += 1
        present = set(all_tgids(self._proc))
        for tgid in self._followed.keys() - present:
            self._forget(tgid)
        unreadable = 0
        registered: list[tuple[int, _Followed]] = []
        for tgid in present:
            try:
                one = self._read(tgid)
            except (FileNotFoundError, ProcessLookupError):
                self._forget(tgid)
            except OSError:
                self._forget(tgid)
                unreadable += stands_as(tgid, self._proc) == "process"
            else:
                if one.values:
                    registered.append((tgid, one))
        self._look_up(registered)
        rows = [Row(one.identity, one.values) for _, one in registered if one.identity is not None]
        return Snapshot(rows, unreadable, begun)

    def close(self) -> None:
        """Close the files."""
        for tgid in list(self._followed):
            self._forget(tgid)

    def _read(self, tgid: int) -> _Followed:
        one = self._followed.get(tgid)
        if one is None:
            one = self._followed[tgid] = _Followed(None)
            said = self._first(tgid, one)
        elif one.fd is None:
            said = self._first(tgid, one)
        else:
            try:
                said = os.pread(one.fd, 4096, 0)
            except ProcessLookupError:
                # Another process may have its id by now.
                self._forget(tgid)
                return self._read(tgid)
        if said != one.said:
            one.said = said
            values = parse_ksm_stat(said.decode(errors="replace"))
            one.values = values if registered_by(values) or values.get(_MERGING) else {}
        if one.values and _MERGING.encode() not in said:
            # Linux 6.1 to 6.3 has a file of its own for it.
            merging = read_number(self._proc / str(tgid) / _MERGING)
            if merging is not None:
                one.values = {**one.values, _MERGING: merging}
        return one

    def _first(self, tgid: int, one: _Followed) -> bytes:
        """Open its file, read it, and keep it open if there is a place."""
        fd = os.open(f"{self._proc}/{tgid}/ksm_stat", os.O_RDONLY | os.O_CLOEXEC)
        keep = self._open < self._most_open
        try:
            said = os.pread(fd, 4096, 0)
        except OSError:
            keep = False
            raise
        finally:
            if not keep:
                os.close(fd)
        if keep:
            one.fd = fd
            self._open += 1
        return said

    def _forget(self, tgid: int) -> None:
        one = self._followed.pop(tgid, None)
        if one is not None and one.fd is not None:
            os.close(one.fd)
            self._open -= 1

    def _look_up(self, registered: list[tuple[int, _Followed]]) -> None:
        """Learn who is new, who may be another by now, and anew who is shown and a few more."""
        due: dict[int, _Followed] = {
            tgid: one for tgid, one in registered if one.identity is None or one.fd is None
        }
        due |= heapq.nlargest(self._listed, registered, lambda pair: weight(pair[1].values))
        due |= heapq.nsmallest(_RENEWED, registered, lambda pair: pair[1].looked_up)
        for tgid, one in due.items():
            one.identity = identify(tgid, self._proc)
            one.looked_up = self._readings


def weight(values: Values) -> tuple[int, int]:
    """What decides who is listed: merging pages, then pages on ksmd's list."""
    return values.get(_MERGING, 0), values.get("ksm_rmap_items", 0)


def files_to_keep() -> int:
    """How many files may be open for processes, once the soft limit is where the hard one is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(0, limit - _OTHER_FILES)
