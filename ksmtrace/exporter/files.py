"""The files that come with the exporter: a systemd unit and a Grafana dashboard."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

UNIT = "ksmtrace-exporter.service"
DASHBOARD = "grafana-dashboard.json"
_INSTALLED = "/usr/local/bin/ksmtrace"


def dashboard() -> str:
    """The dashboard, to be imported by Grafana."""
    return (files(__package__) / DASHBOARD).read_text()


def unit(program: str | None = None) -> str:
    """The unit, with the path of this ksmtrace or of `program`."""
    text = (files(__package__) / UNIT).read_text()
    return text.replace(_INSTALLED, program or _this_program())


def _this_program() -> str:
    found = shutil.which(sys.argv[0])
    if found is not None and Path(found).name == "ksmtrace":
        return str(Path(found).absolute())
    return _INSTALLED
