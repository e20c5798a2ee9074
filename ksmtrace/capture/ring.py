"""The BPF ring buffer, mmapped and read as a strided numpy array.

Layout (kernel/bpf/ringbuf.c, since Linux 5.8): one page with the consumer's position, one with
the producer's, then the data twice in a row, so that what wraps is still contiguous. Each record
has an 8-byte header: u32 length with a busy and a discard bit, u32 page offset. Our records are
56 bytes, all of one size, so the data is an array with a stride of 64 bytes.
"""

from __future__ import annotations

import mmap
import threading
from types import TracebackType
from typing import Self

import numpy as np

from ksmtrace.events.batch import EVENT, EventBatch, empty

_HEADER_BYTES = 8
_STRIDE = EVENT.itemsize + _HEADER_BYTES
_BUSY = np.uint32(1 << 31)
_WORDS = _STRIDE // 8


class Ring:
    """A ring buffer map of `ring_bytes` (a power of two), by its file descriptor.

    The descriptor stays the caller's. Raises OSError where it can't be mapped.
    """

    def __init__(self, map_fd: int, ring_bytes: int) -> None:
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(
            map_fd, page + 2 * ring_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer_position = np.frombuffer(self._consumer, "<u8", 1)
        self._producer_position = np.frombuffer(self._producer, "<u8", 1)
        self._words = np.frombuffer(self._producer, "<u8", 2 * ring_bytes // 8, page)
        self._mask = ring_bytes - 1
        self._fence = threading.Lock()

    def read(self, most: int = 1 << 17) -> EventBatch:
        """Copy out what is there, at most `most` events, and free its place; [] if nothing is."""
        position = int(self._consumer_position[0])
        available = min((int(self._producer_position[0]) - position) // _STRIDE, most)
        if available <= 0:
            return empty()
        start = (position & self._mask) // 8
        records = self._words[start : start + available * _WORDS].reshape(available, _WORDS)
        busy = records.view("<u4")[:, 0] & _BUSY
        if busy.any():
            available = int(busy.argmax())
            if available == 0:
                return empty()
        # On CPUs that reorder memory accesses the records must not be read before their headers,
        # nor be freed before they are read: taking a lock is a barrier.
        with self._fence:
            batch = np.empty(available, EVENT)
        np.copyto(batch.view("<u8").reshape(available, _WORDS - 1), records[:available, 1:])
        with self._fence:
            self._consumer_position[0] = position + available * _STRIDE
        return batch

    def close(self) -> None:
        """Unmap. Nothing that `read` returned refers to the ring."""
        del self._consumer_position, self._producer_position, self._words
        self._consumer.close()
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
