"""An address space whose pages are rows of tables, looking like any other `Mm`.

What programs do to memory is told once, in `model.memory`; these views let that work on arrays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.model.address_space import Frame, HugePage, Mm, SwapSlot, Vma
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.tables import (
    EXCLUSIVE,
    IN_SWAP_CACHE,
    KSM,
    KSM_ZERO,
    NOBODY,
    SPAN,
    ZERO_FRAME,
    Rows,
)

if TYPE_CHECKING:
    from ksmtrace.model.fast.memory import FastMemory

Numbers = npt.NDArray[np.int64]


def refused(what: str) -> KsmtraceError:
    """The error for what the fast engine doesn't do."""
    return KsmtraceError(
        f"the fast engine has no {what}", "--engine readable has everything", Exit.USAGE
    )


class FrameView(Frame):
    """A row of Frames. There is one view at a time of each, so that identity tells them apart."""

    __slots__ = ("__weakref__", "_memory", "number")

    def __init__(self, memory: FastMemory, number: int) -> None:
        self._memory = memory
        self.number = number

    def _flag(self, flag: int) -> bool:
        return bool(self._memory.tables.frame["flags"][self.number] & flag)

    def _set_flag(self, flag: int, value: bool) -> None:
        flags = self._memory.tables.frame["flags"]
        flags[self.number] = (flags[self.number] & (0xFF ^ flag)) | (flag if value else 0)

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self._memory.contents.bytes_of(
            int(self._memory.tables.frame["content"][self.number])
        )

    @content.setter
    def content(self, value: bytes) -> None:
        self._memory.tables.frame["content"][self.number] = self._memory.contents.number_of(value)

    @property
    def mapcount(self) -> int:
        """Mappings by processes."""
        return int(self._memory.tables.frame["mapcount"][self.number])

    @mapcount.setter
    def mapcount(self, value: int) -> None:
        self._memory.tables.frame["mapcount"][self.number] = value

    @property
    def pfn(self) -> int:
        """Its frame number, as events tell it."""
        return int(self._memory.tables.frame["pfn"][self.number])

    @pfn.setter
    def pfn(self, value: int) -> None:
        self._memory.tables.frame["pfn"][self.number] = value

    @property
    def nid(self) -> int:
        """Its NUMA node."""
        return int(self._memory.tables.frame["nid"][self.number])

    @nid.setter
    def nid(self, value: int) -> None:
        self._memory.tables.frame["nid"][self.number] = value
        self._memory.know_nid(value)

    @property
    def exclusive(self) -> bool:
        """Mapped by one process that has not forked since."""
        return self._flag(EXCLUSIVE)

    @exclusive.setter
    def exclusive(self, value: bool) -> None:
        self._set_flag(EXCLUSIVE, value)

    @property
    def ksm(self) -> bool:
        """Whether it is a KSM page."""
        return self._flag(KSM)

    @ksm.setter
    def ksm(self, value: bool) -> None:
        self._set_flag(KSM, value)

    @property
    def node(self) -> NodeView | None:
        """Its stable node."""
        node = int(self._memory.tables.frame["node"][self.number])
        return NodeView(self._memory, node) if node else None

    @node.setter
    def node(self, value: object) -> None:
        assert value is None
        self._memory.tables.frame["node"][self.number] = NOBODY

    @property
    def swap(self) -> SwapSlot | None:
        """The slot for which it is in the swap cache."""
        return self._memory.swap_slots.get(self.number)

    @swap.setter
    def swap(self, value: SwapSlot | None) -> None:
        self._set_flag(IN_SWAP_CACHE, value is not None)
        if value is None:
            self._memory.swap_slots.pop(self.number, None)
        else:
            self._memory.swap_slots[self.number] = value

    @property
    def pins(self) -> int:
        """Nobody holds a page but the kernel the zero page."""
        return int(self.number == ZERO_FRAME)

    @pins.setter
    def pins(self, value: int) -> None:
        if value != self.pins:
            raise refused("pages that somebody holds (pin)")

    @property
    def huge(self) -> HugePage | None:  # type: ignore[override]  # there is nothing to set
        """No page is a part of a huge one."""
        return None

    @property
    def locked(self) -> bool:  # type: ignore[override]  # there is nothing to set
        """Nobody has a page lock."""
        return False


class NodeView:
    """A stable node, as far as `model.swap` asks about one."""

    def __init__(self, memory: FastMemory, node: int) -> None:
        self._memory = memory
        self._node = node

    @property
    def items(self) -> Iterator[ItemView]:
        """The rmap_items on it, oldest first."""
        place = int(self._memory.tables.node["oldest"][self._node])
        while place:
            yield ItemView(*self._memory.where(place))
            place = int(self._memory.tables.place["newer"][place])


class ItemView:
    """Whose an rmap_item is."""

    def __init__(self, mm: Mm, address: int) -> None:
        self.mm = mm
        self.address = address


class PageTable(MutableMapping[int, Frame]):
    """The frames of an address space by address."""

    def __init__(self, mm: FastMm) -> None:
        self._mm = mm

    def __getitem__(self, address: int) -> Frame:
        frame: Frame | None = self.get(address)
        if frame is None:
            raise KeyError(address)
        return frame

    def get(self, address: int, default: Any = None) -> Any:
        """The frame at an address."""
        place = self._mm.place_of(address)
        frame = int(self._mm.memory.tables.place["frame"][place]) if place else NOBODY
        return self._mm.memory.frame_view(frame) if frame else default

    def __setitem__(self, address: int, frame: Frame) -> None:
        assert isinstance(frame, FrameView)
        self._mm.memory.tables.place["frame"][self._mm.place_of(address)] = frame.number

    def __delitem__(self, address: int) -> None:
        place = self._mm.place_of(address)
        frames = self._mm.memory.tables.place["frame"]
        if not place or not frames[place]:
            raise KeyError(address)
        frames[place] = NOBODY

    def __contains__(self, address: object) -> bool:
        place = self._mm.place_of(address) if isinstance(address, int) else NOBODY
        return bool(place and self._mm.memory.tables.place["frame"][place])

    def __iter__(self) -> Iterator[int]:
        frames = self._mm.memory.tables.place["frame"]
        for start, end, base in self._mm.segments():
            pages = (end - start) // PAGE_SIZE
            for at in np.flatnonzero(frames[base : base + pages]):
                yield start + int(at) * PAGE_SIZE

    def __len__(self) -> int:
        frames = self._mm.memory.tables.place["frame"]
        return sum(
            int(np.count_nonzero(frames[base : base + (end - start) // PAGE_SIZE]))
            for start, end, base in self._mm.segments()
        )


class ZeroMarks:
    """The addresses that ksmd mapped to the zero page, as a set."""

    def __init__(self, mm: FastMm) -> None:
        self._mm = mm

    def __contains__(self, address: int) -> bool:
        place = self._mm.place_of(address)
        return bool(place and self._mm.memory.tables.place["flags"][place] & KSM_ZERO)

    def add(self, address: int) -> None:
        """Mark one."""
        self._mm.memory.tables.place["flags"][self._mm.place_of(address)] |= KSM_ZERO

    def discard(self, address: int) -> None:
        """Unmark one."""
        if address in self:
            self._mm.memory.tables.place["flags"][self._mm.place_of(address)] &= 0xFF ^ KSM_ZERO


class NoMarks(set[int]):
    """Which page table entries are clean matters for held pages only, so nobody notes it."""

    def add(self, address: int) -> None:
        """Don't."""


class FastMm(Mm):
    """An Mm over rows. row: its row of Mms."""

    __slots__ = ("_bases", "_segment_ends", "_starts", "memory", "row")

    def __init__(self, memory: FastMemory, row: int, number: int, tgid: int) -> None:
        self.memory = memory
        self.row = row
        self._starts: list[int] = []
        self._segment_ends: list[int] = []
        self._bases: list[int] = []
        super().__init__(number, tgid)
        self.pages = PageTable(self)  # type: ignore[assignment]  # looks like a dict
        self.clean = NoMarks()
        self.ksm_zero = ZeroMarks(self)  # type: ignore[assignment]  # looks like a set

    # Where its pages are.

    def place_of(self, address: int) -> int:
        """The place of an address; 0 if nothing was ever mapped there."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._segment_ends[at]:
            return NOBODY
        return self._bases[at] + (address - self._starts[at]) // PAGE_SIZE

    def places_of(self, addresses: Numbers) -> Numbers:
        """The places of addresses, all of which were mapped."""
        at = np.searchsorted(np.array(self._starts, np.int64), addresses, side="right") - 1
        starts, bases = np.array(self._starts, np.int64), np.array(self._bases, np.int64)
        places: Numbers = bases[at] + (addresses - starts[at]) // PAGE_SIZE
        return places

    def segments(self) -> list[tuple[int, int, int]]:
        """(start, end, first place) of all that ever was mapped, in order of address."""
        return list(zip(self._starts, self._segment_ends, self._bases, strict=True))

    def set_vmas(self, vmas: list[Vma]) -> None:
        """Replace the regions."""
        super().set_vmas(vmas)
        for vma in self.vmas:
            self.memory.know_nid(vma.nid)
            self._cover(vma.start, vma.end)

    def _cover(self, start: int, end: int) -> None:
        """Have places for a range."""
        while start < end:
            at = bisect_right(self._starts, start) - 1
            if at >= 0 and start < self._segment_ends[at]:
                start = self._segment_ends[at]
                continue
            following = self._starts[at + 1] if at + 1 < len(self._starts) else end
            until = min(following, end)
            base = self.memory.new_places(self.row, start, (until - start) // PAGE_SIZE)
            self._starts.insert(at + 1, start)
            self._segment_ends.insert(at + 1, until)
            self._bases.insert(at + 1, base)
            start = until

    def spans(self, *, prot_none_visited: bool) -> Rows:
        """Its places in order, and where ksmd visits pages. Nowhere if nobody uses it any more."""
        first: list[int] = []
        ends: list[int] = []
        visited: list[bool] = []
        for start, end, base in self.segments():
            here = start
            vmas = self.vmas_in(start, end) if self.users else ()
            for vma in vmas:
                if not vma.mergeable or (vma.protection == "none" and not prot_none_visited):
                    continue
                low, high = max(vma.start, start), min(vma.end, end)
                for until, visits in ((low, False), (high, True)):
                    if until > here:
                        first.append(base + (here - start) // PAGE_SIZE)
                        ends.append(base + (until - start) // PAGE_SIZE)
                        visited.append(visits)
                        here = until
            if end > here:
                first.append(base + (here - start) // PAGE_SIZE)
                ends.append(base + (end - start) // PAGE_SIZE)
                visited.append(False)
        spans = np.zeros(len(first), SPAN)
        spans["first"], spans["end"], spans["visited"] = first, ends, visited
        return spans

    # What Mm does by going through a dict.

    def share_pages_of(self, parent: Mm) -> None:
        """Map all that a parent maps, as fork does."""
        assert isinstance(parent, FastMm)
        place, frame = self.memory.tables.place, self.memory.tables.frame
        for start, end, base in parent.segments():
            for vma in parent.vmas_in(start, end):
                low, high = max(vma.start, start), min(vma.end, end)
                pages = (high - low) // PAGE_SIZE
                source = place[base + (low - start) // PAGE_SIZE :][:pages]
                mine = place[self.place_of(low) :][:pages]
                mine["frame"] = source["frame"]
                mine["flags"] |= source["flags"] & KSM_ZERO
                np.add.at(frame["mapcount"], source["frame"], 1)
                frame["flags"][source["frame"]] &= 0xFF ^ EXCLUSIVE
        frame["mapcount"][NOBODY] = 0

    def page_from(self, address: int) -> int | None:
        """The first mapped address at or above `address`."""
        return next((a for a in self.pages if a >= address), None)

    def addresses_changed(self) -> None:
        """Nothing is remembered."""

    # The lines of ksm_stat.

    @property
    def ksm_rmap_items(self) -> int:
        """As its ksm_stat says."""
        return int(self.memory.tables.mm["rmap_items"][self.row])

    @ksm_rmap_items.setter
    def ksm_rmap_items(self, value: int) -> None:
        self.memory.tables.mm["rmap_items"][self.row] = value

    @property
    def ksm_merging_pages(self) -> int:
        """As its ksm_stat says."""
        return int(self.memory.tables.mm["merging_pages"][self.row])

    @ksm_merging_pages.setter
    def ksm_merging_pages(self, value: int) -> None:
        self.memory.tables.mm["merging_pages"][self.row] = value

    @property
    def ksm_zero_pages(self) -> int:
        """As its ksm_stat says."""
        return int(self.memory.tables.mm["zero_pages"][self.row])

    @ksm_zero_pages.setter
    def ksm_zero_pages(self, value: int) -> None:
        self.memory.tables.mm["zero_pages"][self.row] = value
