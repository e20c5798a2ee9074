"""The distribution's prometheus and promtool: installed, or unpacked by scripts/setup."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_UNPACKED = Path(__file__).parents[2] / ".venv" / "prometheus" / "usr" / "bin"


def tool(name: str) -> str:
    """Its path; the test is skipped where there is none."""
    found = shutil.which(name) or shutil.which(str(_UNPACKED / name))
    if found is None:
        pytest.skip(f"there is no {name} here (Debian's package prometheus)")
    return found
