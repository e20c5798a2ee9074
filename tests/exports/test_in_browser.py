"""An exported trace in Chrome's trace viewer itself, drawn by a headless Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser import opened_in_viewer, viewer_obstacle
from support.exported import DB, GUEST, MILLION, Shown, read_chrome, written

from ksmtrace.exports.chrome import write_chrome
from ksmtrace.exports.gather import trace
from ksmtrace.timeline.build import Timeline

_OBSTACLE = viewer_obstacle()


@pytest.mark.skipif(_OBSTACLE is not None, reason=str(_OBSTACLE))
def test_chromes_trace_viewer_shows_every_point(busy: Timeline, tmp_path: Path) -> None:
    path, picture = tmp_path / "a.json", tmp_path / "a.png"
    path.write_bytes(written(trace(busy), write_chrome))
    told = opened_in_viewer(path, tmp_path, picture)
    assert told["warnings"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert set(told["processes"]) == {"KSM", "sekrit-db", "sekrit-guest"}
    # Two address spaces have the same name: the viewer's map by name keeps one of them.
    guest, host = told["processes"]["sekrit-guest"], told["processes"]["KSM"]
    assert guest["labels"] == ["cgroup /", "vm sekrit vm"]
    assert [s[0] for s in host["threads"]["scans"]] == [f"scan {n}" for n in (1, 2, 3, 4)]
    shown = read_chrome(path.read_bytes())
    for process, tgid in ((host, 1 << 22), (guest, GUEST)):
        mine = [s for s in shown if s.process.endswith(f" {tgid}")]
        assert _of_viewer(process) == _expected(mine, shown)
    assert DB != GUEST


def _of_viewer(process: dict[str, object]) -> dict[str, object]:
    threads, counters = process["threads"], process["counters"]
    assert isinstance(threads, dict)
    assert isinstance(counters, dict)
    return {
        "threads": {
            name: [[s[0], round(s[1], 4), round(s[2], 4), s[3]] for s in slices]
            for name, slices in threads.items()
        },
        "counters": {name: series[0] for name, series in counters.items()},
    }


def _expected(mine: list[Shown], everything: list[Shown]) -> dict[str, object]:
    """In milliseconds since the first point: the viewer shifts the world to zero."""
    first = min(s.ts for s in everything)
    threads: dict[str, list[list[object]]] = {}
    counters: dict[str, list[float | None]] = {}
    for s in mine:
        if s.kind == "counter":
            counters.setdefault(s.track, []).append(s.value)
            continue
        args = {k: f"0x{v:016x}" if k == "addr" else v for k, v in s.args.items()}
        at, long = round((s.ts - first) / MILLION, 4), round((s.duration or 0) / MILLION, 4)
        threads.setdefault(s.track, []).append([s.name, at, long, args])
    return {"threads": threads, "counters": counters}
