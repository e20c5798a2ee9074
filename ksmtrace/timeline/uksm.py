"""A recording of UKSM's counters in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ksmtrace.kernel.uksm import COUNTERS, KNOBS
from ksmtrace.recording.reader import StoredRecording, is_cut
from ksmtrace.timeline.summary import Counters, seconds_grown

Row = dict[str, Any]


@dataclass
class UksmSummary:
    """What `ksmtrace report` says of UKSM. Counters and knobs: of the first and the last sample."""

    manifest: Mapping[str, Any]
    ended: str
    duration_s: float
    samples: int = 0
    sampled_s: float = 0.0
    counters_first: Counters = field(default_factory=dict)
    counters_last: Counters = field(default_factory=dict)
    knobs_first: dict[str, str | None] = field(default_factory=dict)
    knobs_last: dict[str, str | None] = field(default_factory=dict)
    saved_pages_last: int | None = None
    saved_pages_peak: int | None = None

    @property
    def page_bytes(self) -> int:
        """The host's page size."""
        return int(self.manifest.get("page_bytes", 4096))

    @property
    def notes(self) -> list[str]:
        """What to know of it."""
        return list(self.manifest.get("notes") or [])

    @property
    def uksmd_cpu_s(self) -> float | None:
        """Uksmd's CPU time between the first and the last sample."""
        return seconds_grown(self.counters_first, self.counters_last, "uksmd_cpu_ns")

    @property
    def uksmd_percent_of_one_core(self) -> float | None:
        """Its share of one core between them."""
        cpu = self.uksmd_cpu_s
        return 100 * cpu / self.sampled_s if cpu is not None and self.sampled_s else None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; units are in the names, or as docs/recording.md has them."""
        taken = ("kernel", "system", "backend", "backend_why", "started")
        return {
            **{key: self.manifest.get(key) for key in taken},
            "duration_s": self.duration_s,
            "ended": self.ended,
            "command": self.manifest.get("command"),
            "command_status": self.manifest.get("command_status"),
            "samples": self.samples,
            "saved_bytes_last": self.bytes_of(self.saved_pages_last),
            "saved_bytes_peak": self.bytes_of(self.saved_pages_peak),
            "uksmd": {
                "cpu_s": self.uksmd_cpu_s,
                "percent_of_one_core": self.uksmd_percent_of_one_core,
            },
            "uksm_counters_first": self.counters_first,
            "uksm_counters_last": self.counters_last,
            "uksm_knobs_first": self.knobs_first,
            "uksm_knobs_last": self.knobs_last,
            "notes": self.notes,
        }

    def bytes_of(self, pages: int | None) -> int | None:
        """The size of so many pages."""
        return None if pages is None else pages * self.page_bytes


def summarise_uksm(recording: StoredRecording) -> UksmSummary:
    """Sum it up. Raises KsmtraceError (exit code 4) where the table is damaged."""
    manifest = recording.manifest
    rows = recording.table("uksm").to_pylist()
    sampled_s = (rows[-1]["ts"] - rows[0]["ts"]) / 1e9 if rows else 0.0
    told = manifest.get("duration_s")
    summary = UksmSummary(
        manifest=manifest,
        ended="cut" if is_cut(manifest) else manifest["ended"],
        duration_s=sampled_s if told is None else float(told),
        samples=len(rows),
        sampled_s=sampled_s,
    )
    if rows:
        first, last = rows[0], rows[-1]
        summary.counters_first = {c.name: first[c.name] for c in COUNTERS}
        summary.counters_last = {c.name: last[c.name] for c in COUNTERS}
        summary.knobs_first = {k.name: first[f"knob_{k.name}"] for k in KNOBS}
        summary.knobs_last = {k.name: last[f"knob_{k.name}"] for k in KNOBS}
    if saved := [pages for row in rows if (pages := _saved(row)) is not None]:
        summary.saved_pages_last, summary.saved_pages_peak = saved[-1], max(saved)
    return summary


def _saved(row: Row) -> int | None:
    """Pages saved as UKSM counts: pages_sharing, and those on its zero page if they are known."""
    sharing: int | None = row["pages_sharing"]
    return None if sharing is None else sharing + (row["zero_pages"] or 0)
