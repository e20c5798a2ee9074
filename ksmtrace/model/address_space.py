"""What simulated memory consists of: frames, swap slots, regions, address spaces.

Plain data with look-ups; what happens to it is in `model.memory` and `model.swap`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Literal

from ksmtrace.model.content import PAGE_SIZE

Protection = Literal["write", "read", "none"]
Home = tuple[int, int]
"""Where a page belongs by the kernel's reckoning: (anon_vma root, address when first mapped)."""


_SERIALS = count(1)


def next_serial() -> int:
    """A number that no region has had yet."""
    return next(_SERIALS)


class HugePage:
    """The frames that a huge page consists of, until it is split."""

    __slots__ = ("frames",)

    def __init__(self) -> None:
        self.frames: list[Frame] = []


class Frame:
    """A page of memory. Frames are never used again, so identity tells them apart.

    mapcount: mappings by processes. pins: other references. exclusive: mapped by one process that
    has not forked since it got the page. ksm: it is a KSM page; node: its stable node then, None
    while it has none yet, and for an orphan, which has lost it. locked: somebody has the page lock.
    swap: the slot for which it is in the swap cache; it leaves when nobody waits for it there.
    """

    __slots__ = (
        "content", "exclusive", "huge", "ksm", "locked", "mapcount", "nid", "node", "pfn", "pins",
        "swap",
    )  # fmt: skip

    def __init__(self, pfn: int, content: bytes, nid: int) -> None:
        self.pfn = pfn
        self.content = content
        self.nid = nid
        self.mapcount = 0
        self.pins = 0
        self.exclusive = True
        self.ksm = False
        self.node: object | None = None
        self.locked = False
        self.huge: HugePage | None = None
        self.swap: SwapSlot | None = None

    @property
    def alive(self) -> bool:
        """Whether anybody maps or holds it."""
        return self.mapcount > 0 or self.pins > 0 or self.swap is not None


class SwapSlot:
    """A page on the swap disk. entries: page table entries that wait for it.

    frame: the page read from it, or not dropped yet, for whoever else needs it (the swap cache);
    home: where that page belongs.
    """

    __slots__ = ("content", "entries", "frame", "home")

    def __init__(self, content: bytes, home: Home) -> None:
        self.content = content
        self.entries = 0
        self.frame: Frame | None = None
        self.home = home


@dataclass
class Vma:
    """A region, start to end (bytes). compatible: whether KSM may ever have it.

    nid: the NUMA node that its policy takes new pages from. root: its family by fork, None until
    anything was written; moved: how far mremap has moved it since. serial: tells it from every
    other region that ever was; one that grows, shrinks, is split, moved or forked is another.
    """

    start: int
    end: int
    mergeable: bool = False
    protection: Protection = "write"
    compatible: bool = True
    nid: int = 0
    root: int | None = None
    moved: int = 0
    serial: int = field(default_factory=next_serial, compare=False)

    def part(self, start: int, end: int) -> Vma:
        """A piece of it, or with other borders; with the same ones it is the same region."""
        same = start == self.start and end == self.end
        serial = self.serial if same else next_serial()
        return replace(self, start=start, end=end, serial=serial)

    def copy(self) -> Vma:
        """The same in a child."""
        return replace(self, serial=next_serial())


class Mm:
    """An address space. pages: frame by address, the zero page included.

    parent: the one that it was forked from. swapped: (slot, whether it was exclusive) by address.
    clean: addresses whose PTE is not dirty although the page is ordinary; ksm_zero: those that ksmd
    mapped to the zero page. ksm_*: the lines of /proc/PID/ksm_stat.
    """

    __slots__ = (
        "_addresses", "_ends", "clean", "id", "ksm_merging_pages", "ksm_rmap_items", "ksm_zero",
        "ksm_zero_pages", "merge_any", "mergeable", "pages", "parent", "slot", "swapped", "tgid",
        "users", "vmas",
    )  # fmt: skip

    def __init__(self, number: int, tgid: int) -> None:
        self.id = number
        self.tgid = tgid
        self.users = 1
        self.mergeable = False
        self.merge_any = False
        self.slot: object | None = None
        self.vmas: list[Vma] = []
        self.pages: dict[int, Frame] = {}
        self.parent: Mm | None = None
        self.swapped: dict[int, tuple[SwapSlot, bool]] = {}
        self.clean: set[int] = set()
        self.ksm_zero: set[int] = set()
        self.ksm_rmap_items = 0
        self.ksm_merging_pages = 0
        self.ksm_zero_pages = 0
        self._ends: list[int] = []
        self._addresses: list[int] | None = None

    def vma_from(self, address: int) -> Vma | None:
        """The first region that ends above `address`."""
        at = bisect_right(self._ends, address)
        return self.vmas[at] if at < len(self.vmas) else None

    def vma_at(self, address: int) -> Vma | None:
        """The region with `address` in it."""
        vma = self.vma_from(address)
        return vma if vma is not None and vma.start <= address else None

    def vmas_in(self, start: int, end: int) -> Iterator[Vma]:
        """Regions that overlap a range."""
        for vma in self.vmas[bisect_right(self._ends, start) :]:
            if vma.start >= end:
                return
            yield vma

    def page_from(self, address: int) -> int | None:
        """The first mapped address at or above `address`."""
        if self._addresses is None:
            self._addresses = sorted(self.pages)
        at = bisect_left(self._addresses, address)
        return self._addresses[at] if at < len(self._addresses) else None

    def mapped_in(self, start: int, end: int) -> list[int]:
        """Mapped addresses in a range, ascending."""
        if (end - start) // PAGE_SIZE < len(self.pages):
            return [a for a in range(start, end, PAGE_SIZE) if a in self.pages]
        return sorted(a for a in self.pages if start <= a < end)

    def swapped_in(self, start: int, end: int) -> list[int]:
        """Swapped-out addresses in a range, ascending."""
        return sorted(a for a in self.swapped if start <= a < end) if self.swapped else []

    def share_pages_of(self, parent: Mm) -> None:
        """Map all that a parent maps, as fork does."""
        self.pages = dict(parent.pages)
        self.clean = set(parent.clean)
        self.ksm_zero = set(parent.ksm_zero)
        for frame in self.pages.values():
            frame.mapcount += 1
            frame.exclusive = False

    def addresses_changed(self) -> None:
        """To be called after an address was added to or taken from `pages`."""
        self._addresses = None

    def set_vmas(self, vmas: list[Vma]) -> None:
        """Replace the regions."""
        self.vmas = sorted(vmas, key=lambda vma: vma.start)
        self._ends = [vma.end for vma in self.vmas]

    def split_vmas(self, start: int, end: int) -> list[Vma]:
        """Make the range's borders region borders; returns the regions inside."""
        vmas = []
        for vma in self.vmas:
            cuts = sorted(
                {vma.start, vma.end, *(c for c in (start, end) if vma.start < c < vma.end)}
            )
            for low, high in pairwise(cuts):
                vmas.append(vma.part(low, high))
        self.set_vmas(vmas)
        return list(self.vmas_in(start, end))
