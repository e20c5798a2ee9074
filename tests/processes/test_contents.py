"""Contents of a process that goes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ksmtrace.processes import contents
from ksmtrace.processes.contents import read_contents


def test_a_process_that_is_gone_has_no_contents(tmp_path: Path) -> None:
    assert list(read_contents(7, tmp_path)) == []


@pytest.mark.parametrize("file", ["pagemap", "mem"])
def test_a_process_that_is_just_exiting_has_no_contents(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    for name in ("pagemap", "mem"):
        (folder / name).touch()
    really = os.open

    def exiting(path: Path, flags: int) -> int:
        if Path(path).name == file:
            raise ProcessLookupError
        return really(path, flags)

    monkeypatch.setattr(contents.os, "open", exiting)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 shorter than iterdir
    assert list(read_contents(7, tmp_path)) == []
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 as above
