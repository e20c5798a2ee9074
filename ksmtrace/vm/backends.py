"""Which capture backends work on the running kernel."""

from __future__ import annotations

from ksmtrace.capture.choose import SOURCES, load_source


def backend_obstacles() -> dict[str, list[str]]:
    """What keeps each backend from working on the running kernel, in words."""
    sources = {name: load_source(name) for name in SOURCES}
    return {name: [one.what for one in source.check()] for name, source in sources.items()}
