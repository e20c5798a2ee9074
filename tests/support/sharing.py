"""Whether a copy without names says the same as the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import TABLES as STORED
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.tables import TABLES

RENAMED = ("tgid", "parent_tgid", "comm", "cgroup", "vm", "name", "file")
MOVED = ("addr", "start", "end")


def differences(original: Path, copy: Path, *, raw: bool = False) -> list[str]:
    """Columns of derived and stored tables that are not equal up to renaming."""
    found = []
    one, other = StoredRecording(original), StoredRecording(copy)
    timelines = timeline_of(one), timeline_of(other)
    renamed = (*RENAMED, *(("pfn",) if raw else ()))
    for name in TABLES:
        old, new = (getattr(timeline, name) for timeline in timelines)
        found += [f"{name}.{c}" for c in _differing(old, new, renamed)]
    for name in STORED:
        if name in ("events", "code"):
            continue
        old, new = (recording.table(name).to_pandas() for recording in (one, other))
        left_out = {"cmdline", *(("pfn",) if raw else ())}
        kept = [column for column in new if column not in left_out]
        found += [f"{name}.{c}" for c in _differing(old[kept], new[kept], renamed)]
    return found


def _differing(old: pd.DataFrame, new: pd.DataFrame, renamed: tuple[str, ...]) -> list[str]:
    if len(old) != len(new):
        return ["rows"]
    found = []
    for column in new:
        if column in renamed:
            same = np.array_equal(pd.factorize(old[column])[0], pd.factorize(new[column])[0])
        elif column in MOVED and str(old[column].dtype) == "uint64":
            same = _moved_alike(old, new, column)
        elif column == "symbol":
            same = bool((old[column].isna() <= new[column].isna()).all())
        else:
            same = old[column].equals(new[column])
        if not same:
            found.append(str(column))
    return found


def _moved_alike(old: pd.DataFrame, new: pd.DataFrame, column: str) -> bool:
    known = old[column] != 0
    if not (new.loc[~known, column] == 0).all():
        return False
    moves = new.loc[known, column].to_numpy(np.uint64) - old.loc[known, column].to_numpy(np.uint64)
    by_process = {(t, int(m)) for t, m in zip(old.loc[known, "tgid"], moves, strict=True)}
    alike = len(by_process) == len({tgid for tgid, _ in by_process})
    return alike and all(move % (2 << 20) == 0 for _, move in by_process)


def names_of(recording: Path) -> set[str]:
    """Every name that a recording holds."""
    stored = StoredRecording(recording)
    found: set[Any] = set()
    for table, columns in {
        "identities": ("comm", "cgroup", "vm", "cmdline"),
        "regions": ("name",),
        "code": ("file",),
    }.items():
        for column in columns:
            found |= set(stored.table(table)[column].to_pylist())
    manifest = stored.manifest
    found |= {manifest.get(key) for key in ("command", "imported_from", "kernel_build")}
    harmless = {None, "", "/", "[heap]", "[stack]", "[anon]", "[kernel]", "[anonymous]"}
    return {str(name) for name in found - harmless}


def leaks(names: set[str], place: Path) -> list[str]:
    """Names whose bytes stand in a file, or in what a Parquet file holds."""
    files = [place] if place.is_file() else sorted(place.iterdir())
    found = []
    for file in files:
        raw = file.read_bytes()
        if file.suffix == ".parquet":
            # Parquet compresses: what stands in it is looked at, too.
            raw += json.dumps(pd.read_parquet(file).astype(str).to_dict("list")).encode()
        for name in names:
            forms = (name.encode(), json.dumps(name)[1:-1].encode())
            if any(form in raw for form in forms):
                found.append(f"{name} in {file.name}")
    return found
