"""Keeping what pages held without keeping it: keyed digests, and each content's rank.

The key dies with the recorder, so a digest says only which pages were equal. The shapes of ksmd's
trees follow the order of contents, which a digest loses: until the ranks are written, at the end,
the contents themselves are in a file that has no name.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ksmtrace.processes.contents import Page
from ksmtrace.recording.pseudonyms import Namer

_KEY_BYTES = 32
_ROWS_AT_ONCE = 1 << 12


class ContentBook:
    """All contents met so far, and what each page held last.

    namer: renames frames as in the events. folder: where the unnamed file is.
    """

    def __init__(self, namer: Namer, folder: Path) -> None:
        self._namer = namer
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._places: dict[int, tuple[int, int]] = {}
        self._last: dict[tuple[int, int], tuple[int, int, bool | None]] = {}
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed with the book
        self._size = 0

    def close(self) -> None:
        """Forget the contents."""
        self._spool.close()

    def rows(
        self,
        ts: int,
        seq: int,
        phase: str,
        tgid: int,
        pages: Iterable[Page],
        *,
        whole: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Rows of `contents` for a process's pages: where something is not as it was before.

        whole: these are all of its pages, so that others known of it are gone.
        """
        gone = {key for key in self._last if key[0] == tgid} if whole else set()
        head = {"ts": ts, "seq": seq, "phase": phase, "tgid": tgid}
        for page in pages:
            key = (tgid, page.addr)
            gone.discard(key)
            now = (self._digest(page.data), self._rename(page.pfn), page.ksm)
            if self._last.get(key) != now:
                self._last[key] = now
                digest, pfn, ksm = now
                yield {**head, "addr": page.addr, "digest": digest, "pfn": pfn, "ksm": ksm}
        for key in sorted(gone):
            del self._last[key]
            yield {**head, "addr": key[1]}

    def ranks(self) -> Iterator[list[dict[str, Any]]]:
        """Rows of `ranks`, in chunks."""
        if not self._places:
            return
        self._spool.flush()
        ts = time.monotonic_ns()
        with mmap.mmap(self._spool.fileno(), max(self._size, 1), prot=mmap.PROT_READ) as spool:

            def compare(one: int, other: int) -> int:
                (at, size), (other_at, other_size) = self._places[one], self._places[other]
                mine, theirs = spool[at : at + size], spool[other_at : other_at + other_size]
                return (mine > theirs) - (mine < theirs)

            order = sorted(self._places, key=functools.cmp_to_key(compare))
        rows = [
            {"ts": ts, "digest": digest, "rank": rank, "zero": self._places[digest][1] == 0}
            for rank, digest in enumerate(order)
        ]
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            yield rows[first : first + _ROWS_AT_ONCE]

    def _digest(self, data: bytes) -> int:
        digest = int.from_bytes(
            hashlib.blake2b(data, digest_size=8, key=self._key).digest(), "little"
        )
        if digest not in self._places:
            # Trailing zeros are left out: the order stays the same, and most pages shrink.
            content = data.rstrip(b"\0")
            os.pwrite(self._spool.fileno(), content or b"\0", self._size)
            self._places[digest] = (self._size, len(content))
            self._size += max(len(content), 1)
        return digest

    def _rename(self, pfn: int) -> int:
        return int(self._namer.pfns(np.array([pfn], np.uint64))[0])
