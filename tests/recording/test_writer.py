from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch_of, event, joins_ksm_page, loses, random_batch, scan_stops
from support.recordings import host_sample, make_recording, open_writer

import ksmtrace.recording.writer
from ksmtrace.errors import KsmtraceError
from ksmtrace.events.batch import EVENT, EventBatch, concatenate
from ksmtrace.events.registry import COW_BREAK, KSM_MERGE_WITH_KSM_PAGE, KSM_STOP_SCAN
from ksmtrace.processes.census import CENSUS
from ksmtrace.recording.pseudonyms import Pseudonyms, RawPointers
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import MANIFEST, TABLES
from ksmtrace.recording.writer import RecordingWriter

_NUMBERS = itertools.count()


def fresh(folder: Path) -> Path:
    """A new name in a test's folder: hypothesis runs many examples in one."""
    return folder / f"{next(_NUMBERS)}.ksm"


def events_of(path: Path) -> EventBatch:
    return concatenate(list(StoredRecording(path).event_batches()))


@settings(max_examples=31)
@given(batches=st.lists(random_batch(11), max_size=5))
def test_what_is_written_is_read(tmp_path: Path, batches: list[EventBatch]) -> None:
    path = make_recording(fresh(tmp_path), batches)
    assert np.array_equal(events_of(path), concatenate(batches))


@settings(max_examples=31)
@given(batches=st.lists(random_batch(11), max_size=5))
def test_what_is_flushed_is_read_before_the_end(tmp_path: Path, batches: list[EventBatch]) -> None:
    path = fresh(tmp_path)
    writer = open_writer(path)
    for batch in batches:
        writer.events(batch)
        writer._flush_all()
    recording = StoredRecording(path)
    assert recording.cut
    assert np.array_equal(events_of(path), concatenate(batches))
    writer.abandon("error: the test is over")


def test_more_events_than_the_buffer_holds_stay_in_order(tmp_path: Path) -> None:
    batch = np.zeros(300_007, EVENT)
    batch["kind"] = KSM_STOP_SCAN.id
    batch["addr"] = np.arange(len(batch))
    path = make_recording(tmp_path / "a.ksm", [batch[:7], batch[7:200_003], batch[200_003:]])
    assert np.array_equal(events_of(path), batch)


def test_the_manifest_counts_losses_and_rows(tmp_path: Path) -> None:
    path = make_recording(
        tmp_path / "a.ksm",
        [batch_of([loses(5), scan_stops(0, 7)]), batch_of([loses(11)])],
        tables={"counters": [host_sample(1), host_sample(2)]},
    )
    manifest = StoredRecording(path).manifest
    assert manifest["lost"] == 16
    assert manifest["sealed"] is True
    assert manifest["ended"] == "duration"
    assert manifest["tables"]["events"]["rows"] == 3
    assert manifest["tables"]["counters"]["rows"] == 2
    assert manifest["tables"]["census"]["rows"] == 0


def test_sealing_leaves_one_file_a_table_and_the_manifest(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm")
    assert {place.name for place in path.iterdir()} == {
        MANIFEST,
        *(f"{name}.parquet" for name in TABLES),
    }
    assert [place.name for place in tmp_path.iterdir()] == ["a.ksm"]


def test_sealing_tells_how_far_it_is(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.events(batch_of([scan_stops(n, n) for n in range(13)]))
    writer.table("counters", [host_sample(n) for n in range(7)])
    shares: list[float] = []
    writer.finish("duration", {}, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        writer = open_writer(tmp_path / "a.ksm")
        cut = {place.stat().st_mode & 0o777 for place in (tmp_path / "a.ksm").iterdir()}
        writer.events(batch_of([scan_stops(0, 1)]))
        writer.finish("duration", {})
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    path = tmp_path / "a.ksm"
    assert path.stat().st_mode & 0o777 == 0o700
    assert cut == {0o600}
    assert {place.stat().st_mode & 0o777 for place in path.iterdir()} == {0o600}


def unsealed(folder: Path) -> tuple[Path, list[EventBatch]]:
    """A recording as a killed recorder leaves it, and its flushed batches."""
    writer = open_writer(folder / "live.ksm")
    batches = [
        batch_of([joins_ksm_page(7 * n + 1, ts=n, tgid=3, addr=4096 * n) for n in range(size)])
        for size in (5, 1, 11)
    ]
    for batch in batches:
        writer.events(batch)
        writer.table("counters", [host_sample(1, pages_shared=3)])
        writer._flush_all()
    shutil.copytree(folder / "live.ksm", folder / "killed.ksm")
    writer.abandon("error: the test is over")
    return folder / "killed.ksm", batches


def test_a_killed_recording_opens_and_says_that_it_is_cut(tmp_path: Path) -> None:
    path, batches = unsealed(tmp_path)
    recording = StoredRecording(path)
    assert recording.cut
    assert np.array_equal(events_of(path), concatenate(batches))
    assert recording.table("counters").num_rows == 3
    assert recording.table("census").num_rows == 0


@pytest.mark.parametrize("name", TABLES)
def test_a_recorder_killed_right_after_its_start_leaves_empty_tables(
    tmp_path: Path, name: str
) -> None:
    writer = open_writer(tmp_path / "live.ksm")
    shutil.copytree(tmp_path / "live.ksm", tmp_path / "killed.ksm")
    writer.abandon("error: the test is over")
    assert StoredRecording(tmp_path / "killed.ksm").table(name).num_rows == 0


def test_events_cut_at_any_byte_behind_their_schema_are_a_prefix(tmp_path: Path) -> None:
    path, batches = unsealed(tmp_path)
    whole = (path / "events.arrow").read_bytes()
    everything = concatenate(batches)
    possible = {0, *np.cumsum([len(batch) for batch in batches]).tolist()}
    writer = open_writer(tmp_path / "empty.ksm")
    schema = (tmp_path / "empty.ksm" / "events.arrow").stat().st_size
    writer.abandon("error: the test is over")
    seen = set()
    for length in range(schema, len(whole) + 1):
        (path / "events.arrow").write_bytes(whole[:length])
        found = events_of(path)
        assert np.array_equal(found, everything[: len(found)])
        seen.add(len(found))
    assert seen == possible


def test_a_process_killed_while_sealing_leaves_every_event(tmp_path: Path) -> None:
    path, batches = unsealed(tmp_path)
    sealed = make_recording(tmp_path / "sealed.ksm", batches)
    (path / "events.parquet.new").write_bytes((sealed / "events.parquet").read_bytes()[:101])
    assert np.array_equal(events_of(path), concatenate(batches))
    shutil.copy(sealed / "events.parquet", path)
    assert np.array_equal(events_of(path), concatenate(batches))


def test_abandoning_keeps_what_is_there_and_says_why(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.events(batch_of([scan_stops(5, 7)]))
    writer.abandon("error: no more ink")
    recording = StoredRecording(tmp_path / "a.ksm")
    assert recording.manifest["ended"] == "error: no more ink"
    assert recording.manifest["sealed"] is False
    assert events_of(tmp_path / "a.ksm")["addr"].tolist() == [5]


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.events(batch_of([scan_stops(5, 7)]))
    writer._flush_all()

    class Full:
        def write_batch(self, batch: object) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setitem(writer._streams, "events", Full())
    writer.events(batch_of([scan_stops(6, 8)]))
    with pytest.raises(KsmtraceError, match="no space left") as raised:
        writer._flush_all()
    assert "recorded until then is kept" in str(raised.value.hint)
    writer.abandon("error: no space")
    assert events_of(tmp_path / "a.ksm")["addr"].tolist() == [5]


def test_a_disk_that_is_full_at_the_start_keeps_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_folder: Path, _manifest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ksmtrace.recording.writer, "write_manifest", full)
    with pytest.raises(KsmtraceError, match="no space left") as raised:
        open_writer(tmp_path / "a.ksm")
    assert "nothing was recorded" in str(raised.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_flushing_waits_until_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    writer.events(batch_of([scan_stops(5, 7)]))
    writer._due = float("inf")
    writer.flush_if_due()
    assert writer.rows["events"] == 0
    writer._due = 0.0
    writer.flush_if_due()
    assert writer.rows["events"] == 1
    writer.abandon("error: the test is over")


def test_a_census_names_frames_as_the_events_do(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm", namer=Pseudonyms(b"one key"))
    writer.events(batch_of([joins_ksm_page(4099, ts=1), joins_ksm_page(17, ts=2)]))
    rows = np.zeros(2, CENSUS)
    rows["tgid"], rows["addr"], rows["pfn"] = 7, [4096, 8192], [17, 4099]
    writer.census(5, "start", rows)
    writer.finish("duration", {})
    recording = StoredRecording(tmp_path / "a.ksm")
    first, second = events_of(tmp_path / "a.ksm")["pfn"].tolist()
    census = recording.table("census").to_pydict()
    assert census["pfn"] == [second, first]
    assert census["addr"] == [4096, 8192]
    assert census["reason"] == ["start", "start"]


def sealed(folder: Path) -> Path:
    rows = [
        event(KSM_MERGE_WITH_KSM_PAGE, ts, pfn=ts, tgid=3, err=-14 if ts == 5 else 0)
        for ts in range(1, 14)
    ]
    return make_recording(
        folder / "a.ksm",
        [batch_of([*rows, scan_stops(0, 17, items=13)])],
        tables={"counters": [host_sample(1, "start", pages_shared=3, general_profit=-5)]},
    )


def test_duckdb_reads_every_table(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    database = duckdb.connect()
    for name in TABLES:
        database.execute(f"select * from '{path / name}.parquet'").fetchall()
    counted = database.execute(
        f"select kind, count(*), sum(err) from '{path}/events.parquet' group by kind order by kind"
    ).fetchall()
    assert counted == [("ksm_merge_with_ksm_page", 13, -14), ("ksm_stop_scan", 1, None)]


def test_pandas_reads_every_table(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    for name, table in TABLES.items():
        frame = pd.read_parquet(path / f"{name}.parquet")
        assert list(frame.columns) == [column.name for column in table.columns]
    events = pd.read_parquet(path / "events.parquet")
    assert (events["kind"] == "ksm_merge_with_ksm_page").sum() == 13
    assert events["tgid"].isna().tolist() == [False] * 13 + [True]
    counters = pd.read_parquet(path / "counters.parquet")
    assert counters["general_profit"].tolist() == [-5]
    assert counters["pages_skipped"].isna().all()


def test_a_writer_that_cannot_begin_says_so(tmp_path: Path) -> None:
    target = tmp_path / "a.ksm"
    target.mkdir()

    class Stubborn:
        path = target

        def begin(self) -> Path:
            raise OSError(30, "Read-only file system")

        def leave(self) -> None:
            pass

    with pytest.raises(KsmtraceError, match="Read-only file system"):
        RecordingWriter(Stubborn(), {}, Pseudonyms())  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [True, False])
def test_code_is_joined_with_the_breaks_it_explains(tmp_path: Path, raw: bool) -> None:
    namer = RawPointers() if raw else Pseudonyms()
    path = tmp_path / "a.ksm"
    writer = open_writer(path, namer=namer)
    ips = [0x7F00_0000_1234, 0xFFFF_FFFF_8100_0013]
    writer.events(batch_of([event(COW_BREAK, tgid=7, item=ip, addr=4096) for ip in ips]))
    rows = [{"ts": 1, "tgid": 7, "ip": ips[0], "file": "/bin/x", "offset": 0x234, "symbol": None}]
    rows += [{"ts": 2, "tgid": 7, "ip": ips[1], "file": None, "offset": None, "symbol": None}]
    writer.code(rows)
    writer.finish("duration", {"duration_s": 1.0})
    recording = StoredRecording(path)
    code = recording.table("code").to_pylist()
    assert [row["ip"] for row in code] == events_of(path)["item"].tolist()
    assert (code[0]["ip"] == ips[0]) is raw
    assert [(row["file"], row["offset"]) for row in code] == [("/bin/x", 0x234), (None, None)]
