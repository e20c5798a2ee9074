"""A snapshot holds what was estimated: the reference scanner saves as much on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ksmtrace
from ksmtrace.cli.main import main
from ksmtrace.inspect.estimate.read import HowToRead, read_memory
from ksmtrace.inspect.estimate.savings import Terms, reckon
from ksmtrace.inspect.estimate.snapshot import save_snapshot
from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
from ksmtrace.processes.selection import Wanted, select
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.whatif.moment import read_moment
from ksmtrace.whatif.passes import saved, scan

CONTENTS = [5] * 307 + [0] * 211 + list(range(1000, 1101)) + [7] * 3


@contextmanager
def held(processes: int, rewritten: int = 0) -> Iterator[list[int]]:
    """Processes that hold CONTENTS, each with its own copy; the first pages change all the time."""
    told, tell = os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            memory = mergeable_memory(len(CONTENTS))
            memory[:] = b"".join(bytes(PAGE) if c == 0 else page_of(c) for c in CONTENTS)
            os.write(tell, b".")
            turn = 10_000
            while rewritten:
                turn += 1
                for page in range(rewritten):
                    memory[page * PAGE : (page + 1) * PAGE] = page_of(turn)
                time.sleep(0.001)
            signal.pause()
            os._exit(0)
        children.append(child)
    try:
        for _ in children:
            os.read(told, 1)
        yield children
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's frames needs root")
@pytest.mark.parametrize("zero", [False, True])
def test_the_scanner_saves_on_a_snapshot_what_was_estimated(tmp_path: Path, zero: bool) -> None:
    with held(3) as children:
        how = HowToRead(interval=0, mergeable_only=True, keep_numbers=True)
        sample = read_memory(select(Wanted(children)).processes, how)
        save_snapshot(sample, Target(tmp_path / "a.ksm"))
    savings = reckon(sample, Terms(zero, 256, 64, 4096))
    moment = read_moment(StoredRecording(tmp_path / "a.ksm"))
    assert len(moment) == 3 * len(CONTENTS) == savings.candidates
    knobs = {"use_zero_pages": str(int(zero)), "max_page_sharing": "256", "smart_scan": "0"}
    run = scan(moment, profile("6.18"), "ksm:6.18", knobs, DEFAULT)
    assert saved(run.done[-1].counters) == savings.saved


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's frames needs root")
def test_pages_that_go_on_changing_are_kept_as_such(tmp_path: Path) -> None:
    with held(1, rewritten=13) as (child,), held(1) as (quiet,):
        how = HowToRead(interval=0.05, mergeable_only=True, keep_numbers=True)
        sample = read_memory(select(Wanted([child, quiet])).processes, how)
        assert sum(region.changed for region in sample.regions) == 13
        save_snapshot(sample, Target(tmp_path / "a.ksm"))
    moment = read_moment(StoredRecording(tmp_path / "a.ksm"))
    assert len(moment) == 2 * len(CONTENTS)
    assert moment.changing.sum() == 13
    assert set(moment.tgids[moment.changing].tolist()) == {child}
    start = moment.addresses[moment.tgids == child].min()
    assert moment.addresses[moment.changing].tolist() == [start + n * PAGE for n in range(13)]
    # They cost ksmd a visit in each scan, and save nothing.
    knobs = {"use_zero_pages": "0", "max_page_sharing": "256", "smart_scan": "0"}
    run = scan(moment, profile("6.18"), "ksm:6.18", knobs, DEFAULT)
    assert run.done[-1].counters["pages_volatile"] >= 13
    assert not ksmtrace.open(tmp_path / "a.ksm").manifest["notes"]


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's frames needs root")
def test_a_snapshot_is_a_private_recording_without_contents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.ksm"
    with held(1) as (child,):
        assert main(["estimate", str(child), "--mergeable", "--once", "--save", str(target)]) == 0
    capsys.readouterr()
    assert {file.stat().st_mode & 0o777 for file in target.iterdir()} == {0o600}
    recording = ksmtrace.open(target)
    assert len(recording.contents) == len(CONTENTS)
    assert recording.identities["cmdline"].isna().all()
    whole = b"".join(file.read_bytes() for file in target.iterdir())
    assert page_of(5)[:64] not in whole
    assert main(["simulate", str(target), "--on", "ksm:6.6", "--json"]) == 0
    assert '"converged": true' in capsys.readouterr().out
    assert main(["report", str(target)]) == 0


def test_a_target_is_checked_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["estimate", str(os.getpid()), "--save", str(tmp_path / "mine")]) == 1
    assert "is not a recording" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's frames needs root")
def test_a_process_that_goes_between_the_readings_counts_for_nothing() -> None:
    with held(1) as (child,), held(1) as (other,):
        chosen = select(Wanted([child, other])).processes

        def go() -> None:
            os.kill(child, signal.SIGKILL)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

        how = HowToRead(interval=0, mergeable_only=True)
        sample = read_memory(chosen, how, between=go)
    gone = next(p for p in sample.processes if p.identity.tgid == child)
    assert gone.trouble == "went away before it was read again"
    assert sample.tally().candidates == len(CONTENTS) == len(sample.digests)
    assert sum(region.changed for region in sample.regions) == 0
    assert sample.tally().late >= len(CONTENTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's frames needs root")
@pytest.mark.parametrize("replacing", [False, True])
def test_a_snapshot_that_finds_no_space_is_removed_and_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    replacing: bool,
) -> None:
    target = tmp_path / "a.ksm"
    with held(1) as (child,):
        command = ["estimate", str(child), "--mergeable", "--once", "--save", str(target)]
        if replacing:
            assert main(command) == 0
        before = len(ksmtrace.open(target).contents) if replacing else 0
        written = 0

        def full(_file: int, data: bytes, _at: int) -> int:
            nonlocal written
            written += 1
            if written > 7:
                raise OSError(28, "No space left on device")
            return len(data)

        monkeypatch.setattr(os, "pwrite", full)
        capsys.readouterr()
        assert main([*command, "--force"]) == 1
    told = capsys.readouterr()
    # What was found out is told before it is kept.
    assert "would save" in told.out
    assert "no space left for" in told.err
    assert "the unfinished recording was removed" in told.err
    assert "kept" not in told.err
    assert list(tmp_path.iterdir()) == [target] * replacing
    assert not replacing or len(ksmtrace.open(target).contents) == before
