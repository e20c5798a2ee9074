"""`ksmtrace import` of what other tools saw, against our own recording of the same run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KINDS,
    KSM_ENTER,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
)
from ksmtrace.kernel import host
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM
from ksmtrace.recording.reader import StoredRecording
from tests.live.conftest import Actor, Recorder, run_ksmtrace

Tool = Callable[[Path], Any]
"""A context that traces; at its end the text of what it saw is in the file."""

FIRST = [100 + content for content in range(11) for _ in range(13)] + [0] * 7 + [500, 501, 502]
SECOND = FIRST[:101] + [0] * 5 + [600 + number for number in range(19)]


@contextmanager
def instance(name: str) -> Iterator[Path]:
    """A tracing instance with all ksm events on."""
    mounted = host.tracefs()
    if mounted is None:
        pytest.skip(f"this host can't: {host.tracefs_obstacle()}")
    folder = mounted / "instances" / name
    folder.mkdir()
    try:
        (folder / "buffer_size_kb").write_text("4099")
        (folder / "events" / "ksm" / "enable").write_text("1")
        yield folder
        (folder / "events" / "ksm" / "enable").write_text("0")
    finally:
        folder.rmdir()


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(
            f"{tool} is not installed: apt-get install {tool.replace('perf', 'linux-perf')}"
        )


@contextmanager
def by_tracefs(text: Path) -> Iterator[None]:
    with instance("ksm-import-test") as folder:
        yield
        (folder / "events" / "ksm" / "enable").write_text("0")
        text.write_bytes((folder / "trace").read_bytes())


@contextmanager
def by_trace_cmd(text: Path) -> Iterator[None]:
    """The kernel's raw pages, put into a trace.dat by trace-cmd itself.

    `trace-cmd record` also switches function tracing, which not every host allows.
    """
    needs("trace-cmd")
    with instance("ksm-import-test") as folder:
        yield
        (folder / "events" / "ksm" / "enable").write_text("0")
        files = []
        for number in range(len(list(folder.glob("per_cpu/cpu*")))):
            files.append(text.with_suffix(f".cpu{number}"))
            files[-1].write_bytes(raw_pages(folder / "per_cpu" / f"cpu{number}"))
    data = text.with_suffix(".dat")
    made = subprocess.run(
        ["trace-cmd", "restore", "-o", str(data), *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode or not data.exists():
        pytest.skip(f"trace-cmd restore refused: {made.stderr[-199:]}")
    with text.open("wb") as out:
        subprocess.run(["trace-cmd", "report", "-t", str(data)], stdout=out, check=True)


def raw_pages(folder: Path) -> bytes:
    pages = b""
    file = os.open(folder / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while page := os.read(file, host.PAGE_BYTES):
            pages += page.ljust(host.PAGE_BYTES, b"\0")
    except BlockingIOError:
        pass
    finally:
        os.close(file)
    return pages


@contextmanager
def by_perf(text: Path) -> Iterator[None]:
    needs("perf")
    data, control, answer = (text.with_suffix(end) for end in (".data", ".control", ".answer"))
    os.mkfifo(control)
    os.mkfifo(answer)
    # Open both ways, so that nobody waits for a perf that refuses.
    orders, answers = (os.open(fifo, os.O_RDWR) for fifo in (control, answer))
    with subprocess.Popen(
        ["perf", "record", "-q", "-a", "-e", "ksm:*", "-D", "-1", "-o", str(data),
         f"--control=fifo:{control},{answer}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as perf:  # fmt: skip
        try:
            os.write(orders, b"enable\n")
            os.set_blocking(answers, False)
            wait_for_answer(perf, answers)
            yield
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait(60)
            os.close(orders)
            os.close(answers)
    with text.open("wb") as out:
        subprocess.run(
            ["perf", "script", "-i", str(data), "--header", "--ns", "--show-lost-events"],
            stdout=out, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip


def wait_for_answer(perf: subprocess.Popen[bytes], answers: int) -> None:
    import select

    for _ in range(300):
        if select.select([answers], [], [], 0.1)[0]:
            return
        if perf.poll() is not None:
            assert perf.stderr is not None
            pytest.skip(f"perf record refused: {perf.stderr.read()[-199:].decode()}")
    pytest.fail("perf does not answer")


def names(values: npt.NDArray[Any]) -> list[int]:
    """Each number as the place of its first occurrence: the pattern, whatever the names are."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    places: list[int] = first[which].tolist()
    return places


def told(events: EventBatch) -> dict[str, list[int]]:
    """What two recordings of one run must have in common."""
    scans = np.isin(events["kind"], [KSM_START_SCAN.id, KSM_STOP_SCAN.id])
    merges = events["kind"] == KSM_MERGE_WITH_KSM_PAGE.id
    seen = {name: events[name].tolist() for name in ("kind", "err")}
    seen |= {name: names(events[name]) for name in ("pfn", "item", "mm")}
    seen["seq"] = events["addr"][scans].tolist()
    seen["rmap_entries"] = events["arg"][scans].tolist()
    seen["into_existing"] = (events["arg"][merges] & INTO_EXISTING).tolist()
    return seen


def stored(path: Path) -> EventBatch:
    return concatenate(list(StoredRecording(path).event_batches()))


@pytest.mark.parametrize(
    ("tool", "format_name"),
    [(by_tracefs, "tracefs"), (by_trace_cmd, "trace-cmd"), (by_perf, "perf")],
    ids=["tracefs", "trace-cmd", "perf"],
)
def test_an_import_is_the_stream_that_we_recorded(
    tool: Tool,
    format_name: str,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
    tmp_path: Path,
) -> None:
    text = tmp_path / "a.txt"
    with tool(text):
        recorder = record("--backend", "core")
        (KSM / "use_zero_pages").write_text("1")  # the stepper restores it
        actors = [actor(FIRST), actor(SECOND)]
        ksmd.scan(3)
        for one in actors:
            one.do("write", 999, *range(13))
        ksmd.scan(2)
        for one in actors:
            one.end()
        ksmd.batch()
        assert recorder.end() == 0, recorder.words()

    done = run_ksmtrace("import", text, "-o", tmp_path / "b.ksm", "--kernel", "host")
    assert done.returncode == 0, done.stderr
    assert f"({format_name})" in " ".join(done.stderr.split())
    ours, theirs = stored(recorder.target), stored(tmp_path / "b.ksm")
    # All kinds but the advisor's are there, or the comparison says little.
    assert set(ours["kind"].tolist()) >= {kind.id for kind in KINDS[:8]}
    assert told(theirs) == told(ours)
    assert not theirs["tgid"].any()
    assert not theirs["addr"][theirs["kind"] == KSM_ENTER.id].any()

    verdict = run_ksmtrace("replay", tmp_path / "b.ksm", "--check", "--json")
    assert verdict.returncode == 0, verdict.stdout
    assert '"answer": "yes"' in verdict.stdout
    report = run_ksmtrace("report", tmp_path / "b.ksm")
    assert report.returncode == 0, report.stderr
