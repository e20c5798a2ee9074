"""What `ksmtrace simulate` and `tune` predict of settings, and what the real ksmd then does.

make bench-whatif
.venv/bin/python bench/whatif_reality.py --costs FILE --only quiet --json

Three processes whose memory is registered are estimated while ksmd stands still; from that
snapshot alone, and from prices that a calibration just before has measured, each setting is
predicted. Then the real ksmd runs with it over fresh processes that hold the same, and its counters
and CPU time are read every 20 ms, until a whole full scan has saved nothing more and five seconds
have passed. Medians of the rounds. CPU afterwards is compared over the same full scans: those after
the one in which the last page was saved. Knobs are restored and everything is unmerged. --write
keeps the figures for the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ksmtrace.capture.command import Command
from ksmtrace.errors import KsmtraceError
from ksmtrace.inspect.estimate.answer import estimate
from ksmtrace.inspect.estimate.read import HowToRead
from ksmtrace.inspect.estimate.snapshot import save_snapshot
from ksmtrace.kernel.costs import Costs, read_costs
from ksmtrace.kernel.host import cpu_model, kernel_release, tick_ns
from ksmtrace.kernel.knobs import Change, changed
from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.sysfs import KNOBS, HostSampler
from ksmtrace.lab.alone import refuse_strangers
from ksmtrace.lab.calibrate.calibration import calibrate
from ksmtrace.processes.selection import Wanted, select
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.whatif.ask import ask
from ksmtrace.whatif.moment import Moment, read_moment
from ksmtrace.whatif.pacing import Prediction
from ksmtrace.whatif.report import Outcome

KEPT = Path(__file__).parents[1] / "docs" / "whatif-reality.json"
PROCESSES = 3
EVERY_S, AFTERWARDS_S, PATIENCE_S = 0.02, 5.0, 120.0
SHARE, NEARLY = 0.9, 0.99

LOAD = """
import pathlib, sys, time
import numpy as np
from ksmtrace.lab.workload import PAGE, mergeable_memory
number, ready, moving = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
dice = np.random.default_rng(number)
def words(count, seed):
    return np.random.default_rng([7, seed]).integers(1, 1 << 62, count)
common, pairs = words(1_009, 1), words(3_001, 2)
half = np.random.default_rng(3).permutation(np.repeat(pairs, 2))[number::3]
kinds = np.concatenate([
    np.repeat(common, 4), half, words(6_007, 10 + number), np.zeros(3_001, np.int64),
    words(moving, 20 + number),
])
order = dice.permutation(len(kinds))
memory = mergeable_memory(len(kinds))
pages = np.frombuffer(memory, np.int64).reshape(len(kinds), PAGE // 8)
pages[:] = kinds[order][:, None]
those = np.flatnonzero(order >= len(kinds) - moving)
ready.touch()
turn = 0
while True:
    time.sleep(0.2 if moving else 3600)
    turn += 1
    pages[those, :2] = words(moving, (1 << 40) + number * (1 << 20) + turn)[:, None]
"""
WORKLOADS: Mapping[str, tuple[int, str]] = {
    "quiet": (0, "holds still"),
    "lively": (1_511, "1,511 pages of each process rewritten five times a second"),
}
"""Pages of each process that are rewritten, and words."""
SETTINGS: tuple[tuple[dict[str, str], int], ...] = (
    ({"pages_to_scan": "100", "sleep_millisecs": "20"}, 1),
    ({"pages_to_scan": "1000", "sleep_millisecs": "20", "use_zero_pages": "1"}, 3),
    ({"pages_to_scan": "4000", "sleep_millisecs": "100", "smart_scan": "0"}, 3),
    (
        {
            "advisor_target_scan_time": "4", "advisor_mode": "scan-time", "sleep_millisecs": "20",
        },
        1,
    ),
)  # fmt: skip
"""Other knobs have their defaults; and how many rounds, so that all takes minutes."""
DEFAULTS = {knob.name: knob.default for knob in KNOBS}


@dataclass
class Curve:
    """What the kernel reported, row by row. seconds, cpu: since ksmd began. scans: full ones.

    busy: share of all processors' time that others than ksmd took meanwhile.
    """

    seconds: list[float]
    cpu: list[float]
    saved: list[int]
    scans: list[int]
    busy: float = 0.0


@dataclass(frozen=True)
class Figures:
    """Of one run. seconds: to 90 % of what is saved in the end. cpu_seconds: to 99 % of it.

    cpu_percent: of a core, over the full scans from `after` to `end`.
    """

    seconds: float
    saved: int
    cpu_seconds: float
    cpu_percent: float
    after: int
    end: int


@contextmanager
def load(name: str) -> Iterator[list[int]]:
    """The processes of a workload, ready."""
    moving, _ = WORKLOADS[name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pids = []
        for number in range(PROCESSES):
            line = [sys.executable, "-c", LOAD, str(number), str(folder / f"{number}"), str(moving)]
            command = Command(line, stdout=subprocess.DEVNULL)
            stack.callback(command.end, 10.0)
            stack.callback(command.terminate)
            pids.append(command.pid)
        deadline = time.monotonic() + PATIENCE_S
        while len(list(folder.iterdir())) < PROCESSES:
            if time.monotonic() > deadline:
                raise KsmtraceError("a workload did not become ready")
            time.sleep(0.1)
        yield pids


def snapshot(pids: list[int]) -> Moment:
    """What `ksmtrace estimate PIDs --mergeable --save` keeps."""
    how = HowToRead(interval=1.0, mergeable_only=True, keep_numbers=True)
    _, sample = estimate(select(Wanted(pids)), how, {})
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "moment.ksm"
        save_snapshot(sample, Target(kept))
        return read_moment(StoredRecording(kept))


def predicted(moment: Moment, knobs: dict[str, str], costs: Costs) -> Outcome:
    """What the model says of a setting."""
    profile = running_profile()
    wanted = {n: v for n, v in (DEFAULTS | knobs).items() if n in host_knobs() and n != "run"}
    if wanted.get("advisor_mode") == "scan-time":
        # It sets that one itself, and refuses it.
        wanted.pop("pages_to_scan")
    return ask(moment, profile, f"ksm:{profile.name}", wanted, costs=costs, tick_ns=tick_ns())


def host_knobs() -> dict[str, str]:
    """Those that there are."""
    sampler = HostSampler()
    try:
        return sampler.knobs()
    finally:
        sampler.close()


def processors() -> tuple[float, float]:
    """Seconds that all of them have worked, and that have passed for all of them, since boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    passed = sum(ticks) / os.sysconf("SC_CLK_TCK")
    return passed - (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK"), passed


def watch(change: Change, sampler: HostSampler, settings: dict[str, str]) -> Curve:
    """Let ksmd run until it saves nothing more, and note how far it is."""
    curve = Curve([], [], [], [])
    before = sampler.counters()
    begin, (worked, passed) = time.perf_counter(), processors()
    change.set({**settings, "run": "1"})
    last_change, last_saved = 0, 0
    while True:
        now = sampler.counters()
        curve.seconds.append(time.perf_counter() - begin)
        curve.cpu.append((now["ksmd_cpu_ns"] - before["ksmd_cpu_ns"]) / 1e9)
        curve.saved.append(now["pages_sharing"] + now.get("ksm_zero_pages", 0))
        curve.scans.append(now["full_scans"] - before["full_scans"])
        if curve.saved[-1] != last_saved:
            last_saved, last_change = curve.saved[-1], len(curve.saved) - 1
        still = curve.seconds[-1] - curve.seconds[last_change]
        last_scan = curve.scans[last_change - 1]
        if last_saved and still > AFTERWARDS_S and curve.scans[-1] > last_scan + 1:
            worked, passed = (
                now - then for now, then in zip(processors(), (worked, passed), strict=True)
            )
            # Ticks are coarser than ksmd's own clock.
            curve.busy = max(0.0, (worked - curve.cpu[-1]) / passed)
            return curve
        if curve.seconds[-1] > PATIENCE_S:
            raise KsmtraceError("ksmd still saves more after two minutes")
        time.sleep(EVERY_S)


def measured(curve: Curve) -> Figures:
    """A run's figures."""
    final = curve.saved[-1]
    soon, nearly = (
        next(at for at, saved in enumerate(curve.saved) if saved >= share * final)
        for share in (SHARE, NEARLY)
    )
    last_change = max(at for at in range(1, len(curve.saved)) if curve.saved[at - 1] != final)
    after, end = curve.scans[last_change - 1] + 1, curve.scans[-1]
    first, last = curve.scans.index(after), curve.scans.index(end)
    return Figures(
        curve.seconds[soon],
        final,
        curve.cpu[nearly],
        _percent(curve.seconds, curve.cpu, first, last),
        after,
        end,
    )


def _percent(seconds: list[float], cpu: list[float], first: int, last: int) -> float:
    return 100 * (cpu[last] - cpu[first]) / (seconds[last] - seconds[first])


def foretold(outcome: Outcome, after: int, end: int) -> Figures:
    """A prediction's figures; CPU over full scans `after` to `end`, as far as they were predicted.

    The same full scans are looked at, since smart scan makes each cheaper than the one before.
    """
    told = outcome.prediction
    assert told is not None
    soon, nearly = told.at(SHARE), told.at(NEARLY)
    assert soon is not None
    assert nearly is not None
    ends = np.cumsum([len(each.visits) for each in outcome.passes.done])
    end = min(end, len(ends))
    first, last = int(ends[after - 1]), int(ends[end - 1])
    percent = (
        _percent(told.seconds.tolist(), told.cpu_seconds.tolist(), first, last)
        if end > after
        else told.cpu_percent
    )
    return Figures(soon[0], told.pages_saved, nearly[1], percent, after, end)


def run(
    name: str, settings: dict[str, str], rounds: int, moment: Moment, costs: Costs,
    change: Change, sampler: HostSampler,
) -> tuple[dict[str, Any], Prediction, list[Curve]]:  # fmt: skip
    """Predict one setting, then measure it."""
    held = {n: v for n, v in (DEFAULTS | settings).items() if n in change.before}
    outcome = predicted(moment, settings, costs)
    curves = []
    for _ in range(rounds):
        change.set({**held, "run": "0"})
        with load(name):
            curves.append(watch(change, sampler, held))
            change.set({**held, "run": "0"})
        change.unmerge()
    seen = [measured(curve) for curve in curves]
    told = foretold(outcome, seen[0].after, seen[0].end)
    row = {
        "workload": name,
        "what": WORKLOADS[name][1],
        "processes": PROCESSES,
        "pages": len(moment),
        "pages_changing": int(moment.changing.sum()),
        "settings": settings,
        "rounds": rounds,
        "others_busy": statistics.median(curve.busy for curve in curves),
        "figures": {
            "seconds_to_90_percent": _figure([one.seconds for one in seen], told.seconds),
            "pages_saved": _figure([one.saved for one in seen], told.saved),
            "cpu_seconds_to_99_percent": _figure(
                [one.cpu_seconds for one in seen], told.cpu_seconds
            ),
            "cpu_percent_afterwards": _figure([one.cpu_percent for one in seen], told.cpu_percent),
        },
        "afterwards_scans": [seen[0].after, seen[0].end],
    }
    assert outcome.prediction is not None
    return row, outcome.prediction, curves


def _figure(seen: list[Any], told: float) -> dict[str, Any]:
    middle = statistics.median(seen)
    return {
        "predicted": told,
        "measured": middle,
        "low": min(seen),
        "high": max(seen),
        "error": told / middle - 1,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """All of them."""
    found = Table("workload, settings", box=None, pad_edge=False)
    for title in ("", "predicted", "measured", "rounds", "error"):
        found.add_column(title, justify="right")
    for row in rows:
        settings = " ".join(f"{n}={v}" for n, v in row["settings"].items())
        head = f"{row['workload']}: {settings} (others busy: {row['others_busy']:.0%})"
        for name, one in row["figures"].items():
            found.add_row(
                head, name, f"{one['predicted']:,.4g}", f"{one['measured']:,.4g}",
                f"{one['low']:,.4g} to {one['high']:,.4g}", f"{one['error']:+.1%}",
            )  # fmt: skip
            head = ""
    return found


def measure(
    names: list[str], costs: Costs, say: Callable[[str], None]
) -> Iterator[tuple[dict[str, Any], Prediction, list[Curve]]]:
    """All settings of some workloads."""
    refuse_strangers()
    sampler = HostSampler()
    knobs = {n: v for n, v in DEFAULTS.items() if n in sampler.knobs()}
    with ExitStack() as stack:
        stack.callback(sampler.close)
        change = stack.enter_context(changed({**knobs, "run": "0"}))
        change.unmerge()
        change.set({**knobs, "run": "0"})
        for name in names:
            with load(name) as pids:
                say(f"{name}: estimating")
                moment = snapshot(pids)
            for settings, rounds in SETTINGS:
                words = " ".join(f"{n}={v}" for n, v in settings.items())
                say(f"{name}: {words}")
                yield run(name, settings, rounds, moment, costs, change, sampler)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--costs", type=Path, metavar="FILE", help="of lab calibrate, not anew")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep the figures for the docs")
    args = parser.parse_args()
    words = Console(stderr=True, highlight=False)
    try:
        if args.costs is None:
            words.print("calibrating")
            found = calibrate()
            if found.obstacle is not None:
                raise found.obstacle
            costs = found.calibration.costs
        else:
            costs = read_costs(args.costs).costs
        rows = [row for row, _, _ in measure(args.only, costs, words.print)]
    except KsmtraceError as error:
        words.print(f"whatif_reality: {error.message}")
        return int(error.exit_code)
    kept = {"kernel": kernel_release(), "cpu": cpu_model(), "tick_ms": tick_ns() / 1e6}
    if args.write:
        KEPT.write_text(json.dumps({**kept, "outcomes": rows}, indent=1) + "\n")
    if args.json:
        print(json.dumps({**kept, "outcomes": rows}, indent=1))
    else:
        Console(highlight=False).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
