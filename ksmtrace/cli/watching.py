"""`ksmtrace top`: a source, a screen and the keys between them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import host_cannot
from ksmtrace.kernel.host import ksm_obstacles
from ksmtrace.top.live import LiveSource, Wanted
from ksmtrace.top.state import TopState
from ksmtrace.top.ui import Ui, pressed

if TYPE_CHECKING:
    from ksmtrace.terminal import Terminal

_FRAME_S = 0.25
"""Between two looks at a recording that is played."""
_LONGEST_NS = 1_000_000_000
"""Of the time that passed between two: whoever stopped the program did not look on."""


@dataclass(frozen=True)
class Asked:
    """What to show. recording: None: this host, live. at_s: where to begin in a recording."""

    ui: Ui
    wanted: Wanted
    recording: Path | None = None
    at_s: float | None = None


def snapshot(asked: Asked) -> TopState:
    """One state: of a recording, by default at its end; live, after an interval.

    Raises KsmtraceError.
    """
    if asked.recording is not None:
        from ksmtrace.top.recorded import RecordedSource

        source = RecordedSource(asked.recording)
        return source.state(source.end_ns if asked.at_s is None else source.moment(asked.at_s))
    _need_ksm()
    with closing(LiveSource(asked.wanted)) as live:
        live.start()
        live.state(time.monotonic_ns())
        time.sleep(asked.wanted.interval_s)
        return live.state(time.monotonic_ns())


def show(asked: Asked) -> None:
    """Show it on the terminal until q or KeyboardInterrupt. Raises KsmtraceError."""
    from ksmtrace.terminal import Terminal

    if asked.recording is None:
        _need_ksm()
    elif not asked.recording.exists():
        # Told before the screen is taken, which would only flash.
        from ksmtrace.recording.reader import StoredRecording

        StoredRecording(asked.recording)
    with Terminal.opened() as terminal:
        if asked.recording is None:
            _live(asked, terminal)
        else:
            _play(asked, asked.recording, terminal)


def _need_ksm() -> None:
    if obstacles := ksm_obstacles():
        raise host_cannot(obstacles, "show KSM")


def _live(asked: Asked, terminal: Terminal) -> None:
    from ksmtrace.views.top import render_top

    ui, interval = asked.ui, asked.wanted.interval_s
    with closing(LiveSource(asked.wanted)) as source:
        state = source.state(time.monotonic_ns())
        terminal.paint(render_top(state, ui, *terminal.size))
        source.start()
        due = time.monotonic()
        while not ui.quitting:
            if time.monotonic() >= due:
                due = max(due + interval, time.monotonic())
                # Also while the screen stands still: what is past must be known when it goes on.
                now = source.state(time.monotonic_ns())
                state = state if ui.paused else now
            shown = replace(state, moment=replace(state.moment, paused=ui.paused))
            terminal.paint(render_top(shown, ui, *terminal.size))
            ui = _wait(ui, terminal, due - time.monotonic())


def _play(asked: Asked, path: Path, terminal: Terminal) -> None:
    from ksmtrace.top.loading import loading
    from ksmtrace.views.top import render_top

    ui = asked.ui
    terminal.paint(render_top(loading(path), ui, *terminal.size))
    from ksmtrace.top.recorded import RecordedSource

    source = RecordedSource(path)
    here = source.begin_ns if asked.at_s is None else source.moment(asked.at_s)
    last = time.monotonic_ns()
    while not ui.quitting:
        now = time.monotonic_ns()
        if not ui.paused and not ui.help:
            here += int(min(now - last, _LONGEST_NS) * (ui.speed or 1.0))
        last = now
        for jump in ui.jumps:
            here = source.jumped(here, jump)
        ui = replace(ui, jumps=())
        here = min(max(here, source.begin_ns), source.end_ns)
        state = source.state(here)
        moment = replace(state.moment, speed=ui.speed, paused=ui.paused)
        terminal.paint(render_top(replace(state, moment=moment), ui, *terminal.size))
        standing = ui.paused or ui.help or here >= source.end_ns
        ui = _wait(ui, terminal, 3600 if standing else _FRAME_S)


def _wait(ui: Ui, terminal: Terminal, seconds: float) -> Ui:
    """Wait for keys, at most so long; the choices after them."""
    for key in terminal.keys(seconds) or ():
        ui = pressed(ui, key)
    return ui
