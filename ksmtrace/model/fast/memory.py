"""Simulated memory over arrays: `model.memory`, with bulk operations for hosts of any size."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from ksmtrace.model.address_space import Frame, Mm, SwapSlot
from ksmtrace.model.content import CHECKSUMS, PAGE_SIZE
from ksmtrace.model.fast.bulk import map_fresh, write_places
from ksmtrace.model.fast.contents import ByteContents, NumberedContents
from ksmtrace.model.fast.handle import handle_of
from ksmtrace.model.fast.space import FastMm, FrameView, refused
from ksmtrace.model.fast.stream import WORDS
from ksmtrace.model.fast.tables import (
    ALL_COUNTS,
    BLOCK,
    BLOCK_SHIFT,
    CHAIN,
    EXCLUSIVE,
    FRAME,
    KNOWN,
    MM,
    NEXT_CHAIN,
    NEXT_ITEM,
    NEXT_NODE,
    NOBODY,
    NODE,
    PLACE,
    SEGMENT,
    UNSTABLE,
    VMA,
    WIDE,
    Tables,
)
from ksmtrace.model.memory import Memory

_BUCKETS = 1 << 18
_MOST_WIDE = 32


class FastMemory(Memory):
    """A machine's memory as arrays. contents: numbers instead of bytes, for huge hosts.

    checksum: which function the scanner's kernel has ("xxhash" or "jhash2").
    """

    def __init__(
        self, *, checksum: str = "xxhash", contents: NumberedContents | None = None
    ) -> None:
        function = CHECKSUMS["jhash2" if checksum == "jhash2" else "xxhash"]
        self.contents: ByteContents | NumberedContents = contents or ByteContents(function)
        self.rows: list[FastMm] = []
        self.swap_slots: dict[int, SwapSlot] = {}
        self._views: WeakValueDictionary[int, FrameView] = WeakValueDictionary()
        self._places = self._segments = self._frames = 1
        self._nids = 1
        counts = np.zeros(ALL_COUNTS, np.int64)
        counts[[NEXT_ITEM, NEXT_NODE, NEXT_CHAIN]] = 1
        self.tables = Tables(
            place=np.zeros(BLOCK, PLACE),
            segment_of=np.zeros(1, np.uint32),
            segment=np.zeros(4, SEGMENT),
            frame=np.zeros(BLOCK, FRAME),
            node=np.zeros(BLOCK, NODE),
            chain=np.zeros(8, CHAIN),
            root=np.zeros(2 * UNSTABLE, np.uint32),
            known=np.zeros((1, 0), KNOWN),
            content=self.contents.tables(),
            bucket=np.zeros((1, 1), np.uint8),
            wide=np.zeros((1, _MOST_WIDE), WIDE),
            watched=np.zeros(BLOCK, np.uint32),
            mm=np.zeros(4, MM),
            vma=np.zeros(0, VMA),
            counts=counts,
            events=np.zeros((0, WORDS), np.int64),
        )
        self._places = BLOCK
        super().__init__()

    # Views for Memory's methods.

    def frame_view(self, number: int) -> FrameView:
        """The view of a frame."""
        view = self._views.get(number)
        if view is None:
            view = self._views[number] = FrameView(self, number)
        return view

    def new_frame(self, content: bytes, nid: int = 0) -> Frame:
        """A frame that nobody maps yet."""
        self._next_pfn += 1
        number = self._frames
        self._frames += 1
        self.reserve_frames(1)
        self.tables.frame[number] = (
            self.contents.number_of(content), 0, NOBODY, self._next_pfn, EXCLUSIVE, nid,
        )  # fmt: skip
        self.know_nid(nid)
        return self.frame_view(number)

    def _new_mm(self, number: int, tgid: int) -> Mm:
        row = len(self.rows)
        self._grow("mm", row + 1)
        mm = FastMm(self, row, number, tgid)
        self.tables.mm["id"][row] = number
        self.tables.mm["tgid"][row] = tgid
        self.rows.append(mm)
        return mm

    def pin(self, mm: Mm, address: int) -> Frame:  # noqa: ARG002 as Memory's
        """Refused: raises KsmtraceError (usage)."""
        raise refused("pages that somebody holds (pin)")

    def map_huge(self, mm: Mm, start: int, content: bytes) -> None:  # noqa: ARG002 as Memory's
        """Refused: raises KsmtraceError (usage)."""
        raise refused("huge pages")

    def know_nid(self, nid: int) -> None:
        """There is such a NUMA node."""
        self._nids = max(self._nids, nid + 1)

    def where(self, place: int) -> tuple[Mm, int]:
        """Whose a place is, and its address."""
        segment = self.tables.segment[self.tables.segment_of[place >> BLOCK_SHIFT]]
        address = int(segment["start"]) + (place - int(segment["base"])) * PAGE_SIZE
        return self.rows[int(segment["mm"])], address

    # Room.

    def new_places(self, row: int, start: int, pages: int) -> int:
        """Places for `pages` addresses from `start` on; returns the first."""
        base = self._places
        blocks = -(-pages // BLOCK)
        self._places += blocks * BLOCK
        self._grow("place", self._places)
        self._grow("segment_of", self._places >> BLOCK_SHIFT)
        segment = self._segments
        self._segments += 1
        self._grow("segment", self._segments)
        first = base >> BLOCK_SHIFT
        self.tables.segment_of[first : first + blocks] = segment
        self.tables.segment[segment] = (base, start, row)
        return base

    def reserve(self, *, places: int = 0, frames: int = 0, nodes: int = 0) -> None:
        """Have room for so many more at once; growing by and by takes up to twice as much."""
        self._grow("place", self._places + places, exact=True)
        self._grow("segment_of", (self._places + places >> BLOCK_SHIFT) + 1, exact=True)
        self._grow("frame", self._frames + frames, exact=True)
        self._grow("node", int(self.tables.counts[NEXT_NODE]) + nodes, exact=True)

    def reserve_frames(self, more: int) -> None:
        """Have room for `more` frames."""
        self._grow("frame", self._frames + more)

    @property
    def frames_used(self) -> int:
        """The next frame's number."""
        return self._frames

    @frames_used.setter
    def frames_used(self, value: int) -> None:
        self._frames = value

    @property
    def next_pfn(self) -> int:
        """The last pfn that was given."""
        return self._next_pfn

    @next_pfn.setter
    def next_pfn(self, value: int) -> None:
        self._next_pfn = value

    def _grow(self, name: str, size: int, *, exact: bool = False) -> None:
        rows = getattr(self.tables, name)
        if len(rows) < size:
            size = size if exact else max(size, 2 * len(rows))
            self.tables = self.tables._replace(**{name: _longer(rows, size)})

    def ready(self, *, per_node: bool, nodes: int, chains: int, events: int) -> None:
        """Make the tables fit for a scan: so many free rows, and trees for all contents there are.

        per_node: whether every NUMA node has trees of its own.
        """
        counts = self.tables.counts
        self._grow("node", int(counts[NEXT_NODE]) + nodes)
        self._grow("chain", int(counts[NEXT_CHAIN]) + chains)
        nids = self._nids if per_node else 1
        known = self.tables.known
        shape = (max(nids, known.shape[0]), max(known.shape[1], len(self.contents)))
        if known.shape != shape:
            known = _wider(known, shape)
        bucket = self.tables.bucket
        buckets = (shape[0], min(shape[1], _BUCKETS) + 1)
        if bucket.shape != buckets:
            bucket = np.zeros(buckets, np.uint8)
        wide = self.tables.wide
        if len(wide) < shape[0]:
            wide = np.zeros((shape[0], _MOST_WIDE), WIDE)
        self._grow("watched", len(self.tables.node))
        rows = self.tables.events
        if len(rows) < events:
            rows = np.zeros((events, WORDS), np.int64)
        self.tables = self.tables._replace(
            known=known, bucket=bucket, wide=wide, content=self.contents.tables(), events=rows
        )

    @property
    def shift(self) -> int:
        """How many bits of a rank its bucket leaves out."""
        shift = 0
        while max(1, self.tables.known.shape[1]) >> shift > _BUCKETS:
            shift += 1
        return shift

    # Hosts of any size.

    def fill(self, mm: Mm, start: int, contents: npt.NDArray[np.uint32]) -> None:
        """Write a page with each of `contents` (numbers) from `start` on, where nothing is yet."""
        assert isinstance(mm, FastMm)
        vma = mm.vma_at(start)
        assert vma is not None
        self.home_of(mm, start)
        self.reserve_frames(len(contents))
        map_fresh(
            handle_of(self.tables),
            mm.place_of(start),
            contents,
            self._frames,
            self._next_pfn,
            vma.nid,
        )
        self._frames += len(contents)
        self._next_pfn += len(contents)

    def fill_places(
        self,
        places: npt.NDArray[np.int64],
        contents: npt.NDArray[np.uint32],
        frames: npt.NDArray[np.int64],
    ) -> None:
        """Map a page at each place, where nothing is yet; equal `frames` share one."""
        _, first, which = np.unique(frames, return_index=True, return_inverse=True)
        which = which.reshape(-1)
        self.reserve_frames(len(first))
        numbers = self._frames + np.arange(len(first))
        rows = self.tables.frame[self._frames : self._frames + len(first)]
        rows["content"] = contents[first]
        rows["mapcount"] = np.bincount(which, minlength=len(first))
        rows["pfn"] = self._next_pfn + 1 + np.arange(len(first))
        rows["flags"] = np.where(rows["mapcount"] == 1, EXCLUSIVE, 0)
        self.tables.place["frame"][places] = numbers[which]
        self._frames += len(first)
        self._next_pfn += len(first)

    def rewrite(self, places: npt.NDArray[np.int64], contents: npt.NDArray[np.uint32]) -> None:
        """Write a whole page at each place, where there is one that is mapped and writable."""
        assert self.ksm is not None
        self.reserve_frames(len(places))
        reuse = self.ksm.behaviour.sole_mapping_reused
        copies, broken, zeros = write_places(
            handle_of(self.tables), places, contents, self._frames, self._next_pfn, reuse
        )
        self._frames += copies
        self._next_pfn += copies
        self.cow_ksm += broken
        self.ksm.ksm_zero_pages -= zeros


def _longer(column: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    longer = np.zeros(size, column.dtype)
    longer[: len(column)] = column
    return longer


def _wider(table: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    wider = np.zeros(shape, table.dtype)
    wider[: table.shape[0], : table.shape[1]] = table
    return wider
