"""What is recorded beside the events: counters, processes, their regions, and the census.

Everything here reads small kernel files, which can take long on a host with thousands of
processes. So the long readings are jobs: generators that do a little and yield, so that the
session can empty the ring in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ksmtrace.capture.code_book import CodeBook
from ksmtrace.events.batch import EventBatch, counts_by_kind, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_STOP_SCAN,
)
from ksmtrace.kernel import sysfs
from ksmtrace.processes.census import census_obstacle, take_census
from ksmtrace.processes.identity import Identity, all_tgids, identify
from ksmtrace.processes.lifecycle import LifecycleEvent
from ksmtrace.processes.regions import Region, all_regions, concerns_ksm
from ksmtrace.processes.registered import is_registered

Job = Iterator[None]

_REST = 20
"""After a reading that took t seconds the next of its kind waits 20 t: at most 5 % of a core."""
_REGIONS_AT_ONCE = 256
_BY_THE_LIVING = (KSM_ENTER, KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE, COW_BREAK)


class Sink(Protocol):
    """Where rows go."""

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Append rows to a small table."""
        ...

    def census(self, ts: int, reason: str, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Append a chunk of a census."""
        ...


class Sampler(Protocol):
    """What the host's own samples come from. table: the recording's table that they are for."""

    @property
    def table(self) -> str:
        """See above."""
        ...

    def counters(self) -> dict[str, int]:
        """The counters that this kernel has, by name."""
        ...

    def knobs(self) -> dict[str, str]:
        """The knobs that this kernel has."""
        ...


@dataclass
class _Known:
    """A process that is or was registered. regions: as last written. settled: read after a scan."""

    identity: Identity | None
    regions: tuple[Region, ...] = ()
    settled: bool = False


class _Pace:
    """Keeps one kind of reading below its share of time, and never queued twice."""

    def __init__(self) -> None:
        self._ready = 0.0
        self._queued = False

    def claim(self, *, at_once: bool = False) -> bool:
        """Whether a reading may be made now; if so it is under way until `spend` is called.

        at_once: never mind when the last one was.
        """
        if self._queued or (time.monotonic() < self._ready and not at_once):
            return False
        self._queued = True
        return True

    def spend(self, seconds: float) -> None:
        """The reading is done and took that much CPU time."""
        self._queued = False
        self._ready = time.monotonic() + _REST * seconds


def _distinct(values: np.ndarray[Any, np.dtype[np.uint32]]) -> set[int]:
    """The distinct values; long runs of one value are the rule."""
    borders = np.flatnonzero(values[1:] != values[:-1])
    return {int(values[0]), *values[borders + 1].tolist()} if len(values) else set()


class Context:
    """Reads the host beside the stream and hands rows to a sink.

    sampler: of the host's counters and knobs.
    cmdlines: store whole command lines. only: registered processes to look at, None for all.
    process_ids_match: whether /proc shows the process ids that events carry; if not, nothing is
    read about processes, rather than about the wrong ones. code: looks up who breaks merged pages.
    """

    def __init__(
        self,
        sink: Sink,
        sampler: Sampler,
        *,
        cmdlines: bool = False,
        only: frozenset[int] | None = None,
        process_ids_match: bool = True,
        code: CodeBook | None = None,
    ) -> None:
        self._sink = sink
        self._cmdlines = cmdlines
        self._only = only if process_ids_match else frozenset()
        self._process_ids_match = process_ids_match
        self._code = code if process_ids_match else None
        self._known: dict[int, _Known] = {}
        self._sampler = sampler
        self._jobs: deque[Job] = deque()
        self._host_pace = _Pace()
        self._process_pace = _Pace()
        self._search_pace = _Pace()
        self.search_for_processes = False
        """Look through /proc at each interval, because nothing tells of forks and exits."""
        census = census_obstacle()
        self.census_note = str(census) if census else None
        """Why no census is taken, or None."""
        self.censuses: dict[str, dict[str, Any]] = {}
        """The last census for each reason: when it was taken, and of which processes."""

    @property
    def known_tgids(self) -> list[int]:
        """The registered processes known to be alive."""
        return list(self._known)

    def start(self) -> None:
        """Take the first samples; the longer readings are queued."""
        self.sample_host("start")
        if self._process_ids_match and self._search_pace.claim():
            self._jobs.append(self._search())
        self._queue_process_samples("start", None)
        self.take_census("start")

    def finish(self) -> None:
        """Queue the last readings, but for the host's counters (`sample_host`)."""
        self._jobs.append(self._sample_processes("end", None))
        self._jobs.append(self._read_regions(None))
        self.take_census("end")

    def interval(self) -> None:
        """Sample because time has passed."""
        self.sample_host("interval")
        self._queue_process_samples("interval", None)
        if self.search_for_processes and self._process_ids_match and self._search_pace.claim():
            self._jobs.append(self._search())

    def take_census(self, reason: str) -> None:
        """Queue a census."""
        if self.census_note is None and self._process_ids_match:
            self._jobs.append(self._census(reason))

    def work(self, seconds: float) -> bool:
        """Do queued work for about that long; True while there is more."""
        until = time.monotonic() + seconds
        while self._jobs:
            try:
                next(self._jobs[0])
            except StopIteration:
                self._jobs.popleft()
            if time.monotonic() >= until:
                break
        return bool(self._jobs)

    def events(self, batch: EventBatch) -> None:
        """Notice new processes and ended scans in a batch."""
        counts = counts_by_kind(batch)
        # Removed items are left out: they may be a dead process's.
        if any(counts[kind.id] for kind in _BY_THE_LIVING):
            for tgid in _distinct(batch["tgid"][of_kind(batch, *_BY_THE_LIVING)]):
                if tgid:
                    self._meet(tgid, "enter", time.monotonic_ns())
        if counts[COW_BREAK.id]:
            self._look_up_code(batch)
        if counts[KSM_ENTER.id]:
            self._unsettle(batch["tgid"][of_kind(batch, KSM_ENTER)].tolist())
        if counts[KSM_EXIT.id]:
            for gone in batch[of_kind(batch, KSM_EXIT)]:
                self._part(int(gone["tgid"]), int(gone["ts"]))
        if counts[KSM_STOP_SCAN.id]:
            self._scan_ended(int(batch["addr"][of_kind(batch, KSM_STOP_SCAN)][-1]))

    def _unsettle(self, tgids: list[int]) -> None:
        for tgid in tgids:
            if tgid in self._known:
                self._known[tgid].settled = False

    def _look_up_code(self, batch: EventBatch) -> None:
        job = self._code.note(batch) if self._code is not None else None
        if job is not None:
            # Before all else: who has written may be gone soon.
            self._jobs.appendleft(job)

    def lifecycle(self, events: Iterable[LifecycleEvent]) -> None:
        """Follow forks, execs, renames and exits of known processes."""
        for event in events:
            if event.tgid not in self._known:
                continue
            if event.what == "fork":
                if self._code is not None:
                    self._code.forked(event.tgid, event.child)
                if is_registered(event.child):
                    self._meet(event.child, "fork", event.ts)
            elif event.what == "exit":
                self._part(event.tgid, event.ts)
            else:
                identity = identify(event.tgid)
                if identity is not None:
                    self._known[event.tgid].identity = identity
                    self._row(event.what, event.ts, event.tgid, identity)

    def sample_host(self, reason: str, seq: int | None = None) -> None:
        """One row of the host's counters and knobs."""
        begin = time.thread_time()
        row: dict[str, Any] = {"ts": time.monotonic_ns(), "reason": reason, "seq": seq}
        row |= self._sampler.counters()
        row |= {f"knob_{name}": value for name, value in self._sampler.knobs().items()}
        self._host_pace.spend(time.thread_time() - begin)
        self._sink.table(self._sampler.table, [row])

    def _scan_ended(self, seq: int) -> None:
        if self._host_pace.claim():
            self.sample_host("scan", seq)
        if self._queue_process_samples("scan", seq):
            unsettled = [tgid for tgid, known in self._known.items() if not known.settled]
            for tgid in unsettled:
                self._known[tgid].settled = True
            self._jobs.append(self._read_regions(unsettled))

    def _queue_process_samples(self, reason: str, seq: int | None) -> bool:
        claimed = self._process_pace.claim()
        if claimed:
            self._jobs.append(self._sample_processes(reason, seq))
        return claimed

    def _search(self) -> Job:
        """Find registered processes that nobody told of, and notice those that are gone."""
        spent = 0.0
        for tgid in sorted({*all_tgids(), *self._known}):
            begin = time.thread_time()
            if tgid in self._known:
                self._part(tgid, time.monotonic_ns())
            elif is_registered(tgid):
                self._meet(tgid, "present", time.monotonic_ns())
            spent += time.thread_time() - begin
            yield
        self._search_pace.spend(spent)

    def _meet(self, tgid: int, what: str, ts: int) -> None:
        if tgid in self._known or (self._only is not None and tgid not in self._only):
            return
        identity = identify(tgid)
        self._known[tgid] = _Known(identity)
        self._row(what, ts, tgid, identity)
        if self._code is not None:
            self._code.keep(tgid)
        self._jobs.append(self._read_regions([tgid]))

    def _part(self, tgid: int, ts: int) -> None:
        # An exec too ends an address space; the process stays known if the next is registered.
        if tgid not in self._known or is_registered(tgid):
            return
        what = "exec" if sysfs.read_ksm_stat(tgid) else "exit"
        self._row(what, ts, tgid, self._known.pop(tgid).identity)

    def _row(self, what: str, ts: int, tgid: int, identity: Identity | None) -> None:
        row: dict[str, Any] = asdict(identity) if identity else {}
        if not self._cmdlines:
            row.pop("cmdline", None)
        self._sink.table("identities", [{**row, "ts": ts, "what": what, "tgid": tgid}])

    def _sample_processes(self, reason: str, seq: int | None) -> Job:
        spent = 0.0
        for tgid in list(self._known):
            begin = time.thread_time()
            values = sysfs.read_ksm_stat(tgid)
            if values:
                row = {"ts": time.monotonic_ns(), "reason": reason, "seq": seq, "tgid": tgid}
                self._sink.table("counters", [{**row, **values}])
            spent += time.thread_time() - begin
            yield
        self._process_pace.spend(spent)

    def find_everything(self) -> None:
        """Queue a search for registered processes, and a reading of all their regions."""
        if self._process_ids_match and self._search_pace.claim(at_once=True):
            self._jobs.append(self._search())
        self._jobs.append(self._read_regions(None))

    def _read_regions(self, tgids: list[int] | None) -> Job:
        """Write what has changed of the regions; tgids: of whom, None for all that are known."""
        for tgid in list(self._known) if tgids is None else tgids:
            found = []
            for number, region in enumerate(all_regions(tgid)):
                if concerns_ksm(region):
                    found.append(region)
                if number % _REGIONS_AT_ONCE == 0:
                    yield
            known = self._known.get(tgid)
            if found and known is not None and tuple(found) != known.regions:
                ts = time.monotonic_ns()
                rows = [{"ts": ts, "tgid": tgid, **asdict(region)} for region in found]
                self._sink.table("regions", rows)
                known.regions = tuple(found)
            yield

    def _census(self, reason: str) -> Job:
        tgids = list(self._known)
        told = {"reason": reason, "begin_ns": time.monotonic_ns(), "tgids": tgids}
        for tgid in tgids:
            ts = time.monotonic_ns()
            for rows in take_census(tgid):
                self._sink.census(ts, reason, rows)
                yield
            yield
        self.censuses[reason] = {**told, "end_ns": time.monotonic_ns()}
