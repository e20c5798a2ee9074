"""The mergeable regions of a process: where ksmd looks, and what each range is called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import clean


@dataclass(frozen=True)
class Region:
    """One mapping. start, end: virtual addresses. ksm_bytes: None where smaps has no KSM line."""

    start: int
    end: int
    permissions: str
    name: str
    mergeable: bool
    ksm_bytes: int | None

    @property
    def may_hold_ksm_pages(self) -> bool:
        """KSM pages can be mapped outside mergeable ranges too; smaps tells since 6.6."""
        return self.mergeable if self.ksm_bytes is None else self.ksm_bytes > 0


def parse_smaps(text: bytes) -> Iterator[Region]:
    """The mappings of /proc/PID/smaps, in order."""
    head: list[bytes] | None = None
    ksm_bytes: int | None = None
    # The kernel escapes newlines in names, but no other character that splitlines() splits at.
    for line in text.split(b"\n"):
        first, _, rest = line.partition(b" ")
        if first == b"KSM:" and rest.strip():
            ksm_bytes = int(rest.split()[0]) * 1024
        elif first == b"VmFlags:" and head is not None:
            start, _, end = head[0].partition(b"-")
            yield Region(
                start=int(start, 16),
                end=int(end, 16),
                permissions=head[1].decode(),
                name=clean(head[5].strip()) if len(head) > 5 else "",
                mergeable=b"mg" in rest.split(),
                ksm_bytes=ksm_bytes,
            )
            head = None
        elif first and not first.endswith(b":"):
            head = line.split(None, 5)
            ksm_bytes = None


def read_regions(tgid: int, proc: Path = PROC) -> list[Region] | None:
    """Those mappings of a process that ksmd scans or that hold KSM pages.

    None if the process is gone or may not be read. The kernel walks the page tables for this:
    about a millisecond a gigabyte.
    """
    try:
        text = (proc / str(tgid) / "smaps").read_bytes()
    except OSError:
        return None
    return [r for r in parse_smaps(text) if r.mergeable or r.may_hold_ksm_pages]
