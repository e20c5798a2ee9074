"""Scenarios in which the model and the real ksmd once differed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtrace.lab.fidelity import hold_against
from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.scenario import read_scenario

FOUND = sorted((Path(__file__).parents[1] / "found").glob("*.toml"))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with host_stage() as stage:
        yield stage


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_they_agree_now(host: Host, path: Path) -> None:
    comparison = hold_against(host, read_scenario(path))
    assert [one for one in comparison.observations if not one.agrees] == []
