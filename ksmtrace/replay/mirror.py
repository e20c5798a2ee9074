"""Making a simulated memory hold what a real one held, by what was read of it."""

from __future__ import annotations

from collections.abc import Mapping

from ksmtrace.model.content import ZERO
from ksmtrace.model.memory import Frame, Memory, Mm
from ksmtrace.recording.reader import StoredRecording

Key = tuple[int, int]
"""(process id, address)."""


def contents_by_digest(recording: StoredRecording) -> dict[int, bytes]:
    """A content for each digest that compares as the real ones do: its rank."""
    contents: dict[int, bytes] = {}
    for batch in recording.record_batches("ranks"):
        columns = [batch.column(name).to_pylist() for name in ("digest", "rank", "zero")]
        for digest, rank, zero in zip(*columns, strict=True):
            contents[digest] = ZERO if zero else (rank + 1).to_bytes(8, "big").rstrip(b"\0")
    return contents


class Mirror:
    """Keeps a Memory like the recorded one. contents: what each digest stands for.

    Frames are recognised by their recorded numbers: pages that shared a frame share one here. A
    frame that the model made itself (a new copy) gets its recorded number when that is first seen.
    """

    def __init__(self, memory: Memory, contents: Mapping[int, bytes]) -> None:
        self._memory = memory
        self._contents = contents
        self._frames: dict[int, Frame] = {}
        self._numbers: dict[int, int] = {}
        self._digests: dict[Key, int] = {}

    def digest_at(self, key: Key) -> int | None:
        """What a page held when it was last read; None if there was none."""
        return self._digests.get(key)

    def follow(self, mms: Mapping[int, Mm], rows: Mapping[Key, tuple[int | None, int]]) -> None:
        """Apply what changed since the last time. rows: (digest or None, frame) by page."""
        for tgid, addr in [key for key in self._digests if key[0] not in mms]:
            del self._digests[tgid, addr]
        changed: list[tuple[Mm, int, bytes, int]] = []
        for (tgid, addr), (digest, pfn) in rows.items():
            mm = mms.get(tgid)
            if mm is None:
                continue
            if digest is None:
                self._digests.pop((tgid, addr), None)
                self._gone(mm, addr)
                continue
            self._digests[tgid, addr] = digest
            content = self._contents[digest]
            if not self._is_there(mm, addr, content, pfn):
                self._memory.unmap_page(mm, addr)
                changed.append((mm, addr, content, pfn))
        # All that is unmapped goes first, so that a frame's number may be used again.
        for mm, addr, content, pfn in changed:
            self._map(mm, addr, content, pfn)
        for mm in mms.values():
            mm.addresses_changed()

    def _gone(self, mm: Mm, addr: int) -> None:
        # A page that ksmd mapped to the zero page is not read any more, but it is there.
        if mm.pages.get(addr) is not self._memory.zero_frame:
            self._memory.unmap_page(mm, addr)

    def _is_there(self, mm: Mm, addr: int, content: bytes, pfn: int) -> bool:
        """Whether the page already is what was read, given that the model may have made it."""
        frame = mm.pages.get(addr)
        if frame is None or frame is self._memory.zero_frame or frame.content != content:
            return False
        known = self._numbers.get(frame.pfn)
        if known == pfn:
            return True
        if known is not None:
            return False
        other = self._frames.get(pfn)
        if other is not None and other.alive:
            return False
        self._bind(frame, pfn)
        return True

    def _map(self, mm: Mm, addr: int, content: bytes, pfn: int) -> None:
        frame = self._frames.get(pfn)
        if frame is None or not frame.alive or frame.content != content:
            frame = self._memory.new_frame(content)
            self._bind(frame, pfn)
        else:
            frame.exclusive = False
        self._memory.map_frame(mm, addr, frame)

    def _bind(self, frame: Frame, pfn: int) -> None:
        self._frames[pfn] = frame
        self._numbers[frame.pfn] = pfn
