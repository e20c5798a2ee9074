"""Recordings made by hand, through the real writer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ksmtrace.events.batch import EventBatch
from ksmtrace.recording.pseudonyms import Namer, RawPointers
from ksmtrace.recording.schema import MANIFEST
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter

SECOND = 1_000_000_000
BEGIN = 100 * SECOND
FACTS: Mapping[str, Any] = {
    "kernel": "6.18.2",
    "cpus": 3,
    "memory_bytes": 7 << 30,
    "page_bytes": 4096,
    "backend": "core",
    "backend_why": "the best that works here",
    "fields_unknown": [],
    "started": "2026-01-02T03:04:05.678+00:00",
    "clock": {"monotonic_ns": BEGIN, "wall_ns": 1_767_323_045 * SECOND},
    "command": None,
    "knobs": {"run": "1"},
    "knobs_set": {},
}
FINAL: Mapping[str, Any] = {"duration_s": 5.0, "command_status": None, "notes": []}


def open_writer(
    path: Path,
    *,
    facts: Mapping[str, Any] | None = None,
    namer: Namer | None = None,
    force: bool = False,
) -> RecordingWriter:
    """A recording under way."""
    return RecordingWriter(
        Target(path, force=force), {**FACTS, **(facts or {})}, namer or RawPointers()
    )


def make_recording(
    path: Path,
    batches: Sequence[EventBatch] = (),
    *,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    facts: Mapping[str, Any] | None = None,
    final: Mapping[str, Any] | None = None,
    ended: str = "duration",
    namer: Namer | None = None,
) -> Path:
    """A sealed recording; tables: rows of the small ones."""
    writer = open_writer(path, facts=facts, namer=namer)
    for batch in batches:
        writer.events(batch)
    for name, rows in (tables or {}).items():
        writer.table(name, rows)
    writer.finish(ended, {**FINAL, **(final or {})})
    return path


def host_sample(ts: int, reason: str = "interval", **counters: int) -> dict[str, Any]:
    """A row of the host's counters."""
    return {"ts": ts, "reason": reason, **counters}


def change_manifest(path: Path, change: Mapping[str, Any], *, without: Sequence[str] = ()) -> None:
    """Rewrite some of a recording's manifest."""
    place = path / MANIFEST
    manifest = {**json.loads(place.read_text()), **change}
    place.write_text(json.dumps({k: v for k, v in manifest.items() if k not in without}))
