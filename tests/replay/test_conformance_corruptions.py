"""What certainly contradicts something is always found; the rest is found as often as measured."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.corruption_reasons import contradiction, excuse
from support.corruptions import (
    ALTERED_COUNTER,
    ALTERED_EVENT,
    CORRUPTIONS,
    DOUBLED,
    DROPPED,
    MISPLACED,
    REPEATED,
    SWAPPED,
    Corruption,
    corruption,
)
from support.executions import Execution, random_steps, recorded, simulated

DEMO = Path(__file__).parents[2] / "recordings" / "demo.ksm"
TRIES = 211
SHARES = {
    "demo": {
        DROPPED: 0.65, DOUBLED: 0.98, REPEATED: 0.95, MISPLACED: 0.97, SWAPPED: 0.99,
        ALTERED_EVENT: 0.84, ALTERED_COUNTER: 0.88,
    },
    "6.18": {
        DROPPED: 0.78, DOUBLED: 0.92, REPEATED: 0.85, MISPLACED: 0.93, SWAPPED: 0.92,
        ALTERED_EVENT: 0.79, ALTERED_COUNTER: 0.5,
    },
    "6.6": {
        DROPPED: 0.74, DOUBLED: 0.75, REPEATED: 0.65, MISPLACED: 0.91, SWAPPED: 0.91,
        ALTERED_EVENT: 0.73, ALTERED_COUNTER: 0.6,
    },
}  # fmt: skip
"""Measured by bench/corruptions.py, less what chance may take from a few hundred tries."""


@cache
def executions(of: str) -> list[Execution]:
    if of == "demo":
        return [recorded(DEMO)]
    made = (simulated(random_steps(s, 60), of, recycle=bool(s % 2)) for s in range(31))
    return [execution for execution in made if len(execution.events) > 30]


def spoilt(of: str, kind: str, number: int) -> tuple[Execution, Corruption]:
    originals = executions(of)
    original = originals[number % len(originals)]
    return original, corruption(original, kind, number)


@pytest.mark.parametrize("of", SHARES)
def test_what_is_spoilt_was_legal(of: str) -> None:
    assert all(execution.judged() is None for execution in executions(of))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("of", SHARES)
def test_what_contradicts_something_is_found_and_the_rest_has_its_excuse(
    of: str, kind: str
) -> None:
    found = certain = 0
    for number in range(TRIES):
        original, corrupted = spoilt(of, kind, number)
        why = contradiction(original, corrupted)
        finding = corrupted.execution.judged()
        certain += why is not None
        found += finding is not None
        assert finding is not None or why is None, f"{number}: {corrupted}: {why}"
        if finding is None:
            assert excuse(original, corrupted)
    assert certain
    assert found / TRIES >= SHARES[of][kind]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_changes_one_thing_and_can_be_made_again(kind: str) -> None:
    for number in range(23):
        original, corrupted = spoilt("6.18", kind, number)
        again = corruption(original, kind, number)
        assert np.array_equal(again.execution.events, corrupted.execution.events)
        assert list(again.execution.samples) == list(corrupted.execution.samples)
        before, after = original.events, corrupted.execution.events
        differ = [n for n in (before.dtype.names or ()) if not np.array_equal(before[n], after[n])]
        samples = sum(
            old != new
            for old, new in zip(original.samples, corrupted.execution.samples, strict=True)
        )
        expected = {DROPPED: -1, DOUBLED: 1, REPEATED: 1}.get(kind, 0)
        assert len(after) - len(before) == expected
        assert samples == (kind == ALTERED_COUNTER)
        if kind == ALTERED_EVENT:
            assert differ == [corrupted.what]
            assert (before[corrupted.what] != after[corrupted.what]).sum() == 1
