"""One capture from start to end: the stream, the context, the end's conditions."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ksmtrace.capture.context import Context
from ksmtrace.capture.source import EventStream
from ksmtrace.events.batch import EventBatch, counts_by_kind, lost_count, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.processes.lifecycle import ProcConnector

_BUSY_WAIT = 0.02
_IDLE_WAIT = 0.1
_LAST_READS = 100
_PAUSE = 0.005
_SLICE = 0.005
_UNHINDERED = (KSM_START_SCAN, KSM_STOP_SCAN, KSM_ADVISOR, LOST)


class Consumer(Protocol):
    """Whoever takes the events: a recording, a live view."""

    def events(self, batch: EventBatch) -> None:
        """Take a batch."""
        ...

    def flush_if_due(self) -> None:
        """Called often: the time to write what has waited."""
        ...


@dataclass(frozen=True)
class Options:
    """How a session runs.

    duration (seconds), scans: when it ends by itself, None if not by this. interval,
    census_interval: seconds between samples. pids: keep only these processes' events.
    """

    duration: float | None = None
    scans: int | None = None
    interval: float | None = 1.0
    census_interval: float | None = None
    pids: frozenset[int] | None = None


@dataclass
class Progress:
    """What a status line can show."""

    seconds: float = 0.0
    events: int = 0
    scans: int = 0
    lost: int = 0
    known_processes: int = 0
    breaks: int = 0


class Signals:
    """SIGINT, SIGTERM and SIGHUP as flags and a readable descriptor instead of interruptions."""

    def __init__(self) -> None:
        self.caught: list[str] = []
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._read

    def _catch(self, number: int, _frame: object) -> None:
        self.caught.append(signal.Signals(number).name)

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        """Handle the signals while inside."""
        # An ignored hang-up stays so, for nohup. A script's background job ignores SIGINT too, but
        # `kill -INT` is how scripts end a recorder.
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._catch) for number in numbers}
        wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._read)
            os.close(self._write)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _wanted(batch: EventBatch, pids: frozenset[int]) -> npt.NDArray[np.bool_]:
    """Which events concern some processes; halves of a new KSM page stay together."""
    wanted = np.isin(batch["tgid"], list(pids)) | of_kind(batch, *_UNHINDERED)
    merges = np.flatnonzero(of_kind(batch, KSM_MERGE_WITH_KSM_PAGE))
    first, second = batch[merges[:-1]], batch[merges[1:]]
    pair = ((first["arg"] & INTO_EXISTING) == 0) & ((second["arg"] & INTO_EXISTING) != 0)
    pair &= (first["err"] == 0) & (first["pfn"] == second["pfn"])
    either = pair & (wanted[merges[:-1]] | wanted[merges[1:]])
    wanted[merges[:-1][either]] = True
    wanted[merges[1:][either]] = True
    return wanted


def ended_by(
    options: Options, progress: Progress, signals: Signals, command_fd: int | None
) -> str | None:
    """What ends a capture now: a signal's name, duration, scans, command; None: it goes on.

    command_fd: becomes readable when the traced command has ended.
    """
    if signals.caught:
        return signals.caught[0]
    reasons = {
        "duration": options.duration is not None and progress.seconds >= options.duration,
        "scans": options.scans is not None and progress.scans >= options.scans,
        "command": command_fd is not None and _readable(command_fd),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class Session:
    """Pumps a stream into a consumer and a context until something ends it.

    launch: starts the traced command once the first samples are taken, and returns a descriptor
    that becomes readable when it has ended. nothing_to_wait_for: whether no scan can ever end.
    status: called about twice a second.
    """

    def __init__(
        self,
        stream: EventStream,
        consumer: Consumer,
        context: Context,
        signals: Signals,
        options: Options,
        *,
        connector: ProcConnector | None = None,
        launch: Callable[[], int] | None = None,
        status: Callable[[Progress], None] = lambda _progress: None,
        nothing_to_wait_for: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._consumer = consumer
        self._context = context
        self._signals = signals
        self._options = options
        self._connector = connector
        self._status = status
        self._nothing_to_wait_for = nothing_to_wait_for
        self._begin = time.monotonic()
        self._launch = launch
        self._command_fd: int | None = None
        self._in_scan = False
        self._epoll = select.epoll()
        self._epoll.register(signals.fileno(), select.EPOLLIN)
        if (ring := stream.fileno()) is not None:
            # Edge-triggered: only the events that ask for it wake us, not every merge.
            self._epoll.register(ring, select.EPOLLIN | select.EPOLLET)
        if connector is not None:
            self._epoll.register(connector.fileno(), select.EPOLLIN)
        self.progress = Progress()

    def run(self) -> str:
        """Capture; returns how it ended: a signal's name, duration, scans, command, or nothing."""
        context = self._context
        context.start()
        if self._options.census_interval is None:
            next_census = np.inf
        else:
            next_census = self._options.census_interval
        next_interval = self._options.interval or np.inf
        next_status = 0.0
        while True:
            arrived = self._pump()
            seconds = self.progress.seconds = time.monotonic() - self._begin
            busy = context.work(_SLICE)
            if seconds >= next_interval:
                context.interval()
                next_interval = seconds + (self._options.interval or np.inf)
            if seconds >= next_census:
                context.take_census("interval")
                next_census = seconds + (self._options.census_interval or np.inf)
            if seconds >= next_status:
                self.progress.known_processes = len(context.known_tgids)
                self._status(self.progress)
                next_status = seconds + 0.5
            if not busy and self._launch is not None:
                # The first readings are done: what follows is the command's doing.
                self._command_fd = self._launch()
                self._launch = None
                self._epoll.register(self._command_fd, select.EPOLLIN)
            if (ended := self._ended(busy)) is not None:
                break
            if not busy:
                self._wait(arrived)
        if ended != "scans":
            self._catch_up()
        self._finish()
        return ended

    def _catch_up(self) -> None:
        """Who registered just before the end is known by an event still in the stream."""
        for _ in range(_LAST_READS):
            if not self._pump():
                return

    def _finish(self) -> None:
        self._context.finish()
        interruptions = len(self._signals.caught)
        # A second Ctrl-C gives up the last readings, not the recording.
        while self._context.work(_SLICE) and len(self._signals.caught) == interruptions:
            self._pump()
        # Last, so that the last counters are those that the events led to.
        self._context.sample_host("end")
        self._stream.stop()
        while len(batch := self._stream.read()):
            self._take(batch)
            self._consumer.flush_if_due()
        # The last events may have brought something to look up.
        while self._context.work(_SLICE) and len(self._signals.caught) == interruptions:
            pass
        self._epoll.close()
        self.progress.seconds = time.monotonic() - self._begin

    def _pump(self) -> int:
        batch = self._stream.read()
        self._take(batch)
        if self._connector is not None:
            self._context.lifecycle(self._connector.read())
            if self._connector.overruns:
                self._context.search_for_processes = True
        self._consumer.flush_if_due()
        return len(batch)

    def _take(self, batch: EventBatch) -> None:
        if not len(batch):
            return
        self._context.events(batch)
        if self._options.pids is not None:
            batch = batch[_wanted(batch, self._options.pids)]
        counts = counts_by_kind(batch)
        progress = self.progress
        progress.events += len(batch)
        if counts[KSM_STOP_SCAN.id] or counts[KSM_START_SCAN.id]:
            self._count_scans(batch)
        progress.breaks += int(counts[COW_BREAK.id])
        if counts[LOST.id]:
            progress.lost += lost_count(batch)
        self._consumer.events(batch)

    def _count_scans(self, batch: EventBatch) -> None:
        # A scan that was under way when we came is none of ours.
        for kind in batch["kind"][of_kind(batch, KSM_START_SCAN, KSM_STOP_SCAN)].tolist():
            self.progress.scans += int(kind == KSM_STOP_SCAN.id and self._in_scan)
            self._in_scan = kind == KSM_START_SCAN.id

    def _ended(self, busy: bool) -> str | None:
        options = self._options
        ended = ended_by(options, self.progress, self._signals, self._command_fd)
        if ended is None and self._stream.exhausted:
            ended = "source"
        waits_for_scans = options.scans is not None and not busy and self._command_fd is None
        if ended is None and waits_for_scans and options.pids is None:
            return "nothing" if self._nothing_to_wait_for() else None
        return ended

    def _wait(self, arrived: int) -> None:
        wait = _BUSY_WAIT if arrived else _IDLE_WAIT
        if self._options.duration is not None:
            wait = min(wait, max(0.0, self._options.duration - self.progress.seconds))
        begin = time.monotonic()
        self._epoll.poll(wait)
        # However often we are woken, we look at most 200 times a second.
        rest = _PAUSE - (time.monotonic() - begin)
        if rest > 0:
            time.sleep(rest)
