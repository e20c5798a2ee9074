from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ksmtrace.capture import cow
from ksmtrace.capture.choose import choose_source
from ksmtrace.capture.core import CoreSource
from ksmtrace.capture.cow import CowWatch, cow_obstacles, find_page_tables
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel import host


@pytest.fixture(name="able")
def make_able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host that can; its tracefs."""
    monkeypatch.setattr(host, "machine", lambda: "x86_64")
    monkeypatch.setattr(host, "tracefs", lambda: tmp_path)
    monkeypatch.setattr(host, "capabilities", lambda: frozenset({"CAP_SYS_ADMIN"}))
    for name in cow.FAULTS:
        (tmp_path / "events/exceptions" / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.usefixtures("able")
def test_a_host_that_can_has_no_obstacle() -> None:
    assert cow_obstacles() == []


@pytest.mark.usefixtures("able")
def test_other_processors_are_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    (obstacle,) = cow_obstacles()
    assert "aarch64" in obstacle.what
    assert "without --cow" in obstacle.remedy


def test_a_missing_tracepoint_is_an_obstacle(able: Path) -> None:
    (able / "events/exceptions/page_fault_kernel").rmdir()
    (obstacle,) = cow_obstacles()
    assert "page_fault_kernel" in obstacle.what


@pytest.mark.usefixtures("able")
def test_hidden_frames_are_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "capabilities", frozenset)
    (obstacle,) = cow_obstacles()
    assert "CAP_SYS_ADMIN" in obstacle.what


@pytest.mark.parametrize("name", ["auto", "core"])
def test_obstacles_end_the_command_with_their_remedies(
    name: str, able: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert able.is_dir()
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    with pytest.raises(KsmtraceError, match="record without --cow") as raised:
        choose_source(name, CowWatch())
    assert raised.value.exit_code == Exit.HOST_CANNOT


@pytest.mark.parametrize("name", ["bcc", "tracefs"])
def test_no_other_backend_is_taken_for_it_in_silence(name: str) -> None:
    with pytest.raises(KsmtraceError, match=name) as raised:
        choose_source(name, CowWatch())
    assert raised.value.exit_code == Exit.HOST_CANNOT
    assert "--backend core" in str(raised.value.hint)


def test_an_unknown_backend_is_a_usage_error_with_it_too() -> None:
    with pytest.raises(KsmtraceError) as raised:
        choose_source("ebpf", CowWatch())
    assert raised.value.exit_code == Exit.USAGE


def test_without_it_the_core_source_has_none_of_its_obstacles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = CoreSource().check()
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    assert CoreSource().check() == before


class Programs:
    """What a loaded object gives back, per attempt."""

    def __init__(self, *found: tuple[int, ...]) -> None:
        self.found = list(found)
        self.runs: list[tuple[int, ...]] = []

    def run_raw(self, _name: str, arguments: tuple[int, ...]) -> None:
        self.runs.append(arguments)

    def read_words(self, _name: str, _words: int) -> tuple[int, ...]:
        return self.found.pop(0)


@pytest.fixture(name="frames")
def make_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames without looking: always 101."""
    monkeypatch.setattr(cow, "_pfn", lambda _address: 101)


WRONG = {
    "not found": (0, 0, 0, 0, 0, 0),
    "another frame": (1, 1, 101, 4, 103, 1),
    "no anonymous page": (1, 1, 101, 4, 101, 2),
}


@pytest.mark.usefixtures("frames")
@pytest.mark.parametrize("answer", WRONG.values(), ids=list(WRONG))
def test_an_answer_that_does_not_fit_our_own_pages_is_not_believed(answer: tuple[int, ...]) -> None:
    programs: Any = Programs(*[answer] * 1000)
    with pytest.raises(KsmtraceError, match="page tables were not found") as raised:
        find_page_tables(programs)
    assert raised.value.exit_code == Exit.HOST_CANNOT
    assert len(programs.runs) > 1


@pytest.mark.usefixtures("frames")
@pytest.mark.parametrize("kind", [1, 3])
def test_an_answer_that_fits_is_believed_also_late(kind: int) -> None:
    programs: Any = Programs((1, 1, 101, 4, 103, 1), (1, 1, 101, 4, 101, 0xFFFF_8880_0000 | kind))
    find_page_tables(programs)
    assert len(programs.runs) == 2


def test_the_counters_of_all_cpus_are_added() -> None:
    class Counting:
        def read_per_cpu(self, _name: str, _words: int) -> list[tuple[int, ...]]:
            return [(101, 13, 1), (7, 5, 0)]

    programs: Any = Counting()
    watch = CowWatch()
    watch.count(programs)
    facts = watch.facts()
    assert (facts["write_faults"], facts["breaks"], facts["unchecked"]) == (108, 18, 1)
