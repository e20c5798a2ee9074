"""What commands say of recordings that are hard to reconstruct."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.cli.main import main
from ksmtrace.errors import Exit
from ksmtrace.events.registry import KSM_ENTER, VIA_SELF
from tests.support.batches import (
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)
from tests.support.hard_streams import (
    CUT_BY_A_LOSS,
    IDLE,
    IMPORTED,
    MS,
    PAGE,
    as_imported,
    counted,
    on_two_clocks,
    one_a_ms,
    only_of_11,
)
from tests.support.recordings import BEGIN, SECOND, make_recording

EXTREMES = [
    event(KSM_ENTER, mm=(1 << 64) - 1, tgid=(1 << 32) - 1, arg=VIA_SELF),
    scan_starts((1 << 31) - 1, 0, (1 << 32) - 1),
    makes_ksm_page((1 << 64) - 1, mm=(1 << 64) - 1, tgid=(1 << 32) - 1, addr=1 << 63, item=3),
    joins_ksm_page(
        (1 << 64) - 1, mm=(1 << 64) - 1, tgid=(1 << 32) - 1, addr=(1 << 64) - PAGE, item=5,
        mapcount=(1 << 24) - 1,
    ),
    scan_stops((1 << 31) - 1, 0, (1 << 32) - 1),
    loses(1 << 40),
]  # fmt: skip

HARD: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "no events": {"tables": {"counters": IDLE}},
    "loss": {"batches": [one_a_ms(CUT_BY_A_LOSS)], "tables": {"counters": counted(4, 4)}},
    "clocks": {
        "batches": [on_two_clocks(50 * MS)],
        "tables": {"counters": counted(300, 300, ts=BEGIN + 10 * SECOND)},
    },
    "imported": {
        "batches": [as_imported(one_a_ms(CUT_BY_A_LOSS))],
        "facts": IMPORTED,
        "final": {"duration_s": None},
    },
    "imported nothing": {"facts": IMPORTED, "final": {"duration_s": None}},
    "one process": {"batches": [only_of_11()], "facts": {"only_pids": [11]}},
    "extremes": {"batches": [one_a_ms(EXTREMES)]},
}
VIEWS = ([], ["--scan", "1"], ["--process"], ["--process", "@0"], ["--page", "11:1000"],
         ["--ksm-page", "0"], ["--region"], ["--sharing"], ["--advisor"],
         ["--accounts"])  # fmt: skip


def answer(*arguments: str) -> tuple[int, str]:
    """Exit code and what is printed of a command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(arguments)
    return code, out.getvalue()


@pytest.mark.parametrize("name", HARD)
def test_every_view_of_a_hard_recording_says_something_sensible(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = str(make_recording(tmp_path / "a.ksm", **HARD[name]))
    commands = [["report", path], ["diff", path, path], *(["timeline", path, *v] for v in VIEWS)]
    commands += [["top", path, "--once"], ["top", path, "--once", "--at", "0.003"]]
    for command in commands:
        code, text = answer(*command)
        # 1: what was asked for is not in it.
        assert code == Exit.OK or (code == Exit.FAILED and command[0] == "timeline"), command
        assert max(map(len, text.splitlines()), default=0) <= 80, command
        assert "nan" not in text.lower().split(), command
        if code == Exit.OK:
            json.loads(answer(*command, "--json")[1], parse_constant=pytest.fail)
    page = tmp_path / "a.html"
    assert answer("report", path, "--html", str(page)) == (Exit.OK, "")
    assert ">nan<" not in page.read_text().lower()
