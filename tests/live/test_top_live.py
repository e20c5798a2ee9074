"""`ksmtrace top` beside the real ksmd, against sysfs and ksm_stat."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import read_ksm_stat
from ksmtrace.top.live import LiveSource, Wanted
from ksmtrace.top.state import TopState
from ksmtrace.views.top_words import burst_words
from tests.live.conftest import KSMTRACE, Actor, run_ksmtrace


@pytest.fixture
def top() -> Iterator[Callable[..., LiveSource]]:
    """Start live sources, in this process."""
    started: list[LiveSource] = []

    def start(**wanted: Any) -> LiveSource:
        started.append(LiveSource(Wanted(**wanted)))
        started[-1].start()
        started[-1].state(time.monotonic_ns())
        return started[-1]

    yield start
    for one in started:
        one.close()


def until(source: LiveSource, holds: Callable[[TopState], bool]) -> TopState:
    """Look until it is so."""
    deadline = time.monotonic() + 20
    while not holds(state := source.state(time.monotonic_ns())):
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    return state


def of(state: TopState, pid: int, column: str) -> float:
    """A process's figure; 0 while it has no line."""
    assert state.rows is not None
    found = (state.rows.tgid == pid).nonzero()[0]
    return float(state.rows.columns[column][found[0]]) if len(found) else 0.0


def test_what_ksmd_does_is_on_the_screen(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    top: Callable[..., LiveSource],
    counters: Callable[[], dict[str, int]],
) -> None:
    one, two = actor([1] * 101 + list(range(2, 9))), actor([1] * 31)
    source = top(cow=True)
    ksmd.scan(3)
    state = until(source, lambda s: of(s, two.pid, "merged_pages") == 31)
    now = counters()
    assert state.place.origin == "capture"
    for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans"):
        assert state.figures[name] == now[name], name
    assert state.figures["saved_bytes"] == 131 * 4096
    assert state.figures["profit_bytes"] == now["general_profit"]
    assert state.lost == 0
    assert of(state, one.pid, "merges") == 101
    assert of(state, two.pid, "merges") == 31
    for who in (one, two):
        stat = read_ksm_stat(who.pid)
        assert stat
        for column, name in (
            ("merged_pages", "ksm_merging_pages"),
            ("items", "ksm_rmap_items"),
            ("profit_bytes", "ksm_process_profit"),
        ):
            assert of(state, who.pid, column) == stat[name], column
    words = [burst_words(burst) for burst in state.recent]
    comm = Path(f"/proc/{one.pid}/comm").read_text().strip()
    assert any(f"pages of {comm} ({one.pid})" in line for line in words), words
    assert any(line.startswith(("scan ", "2 scans", "3 scans")) for line in words), words
    one.do("write", 2, *range(7))
    broken = until(source, lambda s: of(s, one.pid, "breaks") == 7)
    assert any("wrote to" in burst_words(burst) for burst in broken.recent)
    assert broken.figures["breaks_per_s"]


def test_a_scan_under_way_shows_how_far_it_is(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], top: Callable[..., LiveSource]
) -> None:
    actor(list(range(1, 1_010)))
    source = top()
    # 101 pages, then a sleep of a tenth of a second: a scan takes about a second.
    ksmd.write("pages_to_scan", "101")
    ksmd.write("sleep_millisecs", "100")
    ksmd.write("run", "1")
    state = until(
        source,
        lambda s: (
            s.scan.fraction is not None
            and s.scan.basis == "of the pages of the scan before"
            and 0.2 < s.scan.fraction < 0.8
            and s.scan.ends_in_s is not None
        ),
    )
    assert state.scan.expected_pages == pytest.approx(1_009, rel=0.35)
    assert state.scan.ends_in_s is not None
    assert 0 < state.scan.ends_in_s < 3
    ksmd.park()


def test_json_says_what_sysfs_says(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], counters: Callable[[], dict[str, int]]
) -> None:
    one = actor([1] * 53)
    ksmd.scan(3)
    done = run_ksmtrace("top", "--json", "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    now = counters()
    assert told["figures"]["pages_sharing"] == now["pages_sharing"] == 52
    (line,) = [line for line in told["process"] if line["tgid"] == one.pid]
    assert line["merged_pages"] == 53
    assert told["origin"] == "capture"


def test_without_privilege_it_shows_counters_and_says_so(
    ksmd: Stepper, actor: Callable[[list[int]], Actor]
) -> None:
    actor([1] * 53)
    ksmd.scan(3)
    plain = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--"]
    if shutil.which(plain[0]) is None:
        pytest.skip("there is no setpriv")
    done = subprocess.run(
        [*plain, str(KSMTRACE), "top", "--json", "--interval", "0.3"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "Permission denied" in done.stderr or "No such file" in done.stderr:
        pytest.skip("another user can't reach this checkout")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["origin"] == "counters"
    assert told["figures"]["pages_sharing"] == 52
    assert told["lost"] is None
    assert any("run with sudo" in note for note in told["notes"])
