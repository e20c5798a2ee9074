"""A capture that drives ksmd itself, scan by scan, and notes what pages hold in between.

Pages can be read only while ksmd stands still, so it is parked between scans (`kernel.stepper`).
What was merged before is unmerged at the start: the shape of KSM's trees can't be read, only made.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ksmtrace.capture.context import Context
from ksmtrace.capture.session import Options, Progress, Signals, ended_by
from ksmtrace.capture.source import EventStream
from ksmtrace.events.batch import counts_by_kind, lost_count
from ksmtrace.events.registry import COW_BREAK, KSM_STOP_SCAN, LOST
from ksmtrace.kernel.stepper import Stepper, drain_lru_batches
from ksmtrace.processes.contents import read_contents
from ksmtrace.processes.lifecycle import ProcConnector
from ksmtrace.recording.contents import ContentBook
from ksmtrace.recording.writer import RecordingWriter


class SteppedSession:
    """Steps ksmd and captures. See `Session` for the parameters; book: takes the contents."""

    def __init__(
        self,
        stream: EventStream,
        writer: RecordingWriter,
        context: Context,
        signals: Signals,
        options: Options,
        *,
        stepper: Stepper,
        book: ContentBook,
        connector: ProcConnector | None = None,
        launch: Callable[[], int] | None = None,
        status: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._context = context
        self._signals = signals
        self._options = options
        self._stepper = stepper
        self._book = book
        self._connector = connector
        self._launch = launch
        self._status = status
        self._begin = time.monotonic()
        self.progress = Progress()

    def run(self) -> str:
        """Capture; returns how it ended, as `Session.run` does."""
        self._stepper.park()
        self._stepper.unmerge()
        self._context.start()
        self._work()
        command_fd = self._launch() if self._launch is not None else None
        interval = self._options.interval or 1.0
        while True:
            self._pump()
            ended = ended_by(self._options, self.progress, self._signals, command_fd)
            if ended is not None:
                break
            # The pause comes first: programs that have just begun shall have written their pages.
            self._pause(interval)
            if self._context.known_tgids:
                self._scan()
            else:
                self._context.interval()
                self._work()
        self._finish()
        return ended

    def _pause(self, seconds: float) -> None:
        """Let the processes live until the next scan, or until somebody interrupts."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._signals.caught:
            self._pump()
            time.sleep(min(0.02, seconds))

    def _scan(self) -> None:
        """One full scan between two looks at the contents."""
        seq = self._stepper.full_scans()
        self._context.find_everything()
        self._work()
        self._contents(seq, "before")
        self._stepper.batch()
        self._pump()
        self._contents(seq, "after")
        self._context.sample_host("scan", seq)
        self._work()

    def _contents(self, seq: int, phase: str) -> None:
        for tgid in self._context.known_tgids:
            pages = read_contents(tgid)
            for row in self._book.rows(time.monotonic_ns(), seq, phase, tgid, pages):
                self._writer.table("contents", [row])
            self._pump()
        drain_lru_batches()

    def _pump(self) -> None:
        progress = self.progress
        progress.seconds = time.monotonic() - self._begin
        while len(batch := self._stream.read()):
            counts = counts_by_kind(batch)
            progress.events += len(batch)
            progress.scans += int(counts[KSM_STOP_SCAN.id])
            progress.breaks += int(counts[COW_BREAK.id])
            if counts[LOST.id]:
                progress.lost += lost_count(batch)
            self._context.events(batch)
            self._writer.events(batch)
        if self._connector is not None:
            self._context.lifecycle(self._connector.read())
        self._writer.flush_if_due()
        progress.known_processes = len(self._context.known_tgids)
        self._status(progress)

    def _work(self) -> None:
        """All queued readings: ksmd stands still meanwhile."""
        while self._context.work(0.05):
            self._pump()

    def _finish(self) -> None:
        self._context.finish()
        self._work()
        self._context.sample_host("end")
        self._stream.stop()
        self._pump()
        self._work()
        self.progress.seconds = time.monotonic() - self._begin
        for rows in self._book.ranks():
            self._writer.table("ranks", rows)
