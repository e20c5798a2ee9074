"""Timelines of the real ksmd: live as stored, and all that the kernel counts accounted for."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ksmtrace.capture.choose import choose_source
from ksmtrace.capture.cow import CowWatch, cow_obstacles
from ksmtrace.capture.record import RecordRequest
from ksmtrace.capture.record import record as record_here
from ksmtrace.capture.session import Options, Progress
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.recording.pseudonyms import Namer
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.timeline.accounts import IN_TRANSIT_NS
from ksmtrace.timeline.build import Timeline, timeline_of
from tests.live.conftest import Recorder, run_ksmtrace
from tests.support.herd import LONG_SECONDS, STILL_SECONDS, Herd, Round, herd_of
from tests.support.tee import Tee

SEES_WRITES = pytest.mark.skipif(bool(cow_obstacles()), reason="; ".join(map(str, cow_obstacles())))
WAYS = pytest.mark.parametrize(
    "options", [(), pytest.param(("--cow",), marks=SEES_WRITES)], ids=["plain", "cow"]
)
SAMPLED_OFTEN = ("--interval", "0.007")
SCANS = 211
REWRITTEN = 101
"""About one page in a hundred."""


@pytest.fixture
def herd(ksmd: Stepper) -> Iterator[Herd]:
    with herd_of(ksmd) as herd:
        yield herd


def ten_thousand_pages(herd: Herd) -> None:
    """Three processes with 10,007 pages together; one is forked when its pages are merged."""
    herd.start("mother", [n % 211 for n in range(3001)])
    herd.start("stranger", [n % 307 for n in range(4005)])
    herd.stepper.scan(2)
    herd.fork("mother", "child")


@pytest.mark.parametrize("cow", [False, pytest.param(True, marks=SEES_WRITES)])
@pytest.mark.parametrize("raw", [True, False])
def test_a_live_run_has_the_same_tables_as_its_recording(
    herd: Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cow: bool, raw: bool
) -> None:
    tees: list[Tee] = []

    def tee(target: Target, facts: Mapping[str, Any], namer: Namer) -> Tee:
        tees.append(Tee(target, facts, namer))
        return tees[-1]

    monkeypatch.setattr("ksmtrace.recording.writer.RecordingWriter", tee)
    herd.start("there-before", [n % 53 for n in range(503)])
    herd.stepper.scan(2)
    under_way = Event()

    def play() -> None:
        assert under_way.wait(30)
        herd.stepper.write("use_zero_pages", "1")
        herd.start("mother", [n % 53 for n in range(1009)])
        herd.stepper.scan(2)
        herd.fork("mother", "child")
        for _ in range(11):
            herd.round(101, 59)
        herd.exit("child")
        herd.stepper.scan()
        herd.stepper.unmerge()
        herd.stepper.scan(2)
        # The next samples are the end's.
        time.sleep(0.3)

    with ThreadPoolExecutor() as pool:
        playing = pool.submit(play)

        def end_with_the_play(_progress: Progress) -> None:
            if playing.done():
                signal.raise_signal(signal.SIGINT)

        watch = CowWatch() if cow else None
        recorded = record_here(
            RecordRequest(
                Target(tmp_path / "a.ksm"),
                choose_source("core", watch),
                ring_bytes=1 << 24,
                options=Options(interval=0.05, census_interval=0.3),
                raw_pointers=raw,
                watch=watch,
            ),
            status=end_with_the_play,
            say=lambda _words: under_way.set(),
        )
        playing.result()
    assert recorded.ended == "SIGINT"
    live = tees[0].same_timeline()
    assert {"before", "created", "joined", "inherited", "zero_page"} <= set(live.pages["how"])
    assert len(live.breaks) > (500 if cow else -1)


def recorded_rounds(
    herd: Herd, record: Callable[..., Recorder], *options: str, contents: int
) -> tuple[Timeline, list[Round]]:
    """Hundreds of scans, with pages rewritten before each."""
    recorder = record(*SAMPLED_OFTEN, *options)
    ten_thousand_pages(herd)
    rounds = [
        herd.round(REWRITTEN, contents, STILL_SECONDS if number % 5 else LONG_SECONDS)
        for number in range(SCANS)
    ]
    assert recorder.end() == 0
    return timeline_of(StoredRecording(recorder.target)), rounds


def at_rest(accounts: pd.DataFrame, rounds: list[Round]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples that nothing is near to: those after a scan, and those after its rewriting."""
    ts = accounts["ts_ns"].to_numpy()
    scanned, written = np.zeros(len(ts), bool), np.zeros(len(ts), bool)
    for one in rounds:
        scanned |= (ts > one.still + IN_TRANSIT_NS) & (ts < one.writing)
        written |= (ts > one.written) & (ts < one.scanning - IN_TRANSIT_NS)
    assert scanned.sum() > len(rounds) / 2, "too few samples after scans"
    assert written.sum() > len(rounds) / 10, "too few samples after rewriting"
    return accounts[scanned], accounts[written]


def explained(accounts: pd.DataFrame) -> pd.Series[int]:
    """Pages in all classes together."""
    return accounts[["silent", "unnoticed", "open", "before"]].sum(axis=1)


@SEES_WRITES
def test_nothing_is_left_to_explain_where_every_end_is_visible(
    herd: Herd, record: Callable[..., Recorder]
) -> None:
    herd.stepper.write("use_zero_pages", "1")
    timeline, rounds = recorded_rounds(herd, record, "--cow", contents=251)
    assert len(timeline.scans) >= SCANS
    accounts = timeline.accounts
    assert (accounts["residual"] == 0).all()
    assert (accounts["zero_residual"] == 0).all()
    scanned, written = at_rest(accounts, rounds)
    # A scan notices all that was written before it: then nothing is unknown, to the page.
    assert (scanned["merged_least"] == scanned["merged_kernel"]).all()
    assert (scanned["merged_most"] == scanned["merged_kernel"]).all()
    assert (scanned["shared_most"] == scanned["shared_kernel"]).all()
    assert (explained(scanned) == 0).all()
    # Until the next scan the kernel goes on counting all that is broken, and nothing else.
    assert (written["merged_most"] == written["merged_kernel"]).all()
    unnoticed = written["merged_kernel"] - written["merged_least"]
    assert (unnoticed == written["unnoticed"]).all()
    assert (explained(written) == written["unnoticed"]).all()
    assert unnoticed.max() == REWRITTEN
    assert set(timeline.pages["end"]) == {"still_merged", "cow_break"}
    assert timeline.pages["proven"].all()


def test_what_is_not_seen_is_bounded_and_explained(
    herd: Herd, record: Callable[..., Recorder]
) -> None:
    herd.stepper.write("use_zero_pages", "1")
    timeline, rounds = recorded_rounds(herd, record, contents=251)
    assert len(timeline.scans) >= SCANS
    accounts = timeline.accounts
    assert (accounts["residual"] == 0).all()
    assert (accounts["zero_residual"] == 0).all()
    scanned, written = at_rest(accounts, rounds)
    for rest in (scanned, written):
        difference = rest["merged_most"] - rest["merged_kernel"]
        assert (difference >= 0).all()
        assert (difference <= explained(rest)).all()
        assert (rest["merged_least"] <= rest["merged_kernel"]).all()
        # All that was broken is told of when it merges again: in the second scan after.
        assert (difference <= REWRITTEN).all()
    assert (timeline.pages["end"] == "unknown").sum() > SCANS * REWRITTEN / 2


@WAYS
def test_a_recording_that_starts_on_a_merged_host_accounts_for_all_of_it(
    herd: Herd, record: Callable[..., Recorder], options: tuple[str, ...]
) -> None:
    herd.start("mother", [1 + n % 53 for n in range(1009)])
    herd.start("leaving", [1 + n % 67 for n in range(503)])
    herd.stepper.scan(2)
    herd.fork("mother", "child")
    herd.stepper.scan(2)
    recorder = record(*SAMPLED_OFTEN, *options)
    recorder.wait_for("recording to")
    while not StoredRecording(recorder.target).table("census").num_rows:
        time.sleep(0.01)
    time.sleep(0.3)
    leaving = herd.pids["leaving"]
    herd.exit("leaving")
    rounds = [herd.round(REWRITTEN, 59, LONG_SECONDS) for _ in range(7)]
    assert recorder.end() == 0
    timeline = timeline_of(StoredRecording(recorder.target))
    accounts, pages = timeline.accounts, timeline.pages
    assert (accounts["residual"] == 0).all()
    assert (accounts["zero_residual"] == 0).all()
    before = pages[pages["how"] == "before"]
    assert len(before) == accounts["merged_kernel"].iloc[0] == 2 * 1009 + 503
    assert timeline.stable_pages["born_ns"].isna().sum() == accounts["shared_kernel"].iloc[0]
    assert before["merged_ns"].isna().all()
    left = before["tgid"] == leaving
    assert left.sum() == 503
    assert (before["end"][left] == "exit").all()
    exited = timeline.processes.set_index("tgid")["exited_ns"][leaving]
    assert (before["ended_before_ns"][left] <= exited).all()
    over = before[~left & (before["end"] != "still_merged")]
    assert set(zip(over["tgid"], over["addr"], strict=True)) == herd.rewritten
    if options:
        assert set(over["end"]) == {"cow_break"}
        assert before["proven"].all()
        for rest in at_rest(accounts, rounds):
            assert (rest["merged_most"] == rest["merged_kernel"]).all()
    else:
        assert set(over["end"]) <= {"unknown", "stale"}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name fits on a line."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def identified(recorder: Recorder) -> list[int]:
    """Processes that a recorder has looked up so far."""
    tgids: list[int] = StoredRecording(recorder.target).table("identities")["tgid"].to_pylist()
    return tgids


_WRITER = """
#include <sys/mman.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline)) void the_writer(volatile char *page) { page[0] = 1; }
int main(void)
{
	char *memory = mmap(0, 101 * 4096, 3, 0x22, -1, 0);
	char word[2];
	memset(memory, 7, 101 * 4096);
	madvise(memory, 101 * 4096, 12);
	if (write(1, "r", 1) != 1 || read(0, word, 1) != 1)
		return 1;
	for (int number = 0; number < 53; number++)
		the_writer(memory + number * 4096);
	return 0;
}
"""


@SEES_WRITES
@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("nm"), reason="no compiler")
def test_a_break_is_shown_with_the_place_in_the_code_that_wrote(
    ksmd: Stepper, record: Callable[..., Recorder], short_path: Path
) -> None:
    program = short_path / "w"
    subprocess.run(["gcc", "-O1", "-xc", "-", "-o", program], input=_WRITER, text=True, check=True)
    symbols = subprocess.check_output(["nm", "-S", program], text=True)
    begin, size = next(
        (int(words[0], 16), int(words[1], 16))
        for words in map(str.split, symbols.splitlines())
        if words[-1] == "the_writer"
    )
    recorder = record("--cow")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        # Who ends within a tenth of a second is gone before anybody has looked where its code is.
        while process.pid not in identified(recorder):
            time.sleep(0.01)
        ksmd.scan(2)
        process.communicate(b"x", timeout=20)
    assert recorder.end() == 0
    shown = run_ksmtrace("timeline", recorder.target, "--breaks", "--json")
    (writer,) = json.loads(shown.stdout)["writers"]
    assert (writer["tgid"], writer["writes"]) == (process.pid, 53)
    assert (writer["file"], writer["kernel_mode"]) == (str(program), 0)
    # A file's offset is its address here: nm counts from where the loader maps offset 0.
    assert begin <= writer["offset"] < begin + size
    text = run_ksmtrace("timeline", recorder.target, "--breaks")
    assert text.returncode == 0
    assert f"w {process.pid} " in text.stdout
    assert f"{program}+{writer['offset']:#x} " in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    table = timeline_of(StoredRecording(recorder.target)).breaks
    assert set(table["file"]) == {str(program)}
    assert table["page"].notna().all()
