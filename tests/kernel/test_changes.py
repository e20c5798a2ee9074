from __future__ import annotations

import re
from typing import get_args

import pytest

from ksmtrace.kernel.changes import (
    CHANGES,
    CHANGES_BY_RELEASE,
    WITHOUT_CHANGES,
    Status,
    changes_in,
)
from ksmtrace.kernel.releases import RELEASES, parse_release

PUBLISHED = (
    ("6.0", "3218f8712d6b 9800562f2ab4"),
    ("6.1", "b4e6f66e45b4 58730ab6c7ca 79b099415637 23f746e412b4 21fbd59136e0"),
    ("6.1", "cb4df4cae4f2 f7091ed64ec8 a5f18ba07276 088b8aa537c2 507228044236"),
    ("6.2", "b970599e807 d7c0e68dab98 6cce3314b928 58f595c66591 6a56ccbcf6c6 1eeaa4fd39b0"),
    ("6.3", "6db504ce55bd f67d6b266493 7d4a8be0c4b2"),
    ("6.4", "2c281f54f556 24139c07f413 d21077fbc2fc d7597f59d1d3 4248d0083ec5 739100c88f49"),
    ("6.5", "49b0638502da f985fc322063 1fec6890bf22 c33c794828f2 04dee9e85cf5 26e1a0c3277d"),
    ("6.6", "8b47933544a6 d256d1cd8da1 5994eabf3bbb b348b5fe2b5f 1a8e84305783 6080d19f0704"),
    ("6.6", "e2942062e01d 79271476b336"),
    ("6.7", "e5a689912689 b0540208a59e 5e924ff54d08 75d7dd4138ed"),
    ("6.8", "4e5fa4f5eff6 66790e9a735b 5088b49730af"),
    ("6.9", "No changes."),
    ("6.10", "c2dc78b86e08 730cdc2c72c6"),
    ("6.11", "d58a361b0350"),
    ("6.12", "32f51ead3d77"),
)
"""A published list of KSM's changes by kernel version, as it stood at 6.12."""

COMMITS = [
    (release, commit)
    for release, words in PUBLISHED
    for commit in re.findall(r"\b[0-9a-f]{11,12}\b", words)
]


def test_the_published_list_has_52_commits() -> None:
    assert len(COMMITS) == 52


@pytest.mark.parametrize(("release", "commit"), COMMITS)
def test_each_published_commit_is_listed_once_in_its_release(release: str, commit: str) -> None:
    assert [change.release for change in CHANGES if change.commit == commit] == [release]


def test_no_other_commit_is_listed() -> None:
    assert {change.commit for change in CHANGES} == {commit for _, commit in COMMITS}


def test_each_has_a_status_a_release_of_the_table_and_one_sentence() -> None:
    releases = {release.version for release in RELEASES}
    for change in CHANGES:
        assert change.status in get_args(Status)
        assert change.release in releases
        assert change.subject
        assert change.effect.endswith(".")
        assert ". " not in change.effect


def test_the_releases_follow_each_other_oldest_first() -> None:
    versions = [parse_release(change.release) for change in CHANGES]
    assert versions == sorted(versions)
    assert list(CHANGES_BY_RELEASE) == [f"6.{minor}" for minor in range(13)]


def test_6_9_has_no_changes_and_says_so() -> None:
    assert WITHOUT_CHANGES == ("6.9",)
    assert changes_in("6.9") == ()


@pytest.mark.parametrize("release", ["5.19", "6.13", "6.12.117", ""])
def test_a_release_that_has_no_list_is_not_one_without_changes(release: str) -> None:
    assert changes_in(release) is None


@pytest.mark.parametrize("release", CHANGES_BY_RELEASE)
def test_a_release_with_a_modelled_commit_changes_the_model(release: str) -> None:
    changes = next(entry.changes for entry in RELEASES if entry.version == release)
    if any(change.status == "modelled" for change in changes_in(release) or ()):
        assert changes


@pytest.mark.parametrize(
    ("commit", "status"),
    [
        ("d58a361b0350", "modelled"),
        ("6cce3314b928", "modelled"),
        ("d7c0e68dab98", "modelled"),
        ("24139c07f413", "modelled"),
        ("730cdc2c72c6", "modelled"),
        ("c2dc78b86e08", "visible"),
        ("8b47933544a6", "visible"),
        ("739100c88f49", "visible"),
        ("b4e6f66e45b4", "no effect"),
        ("32f51ead3d77", "no effect"),
    ],
)
def test_the_status_of_the_landmarks(commit: str, status: str) -> None:
    assert next(change.status for change in CHANGES if change.commit == commit) == status
