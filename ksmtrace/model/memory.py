"""Simulated memory, as far as ksmd can tell it from the real one.

Processes with regions, frames shared by fork, copy on write, pins and huge pages. What user
programs do is a method here; what ksmd does to memory is in `model.merging`. Semantics: mm/memory.c
and mm/ksm.c, 2.6.38 to 6.19; docs/model.md names what is left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from ksmtrace.kernel.releases import Behaviour
from ksmtrace.model.content import PAGE_SIZE, ZERO, content_of, overwritten

Protection = Literal["write", "read", "none"]
HUGE_PAGES = 512
"""Pages of a 2 MiB huge page."""


class MemoryFault(Exception):
    """A process did what would have got a real one a signal or an error; the text says what."""


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
    """

    __slots__ = (
        "content", "exclusive", "huge", "ksm", "locked", "mapcount", "nid", "node", "pfn", "pins",
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

    @property
    def alive(self) -> bool:
        """Whether anybody maps or holds it."""
        return self.mapcount > 0 or self.pins > 0


@dataclass
class Vma:
    """A region, start to end (bytes). compatible: whether KSM may ever have it."""

    start: int
    end: int
    mergeable: bool = False
    protection: Protection = "write"
    compatible: bool = True


class Mm:
    """An address space. pages: frame by address, the zero page included.

    clean: addresses whose PTE is not dirty although the page is ordinary; ksm_zero: those that ksmd
    mapped to the zero page. ksm_*: the lines of /proc/PID/ksm_stat.
    """

    __slots__ = (
        "_addresses", "_ends", "clean", "id", "ksm_merging_pages", "ksm_rmap_items", "ksm_zero",
        "ksm_zero_pages", "merge_any", "mergeable", "pages", "slot", "tgid", "users", "vmas",
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
                vmas.append(Vma(low, high, vma.mergeable, vma.protection, vma.compatible))
        self.set_vmas(vmas)
        return list(self.vmas_in(start, end))


class Ksm(Protocol):
    """What memory tells KSM (include/linux/ksm.h)."""

    behaviour: Behaviour
    ksm_zero_pages: int
    """Pages that ksmd mapped to the zero page, as sysfs counts them."""

    def enter(self, mm: Mm, *, parent: Mm | None = None, exec_: bool = False) -> None:
        """Put an address space on ksmd's list."""
        ...

    def exit(self, mm: Mm) -> None:
        """An address space has lost its last user."""
        ...


class Memory:
    """A machine's memory. cow_ksm: copies made of KSM pages, as in vmstat."""

    def __init__(self) -> None:
        self.mms: list[Mm] = []
        self.cow_ksm = 0
        self.ksm: Ksm | None = None
        self._next_pfn = 0x1000
        self._next_mm = 1
        self.zero_frame = self.new_frame(ZERO, 0)
        self.zero_frame.pins = 1

    # What programs do.

    def spawn(self, tgid: int) -> Mm:
        """A process with an empty address space."""
        mm = Mm(self._next_mm, tgid)
        self._next_mm += 1
        self.mms.append(mm)
        return mm

    def map(self, mm: Mm, start: int, pages: int, *, compatible: bool = True) -> None:
        """Map private anonymous memory at a free address. Raises MemoryFault if it isn't free."""
        end = start + pages * PAGE_SIZE
        if pages < 1 or any(mm.vmas_in(start, end)):
            raise MemoryFault(f"there is something mapped at {start:#x} already")
        vma = Vma(start, end, compatible=compatible)
        mm.set_vmas([*mm.vmas, vma])
        if mm.merge_any and compatible:
            vma.mergeable = True
            if not mm.mergeable and self._knows("keeps_merge_any"):
                self._enter(mm)

    def map_huge(self, mm: Mm, start: int, content: bytes, nid: int = 0) -> None:
        """Fault in one huge page, every 4 KiB of it with `content`, at mapped, untouched memory."""
        end = start + HUGE_PAGES * PAGE_SIZE
        if start % (HUGE_PAGES * PAGE_SIZE):
            raise MemoryFault(f"a huge page can't begin at {start:#x}")
        if mm.mapped_in(start, end) or sum(v.end - v.start for v in mm.vmas_in(start, end)) == 0:
            raise MemoryFault(f"a huge page needs untouched memory at {start:#x}")
        huge = HugePage()
        for address in range(start, end, PAGE_SIZE):
            frame = self.new_frame(content, nid)
            frame.huge = huge
            huge.frames.append(frame)
            self.map_frame(mm, address, frame)
        mm.addresses_changed()

    def write(self, mm: Mm, address: int, content: bytes, nid: int = 0) -> None:
        """Overwrite a whole page. Raises MemoryFault where that isn't allowed."""
        self._require(mm, address, "write")
        if len(content) > PAGE_SIZE or address % PAGE_SIZE:
            raise MemoryFault(f"that is no page at {address:#x}")
        if content[-1:] == b"\0":
            content = content_of(content)
        frame = mm.pages.get(address)
        if frame is None or frame is self.zero_frame:
            self.unmap_page(mm, address)
            self.map_frame(mm, address, self.new_frame(content, nid))
            mm.addresses_changed()
            return
        if frame.ksm:
            frame = self._write_to_ksm_page(mm, address, frame)
        elif not frame.exclusive:
            if frame.mapcount > 1 or frame.pins:
                frame = self._copy(mm, address, frame)
            frame.exclusive = True
        frame.content = content
        mm.clean.discard(address)

    def write_part(self, mm: Mm, address: int, offset: int, data: bytes) -> None:
        """Overwrite some bytes of a page."""
        frame = mm.pages.get(address)
        before = ZERO if frame is None else frame.content
        self.write(mm, address, overwritten(before, offset, data))

    def read(self, mm: Mm, address: int) -> bytes:
        """Read a page; one never touched gets the zero page."""
        self._require(mm, address, "read")
        if address not in mm.pages:
            mm.pages[address] = self.zero_frame
            mm.addresses_changed()
        return mm.pages[address].content

    def discard(self, mm: Mm, start: int, end: int) -> None:
        """MADV_DONTNEED."""
        for address in mm.mapped_in(start, end):
            self.unmap_page(mm, address)
        mm.addresses_changed()

    def unmap(self, mm: Mm, start: int, end: int) -> None:
        """Munmap."""
        gone = mm.split_vmas(start, end)
        self.discard(mm, start, end)
        mm.set_vmas([vma for vma in mm.vmas if vma not in gone])

    def protect(self, mm: Mm, start: int, end: int, protection: Protection) -> None:
        """Mprotect."""
        for vma in mm.split_vmas(start, end):
            vma.protection = protection

    def remap(self, mm: Mm, start: int, end: int, target: int) -> None:
        """Mremap to `target`, which must be free: KSM pages are unshared first."""
        length = end - start
        if any(mm.vmas_in(target, target + length)):
            raise MemoryFault(f"there is something mapped at {target:#x} already")
        moving = mm.split_vmas(start, end)
        for vma in moving:
            if vma.mergeable:
                self.unshare(mm, vma.start, vma.end)
        shift = target - start
        mm.set_vmas([vma for vma in mm.vmas if vma not in moving])
        moved = [
            Vma(v.start + shift, v.end + shift, v.mergeable, v.protection, v.compatible)
            for v in moving
        ]
        mm.set_vmas([*mm.vmas, *moved])
        for address in mm.mapped_in(start, end):
            mm.pages[address + shift] = mm.pages.pop(address)
            for marks in (mm.clean, mm.ksm_zero):
                if address in marks:
                    marks.discard(address)
                    marks.add(address + shift)
        mm.addresses_changed()

    def fork(self, mm: Mm, tgid: int) -> Mm:
        """Fork: every page is shared, and the child registers if the parent is registered."""
        child = self.spawn(tgid)
        child.set_vmas(
            [Vma(v.start, v.end, v.mergeable, v.protection, v.compatible) for v in mm.vmas]
        )
        child.pages = dict(mm.pages)
        child.clean = set(mm.clean)
        child.ksm_zero = set(mm.ksm_zero)
        child.merge_any = mm.merge_any
        for frame in child.pages.values():
            frame.mapcount += 1
            frame.exclusive = False
        child.ksm_zero_pages = mm.ksm_zero_pages
        if self.ksm is not None:
            if self.ksm.behaviour.fork_counters == "inherited":
                child.ksm_rmap_items = mm.ksm_rmap_items
                child.ksm_merging_pages = mm.ksm_merging_pages
            else:
                self.ksm.ksm_zero_pages += mm.ksm_zero_pages
            if mm.mergeable:
                self.ksm.enter(child, parent=mm)
        return child

    def exec(self, mm: Mm) -> Mm:
        """Exec: a new, empty address space for the process; the old one loses its user."""
        fresh = self.spawn(mm.tgid)
        if mm.merge_any and self.ksm is not None:
            fate = self.ksm.behaviour.merge_any
            fresh.merge_any = fate in ("unscanned", "kept")
            if fate == "kept":
                self.ksm.enter(fresh, exec_=True)
        self.exit(mm)
        return fresh

    def exit(self, mm: Mm) -> None:
        """The last user goes: KSM is told, then everything is unmapped."""
        mm.users = 0
        if mm.mergeable and self.ksm is not None:
            self.ksm.exit(mm)
        for address in list(mm.pages):
            self.unmap_page(mm, address)
        mm.set_vmas([])
        mm.addresses_changed()
        self.mms.remove(mm)

    def madvise_mergeable(self, mm: Mm, start: int, end: int) -> None:
        """MADV_MERGEABLE."""
        for vma in mm.split_vmas(start, end):
            if vma.compatible and not vma.mergeable:
                self._enter(mm)
                vma.mergeable = True

    def madvise_unmergeable(self, mm: Mm, start: int, end: int) -> None:
        """MADV_UNMERGEABLE: unshare what is merged, then keep ksmd away."""
        for vma in mm.split_vmas(start, end):
            if vma.mergeable:
                self.unshare(mm, vma.start, vma.end)
                vma.mergeable = False

    def prctl_merge(self, mm: Mm, *, on: bool) -> None:
        """PR_SET_MEMORY_MERGE. Raises MemoryFault on kernels without it."""
        if self.ksm is not None and self.ksm.behaviour.merge_any == "absent":
            raise MemoryFault("this kernel has no PR_SET_MEMORY_MERGE: it came with Linux 6.4")
        if on == mm.merge_any:
            return
        if on:
            self._enter(mm)
            for vma in mm.vmas:
                vma.mergeable = vma.compatible
        else:
            for vma in mm.vmas:
                self.madvise_unmergeable(mm, vma.start, vma.end)
        mm.merge_any = on

    def pin(self, mm: Mm, address: int) -> Frame:
        """Hold a reference to a mapped page, as direct I/O does; give it back with `unpin`.

        It is a plain reference (FOLL_GET, as vmsplice takes it): fork shares the page all the same.
        """
        frame = mm.pages.get(address)
        if frame is None:
            raise MemoryFault(f"there is no page to pin at {address:#x}")
        frame.pins += 1
        return frame

    def unpin(self, frame: Frame) -> None:
        """Give a reference back."""
        frame.pins -= 1

    # What the kernel does for them, and for ksmd.

    def unshare(self, mm: Mm, start: int, end: int) -> None:
        """Give the range's KSM pages, and zero pages that ksmd placed, private copies."""
        for address in mm.mapped_in(start, end):
            self.unshare_page(mm, address)

    def unshare_page(self, mm: Mm, address: int) -> None:
        """Unshare one page if it is shared by KSM."""
        ksm = self.ksm
        frame = mm.pages.get(address)
        if frame is None or ksm is None:
            return
        behaviour = ksm.behaviour
        if not behaviour.unshare_finds_prot_none:
            vma = mm.vma_at(address)
            if vma is not None and vma.protection == "none":
                return
        if address in mm.ksm_zero and behaviour.zero_pages == "counted":
            self.unmap_page(mm, address)
            frame = self.new_frame(ZERO, 0)
            self.map_frame(mm, address, frame)
        elif frame.ksm:
            self._copy(mm, address, frame)
        else:
            return
        if behaviour.unshare == "unshare_fault":
            mm.clean.add(address)

    def unmap_page(self, mm: Mm, address: int) -> None:
        """Take one mapping away. The caller says `addresses_changed` when it is done."""
        frame = mm.pages.pop(address, None)
        if frame is None:
            return
        if frame is not self.zero_frame:
            frame.mapcount -= 1
        mm.clean.discard(address)
        if address in mm.ksm_zero:
            mm.ksm_zero.discard(address)
            mm.ksm_zero_pages -= 1
            assert self.ksm is not None
            self.ksm.ksm_zero_pages -= 1

    def replace_page(self, mm: Mm, address: int, frame: Frame) -> None:
        """Map `frame` where another page is mapped."""
        old = mm.pages[address]
        if old is not self.zero_frame:
            old.mapcount -= 1
        if frame is not self.zero_frame:
            frame.mapcount += 1
        mm.pages[address] = frame
        if mm.clean:
            mm.clean.discard(address)

    def split(self, huge: HugePage) -> None:
        """Split a huge page into its frames.

        Since 6.12 its zero-filled pages are mapped to the zero page, which KSM does not count.
        """
        for frame in huge.frames:
            frame.huge = None
        if self.ksm is None or not self.ksm.behaviour.huge_page_split_maps_zero_pages:
            return
        empty = {frame for frame in huge.frames if frame.content == ZERO}
        for mm in self.mms if empty else ():
            for address in [a for a, frame in mm.pages.items() if frame in empty]:
                self.replace_page(mm, address, self.zero_frame)

    def migrate(self, frame: Frame, nid: int) -> None:
        """Move a page to another NUMA node."""
        frame.nid = nid

    def _write_to_ksm_page(self, mm: Mm, address: int, frame: Frame) -> Frame:
        assert self.ksm is not None
        sole = frame.mapcount == 1 and not frame.pins
        if sole and self.ksm.behaviour.sole_mapping_reused:
            frame.ksm = False
            frame.node = None
            frame.exclusive = True
            return frame
        return self._copy(mm, address, frame)

    def _copy(self, mm: Mm, address: int, frame: Frame) -> Frame:
        """Copy on write."""
        if frame.ksm:
            self.cow_ksm += 1
        copy = self.new_frame(frame.content, frame.nid)
        self.replace_page(mm, address, copy)
        return copy

    def new_frame(self, content: bytes, nid: int = 0) -> Frame:
        """A frame that nobody maps yet."""
        self._next_pfn += 1
        return Frame(self._next_pfn, content, nid)

    def map_frame(self, mm: Mm, address: int, frame: Frame) -> None:
        """Map a frame where nothing is mapped. The caller says `addresses_changed`."""
        frame.mapcount += 1
        mm.pages[address] = frame

    def _enter(self, mm: Mm) -> None:
        if self.ksm is not None and not mm.mergeable:
            self.ksm.enter(mm)

    def _knows(self, fix: str) -> bool:
        return (
            fix == "keeps_merge_any"
            and self.ksm is not None
            and not self.ksm.behaviour.drop_clears_merge_any
        )

    def _require(self, mm: Mm, address: int, access: Literal["read", "write"]) -> None:
        vma = mm.vma_at(address)
        if vma is None:
            raise MemoryFault(f"nothing is mapped at {address:#x}")
        allowed = ("write",) if access == "write" else ("write", "read")
        if vma.protection not in allowed:
            raise MemoryFault(f"{address:#x} may not be {access} (mprotect)")
