"""The mergeable regions of a process: where ksmd looks, and what each range is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import clean


@dataclass(frozen=True)
class Region:
    """One mapping. start, end: virtual addresses. ksm_bytes: None where smaps has no KSM line.

    flags: the two-letter words of VmFlags. present_bytes, anonymous_bytes, swapped_bytes: as smaps
    tells under Rss, Anonymous and Swap; None where it doesn't.
    """

    start: int
    end: int
    permissions: str
    name: str
    mergeable: bool
    ksm_bytes: int | None
    flags: tuple[str, ...] = ()
    present_bytes: int | None = None
    anonymous_bytes: int | None = None
    swapped_bytes: int | None = None

    @property
    def may_hold_ksm_pages(self) -> bool:
        """KSM pages can be mapped outside mergeable ranges too; smaps tells since 6.6."""
        return self.mergeable if self.ksm_bytes is None else self.ksm_bytes > 0


_SIZES = {
    b"Rss:": "present_bytes",
    b"Anonymous:": "anonymous_bytes",
    b"Swap:": "swapped_bytes",
    b"KSM:": "ksm_bytes",
}


def parse_smaps(lines: Iterable[bytes]) -> Iterator[Region]:
    """The mappings of /proc/PID/smaps, in order. lines: as a file opened in binary mode gives."""
    head: list[bytes] | None = None
    sizes: dict[str, int] = {}
    for whole in lines:
        line = whole.rstrip(b"\n")
        first, _, rest = line.partition(b" ")
        if first in _SIZES and rest.strip():
            sizes[_SIZES[first]] = int(rest.split()[0]) * 1024
        elif first == b"VmFlags:" and head is not None:
            start, _, end = head[0].partition(b"-")
            flags = tuple(rest.decode(errors="replace").split())
            yield Region(
                start=int(start, 16),
                end=int(end, 16),
                permissions=head[1].decode(),
                name=clean(head[5].strip()) if len(head) > 5 else "",
                mergeable="mg" in flags,
                ksm_bytes=sizes.get("ksm_bytes"),
                flags=flags,
                present_bytes=sizes.get("present_bytes"),
                anonymous_bytes=sizes.get("anonymous_bytes"),
                swapped_bytes=sizes.get("swapped_bytes"),
            )
            head = None
        elif first and not first.endswith(b":"):
            head = line.split(None, 5)
            sizes = {}


def all_regions(tgid: int, proc: Path = PROC) -> Iterator[Region]:
    """Every mapping of a process, read as the iteration goes on; ends early if it goes away.

    The kernel walks the page tables for this: about a millisecond a gigabyte.
    """
    try:
        with (proc / str(tgid) / "smaps").open("rb") as lines:
            yield from parse_smaps(lines)
    except OSError:
        return


def concerns_ksm(region: Region) -> bool:
    """Whether ksmd scans a mapping or KSM pages lie in it."""
    return region.mergeable or region.may_hold_ksm_pages
