from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.batches import batch_of, loses, scan_stops
from support.recordings import make_recording

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EVENT, EventBatch, concatenate
from ksmtrace.events.registry import KSM_STOP_SCAN
from ksmtrace.replay.source import RecordingSource


def played(source: RecordingSource) -> list[EventBatch]:
    batches = []
    with source.open() as stream:
        while not stream.exhausted:
            batches.append(stream.read())
        stream.stop()
        assert len(stream.read()) == 0
        assert stream.fileno() is None
    return batches


def test_a_recording_plays_its_events_in_order_and_then_is_exhausted(tmp_path: Path) -> None:
    batch = batch_of([scan_stops(n, n) for n in range(13)])
    source = RecordingSource(make_recording(tmp_path / "a.ksm", [batch]))
    assert source.check() == []
    assert np.array_equal(concatenate(played(source)), batch)


def test_a_long_recording_comes_in_pieces(tmp_path: Path) -> None:
    batch = np.zeros(300_007, EVENT)
    batch["kind"], batch["addr"] = KSM_STOP_SCAN.id, np.arange(300_007)
    source = RecordingSource(make_recording(tmp_path / "a.ksm", [batch]))
    pieces = played(source)
    assert len(pieces) > 2
    assert np.array_equal(concatenate(pieces), batch)


def test_it_can_be_played_again(tmp_path: Path) -> None:
    source = RecordingSource(make_recording(tmp_path / "a.ksm", [batch_of([loses(5)])]))
    assert np.array_equal(concatenate(played(source)), concatenate(played(source)))


def test_it_knows_what_its_recorder_did_not_know(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm", facts={"fields_unknown": ["addr", "tgid"]})
    assert RecordingSource(path).fields_unknown == ("addr", "tgid")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KsmtraceError) as raised:
        RecordingSource(tmp_path)
    assert raised.value.exit_code == Exit.BAD_RECORDING


def test_a_damaged_table_is_an_obstacle_with_a_remedy(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm", [batch_of([loses(5)])])
    (path / "events.parquet").write_bytes(b"PAR1")
    (obstacle,) = RecordingSource(path).check()
    assert "events.parquet is damaged" in obstacle.what
    assert obstacle.remedy
