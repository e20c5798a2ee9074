"""`ksmtrace record` as a person uses it, and as it breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ksmtrace.errors import Exit
from ksmtrace.kernel import host
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import read_knob
from ksmtrace.recording.reader import StoredRecording
from tests.live.conftest import Actor, Recorder, run_ksmtrace

SAME = "m = [bytes([7]) * 4096 * 331]; import time; time.sleep({seconds})"


def instances() -> list[str]:
    """Tracing instances of ours that exist now."""
    mounted = host.tracefs()
    assert mounted is not None
    return [path.name for path in mounted.glob("instances/ksmtrace-*")]


def test_a_command_is_traced_from_start_to_end_with_merge(tmp_path: Path) -> None:
    target = tmp_path / "a.ksm"
    done = run_ksmtrace(
        "record", "-o", target, "--merge", "--run", "--set", "pages_to_scan=20000",
        "sleep_millisecs=10", "--", sys.executable, "-c", SAME.format(seconds=1.5) + "; exit(3)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ended with status 3" in done.stderr
    assert read_knob("run") == "0"
    report = json.loads(run_ksmtrace("report", target, "--json").stdout)
    assert report["ended"] == "command"
    assert report["command_status"] == 3
    assert report["totals"]["merges"] > 300
    assert report["knobs_set"]["pages_to_scan"] == "20000"


def test_the_knobs_of_a_killed_recorder_are_restored_by_the_next(
    record: Callable[..., Recorder], tmp_path: Path
) -> None:
    before = read_knob("pages_to_scan")
    one = record("--set", "pages_to_scan=4711", "--run")
    one.wait_for("recording to")
    assert read_knob("pages_to_scan") == "4711"
    one.end(signal.SIGKILL)
    assert read_knob("pages_to_scan") == "4711"
    done = run_ksmtrace("record", "-o", tmp_path / "b.ksm", "--duration", "0.1")
    assert "restored" in done.stderr
    assert read_knob("pages_to_scan") == before
    assert read_knob("run") == "0"


def test_two_recorders_do_not_change_knobs_at_once(
    record: Callable[..., Recorder], tmp_path: Path
) -> None:
    record("--set", "pages_to_scan=4711")
    done = run_ksmtrace("record", "-o", tmp_path / "b.ksm", "--set", "sleep_millisecs=7")
    assert done.returncode == Exit.FAILED
    assert "another ksmtrace run" in done.stderr
    assert not (tmp_path / "b.ksm").exists()


def test_without_run_it_says_that_nothing_will_happen(tmp_path: Path) -> None:
    done = run_ksmtrace("record", "-o", tmp_path / "a.ksm", "--duration", "0.1")
    assert done.returncode == 0
    assert "ksmd is off" in done.stderr
    assert "--run" in done.stderr


def test_scans_end_with_a_word_when_nothing_is_registered(tmp_path: Path) -> None:
    done = run_ksmtrace("record", "-o", tmp_path / "a.ksm", "--run", "--scans", "3")
    assert done.returncode == 0
    assert "no process is registered" in done.stderr


def test_scans_are_counted(actor: Callable[[list[int]], Actor], tmp_path: Path) -> None:
    actor([1, 2, 3])
    done = run_ksmtrace("record", "-o", tmp_path / "a.ksm", "--run", "--scans", "5")
    assert done.returncode == 0
    assert "(ended by scans)" in done.stderr
    report = json.loads(run_ksmtrace("report", tmp_path / "a.ksm", "--json").stdout)
    assert len([s for s in report["scans"] if s["end_ns"] is not None]) >= 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(number: int, record: Callable[..., Recorder]) -> None:
    one = record()
    assert one.end(number) == 0
    manifest = json.loads((one.target / "manifest.json").read_text())
    assert manifest["sealed"]
    assert manifest["ended"] == signal.Signals(number).name


def test_only_the_wanted_processes_are_kept(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], record: Callable[..., Recorder]
) -> None:
    wanted, other = actor([1] * 13), actor([1] * 17)
    one = record("--pid", str(wanted.pid))
    ksmd.scan(2)
    one.end()
    report = json.loads(run_ksmtrace("report", one.target, "--json").stdout)
    assert {p["tgid"] for p in report["processes"]} == {wanted.pid}
    assert report["totals"]["merges"] == 13
    assert len(report["scans"]) == 2
    assert other.process.poll() is None


def test_a_hostile_process_name_is_harmless(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], record: Callable[..., Recorder]
) -> None:
    one = record()
    hostile = actor([1] * 13)
    hostile.do("name", b"\x1b[31m\xff[b]x\n".hex())
    ksmd.scan(2)
    one.end()
    shown = run_ksmtrace("report", one.target).stdout
    assert "\x1b[31m" not in shown
    assert "\\x1b[31m\\xff[b]x\\n" in shown


def test_a_process_that_ends_while_it_is_looked_up_does_no_harm(
    record: Callable[..., Recorder],
) -> None:
    one = record()
    script = "from ksmtrace.lab.workload import mergeable_memory as m; m(3)[:1] = b'x'"
    for _ in range(13):
        subprocess.run([sys.executable, "-c", script], check=True)
    assert one.end() == 0, one.words()
    report = json.loads(run_ksmtrace("report", one.target, "--json").stdout)
    assert report["events_by_kind"]["ksm_enter"] == 13
    assert report["events_by_kind"]["ksm_exit"] == 13
    assert len([p for p in report["processes"] if p["tgid"]]) == 13


def test_an_existing_recording_is_replaced_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "a.ksm"
    assert run_ksmtrace("record", "-o", target, "--duration", "0.1").returncode == 0
    before = (target / "manifest.json").read_text()
    refused = run_ksmtrace("record", "-o", target, "--duration", "0.1")
    assert refused.returncode == Exit.FAILED
    assert "--force" in refused.stderr
    assert (target / "manifest.json").read_text() == before
    assert run_ksmtrace("record", "-o", target, "--force", "--duration", "0.1").returncode == 0
    assert (target / "manifest.json").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["a.ksm"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_ends_it_with_a_word_and_keeps_what_was_written(
    small_disk: Path,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    tmp_path: Path,
) -> None:
    target = small_disk / "a.ksm"
    words = tmp_path / "words"
    with words.open("w") as out:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "ksmtrace", "record", "-o", target], stderr=out
        )
    deadline = time.monotonic() + 20
    while "recording to" not in words.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    actor([1 + number % 101 for number in range(20_011)])
    ksmd.scan(1)
    time.sleep(0.7)  # so that the first scan's events are written before the disk fills
    ksmd.scan(1)
    assert process.wait(30) == Exit.FAILED
    assert "no space left" in words.read_text()
    assert "Traceback" not in words.read_text()
    recording = StoredRecording(target)
    assert sum(len(batch) for batch in recording.event_batches()) >= 3
    assert run_ksmtrace("report", target).returncode == 0


def test_a_killed_tracefs_recorder_leaves_an_instance_that_the_next_start_removes(
    record: Callable[..., Recorder],
) -> None:
    one = record("--backend", "tracefs")
    assert len(instances()) == 1
    one.end(signal.SIGKILL)
    assert len(instances()) == 1
    two = record("--backend", "tracefs", name="b.ksm")
    assert len(instances()) == 1
    assert two.end() == 0
    assert instances() == []


def test_files_belong_to_the_user_who_called_sudo(tmp_path: Path) -> None:
    target = tmp_path / "a.ksm"
    environment = os.environ | {"SUDO_UID": "1234", "SUDO_GID": "4321"}
    done = run_ksmtrace("record", "-o", target, "--duration", "0.1", env=environment)
    assert done.returncode == 0
    for path in (target, *target.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)
        assert path.stat().st_mode & 0o077 == 0


def test_a_ring_too_large_for_the_machine_is_refused_in_words(tmp_path: Path) -> None:
    done = run_ksmtrace(
        "record", "-o", tmp_path / "a.ksm", "--ring", "2048", "--duration", "0.1",
        preexec_fn=None,
    )  # fmt: skip
    # Either it fits, or the person is told what to ask for.
    assert done.returncode == 0 or "--ring" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_capabilities_the_missing_ones_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all",
         Path(sys.executable).parent / "ksmtrace", "record", "--backend", "core",
         "-o", tmp_path / "a.ksm"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == Exit.HOST_CANNOT, done.stderr
    assert "missing CAP_BPF and CAP_PERFMON" in done.stderr
    assert "sudo" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_this_host_able() -> None:
    done = run_ksmtrace("doctor", "--json")
    assert done.returncode == 0
    findings = {f["topic"]: f for f in json.loads(done.stdout)["findings"]}
    assert findings["tracepoints"]["state"] == "yes"
    assert {name for name in findings if name.startswith("backend")} == {
        "backend core",
        "backend fentry",
        "backend bcc",
        "backend tracefs",
    }
    for backend in ("core", "bcc", "tracefs"):
        assert findings[f"backend {backend}"]["state"] == "yes", findings
