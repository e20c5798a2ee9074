"""What `ksmtrace estimate` says before KSM is on, and what the kernel then reaches.

make bench-estimate-reality
.venv/bin/python bench/estimate_reality.py --only redis node --json

Each workload is opted in as a whole when it starts (as `record --merge` does; QEMU registers its
guests' memory itself) while ksmd stands still. It settles, is estimated, and then ksmd runs at full
speed until three full scans in a row have saved no more and no less. reached is the kernel's
pages_sharing + ksm_zero_pages then. Estimating once more at that moment tells what the workload has
changed meanwhile from what the estimate got wrong: `afterwards` is that second estimate. Knobs are
restored and everything is unmerged. --write keeps the figures for the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ksmtrace.capture.command import Command
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.host import kernel_release
from ksmtrace.kernel.knobs import Change, changed
from ksmtrace.kernel.stepper import drain_lru_batches
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.processes.registered import registered_tgids
from ksmtrace.vm.guest import booted
from ksmtrace.vm.qemu import Machine

KEPT = Path(__file__).parents[1] / "docs" / "estimate-reality.json"
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
PATIENCE, SAME_SCANS = 90.0, 3
STILL = {"run": "0", "smart_scan": "0", "sleep_millisecs": "1", "pages_to_scan": "100000"}

SYNTHETIC = """
import pathlib, random, signal, sys
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
number, ready = int(sys.argv[1]), pathlib.Path(sys.argv[2])
random.seed(number)
contents = [c for c in range(1, 10_008) for _ in range(1 + c % 5)]
contents += [0] * 4_001 + [-1] * 20_011
random.shuffle(contents)
memory = mergeable_memory(len(contents))
for at, c in enumerate(contents):
    page = bytes(PAGE) if c == 0 else page_of(2, number, at) if c < 0 else page_of(1, c)
    memory[at * PAGE : (at + 1) * PAGE] = page
ready.touch()
signal.pause()
"""
PYTHON = """
import os, pathlib, signal, sys
import numpy, pandas
frame = pandas.DataFrame({"a": numpy.arange(100_003), "b": numpy.sqrt(numpy.arange(100_003))})
frame.groupby(frame.a % 17).b.sum()
for number in range(int(sys.argv[1])):
    if os.fork() == 0:
        own = pandas.DataFrame({"a": numpy.arange(10_007) * (number + 2)})
        own.a.sum()
        break
pathlib.Path(f"{sys.argv[2]}-{os.getpid()}").touch()
signal.pause()
"""
NODE = """
const fs = require("fs"), kept = new Map();
for (let n = 0; n < 200003; n++) kept.set("key " + n, {n, text: "value " + n, list: [n, n + 1]});
if (global.gc) gc();
setTimeout(() => fs.writeFileSync(process.argv[1], ""), 3000);
setInterval(() => kept.size, 1e8);
"""


@dataclass
class Outcome:
    """One workload. Pages, unless the name says otherwise."""

    workload: str
    use_zero_pages: bool
    processes: int
    candidates: int
    changed: int
    estimated: int
    reached: int
    afterwards: int
    split_off: int
    freed_bytes: int | None
    scans: int
    settled: bool
    estimate_s: float

    @property
    def error(self) -> float:
        """Of the estimate; 0.01 is one percent too much."""
        return self.estimated / self.reached - 1 if self.reached else float("nan")


@dataclass
class Running:
    """A workload that runs. registered: only what it has registered itself counts."""

    pids: list[int]
    registered: bool = False


def _await(files: Callable[[], int], expected: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while files() < expected:
        if time.monotonic() > deadline:
            raise KsmtraceError("a workload did not become ready")
        time.sleep(0.1)


@contextmanager
def commands(
    lines: list[list[str]], folder: Path, files: int | None = None, grown: int = 0
) -> Iterator[list[int]]:
    """Opted-in commands, each told a file to make when ready. grown: children expected."""
    with ExitStack() as stack, (folder / "words").open("wb") as words:
        pids = []
        for line in lines:
            command = Command(line, merge=True, stdout=words.fileno())
            stack.callback(command.end, 10.0)
            stack.callback(command.terminate)
            pids.append(command.pid)
        _await(lambda: len(list(folder.glob("ready*"))), len(lines) if files is None else files)
        if grown:
            children = [_children(pid) for pid in pids]
            pids += [child for some in children for child in some]
            for child in pids[len(lines) :]:
                stack.callback(os.kill, child, 15)
        yield pids


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def synthetic(folder: Path) -> Iterator[Running]:
    """Three processes of 54,032 pages whose contents are known."""
    lines = [[sys.executable, "-c", SYNTHETIC, str(n), str(folder / f"ready{n}")] for n in range(3)]
    with commands(lines, folder) as pids:
        yield Running(pids)


@contextmanager
def python_apart(folder: Path) -> Iterator[Running]:
    """Five Python processes with pandas, each started by itself."""
    ready = str(folder / "ready")
    with commands([[sys.executable, "-c", PYTHON, "0", ready]] * 5, folder) as pids:
        yield Running(pids)


@contextmanager
def python_forked(folder: Path) -> Iterator[Running]:
    """A Python process with pandas, and five that it has forked then."""
    ready = str(folder / "ready")
    line = [sys.executable, "-c", PYTHON, "5", ready]
    with commands([line], folder, files=6, grown=5) as pids:
        yield Running(pids)


@contextmanager
def node(folder: Path) -> Iterator[Running]:
    """Three Node.js processes with 200,003 objects each."""
    lines = [["node", "--expose-gc", "-e", NODE, str(folder / f"ready{n}")] for n in range(3)]
    with commands(lines, folder) as pids:
        yield Running(pids)


@contextmanager
def redis(folder: Path) -> Iterator[Running]:
    """Three Redis servers; two thirds of their 300,007 keys are the same."""
    places = [folder / f"redis{n}" for n in range(3)]
    lines = [
        ["redis-server", "--port", "0", "--unixsocket", str(place), "--save", "", "--daemonize",
         "no", "--logfile", str(folder / "log"), "--dir", str(folder)]
        for place in places
    ]  # fmt: skip
    (folder / "ready").touch()
    with commands(lines, folder, files=1) as pids:
        _await(lambda: sum(place.exists() for place in places), 3)
        for number, place in enumerate(places):
            keys = ((n, n if n % 3 else n * 7 + number) for n in range(300_007))
            text = "".join(f"SET key:{n} {f'value:of:{word}:' * 9}\r\n" for n, word in keys)
            subprocess.run(
                ["redis-cli", "-s", str(place)], input=text, text=True, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        yield Running(pids)


@contextmanager
def postgres(folder: Path) -> Iterator[Running]:
    """Two PostgreSQL servers with the same table, and four connections each that have read it."""
    folder.chmod(0o777)
    as_user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    tools = Path(os.path.realpath("/usr/local/bin/postgres")).parent
    with ExitStack() as stack:
        pids: list[int] = []
        for number in range(2):
            data = folder / f"data{number}"
            subprocess.run(
                [*as_user, str(tools / "initdb"), "-D", str(data), "-U", "x", "-A", "trust"],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            server = Command(
                [*as_user, str(tools / "postgres"), "-D", str(data), "-k", str(folder), "-h", "",
                 "-p", str(7001 + number), "-c", "autovacuum=off"],
                merge=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(server.end, 10.0)
            stack.callback(server.terminate)
            socket = folder / f".s.PGSQL.{7001 + number}"
            _await(lambda socket=socket: int(socket.exists()), 1)
            time.sleep(1)
            for _ in range(4):
                query = "select sum(length(repeat(n::text, 20))) from generate_series(1, 300007) n"
                client = subprocess.Popen(
                    [str(tools / "psql"), "-h", str(folder), "-p", str(7001 + number), "-U", "x",
                     "-d", "postgres"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                )  # fmt: skip
                assert client.stdin is not None
                client.stdin.write(query + ";\n")
                client.stdin.flush()
                stack.callback(client.wait)
                stack.callback(client.stdin.close)
            time.sleep(3)
            pids += [server.pid, *_children(server.pid)]
        yield Running(pids)


@contextmanager
def qemu(_folder: Path) -> Iterator[Running]:
    """Three QEMU guests (Debian's 6.12, twice, and 6.1), idle after their boot."""
    with ExitStack() as stack:
        for number, series in enumerate(("6.12", "6.12", "6.1")):
            machine = Machine(memory_mib=1024, mergeable=True, name=f"guest-{number}")
            stack.enter_context(booted(series, machine))
        yield Running(registered_tgids(), registered=True)


WORKLOADS: dict[str, tuple[Callable[[Path], Any], float, tuple[bool, ...]]] = {
    "synthetic": (synthetic, 1, (False, True)),
    "python": (python_apart, 2, (False, True)),
    "python-forked": (python_forked, 2, (False, True)),
    "node": (node, 30, (False,)),
    "redis": (redis, 3, (False,)),
    "postgres": (postgres, 3, (False,)),
    "qemu": (qemu, 20, (False, True)),
}
"""How to start it, seconds to settle, and with which use_zero_pages."""


def estimate(running: Running, interval: float) -> dict[str, Any]:
    """What `ksmtrace estimate` says now."""
    done = subprocess.run(
        [str(KSMTRACE), "estimate", *map(str, running.pids), "--json", "--interval", str(interval),
         *(["--mergeable"] if running.registered else [])],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def converge(change: Change, sampler: HostSampler, settings: dict[str, str]) -> tuple[int, bool]:
    """Let ksmd run until nothing changes any more; pages saved, and whether that came to be."""
    drain_lru_batches()
    change.set({**settings, "run": "1"})
    seen: list[tuple[int, int]] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = sampler.counters()
        saved = now["pages_sharing"] + now.get("ksm_zero_pages", 0)
        if not seen or now["full_scans"] > seen[-1][0]:
            drain_lru_batches()
            seen.append((now["full_scans"], saved))
        # The first scans only note checksums.
        last = seen[-SAME_SCANS - 1 :]
        if now["full_scans"] > 5 and len(last) > SAME_SCANS and len({s for _, s in last}) == 1:
            return saved, True
    return saved, False


def measure(name: str, *, zero_pages: bool, say: Callable[[str], None]) -> Outcome:
    """Start a workload, estimate it, let ksmd merge it."""
    start, settle_s, _ = WORKLOADS[name]
    settings = {**STILL, "use_zero_pages": str(int(zero_pages))}
    sampler = HostSampler()
    with ExitStack() as stack:
        change = stack.enter_context(changed(settings))
        change.unmerge()
        change.set(settings)
        if strangers := registered_tgids():
            raise KsmtraceError(f"other processes are registered with KSM: {strangers[:5]}")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say(f"{name}: starting")
        running = stack.enter_context(start(folder))
        say(f"{name}: settling")
        time.sleep(settle_s)
        say(f"{name}: estimating")
        before = estimate(running, 5)
        say(f"{name}: merging")
        scans = sampler.counters()["full_scans"]
        reached, settled = converge(change, sampler, settings)
        scans = sampler.counters()["full_scans"] - scans
        change.set({**settings, "run": "0"})
        after = estimate(running, 1)
        change.unmerge()
        change.set(settings)
    sampler.close()
    return Outcome(
        workload=name,
        use_zero_pages=zero_pages,
        processes=len(running.pids),
        candidates=before["candidate_pages"],
        changed=before["pages_changed"],
        estimated=before["pages_saved"],
        reached=reached,
        afterwards=after["pages_saved"],
        split_off=before["zero_pages_split_off"],
        freed_bytes=before["bytes_freed"],
        scans=scans,
        settled=settled,
        estimate_s=before["read_s"],
    )


def table(outcomes: list[Outcome]) -> Table:
    """All of them."""
    found = Table(box=None, pad_edge=False)
    found.add_column("workload")
    for title in ("zero pages", "processes", "pages", "estimated", "reached", "error", "later"):
        found.add_column(title, justify="right")
    for one in outcomes:
        found.add_row(
            one.workload, "on" if one.use_zero_pages else "off", f"{one.processes}",
            f"{one.candidates:,}", f"{one.estimated:,}", f"{one.reached:,}",
            f"{one.error:+.2%}", f"{one.afterwards:,}",
        )  # fmt: skip
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep the figures for the docs")
    args = parser.parse_args()
    words = Console(stderr=True)
    outcomes = []
    for name in args.only:
        for zero_pages in WORKLOADS[name][2]:
            try:
                outcomes.append(measure(name, zero_pages=zero_pages, say=words.print))
            except KsmtraceError as error:
                words.print(f"{name}: {error.message}")
    rows = [{**asdict(one), "error": one.error} for one in outcomes]
    if args.write:
        kept = json.loads(KEPT.read_text())["outcomes"] if KEPT.exists() else []
        names = {one.workload for one in outcomes}
        rows = [row for row in kept if row["workload"] not in names] + rows
        rows.sort(key=lambda row: list(WORKLOADS).index(row["workload"]))
        KEPT.write_text(json.dumps({"kernel": kernel_release(), "outcomes": rows}, indent=1) + "\n")
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        Console(highlight=False).print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
