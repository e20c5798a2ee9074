"""A capture in a thread that keeps sums and no events, for as long as one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

from ksmtrace.capture.choose import choose_source, open_first
from ksmtrace.capture.cow import CowWatch
from ksmtrace.capture.source import DEFAULT_RING_BYTES, EventStream
from ksmtrace.capture.sums import StreamSums
from ksmtrace.capture.tracefs import remove_stale_instances

BUSY_WAIT, _IDLE_WAIT = 0.005, 0.1
_PATIENCE = 5.0
_S = TypeVar("_S", bound=StreamSums)


class Capture(Generic[_S]):
    """Pumps a stream into sums. backend: its name. working: False once it failed. say: told why.

    busy_wait: seconds between looks while events come; the ring holds a third of a second of the
    largest burst.
    """

    def __init__(
        self,
        backend: str,
        stream: EventStream,
        sums: _S,
        say: Callable[[str], None],
        busy_wait: float = BUSY_WAIT,
    ) -> None:
        self.backend = backend
        self.sums = sums
        self.working = True
        self._stream = stream
        self._say = say
        self._busy_wait = busy_wait
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
                self._stop.wait(self._busy_wait if len(batch) else _IDLE_WAIT)
        except Exception as error:  # noqa: BLE001 the other figures go on; this one says that it ended
            self.working = False
            self._say(f"the capture ended: {error!r}")


@contextmanager
def capturing(
    backend: str,
    sums: _S,
    *,
    cow: bool,
    say: Callable[[str], None],
    busy_wait: float = BUSY_WAIT,
) -> Iterator[Capture[_S]]:
    """Capture while inside. cow: see writes to merged pages too.

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
        capture = Capture(choice.source.name, stream, sums, say, busy_wait)
        try:
            yield capture
        finally:
            capture.end()
