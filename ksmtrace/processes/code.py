"""Where an instruction lies: in which file a process maps there, or in which kernel function."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import clean

KERNEL_HALF = 1 << 63
KERNEL = "[kernel]"
_LINES_AT_ONCE = 1 << 12
_TEXT = frozenset(b"tTwW")


@dataclass(frozen=True)
class Location:
    """Where an instruction lies; None: not known.

    file: the mapped file's path, `[kernel]`, or the mapping's name. offset: into the file, into a
    mapping that is no file's, or into the kernel's symbol.
    """

    file: str | None = None
    offset: int | None = None
    symbol: str | None = None


UNKNOWN = Location()


@dataclass(frozen=True)
class Mapping:
    """One executable mapping. start, end: virtual addresses. offset: of start, into the file."""

    start: int
    end: int
    offset: int
    name: str


def parse_maps(lines: Iterable[bytes]) -> Iterator[Mapping]:
    """The executable mappings of /proc/PID/maps, in order; what is no such line is passed over."""
    for line in lines:
        words = line.rstrip(b"\n").split(None, 5)
        if len(words) < 5 or b"x" not in words[1]:
            continue
        start, _, end = words[0].partition(b"-")
        try:
            span = int(start, 16), int(end, 16), int(words[2], 16)
        except ValueError:
            continue
        yield Mapping(*span, clean(words[5].strip()) if len(words) > 5 else "")


def executable_mappings(tgid: int, proc: Path = PROC) -> tuple[Mapping, ...]:
    """Those of a process now; none if it is gone."""
    try:
        with (proc / str(tgid) / "maps").open("rb") as lines:
            return tuple(parse_maps(lines))
    except OSError:
        return ()


def locate(mappings: tuple[Mapping, ...], ip: int) -> Location:
    """Where a user-mode instruction lies; mappings: in order of their addresses."""
    number = bisect_right(mappings, ip, key=lambda mapping: mapping.start) - 1
    if number < 0 or ip >= mappings[number].end:
        return UNKNOWN
    mapping = mappings[number]
    # What is no file's has no name of its own but a kind: [vdso], [anon:...], or nothing.
    return Location(mapping.name or "[anonymous]", ip - mapping.start + mapping.offset)


class KernelSymbols:
    """The kernel's functions by address, from /proc/kallsyms once it is loaded."""

    def __init__(self, kallsyms: Path = PROC / "kallsyms") -> None:
        self._kallsyms = kallsyms
        self._addresses = array("Q")
        self._names: list[str] = []
        self.loaded = False

    def load(self) -> Iterator[None]:
        """Read the file, a part at each step: it has a hundred thousand lines and more.

        Where the kernel hides its addresses nothing is known afterwards.
        """
        found: list[tuple[int, str]] = []
        try:
            with self._kallsyms.open("rb") as lines:
                for number, line in enumerate(lines):
                    words = line.split(None, 3)
                    if len(words) > 2 and words[1][0] in _TEXT and int(words[0], 16):
                        found.append((int(words[0], 16), clean(words[2])))
                    if number % _LINES_AT_ONCE == 0:
                        yield
        except (OSError, ValueError):
            found = []
        found.sort()
        self._addresses = array("Q", (address for address, _ in found))
        self._names = [name for _, name in found]
        self.loaded = True

    def locate(self, ip: int) -> Location:
        """Where a kernel-mode instruction lies."""
        number = bisect_right(self._addresses, ip) - 1
        if number < 0:
            return Location(KERNEL)
        return Location(KERNEL, ip - self._addresses[number], self._names[number])
