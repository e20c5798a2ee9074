"""The manifest of a copy to pass on: only what can't tell the host or who uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ksmtrace.events.registry import KINDS, SLOTS
from ksmtrace.kernel import uksm
from ksmtrace.kernel.releases import UNKNOWN_KERNEL, version_of_host
from ksmtrace.kernel.sysfs import KNOBS
from ksmtrace.recording.schema import FORMAT
from ksmtrace.recording.share_names import Names

_NUMBERS = (
    "cpus", "page_bytes", "rmap_item_bytes", "ring_bytes", "events", "lost", "loss_known",
    "duration_s", "command_status",
)  # fmt: skip
_WORDS = ("ksmtrace", "machine", "system", "backend", "pointers")
_SENTENCES = ("notes", "doubts")
_COW_WORDS = ("seen_by", "obstacles")
_COW_NUMBERS = ("write_faults", "breaks", "unchecked", "locations_left_out")
_IMPORT_NUMBERS = ("lines", "unreadable_lines", "stopped_at_line")
_GIB = 1 << 30
_DAY = len("2026-01-02")


def shared_manifest(
    manifest: Mapping[str, Any], names: Names, only_pids: Sequence[int], rows: Mapping[str, int]
) -> dict[str, Any]:
    """A manifest made anew. names: all names of the tables. rows: how many each table has."""
    for key in ("command", "imported_from"):
        if isinstance(manifest.get(key), str):
            names.of("process" if key == "command" else "file", manifest[key])
    told: dict[str, Any] = {"format": FORMAT, "shared": True, "pseudonyms": True, "sealed": True}
    told |= _numbers(manifest, _NUMBERS)
    told |= {key: manifest[key] for key in _WORDS if isinstance(manifest.get(key), str)}
    release, build = str(manifest["kernel"]), str(manifest.get("kernel_build") or "")
    memory = manifest.get("memory_bytes")
    started = manifest.get("started")
    told |= {
        "kernel": version_of_host(release, build) or UNKNOWN_KERNEL,
        "memory_bytes": max(1, round(memory / _GIB)) * _GIB if memory else None,
        "backend_why": names.scrub(str(manifest["backend_why"])),
        "fields_unknown": [name for name in manifest["fields_unknown"] if name in _fields()],
        "started": started[:_DAY] if isinstance(started, str) else None,
        "clock": _monotonic(manifest["clock"]),
        "clock_end": _monotonic(manifest.get("clock_end")),
        "only_pids": list(only_pids) if manifest.get("only_pids") is not None else None,
        "command": _named(manifest, "command", names, "process"),
        "knobs": _knobs(manifest.get("knobs")),
        "knobs_set": _knobs(manifest["knobs_set"]),
        "ended": _ended(manifest.get("ended"), names),
        "tables": {name: {"rows": number} for name, number in rows.items()},
    }
    for key in _SENTENCES:
        if key in manifest:
            told[key] = [names.scrub(str(text)) for text in manifest[key] or ()]
    if isinstance(cow := manifest.get("cow"), dict):
        words = {key: [names.scrub(str(w)) for w in cow.get(key, ())] for key in _COW_WORDS}
        told["cow"] = words | _numbers(cow, _COW_NUMBERS)
    if "imported_from" in manifest:
        told["imported_from"] = _named(manifest, "imported_from", names, "file")
        told["import"] = _numbers(manifest.get("import") or {}, _IMPORT_NUMBERS)
    if manifest.get("lab"):
        left_out = "the lab's scenario and contents are left out of what is shared"
        told["notes"] = [*told.get("notes", ()), left_out]
    return told


def _fields() -> set[str]:
    return {slot.name for slot in SLOTS} | {name for kind in KINDS for name in kind.fields}


def _numbers(facts: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {
        key: facts[key]
        for key in keys
        if key in facts and (facts[key] is None or isinstance(facts[key], int | float))
    }


def _named(manifest: Mapping[str, Any], key: str, names: Names, what: str) -> str | None:
    text = manifest.get(key)
    return names.of(what, text) if isinstance(text, str) else None


def _monotonic(clock: Any) -> dict[str, int | None] | None:
    if not isinstance(clock, dict):
        return None
    return {"monotonic_ns": clock.get("monotonic_ns"), "wall_ns": None}


def _knobs(knobs: Any) -> dict[str, str]:
    known = {knob.name for knob in KNOBS} | {knob.name for knob in uksm.KNOBS}
    return {name: value for name, value in (knobs or {}).items() if name in known}


def _ended(ended: str | None, names: Names) -> str | None:
    if ended is None:
        return None
    how, colon, why = ended.partition(":")
    return how + colon + names.scrub(why)
