"""Signals that end a program, as Ctrl-C does: whatever is under way is put back in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_interrupt(note: Callable[[int], None] = lambda _number: None) -> Iterator[None]:
    """While inside, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, wherever the program is.

    note: told the number first, since a destructor may swallow the exception. Only a main thread
    can have signals so; in another nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: object) -> None:
        note(number)
        raise KeyboardInterrupt

    # A hang-up that is ignored stays so, for nohup.
    heeded = [n for n in _ENDING if signal.getsignal(n) != signal.SIG_IGN or n != signal.SIGHUP]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
