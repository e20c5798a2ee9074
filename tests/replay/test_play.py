from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.batch import EVENT, EventBatch, concatenate
from ksmtrace.events.registry import KSM_MERGE_WITH_KSM_PAGE, KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.play import in_time, play
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.summary import summarise
from tests.support.recordings import BEGIN, SECOND, make_recording

DEMO = Path(__file__).parents[2] / "recordings" / "demo.ksm"


def _events(*seconds: float) -> EventBatch:
    batch = np.zeros(len(seconds), EVENT)
    batch["ts"] = [BEGIN + int(s * SECOND) for s in seconds]
    batch["kind"] = KSM_START_SCAN.id
    batch["addr"] = np.arange(len(seconds))
    return batch


class _Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0
        self.handed: list[tuple[int, int]] = []

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += round(seconds * SECOND)

    def run(self, batches: list[EventBatch], speed: float) -> list[EventBatch]:
        parts = []
        for part in in_time(iter(batches), speed, now_ns=self.now_ns, sleep=self.sleep):
            parts.append(part)
            self.handed.append((self.now, len(part)))
        return parts


def test_events_come_when_they_came() -> None:
    time = _Time()
    time.run([_events(0, 0.5, 2, 2.001)], speed=1)
    # Slices of 20 ms of playing time: what comes together is handed on together.
    assert time.handed == [(0, 1), (SECOND // 2, 1), (2 * SECOND, 2)]


@pytest.mark.parametrize("speed", [0.5, 4.0])
def test_speed_stretches_time(speed: float) -> None:
    time = _Time()
    time.run([_events(0, 4)], speed)
    assert time.handed[-1][0] == 4 * SECOND / speed


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=40).map(sorted),
    st.lists(st.integers(0, 40), max_size=4).map(sorted),
    st.sampled_from([0.3, 1.0, 7.0]),
)
def test_nothing_is_lost_or_reordered_whatever_the_batches(
    seconds: list[float], cuts: list[int], speed: float
) -> None:
    whole = _events(*seconds)
    time = _Time()
    parts = time.run(np.split(whole, [c for c in cuts if c < len(whole)]), speed)
    assert (concatenate(parts) == whole).all()


def test_a_clock_that_runs_back_in_the_recording_does_not_hang() -> None:
    time = _Time()
    parts = time.run([_events(3, 1, 2)], speed=1)
    assert sum(map(len, parts)) == 3
    assert time.now < SECOND


def test_played_at_full_speed_the_demo_gives_the_reports_totals() -> None:
    lines: list[str] = []
    result = play(DEMO, None, tell=lines.append)
    totals = summarise(timeline_of(StoredRecording(DEMO))).as_dict()["totals"]
    assert result.totals == totals
    assert result.events == len(lines) == sum(result.kinds.values())
    assert result.lost == 0
    stored = StoredRecording(DEMO).manifest["events"]
    assert result.events == stored


def test_each_line_says_when_and_what(tmp_path: Path) -> None:
    batch = _events(0, 1, 1.5)
    batch["kind"] = [KSM_START_SCAN.id, KSM_MERGE_WITH_KSM_PAGE.id, KSM_STOP_SCAN.id]
    batch[1]["addr"] = 0x7F0000001000
    batch[1]["tgid"] = 17
    batch[1]["err"] = -14
    batch[1]["pfn"] = 0xABC
    lines: list[str] = []
    play(make_recording(tmp_path / "a.ksm", [batch]), None, tell=lines.append)
    assert lines[0] == "    0.000000  ksm_start_scan          seq=0 rmap_entries=0"
    assert lines[1].split() == [
        "1.000000", "ksm_merge_with_ksm_page", "pfn=0xabc", "addr=0x7f0000001000", "tgid=17",
        "err=-14", "new",
    ]  # fmt: skip
    assert lines[2].startswith("    1.500000  ksm_stop_scan")


def test_an_empty_recording_plays(tmp_path: Path) -> None:
    result = play(make_recording(tmp_path / "a.ksm"), None)
    assert (result.events, result.seconds_recorded) == (0, 0)
