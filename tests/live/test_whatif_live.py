"""A prediction from a snapshot, and what the real ksmd then does with these settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ksmtrace.kernel.costs import host_costs
from ksmtrace.kernel.host import tick_ns
from ksmtrace.kernel.knobs import changed
from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.sysfs import KNOBS, HostSampler
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.whatif.ask import ask
from ksmtrace.whatif.moment import read_moment
from tests.live.conftest import Actor, run_ksmtrace

SETTING = {"pages_to_scan": "101", "sleep_millisecs": "20", "use_zero_pages": "1"}
SHARED, COPIES, PAIRS, UNIQUE, ZEROS = 101, 13, 499, 1_999, 307


def contents(number: int) -> list[int]:
    """Of one process: pages with many copies, pairs across processes, its own, and zero pages."""
    common = [n % SHARED + 1 for n in range(SHARED * COPIES)]
    own = [10_000 * (number + 1) + n for n in range(UNIQUE)]
    every = common + list(range(1_000, 1_000 + PAIRS)) + own + [0] * ZEROS
    # In an order that no tree likes better than another.
    return sorted(every, key=lambda content: hash((content * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF))


def test_time_saving_and_cpu_are_as_predicted(
    actor: Callable[[list[int]], Actor], tmp_path: Path
) -> None:
    sampler = HostSampler()
    knobs = {k.name: k.default for k in KNOBS if k.name in sampler.knobs()} | SETTING | {"run": "0"}
    with changed(knobs) as change:
        change.unmerge()
        change.set(knobs)
        actors = [actor(contents(number)) for number in range(2)]
        kept = tmp_path / "moment.ksm"
        done = run_ksmtrace("estimate", *(one.pid for one in actors), "--mergeable", "--save", kept)
        assert done.returncode == 0, done.stderr
        profile = running_profile()
        asked = {name: value for name, value in knobs.items() if name != "run"}
        told = ask(
            read_moment(StoredRecording(kept)), profile, "model", asked,
            costs=host_costs().costs, tick_ns=tick_ns(),
        ).prediction  # fmt: skip
        assert told is not None
        seen = _watch(change.set, knobs, sampler, told.pages_saved)
        change.unmerge()
    sampler.close()
    final = seen[-1][1]
    assert final == 2 * SHARED * COPIES - SHARED + PAIRS + 2 * ZEROS
    assert told.pages_saved == pytest.approx(final, rel=0.01)
    soon, cpu = told.at(0.9), told.at(0.99)
    assert soon is not None
    assert cpu is not None
    assert soon[0] == pytest.approx(_first(seen, 0.9)[0], rel=0.35)
    assert 0.5 < cpu[1] / _first(seen, 0.99)[2] < 2


Row = tuple[float, int, float]
"""(seconds, pages saved, CPU seconds) since ksmd began."""


def _watch(
    set_knobs: Callable[[dict[str, str]], None], knobs: dict[str, str], sampler: HostSampler,
    expected: int,
) -> list[Row]:  # fmt: skip
    """Let ksmd run until it has saved that much, and a second more, but no longer than 15 s."""
    before, begin = sampler.counters(), time.perf_counter()
    set_knobs({**knobs, "run": "1"})
    rows: list[Row] = []
    reached = None
    while True:
        now, at = sampler.counters(), time.perf_counter() - begin
        saved = now["pages_sharing"] + now.get("ksm_zero_pages", 0)
        rows.append((at, saved, (now["ksmd_cpu_ns"] - before["ksmd_cpu_ns"]) / 1e9))
        if reached is None and saved >= expected:
            reached = at
        if at > 15 or (reached is not None and at > reached + 1):
            set_knobs({**knobs, "run": "0"})
            return rows
        time.sleep(0.01)


def _first(rows: list[Row], share: float) -> Row:
    return next(row for row in rows if row[1] >= share * rows[-1][1])
