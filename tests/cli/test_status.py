from __future__ import annotations

import io
import time

from ksmtrace.capture.session import Progress
from ksmtrace.cli.status import StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PROGRESS = Progress(seconds=61.7, events=1_234_567, scans=1009, lost=13, known_processes=101)


def test_nothing_is_written_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    line = StatusLine(out)
    line.progress(PROGRESS)
    line.sealing(0.5)
    line.clear()
    assert out.getvalue() == ""


def test_the_line_overwrites_itself_and_fits_80_columns() -> None:
    out = Terminal()
    line = StatusLine(out)
    line.progress(PROGRESS)
    time.sleep(0.06)
    line.sealing(0.47)
    line.clear()
    assert "\n" not in out.getvalue()
    shown = out.getvalue().split("\r")[1:]
    assert {len(text) for text in shown[:-1]} == {79}
    assert "1,234,567 events" in shown[0]
    assert "LOST 13" in shown[0]
    assert shown[1].strip() == "sealing  47%"
    assert shown[2].strip() == ""


def test_a_terminal_is_not_flooded() -> None:
    out = Terminal()
    line = StatusLine(out)
    for share in range(1000):
        line.sealing(share / 1000)
    assert out.getvalue().count("\r") < 100


def test_no_loss_is_not_mentioned() -> None:
    out = Terminal()
    StatusLine(out).progress(Progress())
    assert "LOST" not in out.getvalue()
