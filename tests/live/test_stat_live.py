"""`ksmtrace stat` on the real ksmd."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.errors import Exit
from ksmtrace.kernel.knobs import recover
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM as KSM_FOLDER
from ksmtrace.kernel.sysfs import read_knob, read_number
from tests.live.conftest import KSMTRACE, Actor, run_ksmtrace

PAGES, CONTENTS = 2003, 31
WORK = """
import sys, time
from ksmtrace.lab.workload import mergeable_memory, page_of
pages, contents, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
m = mergeable_memory(pages)
m[:] = b"".join(page_of(9, n % contents) for n in range(pages))
time.sleep(seconds)
"""


def work(seconds: float, pages: int = PAGES) -> list[str]:
    return ["--", sys.executable, "-c", WORK, str(pages), str(CONTENTS), str(seconds)]


def stat(*arguments: object) -> dict[str, Any]:
    done = run_ksmtrace("stat", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {name: row["verdict"] for name, row in told["ab"]["contrasts"].items()}


def test_a_command_is_measured_to_the_page(ksmd: Stepper) -> None:
    with subprocess.Popen([
        str(KSMTRACE), "stat", "--json", "--backend", "core", "--duration", "2.5", "--interval",
        "0.02", *work(2),
    ], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        deadline = time.monotonic() + 20
        while not _registered(PAGES) and time.monotonic() < deadline:
            time.sleep(0.05)
            ksmd.batch()
        ksmd.scan(3)
        sysfs = {n: read_number(KSM_FOLDER / n) for n in ("pages_sharing", "pages_shared")}
        out, words = process.communicate(timeout=30)
    assert process.returncode == 0, words
    (run,) = json.loads(out)["runs"]
    figures = run["figures"]
    assert sysfs == {"pages_sharing": PAGES - CONTENTS, "pages_shared": CONTENTS}
    assert figures["saved_peak_pages"] == figures["saved_last_pages"] == PAGES - CONTENTS
    assert figures["process_merged_peak_pages"] == PAGES
    assert figures["merges"] == figures["process_merges"] == PAGES
    assert figures["failed_merges"] == figures["zero_merges"] == figures["events_lost"] == 0
    assert figures["full_scans"] >= 4
    assert 0 < figures["time_to_90_percent_s"] < figures["duration_s"]
    assert 0 < figures["ksmd_cpu_s"] < figures["duration_s"]
    assert run["ended"] == "command"
    assert run["command_status"] == 0
    assert 0 < run["sampling_cpu_s"] <= run["own_cpu_s"] < 1


def _registered(pages: int) -> bool:
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    return sum(read_number(KSM_FOLDER / name) or 0 for name in names) >= pages


def test_without_a_backend_all_but_the_events_is_told() -> None:
    told = stat("--backend", "none", "--run", "--set", "pages_to_scan=5003",
                "sleep_millisecs=10", *work(0.8))  # fmt: skip
    figures = told["runs"][0]["figures"]
    assert figures["saved_peak_pages"] == PAGES - CONTENTS
    assert figures["merges"] is None
    assert figures["failed_merges"] is None


def test_a_process_is_watched_until_its_saving_grows_no_more(
    actor: Callable[[list[int]], Actor],
) -> None:
    one = actor([1 + n % 13 for n in range(331)])
    told = stat("-p", one.pid, "--until-converged", "--run", "--set", "pages_to_scan=1009",
                "sleep_millisecs=20")  # fmt: skip
    (run,) = told["runs"]
    assert run["ended"] == "quiet"
    assert run["figures"]["process_merged_peak_pages"] == 331
    assert run["figures"]["saved_peak_pages"] == 331 - 13
    assert one.process.poll() is None


def test_the_breaks_are_what_vmstat_counts(
    ksmd: Stepper, actor: Callable[[list[int]], Actor]
) -> None:
    one = actor([1] * 53)
    ksmd.scan(2)
    with subprocess.Popen(
        [str(KSMTRACE), "stat", "--json", "--duration", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        time.sleep(0.6)
        one.do("write", 7, *range(17))
        out, _ = process.communicate(timeout=30)
    assert json.loads(out)["runs"][0]["figures"]["copies"] == 17


def test_repeated_runs_begin_in_the_same_state_and_leave_nothing() -> None:
    told = stat("--repeat", "3", "--run", "--set", "pages_to_scan=5003", "sleep_millisecs=10",
                *work(0.7))  # fmt: skip
    assert [run["fresh"] for run in told["runs"]] == [True] * 3
    for run in told["runs"]:
        assert run["figures"]["saved_first_pages"] == 0
        assert run["figures"]["saved_peak_pages"] == PAGES - CONTENTS
        assert run["figures"]["merges"] == PAGES
    assert told["figures"]["merges"]["sd"] == 0
    assert read_number(KSM_FOLDER / "pages_sharing") == 0


def test_with_others_registered_runs_wait_for_ksmd_and_nothing_of_theirs_is_unmerged(
    actor: Callable[[list[int]], Actor],
) -> None:
    other = actor([5] * 101)
    stat("--run", "--until-converged", "--set", "pages_to_scan=1009", "sleep_millisecs=10")
    before = read_number(KSM_FOLDER / "pages_sharing")
    told = stat("--repeat", "2", "--run", "--set", "pages_to_scan=5003", "sleep_millisecs=10",
                *work(0.7))  # fmt: skip
    assert before == 100
    assert [run["fresh"] for run in told["runs"]] == [False] * 2
    assert [run["figures"]["saved_first_pages"] for run in told["runs"]] == [100] * 2
    assert [run["figures"]["saved_peak_pages"] for run in told["runs"]] == [
        100 + PAGES - CONTENTS
    ] * 2
    assert any("registered" in note for note in told["notes"])
    assert other.process.poll() is None


def test_pages_to_scan_changes_how_soon_most_is_saved() -> None:
    before = read_knob("pages_to_scan")
    told = stat("--ab", "pages_to_scan=307,5003", "--metric", "time_to_90_percent_s", "--repeat",
                "5", "--run", "--set", "sleep_millisecs=20", *work(0.9))  # fmt: skip
    assert told["ab"]["order"] == "ABBAABBAAB"
    assert verdicts(told) == {"time_to_90_percent_s": "real"}
    row = told["ab"]["contrasts"]["time_to_90_percent_s"]
    assert row["low"] <= row["difference"] <= row["high"] < 0
    assert read_knob("pages_to_scan") == before


def test_a_knob_that_does_nothing_makes_no_real_difference() -> None:
    told = stat("--ab", "stable_node_chains_prune_millisecs=2000,2003", "--repeat", "4", "--run",
                "--set", "pages_to_scan=5003", "sleep_millisecs=20", *work(0.5))  # fmt: skip
    assert "real" not in verdicts(told).values()
    assert verdicts(told)["saved_peak_bytes"] == "equal"


def test_what_the_kernel_takes_for_the_same_is_no_comparison() -> None:
    done = run_ksmtrace("stat", "--ab", "smart_scan=1,y", *work(0.1))
    assert done.returncode == Exit.USAGE
    assert "the same to the kernel" in done.stderr


def test_a_value_that_the_kernel_refuses_is_told_before_the_first_run() -> None:
    before = read_knob("advisor_mode")
    done = run_ksmtrace("stat", "--ab", "advisor_mode=none,often", *work(5))
    assert done.returncode == Exit.USAGE
    assert "refuses advisor_mode=often" in done.stderr
    assert read_knob("advisor_mode") == before


def test_knobs_that_need_nothing_merged_can_be_compared() -> None:
    told = stat("--ab", "max_page_sharing=17,256", "--repeat", "1", "--metric", "saved_peak_bytes",
                "--run", "--set", "pages_to_scan=5003", "sleep_millisecs=10",
                *work(0.8))  # fmt: skip
    a, b = (run["figures"] for run in told["runs"])
    # Every 17 mappings of a content need a KSM page of their own.
    assert a["saved_peak_pages"] < b["saved_peak_pages"] == PAGES - CONTENTS
    assert read_knob("max_page_sharing") == "256"


def test_a_command_that_ends_too_soon_is_told() -> None:
    told = stat("--run", "--set", "pages_to_scan=11", "sleep_millisecs=500", *work(0.05))
    assert any("a second time" in note for note in told["notes"])
    assert any("Nothing was saved" in note for note in told["notes"])


def test_a_command_longer_than_the_duration_is_ended() -> None:
    begin = time.monotonic()
    told = stat("--duration", "0.5", "--", "sleep", "61")
    assert time.monotonic() - begin < 20
    assert told["runs"][0]["ended"] == "duration"
    assert told["runs"][0]["command_status"] == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_prints_what_there_is(ksmd: Stepper, number: int) -> None:
    process = subprocess.Popen(
        [str(KSMTRACE), "stat", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.5)
    process.send_signal(number)
    out, words = process.communicate(timeout=30)
    assert process.returncode == 0, words
    assert json.loads(out)["runs"][0]["ended"] == signal.Signals(number).name


def test_knobs_of_a_killed_comparison_are_restored_by_the_next_run(tmp_path: Path) -> None:
    before = read_knob("smart_scan")
    process = subprocess.Popen(
        [str(KSMTRACE), "stat", "--ab", "smart_scan=1,0", *work(9)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2)
    process.kill()
    process.communicate(timeout=30)
    recover()
    assert read_knob("smart_scan") == before
