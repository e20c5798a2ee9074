from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import pandas as pd

import ksmtrace


def merged(path: str) -> int:
    recording = ksmtrace.open(path)
    pages: pd.DataFrame = recording.pages
    together: pd.DataFrame = recording.sharing("cgroup", at_ns=None)
    lost: int = recording.lost
    return len(pages) + len(together) + lost
"""


def checked(script: str, folder: Path) -> str:
    """What mypy --strict says."""
    place = folder / "user.py"
    place.write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    assert files("ksmtrace").joinpath("py.typed").is_file()


def test_a_strict_users_script_is_checked_against_the_types(tmp_path: Path) -> None:
    said = checked(SCRIPT, tmp_path)
    assert said.startswith("Success"), said
    said = checked(SCRIPT.replace("lost: int", "lost: str"), tmp_path)
    assert "user.py:11: error: Incompatible types in assignment" in said
    said = checked(SCRIPT.replace('"cgroup"', '"nothing"'), tmp_path)
    assert 'user.py:10: error: Argument 1 to "sharing"' in said
