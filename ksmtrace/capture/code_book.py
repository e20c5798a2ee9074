"""Finding out where the instructions lie that break merged pages, while it still can be known."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ksmtrace.capture.cow import CowWatch
from ksmtrace.events.batch import EventBatch, of_kind
from ksmtrace.events.registry import COW_BREAK
from ksmtrace.processes.code import (
    KERNEL_HALF,
    UNKNOWN,
    KernelSymbols,
    Location,
    Mapping,
    executable_mappings,
    locate,
)

_MOST_PROCESSES = 1 << 12
_MOST_LOCATIONS = 1 << 16
_MIX = np.uint64(0x9E3779B97F4A7C15)


class CodeSink(Protocol):
    """Where rows of the table `code` go."""

    def code(self, rows: list[dict[str, Any]]) -> None:
        """Append rows; ip is the real address."""
        ...


class CodeBook:
    """Looks each new (process, instruction) up once, in jobs beside the stream.

    Mappings of processes that may soon be gone are kept, those of the latest 4,096; a program that
    breaks pages from more than 65,536 places leaves the rest unexplained. watch: counts those.
    """

    def __init__(self, sink: CodeSink, watch: CowWatch) -> None:
        self._sink = sink
        self._watch = watch
        self._kept: OrderedDict[int, tuple[Mapping, ...]] = OrderedDict()
        self._seen: set[tuple[int, int]] = set()
        self._waiting: list[tuple[int, int]] = []
        self._kernel = KernelSymbols()
        self._at_work = False

    def note(self, batch: EventBatch) -> Iterator[None] | None:
        """Take the breaks of a batch; returns a job if there is something new to look up."""
        breaks = batch[of_kind(batch, COW_BREAK)]
        keys = breaks["item"] * _MIX + breaks["tgid"]
        # Long runs from one place are the rule.
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])
        _, distinct = np.unique(keys[first], return_index=True)
        chosen = breaks[first[distinct]]
        for pair in zip(chosen["tgid"].tolist(), chosen["item"].tolist(), strict=True):
            if pair in self._seen:
                continue
            if len(self._seen) >= _MOST_LOCATIONS:
                self._watch.locations_left_out += 1
                continue
            self._seen.add(pair)
            self._waiting.append(pair)
        if not self._waiting or self._at_work:
            return None
        self._at_work = True
        return self._look_up()

    def keep(self, tgid: int) -> None:
        """Remember a process's mappings as they are now."""
        mappings = executable_mappings(tgid)
        if mappings:
            self._kept[tgid] = mappings
            self._kept.move_to_end(tgid)
            if len(self._kept) > _MOST_PROCESSES:
                self._kept.popitem(last=False)

    def forked(self, parent: int, child: int) -> None:
        """A child begins with its parent's mappings."""
        if parent in self._kept:
            self._kept[child] = self._kept[parent]

    def _look_up(self) -> Iterator[None]:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            if not self._kernel.loaded and any(ip & KERNEL_HALF for _, ip in waiting):
                yield from self._kernel.load()
            fresh: set[int] = set()
            for tgid, ip in sorted(waiting):
                self._sink.code([self._row(tgid, ip, self._locate(tgid, ip, fresh))])
                yield
        self._at_work = False

    def _locate(self, tgid: int, ip: int, fresh: set[int]) -> Location:
        if ip & KERNEL_HALF:
            return self._kernel.locate(ip)
        before = self._kept.get(tgid, ())
        if tgid not in fresh:
            self.keep(tgid)
            fresh.add(tgid)
        found = locate(self._kept.get(tgid, ()), ip)
        # It may have become another program since.
        return found if found != UNKNOWN else locate(before, ip)

    def _row(self, tgid: int, ip: int, location: Location) -> dict[str, Any]:
        return {
            "ts": time.monotonic_ns(),
            "tgid": tgid,
            "ip": ip,
            "file": location.file,
            "offset": location.offset,
            "symbol": location.symbol,
        }
