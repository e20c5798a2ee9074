"""What does tracing ksmd cost, and what gets lost? Side by side with the usual tools.

Question: on the same work, how much does each tracer capture, slow ksmd down and spend itself?
Work: PAGES pages of CONTENTS contents, merged by ksmd at full speed (pages_to_scan above the
number of pages, no sleep), then `run=2`, which unmerges everything as fast as the kernel can.
Peers: nothing; `perf record -e 'ksm:*' -a`; bcc with a Python callback; bpftrace printf.
Runs are interleaved, one of each in turn; medians and ratios to the untraced runs are printed.
It can't measure how a tracer behaves on a machine with more than these CPUs.

    sudo make bench-capture            5 rounds, about 5 minutes
    sudo .venv/bin/python bench/capture.py --rounds 3 --only ksmtrace --json out.json
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ksmtrace.kernel.knobs import changed

HERE = Path(__file__).parent
PYTHON = sys.executable
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
KNOBS = {"pages_to_scan": "100000000", "sleep_millisecs": "0", "smart_scan": "1"}


@dataclass
class Peer:
    """A tracer: how to start it, when it is ready, what it captured where."""

    name: str
    command: Callable[[Path], list[str]]
    ready: str | None
    captured: Callable[[Path, str], int]
    output: str


COUNTED = ("ksm_merge_with_ksm_page", "ksm_remove_rmap_item", "ksm_remove_ksm_page")


def _ksmtrace_events(folder: Path, _words: str) -> int:
    report = subprocess.run(
        [KSMTRACE, "report", folder / "out.ksm", "--json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kinds = json.loads(report)["events_by_kind"]
    return sum(kinds.get(kind, 0) for kind in COUNTED)


def _perf_events(folder: Path, _words: str) -> int:
    text = subprocess.run(
        ["perf", "script", "-i", str(folder / "perf.data"), "-F", "event"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return sum(text.count(kind) for kind in COUNTED)


def _lines(folder: Path, _words: str) -> int:
    with (folder / "out.txt").open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


BPFTRACE = """
tracepoint:ksm:ksm_merge_with_ksm_page
{ printf("m %lu %p %p %d\\n", args->pfn, args->rmap_item, args->mm, args->err); }
tracepoint:ksm:ksm_remove_rmap_item
{ printf("r %lu %p %p\\n", args->pfn, args->rmap_item, args->mm); }
tracepoint:ksm:ksm_remove_ksm_page { printf("g %lu\\n", args->pfn); }
"""

PEERS = (
    Peer("none", lambda _f: ["sleep", "1000"], None, lambda _f, _w: 0, ""),
    Peer(
        "ksmtrace",
        lambda f: [str(KSMTRACE), "record", "--backend", "core", "-o", str(f / "out.ksm")],
        "recording to",
        _ksmtrace_events,
        "out.ksm",
    ),
    Peer(
        "perf record",
        lambda f: ["perf", "record", "-q", "-e", "ksm:*", "-a", "-o", str(f / "perf.data")],
        None,
        _perf_events,
        "perf.data",
    ),
    Peer(
        "bcc callback",
        lambda f: [PYTHON, str(HERE / "bcc_callback.py"), str(f / "out.txt")],
        "ready",
        _lines,
        "out.txt",
    ),
    Peer(
        "bpftrace",
        lambda f: ["bpftrace", "-q", "-o", str(f / "out.txt"), "-e", BPFTRACE],
        None,
        _lines,
        "out.txt",
    ),
)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.glob("events*"))
    return path.stat().st_size if path.is_file() else 0


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_peer(peer: Peer, pages: int, contents: int) -> dict[str, float]:
    """One run of one peer; seconds, counts and bytes by name."""
    with tempfile.TemporaryDirectory(prefix="ksmtrace-bench-") as name:
        folder = Path(name)
        words = folder / "words"
        with words.open("w") as out:
            tracer = subprocess.Popen(peer.command(folder), stdout=out, stderr=out)
        deadline = time.monotonic() + 30
        while peer.ready and peer.ready not in words.read_text():
            if time.monotonic() > deadline or tracer.poll() is not None:
                tracer.kill()
                raise SystemExit(f"{peer.name} did not start: {words.read_text()}")
            time.sleep(0.02)
        if peer.ready is None:
            time.sleep(2.5)  # these say nothing when they are attached
        load = subprocess.run(
            [PYTHON, str(HERE / "ksm_load.py"), str(pages), str(contents)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        result: dict[str, float] = json.loads(load.stdout)
        time.sleep(0.3)
        cpu = _children_cpu()
        tracer.send_signal(signal.SIGINT)
        result["rss_anon_mib"] = _largest_rss_anon(tracer) / 1024
        result["tracer_cpu_s"] = _children_cpu() - cpu
        result["captured"] = peer.captured(folder, words.read_text()) if peer.output else 0
        result["bytes"] = _size(folder / peer.output) if peer.output else 0
        attached = re.search(r"attached in ([\d.]+) ms", words.read_text())
        result["attach_ms"] = float(attached[1]) if attached else float("nan")
        return result


def _largest_rss_anon(tracer: subprocess.Popen[bytes]) -> float:
    """Wait until a tracer has ended; returns the most private memory it had then, in KiB."""
    most = 0
    deadline = time.monotonic() + 120
    while tracer.poll() is None and time.monotonic() < deadline:
        status = Path(f"/proc/{tracer.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+)", status)
        most = max(most, int(found[1]) if found else 0)
        time.sleep(0.005)
    tracer.kill()
    tracer.wait()
    return most


def truth(result: dict[str, float]) -> int:
    """Merge and removal events of one run: one of each a page.

    Each of a dead KSM page's items but the oldest gives a ksm_remove_rmap_item, and the page
    itself a ksm_remove_ksm_page: together as many as items.
    """
    return 2 * int(result["merged"])


def summarise(results: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row a peer: medians, and ratios to `none` of the same round."""
    rows = []
    base = results.get("none", [])
    for name, runs in results.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        row: dict[str, Any] = {"tracer": name, "runs": len(runs)}
        row["truth"] = sum(truth(run) for run in runs)
        row["captured"] = int(sum(run["captured"] for run in runs))
        row["merges_per_s"] = median["merged"] / median["merge_s"]
        row["ksmd_cpu_s"] = median["ksmd_cpu_s"]
        for ratio, key in (("slower", "merge_s"), ("ksmd_cpu_ratio", "ksmd_cpu_s"),
                           ("unmerge_slower", "unmerge_s")):  # fmt: skip
            ratios = [run[key] / other[key] for run, other in zip(runs, base, strict=False)]
            row[ratio] = statistics.median(ratios) if ratios else None
        row["tracer_cpu_s"] = median["tracer_cpu_s"]
        captured = median["captured"]
        row["bytes_per_event"] = median["bytes"] / captured if captured else None
        row["attach_ms"] = median["attach_ms"]
        row["rss_anon_mib"] = median["rss_anon_mib"]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table of the README."""
    table = Table(box=None, pad_edge=False)
    for column in ("tracer", "captured", "merge", "ksmd CPU", "unmerge", "own CPU", "bytes",
                   "RssAnon"):  # fmt: skip
        table.add_column(column, justify="left" if column == "tracer" else "right")
    for row in rows:
        share = 100 * row["captured"] / row["truth"]
        of_none = [row["slower"], row["ksmd_cpu_ratio"], row["unmerge_slower"]]
        table.add_row(
            row["tracer"],
            "" if row["tracer"] == "none" else f"{share:.2f} %",
            *("" if ratio is None else f"x {ratio:.2f}" for ratio in of_none),
            "" if row["tracer"] == "none" else f"{row['tracer_cpu_s']:.2f} s",
            f"{row['bytes_per_event']:.1f}" if row["bytes_per_event"] else "",
            "" if row["tracer"] == "none" else f"{row['rss_anon_mib']:.0f} MiB",
        )
    console = Console()
    console.print(table)
    base = next(row for row in rows if row["tracer"] == "none")
    console.print(f"untraced: {base['merges_per_s']:,.0f} merges/s; merge, ksmd CPU and unmerge are"
                  " ratios to it, bytes are on disk an event")  # fmt: skip
    for row in rows:
        if row["attach_ms"] == row["attach_ms"]:
            console.print(f"{row['tracer']} attached in {row['attach_ms']:.0f} ms")
    begin = time.perf_counter()
    subprocess.run([KSMTRACE, "--help"], stdout=subprocess.DEVNULL, check=True)
    console.print(f"ksmtrace --help took {1000 * (time.perf_counter() - begin):.0f} ms")


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pages", type=int, default=500_009)
    parser.add_argument("--contents", type=int, default=1_009)
    parser.add_argument("--only", nargs="+", help="peers to run beside none")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = [p for p in PEERS if p.name == "none" or not args.only or p.name in args.only]
    tools = {"perf record": "perf", "bpftrace": "bpftrace"}
    missing = {name for name, tool in tools.items() if shutil.which(tool) is None}
    for name in missing & {p.name for p in chosen}:
        print(f"left out, not installed: {name}", file=sys.stderr)
    chosen = [p for p in chosen if p.name not in missing]
    results: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in chosen}
    with changed({**KNOBS, "run": "0"}):
        for number in range(args.rounds):
            for peer in chosen:
                results[peer.name].append(run_peer(peer, args.pages, args.contents))
                print(f"round {number + 1}: {peer.name}", file=sys.stderr)
    rows = summarise(results)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "runs": results}, indent=1))


if __name__ == "__main__":
    main()
