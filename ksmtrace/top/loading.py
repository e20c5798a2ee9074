"""What is shown of a recording before it is read: its libraries take longer to import."""

from __future__ import annotations

from pathlib import Path

from ksmtrace.top.state import Moment, Place, TopState


def loading(path: Path) -> TopState:
    """A state that says so."""
    place = Place("recording", "", 0, None, name=path.name)
    return TopState(place=place, moment=Moment(0, 0), loading=f"reading {path}")
