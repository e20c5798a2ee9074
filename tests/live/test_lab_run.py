"""The command `lab run` on the real ksmd, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ksmtrace.kernel.knobs import recover
from ksmtrace.kernel.sysfs import KSM, HostSampler
from ksmtrace.lab.run import shipped_scenarios
from tests.live.conftest import KSMTRACE, Actor, run_ksmtrace


def _knobs() -> dict[str, str]:
    sampler = HostSampler()
    try:
        return sampler.knobs()
    finally:
        sampler.close()


def _puppets() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"lab/puppet.py" in command:
                found.append(int(entry.name))
    return found


@pytest.fixture
def long_scenario(tmp_path: Path) -> Path:
    path = tmp_path / "long.toml"
    path.write_text(
        """
title = "long"
[[step]]
map = "a.heap"
pages = 13
[[step]]
write = "a.heap"
content = "same"
[[step]]
scan = 2
[[step]]
fork = "a"
as = "b"
[[step]]
wait = 60000
"""
    )
    return path


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
def test_host_and_model_agree_on_every_shipped_scenario(path: Path) -> None:
    before = _knobs()
    done = run_ksmtrace("lab", "run", path.stem, "--on", "host", "--on", "model", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["first_difference"]
    assert report["agree"] is True
    assert report["as_expected"] is True
    assert report["on"] == ["host", "model"]
    assert report["scans"], "a scenario without a scan shows nothing"
    for number, scan in enumerate(report["scans"], start=1):
        assert scan["scan"] == number
        assert scan["events_agree"] is True
        assert set(scan["counters"]["pages_sharing"]) == {"host", "model"}
    assert _knobs() == before
    assert _puppets() == []


def test_another_release_is_seen_to_differ() -> None:
    done = run_ksmtrace("lab", "run", "the-process-of-2011", "--on", "host", "--on", "ksm:6.10")
    assert done.returncode == 6
    assert "the first difference is at step 12" in done.stdout
    assert "host, ksm:6.10: differ" in done.stdout


def test_a_scenario_with_a_mistake_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('title = "wrong"\n\n[[step]]\nmap = "a.heap"\npagges = 4\n')
    before = _knobs()
    done = run_ksmtrace("lab", "run", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ksmtrace: {path}:3: map has no option 'pagges'")
    assert _knobs() == before
    assert _puppets() == []


def test_it_refuses_while_another_process_is_registered(
    actor: Callable[[list[int]], Actor],
) -> None:
    stranger = actor([1, 2, 3])
    before = _knobs()
    done = run_ksmtrace("lab", "run", "why-two-scans")
    assert done.returncode == 3
    assert f"{stranger.pid} (python" in done.stderr
    assert _knobs() == before
    assert _puppets() == []


def test_a_killed_run_leaves_no_process_and_its_knobs_are_restored(long_scenario: Path) -> None:
    before = _knobs()
    run = subprocess.Popen(
        [str(KSMTRACE), "lab", "run", str(long_scenario)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(_puppets()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (KSM / "pages_to_scan").read_text() != before["pages_to_scan"]
    run.send_signal(signal.SIGKILL)
    run.wait()
    while _puppets():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert recover()
    assert _knobs() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_puts_everything_back(long_scenario: Path, number: int) -> None:
    before = _knobs()
    run = subprocess.Popen(
        [str(KSMTRACE), "lab", "run", str(long_scenario)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(_puppets()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(number)
    _, words = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "Traceback" not in words
    assert _knobs() == before
    assert _puppets() == []


def test_every_file_of_the_running_kernel_is_declared_and_modelled_or_named() -> None:
    from ksmtrace.kernel.releases import running_profile
    from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME, KNOBS_BY_NAME
    from ksmtrace.model import KsmScanner, Memory
    from ksmtrace.model.ksm import NOT_MODELLED

    memory = Memory()
    scanner = KsmScanner(memory, kernel=running_profile())
    modelled = {*scanner.counters, *scanner.knobs, *scanner.ksm_stat(memory.spawn(1))}
    for file in KSM.iterdir():
        assert file.name in COUNTERS_BY_NAME or file.name in KNOBS_BY_NAME
        assert file.name in modelled or file.name in NOT_MODELLED
    stat = Path("/proc/self/ksm_stat").read_text()
    for line in stat.splitlines():
        assert line.replace(":", " ").split()[0] in modelled
