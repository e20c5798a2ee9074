"""A recorder killed at any moment leaves a recording that opens."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ksmtrace.cli.main import main
from ksmtrace.errors import Exit
from ksmtrace.events.batch import concatenate, of_kind
from ksmtrace.events.registry import KSM_START_SCAN
from ksmtrace.kernel.knobs import changed
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import TABLES
from tests.live.conftest import Actor, Recorder

KILLS = 61
AT_ONCE = 3


@pytest.fixture
def busy_ksmd(actor: Callable[[list[int]], Actor]) -> Iterator[None]:
    """ksmd scanning a few pages over and over: an event every few milliseconds."""
    knobs = {"run": "1", "pages_to_scan": "1000", "sleep_millisecs": "5", "smart_scan": "0"}
    with changed(knobs):
        actor([5, 6, 7] * 31)
        yield


def check(target: Path, killed: float, started: float) -> str:
    """A killed recording; returns what kind of end it shows."""
    recording = StoredRecording(target)
    for name in TABLES:
        recording.table(name)
    events = concatenate(list(recording.event_batches()))
    if recording.manifest["ended"] is not None:
        return "sealing" if not recording.manifest["sealed"] else "sealed"
    assert recording.cut
    if killed - started > 1.5:
        # Everything older than a second is there: the last event is, and no scan is missing.
        assert events["ts"][-1] >= (killed - 1) * 1e9
        scans = events["addr"][of_kind(events, KSM_START_SCAN)].astype(np.int64)
        assert (np.diff(scans) == 1).all()
        return "cut"
    return "cut early"


@pytest.mark.usefixtures("busy_ksmd")
def test_killed_at_random_moments_every_recording_opens(
    record: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20260)
    ends: dict[str, int] = {}
    for first in range(0, 3 * KILLS, AT_ONCE):
        # On a busy machine more of them are killed before they have begun: then it takes more.
        if first >= KILLS and sum(ends.values()) - ends.get("not begun", 0) >= 50:
            break
        begun = []
        for number in range(first, first + AT_ONCE):
            one = record(name=f"{number}.ksm", wait=False)
            # A third is killed while it ends and seals.
            sealing = number % 3 == 0
            begun.append((one, chance.uniform(0.6, 2.2), sealing, chance.uniform(0, 0.05)))
        start = time.monotonic()
        for one, delay, sealing, moment in sorted(begun, key=lambda b: b[1]):
            time.sleep(max(0.0, start + delay - time.monotonic()))
            if sealing:
                one.process.terminate()
                time.sleep(moment)
            killed = time.monotonic()
            one.process.kill()
            one.process.wait()
            if not one.target.exists():
                # It had not begun: then nothing of it may be there.
                end = "not begun"
            else:
                end = check(one.target, killed, start + 0.3)
                assert main(["report", str(one.target)]) == Exit.OK
            ends[end] = ends.get(end, 0) + 1
    with capsys.disabled():
        print(f"\n  {sum(ends.values())} kills: {ends}")
    assert ends["cut"] >= KILLS // 4
    assert sum(ends.values()) - ends.get("not begun", 0) >= 50
