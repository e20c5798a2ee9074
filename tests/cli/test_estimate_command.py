from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KSMTRACE = Path(sys.executable).parent / "ksmtrace"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_SLEEPER = """
import mmap, sys
m = mmap.mmap(-1, 1009 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.madvise(15)
for n in range(1009):
    m[n * 4096 : n * 4096 + 8] = (n % 101 + 1).to_bytes(8, "little")
print("ready", flush=True); sys.stdin.read()
"""


@pytest.fixture(scope="module")
def sleeper() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KSMTRACE, "estimate", *map(str, words)], capture_output=True, text=True, check=False,
        timeout=60, env={**os.environ, "COLUMNS": "80"}, **options,
    )  # fmt: skip


def answer(*words: object) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["--interval", "-1"], ["--interval", "x"], ["--sample", "0%"], ["--sample", "101%"],
        ["--sample", "ten"], ["--max-memory", "-1"], ["--max-memory", "lots"], ["--jobs", "0"],
        ["--jobs", "x"], ["--process-seconds", "nan"], ["--set", "pages_to_scan"],
        ["--set", "wrong=1"], ["x"],
    ],
)  # fmt: skip
def test_wrong_options_are_refused_with_their_own_words(words: list[str]) -> None:
    done = run("1", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_nothing_chosen_is_told() -> None:
    done = run()
    assert done.returncode == 2
    assert "--all" in done.stderr


def test_a_process_that_does_not_exist_is_told() -> None:
    done = run(1 << 30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not exist" in done.stderr


def test_a_missing_process_beside_another_is_a_note(sleeper: int) -> None:
    found = answer(sleeper, 1 << 30, "--once")
    assert found["missing"] == {str(1 << 30): "does not exist"}
    assert any("does not exist" in note for note in found["notes"])
    assert found["pages_saved"] > 900


@ROOT
def test_a_kernel_thread_has_no_memory_to_estimate() -> None:
    done = run(2)
    assert done.returncode == 1
    assert "kernel thread" in done.stderr


_AS_NOBODY = """
import contextlib, io, os, sys
from ksmtrace.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    # Another user may not import from everywhere.
    main(["estimate", str(os.getpid()), "--once"])
    main(["estimate", str(os.getpid()), "--once", "--json"])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(["estimate", *sys.argv[1:]]))
"""


def as_nobody(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, *map(str, words)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@ROOT
def test_another_users_process_is_refused_with_what_would_help(sleeper: int) -> None:
    done = as_nobody(sleeper)
    assert done.returncode == 3, done.stderr
    assert "may not be read" in done.stderr
    assert "sudo" in done.stderr


@ROOT
def test_ones_own_process_needs_no_root() -> None:
    own = _SLEEPER.replace(
        "import mmap, sys\n",
        "import ctypes, mmap, os, sys\nos.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1)\n",
    )
    with subprocess.Popen(
        [sys.executable, "-c", own],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        done = as_nobody(process.pid, "--once", "--json")
        process.stdin.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pages_saved"] >= 900
    assert found["bytes_freed"] is None
    assert any("without root" in note for note in found["notes"])


def test_the_json_has_names_that_stay(sleeper: int) -> None:
    found = answer(sleeper, "--interval", 0.01)
    assert {
        "pages_saved", "bytes_saved", "zero_pages", "net_profit_bytes", "pages_saved_low",
        "pages_saved_high", "pages_saved_within_processes", "pages_saved_across_processes",
        "bytes_freed", "rmap_items_bytes", "candidate_pages", "pages_changed", "sampled_fraction",
        "interval_s", "cost", "processes", "missing", "notes", "pages", "terms",
    } <= found.keys()  # fmt: skip
    assert {
        "engine", "seconds_until_merged", "full_scan_s", "ksmd_cpu_s", "visit_ns",
        "ksmd_cpu_percent_of_one_core", "pages_to_scan", "sleep_millisecs",
    } == found["cost"].keys()  # fmt: skip
    regions = found["processes"][0]["regions"]
    assert sum(region["candidate_pages"] for region in regions) == found["candidate_pages"]
    assert found["bytes_saved"] == found["pages_saved"] * found["page_bytes"]


def test_reading_once_leaves_what_changes_unknown(sleeper: int) -> None:
    found = answer(sleeper, "--once")
    assert found["pages_changed"] is None
    assert found["interval_s"] is None


def test_two_jobs_find_what_one_does(sleeper: int) -> None:
    one, two = (answer(sleeper, "--interval", 0.01, "--jobs", jobs) for jobs in (1, 2))
    assert two["pages_saved"] == one["pages_saved"]
    assert two["pages"] == one["pages"]


def test_other_knobs_are_reckoned_with_and_not_set(sleeper: int) -> None:
    found = answer(sleeper, "--once", "--set", "max_page_sharing=2", "pages_to_scan=7")
    assert found["terms"]["max_page_sharing"] == 2
    assert found["cost"]["pages_to_scan"] == 7
    assert found["pages_saved"] < answer(sleeper, "--once")["pages_saved"]
    assert Path("/sys/kernel/mm/ksm/max_page_sharing").read_text() != "2\n"


@pytest.mark.parametrize(
    "knob",
    ["max_page_sharing=x", "max_page_sharing=1", "pages_to_scan=-1", "use_zero_pages=2"],
)
def test_values_that_the_kernel_would_refuse_are_refused(sleeper: int, knob: str) -> None:
    done = run(sleeper, "--once", "--set", knob)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_more_memory_than_allowed_is_refused_before_it_is_read(sleeper: int) -> None:
    done = run(sleeper, "--max-memory", "1K")
    assert done.returncode == 1
    assert "--sample" in done.stderr


def test_a_sample_has_an_interval_with_what_is_true(sleeper: int) -> None:
    whole = answer(sleeper, "--once")["pages_saved"]
    found = answer(sleeper, "--once", "--sample", "50%")
    assert found["sampled_fraction"] == 0.5
    assert found["pages_saved_low"] < found["pages_saved"] < found["pages_saved_high"]
    assert found["pages_saved_low"] * 0.5 < whole < found["pages_saved_high"] * 2


@pytest.mark.parametrize("options", [[], ["--regions"], ["--once"], ["--sample", "20%"]])
def test_what_is_printed_fits_80_columns(sleeper: int, options: list[str]) -> None:
    done = run(sleeper, os.getpid(), 1 << 30, "--interval", 0.01, *options)
    assert done.returncode == 0, done.stderr
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80
    assert "would save" in done.stdout
    assert "\x1b" not in done.stdout


def test_ctrl_c_while_workers_read_leaves_no_traceback(sleeper: int) -> None:
    process = subprocess.Popen(
        [KSMTRACE, "estimate", str(sleeper), "--jobs", "2", "--interval", "30"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=20)
    assert process.returncode == 130
    assert words == "ksmtrace: interrupted\n"


@pytest.mark.parametrize(
    "options", [["--sample", "0.1"], ["--sample", "10"], ["--force"], ["--set", "run=0"], ["-5"]]
)
def test_what_could_be_misunderstood_is_a_matter_of_usage(sleeper: int, options: list[str]) -> None:
    done = run(sleeper, *options)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_knob_may_be_spelt_as_the_kernel_takes_it(sleeper: int) -> None:
    told = answer(sleeper, "--once", "--set", "use_zero_pages=on")
    assert told["terms"]["use_zero_pages"] is True
    assert (
        answer(sleeper, "--once", "--set", "use_zero_pages=n")["terms"]["use_zero_pages"] is False
    )
