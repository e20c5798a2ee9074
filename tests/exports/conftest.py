from __future__ import annotations

from pathlib import Path

import pytest
from support.exported import busy_recording

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, timeline_of


@pytest.fixture(scope="session")
def busy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busy_recording(tmp_path_factory.mktemp("exports") / "busy.ksm")


@pytest.fixture(scope="session")
def busy(busy_path: Path) -> Timeline:
    return timeline_of(StoredRecording(busy_path))
