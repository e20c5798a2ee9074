"""How long from a recording on disk to all tables? And how does that grow?

Question: for a recording of some ten million events, the seconds and memory from the files to every
derived table, on one core, imports done. Beside it, on a tenth of the same events: their text as
`perf script` prints it, read into pandas and grouped; and a plain Python loop over the events that
keeps a dictionary of open lives. Neither peer reconstructs KSM pages, ends or accounts.
Work: seven processes, PAGES pages of 5,003 contents, merged, rewritten here and there for three
scans and unmerged by run=2, CYCLES times, recorded from the real ksmd. For growth the same events
are stored several times over, later each time.
Runs are interleaved; medians are printed. It can't measure a machine's disk: files are cached.

    sudo make bench-timeline                     about 10 minutes
    .venv/bin/python bench/timeline.py --recording big.ksm --times 10
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ksmtrace.events.batch import EventBatch, of_kind
from ksmtrace.events.registry import KSM_MERGE_WITH_KSM_PAGE, KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.kernel.knobs import changed
from ksmtrace.recording.pseudonyms import RawPointers
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter
from ksmtrace.timeline.tables import TABLES

HERE = Path(__file__).parent
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
KNOBS = {"pages_to_scan": "100000000", "sleep_millisecs": "0", "smart_scan": "0", "run": "0"}
PAGES, CYCLES = 700_000, 13
NAMES = " ".join(TABLES)

OURS = """
import json, resource, sys, time
import numpy as np, pandas as pd, pyarrow as pa
pa.set_cpu_count(1); pa.set_io_thread_count(1)
from ksmtrace.recording.reader import StoredRecording
import ksmtrace.timeline.build as build
pd.factorize(np.arange(3))
begin, cpu = time.perf_counter(), time.process_time()
timeline = build.timeline_of(StoredRecording(sys.argv[1]))
stream = time.perf_counter() - begin
for name in sys.argv[2].split():
    getattr(timeline, name)
print(json.dumps({
    "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "stream": stream,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""

PERF = """
import json, resource, sys, time
import pandas as pd
begin, cpu = time.perf_counter(), time.process_time()
lines = pd.Series(open(sys.argv[1]).read().splitlines())
fields = lines.str.extract(
    r"(?P<time>[0-9.]+): ksm:(?P<event>[a-z_]+): (?P<rest>.*)$")
merges = fields[fields.event == "ksm_merge_with_ksm_page"].rest.str.extract(
    r"pfn (?P<pfn>\\w+).*rmap_item (?P<item>\\w+) mm (?P<mm>\\w+) error (?P<err>-?\\d+)")
merges.groupby("mm").size(); merges.groupby("pfn").item.nunique(); merges.err.value_counts()
print(json.dumps({
    "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""

LOOP = """
import json, resource, sys, time
import numpy as np, pyarrow.parquet as pq
from ksmtrace.recording.reader import StoredRecording
begin, cpu = time.perf_counter(), time.process_time()
lives, ended, rest = {}, [], int(sys.argv[2])
for batch in StoredRecording(sys.argv[1]).event_batches():
    for event in batch[:rest].tolist():
        ts, pfn, item, mm, addr, tgid, err, kind, cpu_, arg = event
        if kind == 6 and err == 0:
            before = lives.get((mm, addr))
            if before is not None:
                ended.append((*before, ts))
            lives[mm, addr] = (ts, pfn, tgid)
        elif kind == 7:
            before = lives.pop((mm, addr), None)
            if before is not None:
                ended.append((*before, ts))
    rest -= len(batch)
    if rest <= 0:
        break
print(json.dumps({
    "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def on_one_core(script: str, *args: str) -> dict[str, float]:
    """Run a measurement in a process of its own; what it prints."""
    core = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", core, sys.executable, "-c", script, *args],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def record(path: Path) -> None:
    """Record the work from the real ksmd."""
    work = [sys.executable, str(HERE / "timeline_load.py"), str(PAGES), str(CYCLES)]
    with changed(KNOBS):
        subprocess.run([KSMTRACE, "record", "-o", path, "--", *work], check=True)


def repeated(recording: StoredRecording, path: Path, times: int) -> None:
    """Store a recording's events several times over, each time later and with later scans."""
    samples = recording.table("counters")
    begin, end = (int(f(samples["ts"].to_numpy())) for f in (np.min, np.max))
    scans = sum(int(of_kind(b, KSM_STOP_SCAN).sum()) for b in recording.event_batches())
    writer = RecordingWriter(Target(path), recording.manifest, RawPointers())
    for turn in range(times):
        later = np.uint64(turn * (end - begin + 1_000_000))
        for batch in recording.event_batches():
            batch["ts"] += later
            batch["addr"][of_kind(batch, KSM_START_SCAN, KSM_STOP_SCAN)] += np.uint64(turn * scans)
            writer.events(batch)
    for name in ("counters", "identities", "regions"):
        writer.table(name, recording.table(name).to_pylist())
    writer.finish("duration", {"duration_s": times * (end - begin) / 1e9})


def perf_text(recording: StoredRecording, path: Path, events: int) -> None:
    """The merges among the first events as `perf script` prints them."""
    with path.open("w") as file:
        for line in _perf_lines(recording.event_batches(), events):
            file.write(line)


def _perf_lines(batches: Iterator[EventBatch], events: int) -> Iterator[str]:
    for batch in batches:
        for e in batch[:events]:
            if e["kind"] == KSM_MERGE_WITH_KSM_PAGE.id:
                what = "ksm_merge_with_ksm_page"
                rest = (
                    f"ksm pfn {e['pfn']} rmap_item {e['item']:#x} mm {e['mm']:#x} error {e['err']}"
                )
            else:
                what, rest = "ksm_remove_rmap_item", f"pfn {e['pfn']} rmap_item {e['item']:#x}"
            yield f"ksmd    35 [001] {int(e['ts']) / 1e9:.6f}: ksm:{what}: {rest}\n"
        events -= len(batch)
        if events <= 0:
            return


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recording", type=Path, help="use this one instead of making one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=0, help="also store it so many times over")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.recording or Path(folder) / "work.ksm"
        if args.recording is None:
            record(path)
        recording = StoredRecording(path)
        events = int(recording.manifest["events"])
        tenth = events // 10
        text = Path(folder) / "perf.txt"
        perf_text(recording, text, tenth)
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.rounds):
            runs.setdefault("ksmtrace, every table", []).append(on_one_core(OURS, str(path), NAMES))
            runs.setdefault("perf script into pandas", []).append(on_one_core(PERF, str(text)))
            runs.setdefault("plain Python loop", []).append(
                on_one_core(LOOP, str(path), str(tenth))
            )
        rows = [
            _row(name, tenth if name != "ksmtrace, every table" else events, found)
            for name, found in runs.items()
        ]
        if args.times:
            larger = Path(folder) / "larger.ksm"
            repeated(recording, larger, args.times)
            found = [on_one_core(OURS, str(larger), NAMES)]
            rows.insert(1, _row(f"the same, {args.times} times over", events * args.times, found))
    _print(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def _row(name: str, events: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    return {
        "what": name,
        "events": events,
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "events_per_s": events / statistics.median(seconds),
        "mib_max": max(run["mib"] for run in runs),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("what", "events", "seconds (min-max)", "events/s", "MiB", title="disk to tables")
    for row in rows:
        table.add_row(
            row["what"],
            f"{row['events']:,}",
            f"{row['seconds_median']:.1f} ({row['seconds_min']:.1f}-{row['seconds_max']:.1f})",
            f"{row['events_per_s']:,.0f}",
            f"{row['mib_max']:,.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
