"""`replay --check` on recordings of the real ksmd."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksmtrace.kernel.stepper import Stepper
from tests.live.conftest import Actor, Recorder, run_ksmtrace


def _check(path: Path, *options: str) -> dict[str, object]:
    done = run_ksmtrace("replay", path, "--check", "--json", *options)
    verdict: dict[str, object] = json.loads(done.stdout)
    assert done.returncode == (0 if verdict["ok"] else 6)
    return verdict


def _answers(verdict: dict[str, object]) -> list[str]:
    return [verdict[name]["answer"] for name in ("legal", "predicted")]  # type: ignore[index]


@pytest.mark.parametrize("name", ["copy-on-write", "forks", "pinned-pages", "zero-pages"])
def test_a_recorded_lab_run_is_legal_and_predicted(name: str, tmp_path: Path) -> None:
    path = tmp_path / "lab.ksm"
    assert run_ksmtrace("lab", "run", name, "--record", path).returncode == 0
    assert _answers(_check(path)) == ["yes", "yes"]
    assert run_ksmtrace("report", path).returncode == 0


def test_a_lab_run_is_not_what_another_release_would_have_done(tmp_path: Path) -> None:
    path = tmp_path / "lab.ksm"
    run_ksmtrace("lab", "run", "the-process-of-2011", "--record", path)
    verdict = _check(path, "--kernel", "6.10")
    assert verdict["predicted"]["answer"] == "no"  # type: ignore[index]


def test_an_altered_recording_of_a_lab_run_is_not_predicted(tmp_path: Path) -> None:
    path = tmp_path / "lab.ksm"
    run_ksmtrace("lab", "run", "forks", "--record", path)
    table = pq.read_table(path / "events.parquet")
    broken = tmp_path / "broken.ksm"
    shutil.copytree(path, broken)
    kept = [row for row in range(table.num_rows) if row != table.num_rows // 2]
    pq.write_table(table.take(pa.array(kept)), broken / "events.parquet")
    verdict = _check(broken)
    assert verdict["predicted"]["answer"] == "no"  # type: ignore[index]
    assert "event " in verdict["predicted"]["finding"]["message"]  # type: ignore[index]


STILL_PROGRAM = """
import os, sys, time
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
memory = mergeable_memory(307)
memory[:] = b"".join(page_of(n % 53) for n in range(307))
child = os.fork()
if child == 0:
    other = mergeable_memory(101)
    other[:] = b"".join(page_of(n % 71) for n in range(101))
time.sleep(3)
if child:
    os.waitpid(child, 0)
"""


def test_a_recording_with_contents_is_legal_and_every_still_scan_predicted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "contents.ksm"
    done = run_ksmtrace(
        "record", "--contents", "--interval", "0.4", "-o", path, "--",
        sys.executable, "-c", STILL_PROGRAM,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdict = _check(path)
    assert _answers(verdict) == ["yes", "yes"]
    why = verdict["predicted"]["why"]  # type: ignore[index]
    assert int(why.split()[0]) >= 4, why
    # 6.6 counted visits in another way.
    assert _answers(_check(path, "--kernel", "6.6"))[1] == "no"


def test_without_contents_nothing_is_claimed(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], record: Callable[..., Recorder]
) -> None:
    recorder = record()
    actor([7] * 17 + [0] * 5)
    ksmd.scan(3)
    recorder.end()
    assert _answers(_check(recorder.target)) == ["yes", "not claimed"]


def test_no_content_can_be_read_from_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "contents.ksm"
    secret = "the secret words of this page"
    program = STILL_PROGRAM.replace(
        "time.sleep(3)", f"memory[:{len(secret)}] = {secret.encode()!r}; time.sleep(1.5)"
    )
    done = run_ksmtrace(
        "record", "--contents", "--interval", "0.3", "-o", path, "--", sys.executable, "-c", program
    )
    assert done.returncode == 0, done.stderr
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    assert not any(secret.encode() in file.read_bytes() for file in files)
    assert len(pq.read_table(path / "contents.parquet")) > 300
