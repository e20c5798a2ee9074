"""How long does the page of a recording take, how large is it, and how soon does it open?

Question: for recordings of a million and of ten million events, the seconds from the files on disk
to the page on disk (`ksmtrace report --html`, the program's start included), the timeline's share
of it, the page's size, and the seconds until a headless Chromium has drawn it.
Work: the made-up stream of bench/live_timeline.py: a million pages of 31 processes that merge, are
written and merge again, 300,000 events a scan. Medians of rounds, on all cores there are.
Not measured: a disk (files are cached), a screen.

    make bench-views
    .venv/bin/python bench/views_html.py --millions 1 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from live_timeline import BEGIN, PAGES, PROCESSES, STEP_NS, Stream
from rich.console import Console
from rich.table import Table

from ksmtrace.recording.pseudonyms import RawPointers
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter

ROOT = Path(__file__).parent.parent
FACTS: dict[str, Any] = {
    "kernel": "6.18.2",
    "cpus": 8,
    "memory_bytes": 64 << 30,
    "page_bytes": 4096,
    "backend": "core",
    "backend_why": "the best that works here",
    "fields_unknown": [],
    "started": "2026-01-02T03:04:05.678+00:00",
    "clock": {"monotonic_ns": BEGIN - 1, "wall_ns": 1_767_323_045 * 10**9},
    "command": None,
    "knobs": {"run": "1", "pages_to_scan": "5000"},
    "knobs_set": {},
    "cow": {"obstacles": [], "seen_by": ["page_fault_user"]},
    "rmap_item_bytes": 64,
    "censuses": [],
}
STREAM = """
import sys, time
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
begin = time.perf_counter()
timeline_of(StoredRecording(sys.argv[1]))
print(time.perf_counter() - begin)
"""


def made_up(path: Path, events: int) -> None:
    """Write a recording of so many events at least: of whole scans."""
    writer = RecordingWriter(Target(path), FACTS, RawPointers())
    stream = Stream()
    nothing = {"pages_shared": 0, "pages_sharing": 0, "ksm_zero_pages": 0, "cow_ksm": 0}
    writer.table("counters", [_sample(BEGIN - 1, "start", 0, nothing)])
    names = [_named(number) for number in range(PROCESSES)]
    writer.table("identities", names)
    writer.table("regions", [_region(number) for number in range(PROCESSES)])
    seq = 0
    while events > 0:
        batch = stream.scan(seq)
        writer.events(batch)
        end = BEGIN + seq * 10**9 + len(batch) * STEP_NS - 1
        writer.table("counters", [_sample(end, "scan", seq + 1, stream.counters())])
        events -= len(batch)
        seq += 1
    writer.finish("duration", {"duration_s": float(seq), "command_status": None, "notes": []})


def _sample(ts: int, reason: str, scans: int, counters: dict[str, int]) -> dict[str, Any]:
    return {
        "ts": ts,
        "reason": reason,
        "full_scans": scans,
        "ksmd_cpu_ns": 7 * (ts - BEGIN + 1) // 10,
        "knob_pages_to_scan": "5000",
        "knob_run": "1",
        **counters,
    }


def _named(number: int) -> dict[str, Any]:
    return {
        "ts": BEGIN - 1,
        "what": "present",
        "tgid": 1001 + number,
        "parent_tgid": 1,
        "start_ticks": 1000 + number,
        "comm": f"worker-{number}",
        "cgroup": f"/tenant-{number % 3}",
    }


def _region(number: int) -> dict[str, Any]:
    start = 1 << 44
    return {
        "ts": BEGIN + 10**8,
        "tgid": 1001 + number,
        "start": start,
        "end": start + (PAGES // PROCESSES + 1) * 4096,
        "permissions": "rw-p",
        "name": "[anon:work]",
        "mergeable": True,
    }


def _timed(*command: str) -> tuple[float, str]:
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, done.stdout


def _opened_s(page: Path) -> float | None:
    """Seconds until it is drawn; None without a browser."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.browser import browser, browser_obstacle, opened

    if browser_obstacle() is not None:
        return None
    with browser() as driver:
        return opened(driver, page)


def measured(path: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """The figures of one recording."""
    page = folder / "page.html"
    ksmtrace = str(Path(sys.executable).parent / "ksmtrace")
    streams, wholes, opened = [], [], []
    for _ in range(rounds):
        streams.append(float(_timed(sys.executable, "-c", STREAM, str(path))[1]))
        wholes.append(_timed(ksmtrace, "report", str(path), "--html", str(page), "--force")[0])
        opened.append(_opened_s(page))
    told = [seconds for seconds in opened if seconds is not None]
    return {
        "page_s": statistics.median(wholes),
        "timeline_s": statistics.median(streams),
        "page_bytes": page.stat().st_size,
        "opens_s": statistics.median(told) if told else None,
    }


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the recordings in this folder")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        for millions in args.millions:
            path = folder / f"{millions}M.ksm"
            if not path.exists():
                made_up(path, millions * 1_000_000)
            rows.append({"events": millions * 1_000_000, **measured(path, folder, args.rounds)})
    table = Table("events", "page, s", "of it the stream, s", "size, MB", "opens in, s")
    for row in rows:
        opens = "–" if row["opens_s"] is None else f"{row['opens_s']:.2f}"
        table.add_row(
            f"{row['events']:,}", f"{row['page_s']:.1f}", f"{row['timeline_s']:.1f}",
            f"{row['page_bytes'] / 1e6:.2f}", opens,
        )  # fmt: skip
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
