"""Events, a line each."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    BY_ID,
    INTO_EXISTING,
    KERNEL_MODE,
    KSM_MERGE_WITH_KSM_PAGE,
    UNCHECKED,
    ZERO_PAGE,
    EventKind,
)

_BITS = {"kernel_mode": KERNEL_MODE, "zero_page": ZERO_PAGE, "unchecked": UNCHECKED}
_SHOWN = {"rmap_item": False, "mm": False, "mapcount": False, "first_sight": False}


def event_lines(batch: EventBatch, begin_ns: int) -> Iterator[str]:
    """A line for each event: seconds since `begin_ns`, kind, and what the kind says."""
    for event in batch:
        kind = BY_ID.get(int(event["kind"]))
        if kind is None:
            continue
        seconds = (int(event["ts"]) - begin_ns) / 1e9
        yield f"{seconds:12.6f}  {kind.name:<24}{_fields(kind, event)}".rstrip()


def _fields(kind: EventKind, event: object) -> str:
    parts = []
    for name, field in kind.fields.items():
        if not _SHOWN.get(name, True):
            continue
        value = int(event[field.slot])  # type: ignore[index]  # a numpy record
        if name == "into_existing":
            parts.append("existing" if value & INTO_EXISTING else "new")
        elif name in _BITS:
            parts += [name] if value & _BITS[name] else []
        elif field.role != "value" and not value:
            continue
        elif name in ("addr", "pfn", "ip"):
            parts.append(f"{name}={value:#x}")
        elif name == "err" and not value and kind is KSM_MERGE_WITH_KSM_PAGE:
            continue
        else:
            parts.append(f"{name}={value}")
    return " ".join(parts)
