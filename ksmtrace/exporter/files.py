"""The files that come with the exporter: a systemd unit and a Grafana dashboard."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

UNIT = "ksmtrace-exporter.service"
DASHBOARD = "grafana-dashboard.json"
_INSTALLED = "/usr/local/bin/ksmtrace"
_HIDING = "ProtectHome=yes\n"
_SHOWING = """\
# This ksmtrace, or its Python, lies in a home folder: `yes` would hide it.
ProtectHome=read-only
"""
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides (systemd.exec(5))."""


@dataclass(frozen=True)
class Unit:
    """A unit's text. shut: a folder on the way to the program that the unit's user can't enter."""

    text: str
    shut: str | None


def dashboard() -> str:
    """The dashboard, to be imported by Grafana."""
    return (files(__package__) / DASHBOARD).read_text()


def unit(program: str | None = None, homes: Iterable[Path] = HOMES) -> Unit:
    """The unit, with the path of this ksmtrace or of `program`; homes: what ProtectHome= hides."""
    text = (files(__package__) / UNIT).read_text()
    program = program or _this_program()
    text = text.replace(_INSTALLED, program)
    needed = _needed(Path(program))
    if any(place.is_relative_to(home) for place in needed for home in homes):
        text = text.replace(_HIDING, _SHOWING)
    return Unit(text, _shut(needed))


def _needed(program: Path) -> list[Path]:
    """What must be reached to start it: the program, its Python, the libraries, this package."""
    places = [program, Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix)]
    places.append(Path(__file__))
    return [path for place in places for path in (place.absolute(), place.resolve())]


def _shut(places: Iterable[Path]) -> str | None:
    """The first folder above these that is not open to everyone, None if there is none."""
    for place in places:
        for folder in reversed(place.parents):
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                return str(folder)
    return None


def _this_program() -> str:
    found = shutil.which(sys.argv[0])
    if found is not None and Path(found).name == "ksmtrace":
        return str(Path(found).absolute())
    return _INSTALLED
