"""The command that makes the library, as far as that needs no ksmd."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from library.declared import LIBRARY, Declared
from library.makers import Live
from library.readme import path_of

import recordings as command
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.recording.reader import StoredRecording

(SHIPPED,) = (declared for declared in LIBRARY if declared.name == "unmerge-all")
PATH = path_of(SHIPPED)


@dataclass(frozen=True)
class Copied:
    """Instead of making a recording: a copy of another."""

    here: ClassVar[bool] = False
    of: Path = PATH
    padding: int = 0

    @property
    def words(self) -> str:
        return "a copy"

    def make(self, target: Path) -> None:
        shutil.copytree(self.of, target)
        if self.padding:
            (target / "padding").write_bytes(bytes(self.padding))


def made_by(maker: Copied) -> Declared:
    return replace(SHIPPED, made=maker)


def test_a_name_that_is_none_is_a_usage_error_with_those_there_are() -> None:
    with pytest.raises(KsmtraceError) as caught:
        command.main(["first-merges", "last-merges"])
    assert caught.value.exit_code == Exit.USAGE
    assert "'last-merges'" in caught.value.message
    assert "first-merges, convergence" in (caught.value.hint or "")


def test_all_are_listed_with_how_they_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [declared.name for declared in LIBRARY]


def test_what_is_made_is_kept_only_if_it_is_small(tmp_path: Path) -> None:
    assert StoredRecording(command.made(made_by(Copied()), tmp_path)).manifest["sealed"]
    with pytest.raises(KsmtraceError, match="too large"):
        command.made(made_by(Copied(padding=command.MOST_BYTES)), tmp_path / "other")


def test_what_is_not_legal_is_not_kept(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    spoilt = tmp_path / "spoilt.ksm"
    shutil.copytree(path_of(SHIPPED), spoilt)
    events = pq.read_table(spoilt / "events.parquet")
    pq.write_table(events.slice(0, len(events) // 2), spoilt / "events.parquet")
    with pytest.raises(KsmtraceError, match=r"is not (legal|predicted)"):
        command.made(made_by(Copied(spoilt)), tmp_path)


def test_a_recording_compared_with_itself_is_the_same_and_with_another_is_not() -> None:
    assert command.compared(made_by(Copied())) == []
    (other,) = (declared for declared in LIBRARY if declared.name == "fork-and-exit")
    assert command.compared(made_by(Copied(path_of(other))))


def test_a_program_of_the_library_is_told_by_its_place_in_the_project() -> None:
    live = Live(("--run",), ("tenants.py", "7"))
    assert live.words == (
        "`ksmtrace record --run -- /usr/bin/python3 scripts/library/programs/tenants.py 7`"
    )
