from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import random_batch
from support.exported import (
    CHILD,
    DB,
    GUEST,
    HEAP,
    IP,
    KERNEL_IP,
    MM,
    NAMES,
    busy_recording,
)
from support.recordings import make_recording
from support.sharing import differences, leaks, names_of

from ksmtrace.errors import KsmtraceError
from ksmtrace.recording.pseudonyms import Pseudonyms
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import TABLES
from ksmtrace.recording.share import NAMED, share
from ksmtrace.recording.target import Target
from ksmtrace.replay.check import check

DEMO = Path(__file__).parents[2] / "recordings/demo.ksm"
_WORDS = {
    ("counters", "reason"), ("identities", "what"), ("regions", "permissions"),
    ("census", "reason"), ("contents", "phase"), ("uksm", "reason"),
}  # fmt: skip
"""Columns whose strings are the kernel's or ksmtrace's own words; knobs' values are, too."""


def shared(path: Path, to: Path) -> Path:
    share(StoredRecording(path), Target(to))
    return to


@pytest.fixture
def busy(tmp_path: Path) -> tuple[Path, Path]:
    """A recording with raw pointers, and its copy."""
    original = busy_recording(tmp_path / "busy.ksm")
    return original, shared(original, tmp_path / "shared.ksm")


def test_every_stored_string_is_renamed_or_known_to_be_harmless() -> None:
    strings = {
        (table.name, column.name)
        for table in TABLES.values()
        for column in table.columns
        if column.type == "string" and not column.name.startswith("knob_")
    }
    assert strings == set(NAMED) | _WORDS


def test_no_name_is_left_in_any_file(busy: tuple[Path, Path]) -> None:
    original, copy = busy
    assert names_of(original) >= NAMES - {"sekrit cache"}, "which stands in [anon:...]"
    assert leaks(NAMES, original), "the search itself finds them where they are"
    assert leaks({*NAMES, "sekrit"}, copy) == []


def test_every_derived_table_is_the_same_up_to_renaming(
    busy: tuple[Path, Path], tmp_path: Path
) -> None:
    assert differences(*busy, raw=True) == []
    assert differences(DEMO, shared(DEMO, tmp_path / "demo.ksm")) == []


def test_the_check_says_the_same(busy: tuple[Path, Path], tmp_path: Path) -> None:
    for original, copy in (busy, (DEMO, shared(DEMO, tmp_path / "demo.ksm"))):
        one, other = (check(path) for path in (original, copy))
        for what in ("legal", "predicted"):
            assert one[what]["answer"] == other[what]["answer"]
            finding, again = one[what].get("finding"), other[what].get("finding")
            assert (finding and finding["index"]) == (again and again["index"])
        assert one["kernel"] == other["kernel"]


def test_raw_pointers_are_replaced_and_pseudonyms_stay(
    busy: tuple[Path, Path], tmp_path: Path
) -> None:
    original, copy = (StoredRecording(path).table("events").to_pydict() for path in busy)
    raw = {*MM.values(), IP, KERNEL_IP}
    assert raw <= set(original["mm"]) | set(original["item"])
    for column in ("mm", "item", "pfn"):
        assert not set(original[column]) & set(copy[column]) - {None}
    code = StoredRecording(busy[1]).table("code").to_pydict()
    assert set(code["ip"]) <= set(copy["item"]), "code still says where the breaks are from"
    hidden = busy_recording(tmp_path / "hidden.ksm", Pseudonyms(b"k" * 32))
    again = StoredRecording(shared(hidden, tmp_path / "again.ksm")).table("events")
    before = StoredRecording(hidden).table("events")
    for column in ("mm", "item", "pfn", "ts", "err", "cpu", "arg", "kind"):
        assert again[column].to_pylist() == before[column].to_pylist()


def test_a_family_is_moved_as_one_and_process_ids_are_new(busy: tuple[Path, Path]) -> None:
    old, new = (StoredRecording(path).table("regions").to_pylist() for path in busy)
    moves = {
        row["tgid"]: fresh["start"] - row["start"] for row, fresh in zip(old, new, strict=True)
    }
    assert moves[DB] == moves[CHILD] != moves[GUEST]
    assert min(row["start"] for row in new) == 256 << 20
    assert moves[DB] == (256 << 20) - HEAP
    numbers = {row["tgid"]: fresh["tgid"] for row, fresh in zip(old, new, strict=True)}
    assert sorted(numbers, key=numbers.__getitem__) == sorted(numbers), "in the old order"
    assert not set(numbers) & set(numbers.values())
    events = StoredRecording(busy[1]).table("events").to_pylist()
    (fork,) = (row for row in events if row["kind"] == "ksm_enter" and row["arg"] == 2)
    assert fork["addr"] == numbers[DB], "the parent's process id stands where addresses do"
    seqs = [row["addr"] for row in events if row["kind"] == "ksm_start_scan"]
    assert seqs == [7, 8, 9, 10], "what is no address stays"


def test_the_manifest_keeps_only_what_is_harmless(busy: tuple[Path, Path]) -> None:
    manifest = StoredRecording(busy[1]).manifest
    assert manifest["kernel"] == "6.18.2"
    assert manifest["started"] == "2026-01-02"
    assert manifest["clock"]["wall_ns"] is None
    assert manifest["command"] == "process-3"
    assert manifest["notes"] == ["file-1 and process-1 were seen at file-3"]
    assert (manifest["shared"], manifest["pseudonyms"], manifest["sealed"]) == (True, True, True)
    assert "kernel_build" not in manifest
    assert manifest["tables"]["code"] == {"rows": 2}
    assert manifest["cow"]["write_faults"] == 31


def test_what_a_later_manifest_may_hold_is_not_passed_on(tmp_path: Path) -> None:
    original = busy_recording(tmp_path / "a.ksm", host_name="sekrit-host", owner={"a": "sekrit"})
    assert leaks({"sekrit"}, shared(original, tmp_path / "b.ksm")) == []


def test_kinds_of_memory_stay_and_names_in_them_go(busy: tuple[Path, Path]) -> None:
    names = StoredRecording(busy[1]).table("regions")["name"].to_pylist()
    assert names == ["[heap]", "[anon:name-1]", "[heap]", "file-1"]
    code = StoredRecording(busy[1]).table("code").to_pylist()
    assert [(row["file"], row["symbol"]) for row in code] == [
        ("file-2", None), ("[kernel]", "_copy_to_iter"),
    ]  # fmt: skip


def test_a_lab_run_leaves_its_scenario_and_contents_at_home(tmp_path: Path) -> None:
    contents = [{"ts": 1, "seq": 1, "phase": "before", "tgid": 3, "addr": 4096, "digest": 5}]
    lab = {"scenario": "title = 'sekrit'", "processes": {"3": "sekrit"}}
    original = make_recording(
        tmp_path / "a.ksm", tables={"contents": contents}, final={"lab": lab, "notes": []}
    )
    copy = shared(original, tmp_path / "b.ksm")
    assert StoredRecording(copy).table("contents").num_rows == 0
    assert "lab" not in StoredRecording(copy).manifest
    (note,) = StoredRecording(copy).manifest["notes"]
    assert "left out" in note
    assert leaks({"sekrit"}, copy) == []


def test_a_cut_recording_stays_cut(tmp_path: Path) -> None:
    original = make_recording(tmp_path / "a.ksm")
    manifest = json.loads((original / "manifest.json").read_text())
    (original / "manifest.json").write_text(json.dumps({**manifest, "ended": None}))
    assert StoredRecording(shared(original, tmp_path / "b.ksm")).cut


def test_files_are_private_and_nothing_else_is_left(busy: tuple[Path, Path]) -> None:
    copy = busy[1]
    assert copy.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in copy.iterdir()} == {0o600}
    assert {p.suffix for p in copy.iterdir()} == {".parquet", ".json"}
    assert sorted(p.name for p in copy.parent.iterdir()) == ["busy.ksm", "shared.ksm"]


def test_a_damaged_table_leaves_no_copy(busy: tuple[Path, Path], tmp_path: Path) -> None:
    (busy[0] / "regions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(KsmtraceError, match="damaged"):
        shared(busy[0], tmp_path / "c.ksm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["busy.ksm", "shared.ksm"]


@settings(max_examples=29)
@given(st.lists(random_batch(), max_size=3))
def test_of_any_stream_only_names_change(tmp_path: Path, batches: list[Any]) -> None:
    here = tmp_path / str(len(list(tmp_path.iterdir())))
    here.mkdir()
    original = make_recording(here / "a.ksm", batches, facts={"pseudonyms": True})
    old = StoredRecording(original).table("events").to_pandas()
    new = StoredRecording(shared(original, here / "b.ksm")).table("events").to_pandas()
    for column in ("ts", "pfn", "item", "mm", "err", "kind", "cpu", "arg"):
        assert old[column].equals(new[column])
    assert np.array_equal(old["tgid"].rank(method="dense"), new["tgid"].rank(method="dense"),
                          equal_nan=True)  # fmt: skip
    assert old["addr"].isna().equals(new["addr"].isna())
