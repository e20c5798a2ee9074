"""Write what follows from the registries: the C header and the generated pages of the docs."""

from __future__ import annotations

from pathlib import Path

from ksmtrace.events.c_header import c_header
from ksmtrace.events.docs import events_page
from ksmtrace.recording.docs import recording_page

ROOT = Path(__file__).parents[1]
GENERATED = {
    "bpf/event.h": c_header,
    "docs/events.md": events_page,
    "docs/recording.md": recording_page,
}


def main() -> None:
    """Write every generated file."""
    for name, text in GENERATED.items():
        (ROOT / name).write_text(text())


if __name__ == "__main__":
    main()
