"""A live host as a source: a capture where that works, counters, and every process's ksm_stat."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import in_initial_pid_namespace, kernel_release
from ksmtrace.top.host import HostWatch, Paths, Told
from ksmtrace.top.state import MERGES, RATE_NS, Burst, Rows, TopState

if TYPE_CHECKING:
    from ksmtrace.capture.pump import Capture
    from ksmtrace.processes.background import Background
    from ksmtrace.processes.following import Snapshot
    from ksmtrace.top.rows import Counted, Reading
    from ksmtrace.top.sums import TopSums, Totals

RECENT = 48
"""The last things that happened: more than a terminal has lines for."""
_BUSY_WAIT = 0.15
"""The ring holds a third of a second of the largest burst; to look less often costs less."""
_REST = 60
"""After a reading of the processes that took t seconds of CPU the next waits 60 t."""
_LISTED = 64
_NAMES = 4096


@dataclass(frozen=True)
class Wanted:
    """How to look. backend: None: no capture. cow: see breaks as they happen."""

    interval_s: float = 1.0
    backend: str | None = "auto"
    cow: bool = False
    paths: Paths = field(default_factory=Paths)


class LiveSource:
    """Looks at this host. The first `state` is cheap; `start` brings the rest."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._stack = ExitStack()
        self._host = self._stack.enter_context(closing(HostWatch(wanted.paths, wanted.interval_s)))
        self._capture: Capture[TopSums] | None = None
        self._background: Background | None = None
        self._reader: _Paced | None = None
        self._notes: list[str] = []
        self._counted: deque[Counted] = deque()
        self._readings: deque[Reading] = deque()
        self._names: dict[int, str | None] = {}
        self._snapshot: Snapshot | None = None
        self._started = False

    def close(self) -> None:
        """Stop the capture and close the files."""
        self._stack.close()

    def start(self) -> None:
        """Attach, and begin to read the processes. Raises KsmtraceError where it can't as asked."""
        self._read_processes()
        if self._wanted.backend is not None:
            self._attach(self._wanted.backend)
        else:
            self._notes.append("from counters alone, as asked for: no events")
        self._started = True

    def state(self, ns: int) -> TopState:
        """What it is like at `ns`, which is now."""
        if not self._started:
            return replace(self._host.state(ns), loading="attaching")
        if self._capture is not None and not self._capture.working:
            # What it told stands still: from here on that would be a false nought.
            self._capture = None
            self._host.place = replace(self._host.place, origin="counters", backend=None)
        # One copy a look, so that all of a screen is of one moment.
        totals = self._capture.sums.totals() if self._capture is not None else None
        rows = self._rows(ns, totals)
        items = self._readings[-1].items if self._readings else None
        told = None
        capture = self._capture
        if capture is not None and totals is not None:
            breaks = totals.of("broke") if self._wanted.cow else None
            told = Told(ns, totals.of(*MERGES), breaks)
            self._host.scans.told(*capture.sums.scans())
        state = self._host.state(ns, told, items)
        notes = [*self._notes, *self._process_notes()]
        if capture is None or totals is None:
            return replace(state, rows=rows, notes=notes)
        return replace(
            state,
            rows=rows,
            notes=notes,
            decisions=capture.sums.decisions(),
            recent=[self._named(burst) for burst in capture.sums.recent(RECENT)],
            lost=totals.of("lost"),
        )

    def _attach(self, backend: str) -> None:
        from ksmtrace.capture.choose import load_source
        from ksmtrace.capture.pump import capturing
        from ksmtrace.top.attached import first_sight_known
        from ksmtrace.top.sums import TopSums

        try:
            self._capture = self._stack.enter_context(
                capturing(
                    backend, TopSums(), cow=self._wanted.cow, say=self._hear, busy_wait=_BUSY_WAIT
                )
            )
        except KsmtraceError as error:
            if backend != "auto" or self._wanted.cow or error.exit_code != Exit.HOST_CANNOT:
                raise
            told = [line.removeprefix("  - ") for line in error.message.splitlines()]
            # Behind what can't be done stand the reasons, each with its remedy.
            self._notes.append(f"from counters alone: {(told[1:] or told)[0]}")
            return
        unknown = load_source(self._capture.backend).fields_unknown
        self._capture.sums.attachments.first_sight_known = first_sight_known(
            unknown, kernel_release()
        )
        self._host.place = replace(
            self._host.place,
            origin="capture",
            backend=self._capture.backend,
            cow=self._wanted.cow,
        )

    def _hear(self, words: str) -> None:
        # What a backend says as it begins is on the screen anyway.
        if not words.startswith("backend "):
            self._notes.append(words)

    def _read_processes(self) -> None:
        from ksmtrace.processes.background import Background
        from ksmtrace.processes.following import Processes, files_to_keep

        proc = self._wanted.paths.proc
        if not (proc / "self" / "ksm_stat").exists():
            self._notes.append(
                f"this kernel ({kernel_release()}) tells nothing of processes: ksm_stat came with"
                " 6.1"
            )
            return
        self._reader = _Paced(Processes(_LISTED, files_to_keep(), proc).take)
        self._background = Background(self._reader.take, self._notes.append)
        self._background.latest(self._wanted.interval_s)

    def _rows(self, ns: int, totals: Totals | None) -> Rows | None:
        from ksmtrace.top.rows import Counted

        if self._background is None or self._reader is None:
            return None
        if self._reader.due():
            self._background.latest(0)
        self._take_reading(ns)
        if not self._readings:
            return None
        merges, breaks = None, None
        # Inside a container the events' process ids are not those of its /proc.
        if totals is not None and in_initial_pid_namespace():
            merges, breaks = totals.merges, totals.breaks if self._wanted.cow else None
        self._counted.append(Counted(ns, merges, breaks))
        while len(self._counted) > 2 and self._counted[1].ns <= ns - RATE_NS:
            self._counted.popleft()
        return self._readings[-1].rows(self._counted[0], self._counted[-1])

    def _take_reading(self, ns: int) -> None:
        """Make columns of the last snapshot, if it is a new one."""
        from ksmtrace.top.rows import Reading

        snapshot = None if self._reader is None else self._reader.last
        if snapshot is None or snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        while len(self._readings) > 1 and self._readings[1].ns <= ns - RATE_NS:
            self._readings.popleft()
        before = self._readings[0] if self._readings else None
        self._readings.append(Reading(snapshot, ns, self._host.place.page_bytes, before))

    def _process_notes(self) -> list[str]:
        snapshot = self._snapshot
        if snapshot is None or not snapshot.unreadable:
            return []
        one = snapshot.unreadable == 1
        who = "1 process" if one else f"{snapshot.unreadable:,} processes"
        return [
            f"{who} can't be read, so {'it is' if one else 'they are'} in no line: run with sudo"
        ]

    def _named(self, burst: Burst) -> Burst:
        return replace(burst, name=self._name(burst.tgid)) if burst.tgid else burst

    def _name(self, tgid: int) -> str | None:
        from ksmtrace.processes.identity import identify_briefly

        if not in_initial_pid_namespace():
            return None
        if self._readings and tgid in self._readings[-1].names:
            return self._readings[-1].names[tgid]
        if tgid not in self._names:
            if len(self._names) >= _NAMES:
                self._names.clear()
            found = identify_briefly(tgid, self._wanted.paths.proc)
            self._names[tgid] = None if found is None else found.comm
        return self._names[tgid]


class _Paced:
    """Readings of the processes that take at most a sixtieth of a core. last: the last one."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take
        self._ready = 0.0
        self.last: Snapshot | None = None

    def due(self) -> bool:
        """Whether another may be asked for."""
        return time.monotonic() >= self._ready

    def take(self) -> Snapshot:
        """Read them."""
        begin = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        assert threading.current_thread() is not threading.main_thread()
        self.last = self._take()
        spent = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - begin
        self._ready = time.monotonic() + _REST * spent
        return self.last
