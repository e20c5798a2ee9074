from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.same import same_timeline
from ksmtrace.timeline.tables import TABLES

RECORDINGS = Path(__file__).parents[2] / "recordings"
PATH = RECORDINGS / "fork-and-exit.ksm"
BOUNDS = {
    "shared_least", "shared_most", "merged_least", "merged_most", "silent", "unnoticed", "open",
    "zero_least", "zero_most",
}  # fmt: skip


@pytest.fixture(scope="module")
def timeline() -> Any:
    return timeline_of(StoredRecording(PATH))


def with_one_changed(timeline: Any, table: str, column: str, row: int, value: Any) -> Any:
    tables = {name: getattr(timeline, name) for name in TABLES}
    changed = tables[table].copy()
    changed[column] = changed[column].astype(object)
    changed.loc[row, column] = value
    return SimpleNamespace(**{**tables, table: changed})


class Names:
    """Another name for each name of a kind; nothing stays nothing."""

    KINDS: ClassVar = {
        "tgid": "tgid", "parent_tgid": "tgid", "pfn": "pfn", "mm": "mm", "item": "item"
    }  # fmt: skip

    def __init__(self, seed: int) -> None:
        self.dice = np.random.default_rng(seed)
        self.later = int(self.dice.integers(1, 1 << 40))
        self.known: dict[tuple[str, int], int] = {}

    def other(self, kind: str, value: int | None) -> int | None:
        if not value:
            return value
        return self.known.setdefault((kind, value), int(self.dice.integers(1, 1 << 30)))

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        told = {
            name: self.other(self.KINDS[name], value) if name in self.KINDS else value
            for name, value in row.items()
        }
        if row.get("kind") == "ksm_enter" and row["arg"] == 2:
            # A fork's event has the parent's process id where addresses stand.
            told["addr"] = self.other("tgid", row["addr"])
        return {**told, "ts": row["ts"] + self.later}

    def manifest(self, manifest: dict[str, Any]) -> dict[str, Any]:
        for clock in ("clock", "clock_end"):
            manifest[clock]["monotonic_ns"] += self.later
        for census in manifest["censuses"]:
            census["begin_ns"] += self.later
            census["end_ns"] += self.later
            census["tgids"] = [self.other("tgid", tgid) for tgid in census["tgids"]]
        processes = manifest["lab"]["processes"]
        renamed = {str(self.other("tgid", int(tgid))): name for tgid, name in processes.items()}
        manifest["lab"]["processes"] = renamed
        return manifest


def renamed(to: Path, seed: int) -> Path:
    """A copy with other pseudonyms, other process ids and a clock that runs on elsewhere."""
    shutil.copytree(PATH, to)
    names = Names(seed)
    for file in sorted(to.glob("*.parquet")):
        table = pq.read_table(file)
        rows = [names.row(row) for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    manifest = names.manifest(json.loads((to / "manifest.json").read_text()))
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


@given(seed=st.integers(0, 1 << 20))
@settings(max_examples=7)
def test_other_times_and_other_pseudonyms_are_the_same_timeline(
    timeline: Any, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    path = renamed(tmp_path_factory.mktemp("copy") / "copy.ksm", seed)
    assert same_timeline(timeline, timeline_of(StoredRecording(path))) == []


@given(data=st.data())
def test_any_other_value_is_told_with_its_table_column_and_row(timeline: Any, data: Any) -> None:
    filled = [name for name in TABLES if len(getattr(timeline, name))]
    table = data.draw(st.sampled_from(filled))
    frame = getattr(timeline, table)
    columns = [str(c) for c in frame.columns if str(c) not in BOUNDS]
    column = data.draw(st.sampled_from(columns))
    row = data.draw(st.integers(0, len(frame) - 1))
    value = frame[column].iloc[row]
    if pd.isna(value):
        changed = 1
    elif isinstance(value, str):
        changed = value + "!"
    elif column.endswith("_s") and "target" not in column:
        return  # a duration is as long as it was
    elif column.endswith("_ns"):
        # Before or behind all others; the only one of its kind stays where it is.
        several = len(set(frame[column].dropna())) > 1
        changed = (0 if value != frame[column].min() else 1 << 62) if several else pd.NA
    elif isinstance(value, bool | np.bool_):
        changed = not value
    else:
        changed = value + (1 << 20)
        if (frame[column] == value).sum() == 1 and column in (
            "tgid",
            "pfn",
            "addr",
            "start",
            "end",
            "parent_tgid",
        ):
            # A name that stands nowhere else may be any other; nothing is not a name.
            changed = pd.NA
    found = same_timeline(timeline, with_one_changed(timeline, table, column, row, changed))
    assert any(words.startswith(f"{table}.{column}: ") for words in found), (value, changed)


def test_a_missing_row_is_told(timeline: Any) -> None:
    tables = {name: getattr(timeline, name) for name in TABLES}
    shorter = SimpleNamespace(**{**tables, "scans": tables["scans"].iloc[:-1]})
    assert same_timeline(timeline, shorter) == ["scans: 10 rows, 9 in the other"]


def test_two_names_may_not_become_one(timeline: Any) -> None:
    pages = timeline.stable_pages
    merged = with_one_changed(timeline, "stable_pages", "pfn", 1, pages["pfn"].iloc[0])
    assert "stable_pages.pfn: 1 rows differ" in " ".join(same_timeline(timeline, merged))


def test_another_scenario_is_another_timeline(timeline: Any) -> None:
    other = timeline_of(StoredRecording(RECORDINGS / "unmerge-all.ksm"))
    assert len(same_timeline(timeline, other)) > 5
