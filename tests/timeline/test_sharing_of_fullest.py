from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.sharing import sharing, sharing_of_fullest

RECORDINGS = Path(__file__).parents[2] / "recordings"


@pytest.mark.parametrize("most", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("name", ["analysis", "convergence"])
def test_the_fullest_groups_have_what_they_have_in_the_whole_matrix(name: str, most: int) -> None:
    timeline = timeline_of(StoredRecording(RECORDINGS / f"{name}.ksm"))
    whole = sharing(timeline)
    found, groups = sharing_of_fullest(timeline, "process", most)
    assert groups == len(whole)
    assert len(found) == min(most, groups)
    assert found.equals(whole.loc[found.index, found.columns])
    own = np.diag(whole)
    left = whole.index.difference(found.index)
    if len(left):
        assert whole.loc[left, left].to_numpy().diagonal().max() <= np.diag(found).min()
    assert sorted(np.diag(found), reverse=True) == sorted(own, reverse=True)[: len(found)]
