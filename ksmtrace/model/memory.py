"""Simulated memory, as far as ksmd can tell it from the real one.

Processes with regions, frames shared by fork, copy on write, pins, huge pages, NUMA nodes and swap.
What user programs do is a method here; what ksmd does to memory is in `model.merging`. Semantics:
mm/memory.c and mm/ksm.c, 2.6.38 to 6.19; docs/model.md names what is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

from ksmtrace.kernel.releases import Behaviour
from ksmtrace.model.address_space import (
    Frame,
    Home,
    HugePage,
    Mm,
    Protection,
    SwapSlot,
    Vma,
    next_serial,
)
from ksmtrace.model.content import PAGE_SIZE, ZERO, content_of, overwritten
from ksmtrace.model.swap import CannotSwapOut, Swap, is_movable

__all__ = [
    "HUGE_PAGES", "Frame", "HugePage", "Ksm", "Memory", "MemoryFault", "Mm", "Protection",
    "SwapSlot", "Vma",
]  # fmt: skip

HUGE_PAGES = 512
"""Pages of a 2 MiB huge page."""


class MemoryFault(Exception):
    """A process did what would have got a real one a signal or an error; the text says what."""


class Ksm(Protocol):
    """What memory tells KSM (include/linux/ksm.h)."""

    behaviour: Behaviour
    takes_all: bool
    """Whether every compatible region is its own, unasked (UKSM); then opting in does nothing."""
    ksm_zero_pages: int
    """Pages that ksmd mapped to the zero page, as sysfs counts them."""

    def enter(self, mm: Mm, *, parent: Mm | None = None, exec_: bool = False) -> None:
        """Put an address space on ksmd's list."""
        ...

    def exit(self, mm: Mm) -> None:
        """An address space has lost its last user."""
        ...

    def copied(self, mm: Mm, address: int) -> None:
        """A write copies a KSM page, or a zero page that the scanner placed."""
        ...

    def unmergeable(self, mm: Mm, start: int, end: int) -> None:
        """MADV_UNMERGEABLE, where `takes_all`."""
        ...


class Memory:
    """A machine's memory. cow_ksm: copies made of KSM pages, as in vmstat."""

    def __init__(self) -> None:
        self.mms: list[Mm] = []
        self.cow_ksm = 0
        self.ksm: Ksm | None = None
        self._next_pfn = 0x1000
        self._next_mm = 1
        self._next_root = 1
        self.swap = Swap(self)
        self.zero_frame = self.new_frame(ZERO, 0)
        self.zero_frame.pins = 1

    # What programs do.

    def spawn(self, tgid: int) -> Mm:
        """A process with an empty address space."""
        mm = self._new_mm(self._next_mm, tgid)
        self._next_mm += 1
        self.mms.append(mm)
        return mm

    def map(self, mm: Mm, start: int, pages: int, *, compatible: bool = True, nid: int = 0) -> None:
        """Map private anonymous memory at a free address. Raises MemoryFault if it isn't free.

        nid: the NUMA node that its pages shall come from.
        """
        end = start + pages * PAGE_SIZE
        if pages < 1 or any(mm.vmas_in(start, end)):
            raise MemoryFault(f"there is something mapped at {start:#x} already")
        vma = Vma(start, end, compatible=compatible, nid=nid)
        mm.set_vmas([*mm.vmas, vma])
        if mm.merge_any and compatible:
            vma.mergeable = True
            if not mm.mergeable and self._knows("keeps_merge_any"):
                self._enter(mm)

    def extend(self, mm: Mm, address: int, pages: int) -> None:
        """Let the region at `address` grow at its end (brk, mremap in place).

        Raises MemoryFault if there is no region, or no room.
        """
        vma = mm.vma_at(address)
        if vma is None or pages < 1:
            raise MemoryFault(f"nothing can grow at {address:#x}")
        end = vma.end + pages * PAGE_SIZE
        if any(mm.vmas_in(vma.end, end)):
            raise MemoryFault(f"there is something mapped at {vma.end:#x} already")
        mm.set_vmas([each.part(each.start, end) if each is vma else each for each in mm.vmas])

    def place(self, mm: Mm, start: int, end: int, nid: int) -> None:
        """Mbind: pages made in the range from now on come from NUMA node `nid`."""
        for vma in mm.split_vmas(start, end):
            vma.nid = nid

    def map_huge(self, mm: Mm, start: int, content: bytes) -> None:
        """Fault in one huge page, every 4 KiB of it with `content`, at mapped, untouched memory."""
        end = start + HUGE_PAGES * PAGE_SIZE
        if start % (HUGE_PAGES * PAGE_SIZE):
            raise MemoryFault(f"a huge page can't begin at {start:#x}")
        if mm.mapped_in(start, end) or sum(v.end - v.start for v in mm.vmas_in(start, end)) == 0:
            raise MemoryFault(f"a huge page needs untouched memory at {start:#x}")
        huge = HugePage()
        for address in range(start, end, PAGE_SIZE):
            frame = self._first_frame_at(mm, address, content)
            frame.huge = huge
            huge.frames.append(frame)
            self.map_frame(mm, address, frame)
        mm.addresses_changed()

    def write(self, mm: Mm, address: int, content: bytes) -> None:
        """Overwrite a whole page. Raises MemoryFault where that isn't allowed."""
        self._require(mm, address, "write")
        if len(content) > PAGE_SIZE or address % PAGE_SIZE:
            raise MemoryFault(f"that is no page at {address:#x}")
        if content[-1:] == b"\0":
            content = content_of(content)
        if address in mm.swapped:
            self.swap.bring_back(mm, address)
        frame = mm.pages.get(address)
        if frame is None or frame is self.zero_frame:
            if address in mm.ksm_zero and self.ksm is not None:
                self.ksm.copied(mm, address)
            self.unmap_page(mm, address)
            self.map_frame(mm, address, self._first_frame_at(mm, address, content))
            mm.addresses_changed()
            return
        if frame.ksm:
            frame = self._write_to_ksm_page(mm, address, frame)
        elif not frame.exclusive:
            if frame.mapcount > 1 or frame.pins or frame.swap is not None:
                frame = self._copy(mm, address, frame)
            frame.exclusive = True
        frame.content = content
        mm.clean.discard(address)

    def write_part(self, mm: Mm, address: int, offset: int, data: bytes) -> None:
        """Overwrite some bytes of a page."""
        self._require(mm, address, "write")
        if address in mm.swapped:
            self.swap.bring_back(mm, address)
        frame = mm.pages.get(address)
        before = ZERO if frame is None else frame.content
        self.write(mm, address, overwritten(before, offset, data))

    def read(self, mm: Mm, address: int) -> bytes:
        """Read a page; one never touched gets the zero page."""
        self._require(mm, address, "read")
        if address in mm.swapped:
            self.swap.bring_back(mm, address)
        if address not in mm.pages:
            mm.pages[address] = self.zero_frame
            mm.addresses_changed()
        return mm.pages[address].content

    def discard(self, mm: Mm, start: int, end: int) -> None:
        """MADV_DONTNEED."""
        for address in mm.swapped_in(start, end):
            self.swap.forget(mm, address)
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
            if vma.mergeable or self._takes_all:
                self.unshare(mm, vma.start, vma.end)
        shift = target - start
        mm.set_vmas([vma for vma in mm.vmas if vma not in moving])
        moved = [
            replace(
                v,
                start=v.start + shift,
                end=v.end + shift,
                moved=0 if v.root is None else v.moved + shift,
                serial=next_serial(),
            )
            for v in moving
        ]
        mm.set_vmas([*mm.vmas, *moved])
        for address in mm.mapped_in(start, end):
            mm.pages[address + shift] = mm.pages.pop(address)
            for marks in (mm.clean, mm.ksm_zero):
                if address in marks:
                    marks.discard(address)
                    marks.add(address + shift)
        for address in mm.swapped_in(start, end):
            mm.swapped[address + shift] = mm.swapped.pop(address)
        mm.addresses_changed()

    def fork(self, mm: Mm, tgid: int) -> Mm:
        """Fork: every page is shared, and the child registers if the parent is registered."""
        child = self.spawn(tgid)
        child.parent = mm
        child.set_vmas([vma.copy() for vma in mm.vmas])
        self.swap.fork(mm, child)
        child.share_pages_of(mm)
        child.merge_any = mm.merge_any
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
        for address in list(mm.swapped):
            self.swap.forget(mm, address)
        mm.set_vmas([])
        mm.addresses_changed()
        self.mms.remove(mm)

    def madvise_mergeable(self, mm: Mm, start: int, end: int) -> None:
        """MADV_MERGEABLE."""
        if self._takes_all:
            return
        for vma in mm.split_vmas(start, end):
            if vma.compatible and not vma.mergeable:
                self._enter(mm)
                vma.mergeable = True

    def madvise_unmergeable(self, mm: Mm, start: int, end: int) -> None:
        """MADV_UNMERGEABLE: unshare what is merged, then keep ksmd away."""
        if self.ksm is not None and self.ksm.takes_all:
            self.ksm.unmergeable(mm, start, end)
            return
        for vma in mm.split_vmas(start, end):
            if vma.mergeable:
                self.unshare(mm, vma.start, vma.end)
                vma.mergeable = False

    def prctl_merge(self, mm: Mm, *, on: bool) -> None:
        """PR_SET_MEMORY_MERGE. Raises MemoryFault on kernels without it."""
        if self.ksm is not None and self.ksm.behaviour.merge_any == "absent":
            raise MemoryFault("this kernel has no PR_SET_MEMORY_MERGE: it came with Linux 6.4")
        if on == mm.merge_any or self._takes_all:
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
        if address in mm.swapped:
            self.swap.bring_back(mm, address)
        frame = mm.pages.get(address)
        if frame is None:
            raise MemoryFault(f"there is no page to pin at {address:#x}")
        frame.pins += 1
        return frame

    def unpin(self, frame: Frame) -> None:
        """Give a reference back."""
        frame.pins -= 1

    def swap_out(self, mm: Mm, start: int, end: int) -> None:
        """Swap out what is mapped in a range. Raises MemoryFault for what can't leave memory."""
        try:
            self.swap.out(mm, start, end)
        except CannotSwapOut as error:
            raise MemoryFault(str(error)) from None

    def migrate(self, mm: Mm, start: int, end: int, nid: int) -> None:
        """Move what is mapped in a range to NUMA node `nid`, with all its other mappings.

        What is held stays, as does a KSM page that the kernel doesn't know all mappings of, and in
        6.1 to 6.4 what may not be accessed.
        """
        for address in mm.mapped_in(start, end):
            frame = mm.pages[address]
            if frame is self.zero_frame or frame.nid == nid or self._is_out_of_sight(mm, address):
                continue
            frames = [frame] if frame.huge is None else frame.huge.frames
            for each in frames:
                if is_movable(each, self._mappings_of(each)):
                    each.nid = nid
                    self._next_pfn += 1
                    each.pfn = self._next_pfn

    # What the kernel does for them, and for ksmd.

    def _new_mm(self, number: int, tgid: int) -> Mm:
        return Mm(number, tgid)

    @property
    def _takes_all(self) -> bool:
        return self.ksm is not None and self.ksm.takes_all

    def saved_pages(self) -> int:
        """Pages mapped beyond the frames that hold them, those shared by fork included.

        Of the zero page's mappings those count that the scanner placed.
        """
        mapped = placed = 0
        frames: set[Frame] = set()
        for mm in self.mms:
            mapped += len(mm.pages)
            placed += len(mm.ksm_zero)
            frames.update(mm.pages.values())
        if self.zero_frame in frames:
            frames.remove(self.zero_frame)
            mapped -= sum(
                frame is self.zero_frame for mm in self.mms for frame in mm.pages.values()
            )
        return mapped + placed - len(frames)

    def _is_out_of_sight(self, mm: Mm, address: int) -> bool:
        """Whether follow_page() doesn't find the page, being PROT_NONE (6.1 to 6.4)."""
        if self.ksm is None or self.ksm.behaviour.prot_none == "visited":
            return False
        vma = mm.vma_at(address)
        return vma is not None and vma.protection == "none"

    def _mappings_of(self, frame: Frame) -> list[tuple[Mm, int]]:
        return [(mm, a) for mm in self.mms for a, mapped in mm.pages.items() if mapped is frame]

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
            frame = self.new_frame_at(mm, address, ZERO)
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

    def _write_to_ksm_page(self, mm: Mm, address: int, frame: Frame) -> Frame:
        assert self.ksm is not None
        sole = frame.mapcount == 1 and not frame.pins and frame.swap is None
        if sole and self.ksm.behaviour.sole_mapping_reused:
            frame.ksm = False
            frame.node = None
            frame.exclusive = True
            return frame
        self.ksm.copied(mm, address)
        return self._copy(mm, address, frame)

    def _copy(self, mm: Mm, address: int, frame: Frame) -> Frame:
        """Copy on write."""
        if frame.ksm:
            self.cow_ksm += 1
        copy = self.new_frame_at(mm, address, frame.content)
        self.replace_page(mm, address, copy)
        return copy

    def new_frame(self, content: bytes, nid: int = 0) -> Frame:
        """A frame that nobody maps yet."""
        self._next_pfn += 1
        return Frame(self._next_pfn, content, nid)

    def new_frame_at(self, mm: Mm, address: int, content: bytes) -> Frame:
        """A frame that nobody maps yet, from where the region's policy says."""
        vma = mm.vma_at(address)
        return self.new_frame(content, 0 if vma is None else vma.nid)

    def _first_frame_at(self, mm: Mm, address: int, content: bytes) -> Frame:
        """The same; the region has a page from now on."""
        self.home_of(mm, address)
        return self.new_frame_at(mm, address, content)

    def home_of(self, mm: Mm, address: int) -> Home:
        """Where a page at this address belongs (anon_vma root and linear page index)."""
        vma = mm.vma_at(address)
        assert vma is not None
        if vma.root is None:
            vma.root = self._next_root
            self._next_root += 1
        return vma.root, address - vma.moved

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
