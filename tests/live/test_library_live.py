"""A recording of the library, made anew on this host's ksmd."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.kernel.host import kernel_release
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.same import same_timeline
from tests.live.conftest import run_ksmtrace

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["first-merges", "smart-scan", "fork-and-exit"])
def test_made_anew_it_has_the_same_timeline_up_to_times_and_pseudonyms(
    name: str, tmp_path: Path
) -> None:
    shipped = StoredRecording(ROOT / "recordings" / f"{name}.ksm")
    if shipped.manifest["kernel"].split(".")[:2] != kernel_release().split(".")[:2]:
        pytest.skip(f"it is of Linux {shipped.manifest['kernel']}")
    again = tmp_path / "again.ksm"
    scenario = ROOT / "scripts" / "library" / "scenarios" / f"{name}.toml"
    done = run_ksmtrace("lab", "run", scenario, "--on", "host", "--record", again)
    assert done.returncode == 0, done.stdout
    # Where it ran is not part of it.
    one, other = timeline_of(shipped), timeline_of(StoredRecording(again))
    found = [words for words in same_timeline(one, other) if "processes.cgroup" not in words]
    assert found == []
