"""`ksmtrace advise` on this host: real processes in real trouble, and the kernel's own figures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.kernel.knobs import changed
from ksmtrace.kernel.stepper import Stepper, parked
from ksmtrace.kernel.sysfs import read_ksm_stat
from tests.live.conftest import Actor, run_ksmtrace

Start = Callable[[list[int]], Actor]
Counters = Callable[[], dict[str, int]]
_CGROUPS = Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")


def advise(*options: str) -> dict[str, Any]:
    done = run_ksmtrace("advise", "--duration", "0.3", "--json", *options)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def found(told: dict[str, Any], rule: str) -> dict[str, Any]:
    return next(one for one in told["advice"] if one["id"] == rule)


@pytest.fixture
def cgroups() -> Iterator[tuple[Path, Path]]:
    """Two empty cgroups, gone afterwards."""
    root = next((p for p in _CGROUPS if (p / "cgroup.procs").exists()), None)
    if root is None:
        pytest.skip("this host can't: no cgroup2 is mounted")
    both = root / "ksmtrace-advise-a", root / "ksmtrace-advise-b"
    try:
        for one in both:
            one.mkdir(exist_ok=True)
    except OSError as error:
        pytest.skip(f"this host can't: cgroups can't be made ({error.strerror})")
    yield both
    for one in both:
        for pid in (one / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
        one.rmdir()


def test_nothing_is_registered(ksmd: Stepper) -> None:
    told = advise()
    assert [one["id"] for one in told["advice"]] == ["nothing_registered"]
    assert told["verdict"]["state"] == "off"
    assert told["overcommit"]["fits"] is True
    assert told["shared"] == []
    assert ksmd.full_scans() == 0


def test_ksmd_is_stopped_though_processes_are_registered(ksmd: Stepper, actor: Start) -> None:
    for number in range(3):
        actor(list(range(1 + number * 100, 24 + number * 100)))
    told = advise()
    one = found(told, "ksmd_stopped")
    assert one["evidence"]["registered_processes"] == 3
    assert one["commands"] == ["echo 1 > /sys/kernel/mm/ksm/run"]
    assert ksmd.full_scans() == 0, "advise changed something"


def test_unique_pages_cost_more_than_they_save(
    ksmd: Stepper, actor: Start, counters: Counters
) -> None:
    unique = actor(list(range(1, 4_022)))
    actor([9_001] * 7)
    ksmd.scan(3)
    told, kernel = advise(), counters()
    assert told["verdict"]["state"] == "loses"
    assert told["verdict"]["figures"]["profit_bytes"] == kernel["general_profit"] < 0
    assert told["verdict"]["figures"]["saved_pages"] == kernel["pages_sharing"] == 6
    assert told["verdict"]["figures"]["rmap_items"] == 4_028
    one = found(told, "negative_profit")
    stat = read_ksm_stat(unique.pid)
    assert stat is not None
    assert one["evidence"]["worst_tgid"] == unique.pid
    assert one["gain_bytes"] == -stat["ksm_process_profit"]
    assert one["confidence"] == "sure"
    assert f"({unique.pid})" in one["commands"][0] or "systemctl" in one["commands"][0]


def test_the_sharing_limit_is_reached(actor: Start, counters: Counters) -> None:
    with parked({"max_page_sharing": "7", "smart_scan": "0", "use_zero_pages": "0"}) as ksmd:
        actor([77] * 211)
        ksmd.scan(4)
        told, kernel = advise(), counters()
        one = found(told, "sharing_limit")
        ksmd.unmerge()
    assert one["evidence"]["stable_node_chains"] == kernel["stable_node_chains"] == 1
    assert one["evidence"]["stable_node_dups"] == kernel["stable_node_dups"] >= 30
    assert one["gain_bytes"] == (kernel["stable_node_dups"] - 1) * PAGE_BYTES
    proposed = int(one["commands"][1].split()[1])
    assert 211 <= proposed < 2 * 7 * kernel["stable_node_dups"]


def test_pages_shared_across_cgroups_are_counted(
    ksmd: Stepper, cgroups: tuple[Path, Path], actor: Start, counters: Counters
) -> None:
    for number, cgroup in enumerate(cgroups):
        # 13 contents in both, 5 contents twice in one alone.
        alone = list(range(200 + 10 * number, 205 + 10 * number))
        one = actor([*range(100, 113), *alone, *alone])
        (cgroup / "cgroup.procs").write_text(str(one.pid))
    ksmd.scan(3)
    told, kernel = advise(), counters()
    by_cgroup = next(one for one in told["shared"] if one["by"] == "cgroup")
    assert by_cgroup["ksm_pages"] == kernel["pages_shared"] == 23
    assert by_cgroup["ksm_pages_across"] == 13
    assert [pair["ksm_pages"] for pair in by_cgroup["pairs"]] == [13]
    assert told["overcommit"]["needed_bytes"] == kernel["pages_sharing"] * PAGE_BYTES
    page = run_ksmtrace("advise", "--duration", "0.1").stdout
    assert "13 of 23 KSM pages (52.0 KiB) are shared across 2 cgroups" in page


def test_the_page_of_a_running_ksmd_that_finds_nothing_more(actor: Start) -> None:
    knobs = {"run": "1", "pages_to_scan": "20011", "sleep_millisecs": "1", "smart_scan": "0"}
    with changed(knobs):
        actor([7] * 8_009)
        run_ksmtrace("advise", "--duration", "1")
        told = json.loads(run_ksmtrace("advise", "--duration", "2", "--json").stdout)
        one = found(told, "scans_too_fast")
        # What it proposes does what it promises.
        spent = one["evidence"]["ksmd_percent_of_one_core"]
        with changed_again(one["commands"]):
            after = json.loads(run_ksmtrace("advise", "--duration", "2", "--json").stdout)
    now = after["verdict"]["figures"]["ksmd_percent_of_one_core"]
    assert spent > 5
    assert now < spent / 2
    assert now < 3 * one["evidence"]["proposed_percent_of_one_core"] + 1
    assert after["verdict"]["figures"]["saved_pages"] == 8_008 - 31


@contextlib.contextmanager
def changed_again(commands: list[str]) -> Iterator[None]:
    """Do what the advice says; the outer change restores it."""
    for command in commands:
        value, path = command.removeprefix("echo ").split(" > ")
        Path(path).write_text(value)
    yield
