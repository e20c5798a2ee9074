from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch_of, joins_ksm_page, scan_stops
from support.recordings import change_manifest, make_recording

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import FORMAT, MANIFEST, TABLES


@pytest.fixture(name="recording")
def make(tmp_path: Path) -> Path:
    rows = [*(joins_ksm_page(n, ts=n) for n in range(1, 102)), scan_stops(0, 103)]
    return make_recording(tmp_path / "a.ksm", [batch_of(rows)])


def refused(path: Path, *, reading: bool = False) -> str:
    """Opens or reads what must be refused as a bad recording; returns what is said."""
    with pytest.raises(KsmtraceError) as raised:  # noqa: PT012 opening or reading may refuse
        found = StoredRecording(path)
        if reading:
            for name in TABLES:
                found.table(name)
            list(found.event_batches())
    assert raised.value.exit_code == Exit.BAD_RECORDING
    assert raised.value.hint
    return raised.value.message


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    assert "nowhere.ksm" in refused(tmp_path / "nowhere.ksm")


def test_a_path_below_a_file_is_missing_too(recording: Path) -> None:
    refused(recording / MANIFEST / "a.ksm")


def test_a_path_too_long_for_a_file_system_is_missing_too(tmp_path: Path) -> None:
    refused(tmp_path / ("a" * 307))


def test_a_file_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "a.ksm").write_text("not a folder")
    assert "is a file" in refused(tmp_path / "a.ksm")


def test_a_folder_without_manifest_is_no_recording(tmp_path: Path) -> None:
    assert "not a ksmtrace recording" in refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"7",
        b'"format"',
        b"{}",
        b'{"format": null}',
        b'{"format": "1"}',
        b'{"format": 0}',
        b'{"format": -3}',
        b'{"format": 1.5}',
        b'{"name": "an npm package", "version": "1.0.0"}',
        b"[" * 100_003,
    ],
    ids=lambda text: text[:23].decode(errors="replace"),
)
def test_a_foreign_or_damaged_manifest_is_refused(recording: Path, text: bytes) -> None:
    (recording / MANIFEST).write_bytes(text)
    assert "damaged" in refused(recording)


def test_a_manifest_cut_at_any_byte_is_refused(recording: Path) -> None:
    whole = (recording / MANIFEST).read_bytes().rstrip()
    for length in range(0, len(whole), 13):
        (recording / MANIFEST).write_bytes(whole[:length])
        refused(recording)


@settings(max_examples=53)
@given(text=st.binary(max_size=61))
def test_no_manifest_makes_it_fail_otherwise(recording: Path, text: bytes) -> None:
    (recording / MANIFEST).write_bytes(text)
    refused(recording)


def test_a_newer_format_asks_for_an_upgrade(recording: Path) -> None:
    change_manifest(recording, {"format": FORMAT + 1})
    with pytest.raises(KsmtraceError) as raised:
        StoredRecording(recording)
    assert f"format {FORMAT + 1}" in raised.value.message
    assert "pip install -U ksmtrace" in str(raised.value.hint)
    assert raised.value.exit_code == 4


def test_a_manifest_that_is_a_folder_is_refused(recording: Path) -> None:
    (recording / MANIFEST).unlink()
    (recording / MANIFEST).mkdir()
    refused(recording)


def test_keys_of_a_later_version_do_no_harm(recording: Path) -> None:
    change_manifest(recording, {"something_new": [1, 2, 3]})
    assert StoredRecording(recording).manifest["something_new"] == [1, 2, 3]


@pytest.mark.parametrize("name", [name for name in TABLES if not TABLES[name].optional])
def test_a_missing_table_is_named(recording: Path, name: str) -> None:
    (recording / f"{name}.parquet").unlink()
    assert name in refused(recording)


@pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name].optional])
def test_a_table_that_may_be_missing_is_empty_then(recording: Path, name: str) -> None:
    # Recordings made before there was such a table open all the same.
    (recording / f"{name}.parquet").unlink()
    assert StoredRecording(recording).table(name).num_rows == 0


@pytest.mark.parametrize("name", TABLES)
def test_a_truncated_table_is_refused_when_it_is_read(recording: Path, name: str) -> None:
    place = recording / f"{name}.parquet"
    whole = place.read_bytes()
    for length in (0, 3, 7, len(whole) // 2, len(whole) - 11, len(whole) - 1):
        place.write_bytes(whole[:length])
        assert "damaged" in refused(recording, reading=True)


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_column_is_named(recording: Path, name: str) -> None:
    place = recording / f"{name}.parquet"
    pq.write_table(pq.read_table(place).drop_columns(["ts"]), place)
    message = refused(recording, reading=True)
    assert "ts" in message
    assert name in message


def test_a_further_column_does_no_harm(recording: Path) -> None:
    place = recording / "events.parquet"
    table = pq.read_table(place)
    pq.write_table(table.append_column("mood", pa.nulls(table.num_rows)), place)
    assert "mood" in StoredRecording(recording).table("events").column_names
    assert [len(batch) for batch in StoredRecording(recording).event_batches()] == [102]


def test_columns_of_foreign_types_are_read_or_refused(recording: Path) -> None:
    place = recording / "events.parquet"
    table = pq.read_table(place)
    at = table.column_names.index("kind")
    foreign = table.set_column(at, "kind", table.column("kind").cast(pa.string()))
    pq.write_table(foreign, place, store_schema=False)
    try:
        kinds = [batch["kind"].tolist() for batch in StoredRecording(recording).event_batches()]
    except KsmtraceError as error:
        assert error.exit_code == 4  # noqa: PT017 either is right
    else:
        assert kinds == [[6] * 101 + [4]]


def test_an_unknown_table_is_a_key_error(recording: Path) -> None:
    with pytest.raises(KeyError):
        StoredRecording(recording).table("weather")


def test_an_empty_table_has_its_columns(recording: Path) -> None:
    census = StoredRecording(recording).table("census")
    assert census.num_rows == 0
    assert census.column_names == [column.name for column in TABLES["census"].columns]


def test_the_manifest_is_plain_json(recording: Path) -> None:
    manifest = json.loads((recording / MANIFEST).read_text())
    assert manifest["format"] == FORMAT
    assert not StoredRecording(recording).cut
