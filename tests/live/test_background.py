"""A recorder in the background of a script, where a shell sets SIGINT to be ignored."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.conftest import KSMTRACE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_background_recorder_is_ended_by_a_signal(number: int, tmp_path: Path) -> None:
    target = tmp_path / "a.ksm"
    script = f"trap '' INT; exec {KSMTRACE} record -o {target}"
    process = subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (target / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == 0
