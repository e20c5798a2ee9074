"""Reading the processes in a thread of its own, so that none of them can hold up who asks.

The kernel reads ksm_stat under a lock of the process, which can be held for long. Who asks (a
scrape, a screen) waits a while; if the reading isn't done by then, the one before is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ksmtrace.processes.following import Snapshot


class Background:
    """Takes snapshots when asked. failures: how many could not be taken. say: told why, once."""

    def __init__(self, take: Callable[[], Snapshot], say: Callable[[str], None]) -> None:
        self._take = take
        self._say = say
        self._changed = threading.Condition()
        self._asked = self._begun = self._ended = 0
        self._begun_at = 0.0
        self._last: Snapshot | None = None
        self.failures = 0
        threading.Thread(target=self._run, daemon=True, name="processes").start()

    def latest(self, patience: float) -> Snapshot | None:
        """A snapshot of this moment; after `patience` seconds the last one, None if there is none.

        Many may ask at once: they share a reading.
        """
        with self._changed:
            if self._begun == self._ended:
                self._asked = wanted = self._begun + 1
                self._changed.notify_all()
            else:
                wanted = self._begun
                if time.monotonic() - self._begun_at > patience:
                    return self._last
            self._changed.wait_for(lambda: self._ended >= wanted, patience)
            return self._last

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._begun)
                self._begun = self._asked
                self._begun_at = time.monotonic()
            snapshot = None
            try:
                snapshot = self._take()
            except Exception as error:  # noqa: BLE001 whatever it is, the next that asks tries again
                if not self.failures:
                    self._say(f"the processes could not be read: {error!r}")
            with self._changed:
                self._ended = self._begun
                self._last = snapshot or self._last
                self.failures += snapshot is None
                self._changed.notify_all()
