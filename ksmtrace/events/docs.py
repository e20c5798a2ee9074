"""docs/events.md, generated from the registry."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.events.registry import KINDS, SLOTS, EventKind


def events_page() -> str:
    """The text of docs/events.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "<!-- Generated from ksmtrace/events/registry.py by `make bpf`. -->"
    yield ""
    yield "Every source, live or stored, delivers these records, 56 bytes each, in batches (numpy"
    yield "structured arrays). Slots that a kind doesn't use are 0 in a batch, null in a recording."
    yield ""
    yield "| slot | type | meaning |"
    yield "|---|---|---|"
    for slot in SLOTS:
        yield f"| `{slot.name}` | {slot.numpy.removeprefix('<')} | {slot.meaning} |"
    yield ""
    yield "What a backend can't see is named in a recording's manifest (`fields_unknown`) and in"
    yield "reports. `core`, `fentry` and `bcc` see every field; `tracefs` knows no address, and an"
    yield "owner (`tgid`) only where a `ksm_enter` in the recording proves it: one by a process"
    yield "that was not registered before, which can only mean its own memory."
    for kind in KINDS:
        yield ""
        yield from _kind(kind)


def _kind(kind: EventKind) -> Iterator[str]:
    since = f"a tracepoint since Linux {kind.since}" if kind.since else "made by ksmtrace"
    yield f"## {kind.id}: `{kind.name}`"
    yield ""
    yield f"{kind.meaning[0].upper()}{kind.meaning[1:]} ({since})."
    if kind.note:
        yield ""
        yield kind.note
    yield ""
    yield "| field | slot | meaning |"
    yield "|---|---|---|"
    for name, field in kind.fields.items():
        unknown = "" if field.role == "value" else "; 0: unknown"
        yield f"| `{name}` | `{field.slot}` | {field.meaning}{unknown} |"
