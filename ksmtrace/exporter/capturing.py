"""A capture in a thread, for as long as the exporter runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ksmtrace.capture.choose import choose_source, open_first
from ksmtrace.capture.cow import CowWatch
from ksmtrace.capture.source import DEFAULT_RING_BYTES, EventStream
from ksmtrace.capture.tracefs import remove_stale_instances
from ksmtrace.exporter.breaks import BreaksByProcess
from ksmtrace.exporter.events import EventSums
from ksmtrace.kernel.host import in_initial_pid_namespace

_BUSY_WAIT, _IDLE_WAIT = 0.005, 0.1
_PATIENCE = 5.0


class Capture:
    """Pumps a stream into sums. backend: its name. working: False once it failed. say: told why."""

    def __init__(
        self, backend: str, stream: EventStream, sums: EventSums, say: Callable[[str], None]
    ) -> None:
        self.backend = backend
        self.sums = sums
        self.working = True
        self._stream = stream
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="capture")
        self._thread.start()

    def end(self) -> None:
        """Stop reading; the stream may be closed after that."""
        self._stop.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                batch = self._stream.read()
                self.sums.take(batch)
                # The ring holds a third of a second of the largest burst.
                self._stop.wait(_BUSY_WAIT if len(batch) else _IDLE_WAIT)
        except Exception as error:  # noqa: BLE001 the other figures go on; this one says that it ended
            self.working = False
            self._say(f"the capture ended: {error!r}")


@contextmanager
def capturing(
    backend: str, *, cow: bool, listed: int, say: Callable[[str], None]
) -> Iterator[Capture]:
    """Capture while inside. listed: most processes whose breaks are told apart.

    Raises KsmtraceError where the host can't.
    """
    remove_stale_instances()
    watch = CowWatch() if cow else None
    choice = choose_source(backend, watch)
    with ExitStack() as stack:
        choice, stream, seconds = open_first(stack, choice, DEFAULT_RING_BYTES, say)
        say(f"backend {choice.source.name}: {choice.why} (attached in {1000 * seconds:.0f} ms)")
        for obstacle in watch.obstacles if watch is not None else ():
            say(obstacle)
        # Inside a container the events' process ids are not those of its /proc.
        breaks = BreaksByProcess(listed if in_initial_pid_namespace() else 0) if cow else None
        capture = Capture(choice.source.name, stream, EventSums(breaks), say)
        try:
            yield capture
        finally:
            capture.end()
