from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.batches import batch_of, scan_stops
from support.recordings import make_recording, open_writer

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target


def refused(path: Path, *, force: bool = False) -> KsmtraceError:
    with pytest.raises(KsmtraceError) as raised:
        Target(path, force=force)
    assert raised.value.hint
    assert raised.value.exit_code == Exit.FAILED
    return raised.value


def seqs(path: Path) -> list[int]:
    return [seq for batch in StoredRecording(path).event_batches() for seq in batch["addr"]]


def test_naming_a_target_makes_nothing(tmp_path: Path) -> None:
    Target(tmp_path / "a.ksm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_recording_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "home").mkdir()
    assert "not a recording" in refused(tmp_path / "home", force=force).message


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused(tmp_path / "thesis.txt", force=force)


@pytest.mark.parametrize("force", [False, True])
def test_a_link_to_nowhere_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "a.ksm").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "a.ksm", force=force)


def test_an_existing_recording_needs_force(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm")
    assert "--force" in str(refused(path).hint)
    Target(path, force=True)


def test_a_missing_parent_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    error = refused(tmp_path / "no" / "such" / "a.ksm")
    assert f"mkdir -p {tmp_path / 'no' / 'such'}" == error.hint


def test_a_name_too_long_for_the_file_system_is_told_in_words(tmp_path: Path) -> None:
    refused(tmp_path / ("a" * 307))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "can't be written" in refused(tmp_path / "locked" / "a.ksm").message


def test_force_keeps_the_old_recording_until_the_new_one_is_sealed(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm", [batch_of([scan_stops(7, 1)])])
    writer = open_writer(path, force=True)
    aside = [place for place in tmp_path.iterdir() if place != path]
    assert [seqs(place) for place in aside] == [[7]]
    writer.events(batch_of([scan_stops(11, 1)]))
    writer.finish("duration", {})
    assert list(tmp_path.iterdir()) == [path]
    assert seqs(path) == [11]


def test_an_abandoned_replacement_keeps_both(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm", [batch_of([scan_stops(7, 1)])])
    writer = open_writer(path, force=True)
    writer.events(batch_of([scan_stops(11, 1)]))
    writer.abandon("error: interrupted")
    kept = {place.name: seqs(place) for place in tmp_path.iterdir()}
    assert kept.pop("a.ksm") == [11]
    assert list(kept.values()) == [[7]]


def test_leaving_before_publishing_leaves_nothing(tmp_path: Path) -> None:
    target = Target(tmp_path / "a.ksm")
    target.begin()
    target.leave()
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_only_with_the_whole_folder(tmp_path: Path) -> None:
    target = Target(tmp_path / "a.ksm")
    hidden = target.begin()
    assert hidden.name.startswith(".")
    assert not (tmp_path / "a.ksm").exists()
    (hidden / "something").write_text("here")
    target.publish()
    assert [place.name for place in (tmp_path / "a.ksm").iterdir()] == ["something"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_recordings_made_with_sudo_belong_to_whom_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1009")
    monkeypatch.setenv("SUDO_GID", "1013")
    path = make_recording(tmp_path / "a.ksm")
    owners = {(place.stat().st_uid, place.stat().st_gid) for place in (path, *path.iterdir())}
    assert owners == {(1009, 1013)}


def test_of_two_that_want_one_name_the_second_is_refused_and_the_first_stays(
    tmp_path: Path,
) -> None:
    first, second = Target(tmp_path / "a.ksm"), Target(tmp_path / "a.ksm")
    (first.begin() / "whose").write_text("the first's")
    (second.begin() / "whose").write_text("the second's")
    first.publish()
    with pytest.raises(KsmtraceError, match="exists") as raised:
        second.publish()
    assert "--force" in str(raised.value.hint)
    second.leave()
    first.done()
    assert list(tmp_path.iterdir()) == [tmp_path / "a.ksm"]
    assert (tmp_path / "a.ksm" / "whose").read_text() == "the first's"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_took_the_name_meanwhile_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = Target(tmp_path / "a.ksm")
    (target.begin() / "something").write_text("here")
    if kind == "file":
        (tmp_path / "a.ksm").write_text("years of work")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "a.ksm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KsmtraceError, match="exists"):
        target.publish()
    target.leave()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("force", [False, True])
def test_a_link_to_a_recording_is_told_before_anything_is_read(tmp_path: Path, force: bool) -> None:
    recording = make_recording(tmp_path / "a.ksm")
    (tmp_path / "link.ksm").symlink_to(recording)
    assert "is a link" in refused(tmp_path / "link.ksm", force=force).message


def test_what_is_discarded_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.ksm", [batch_of([scan_stops(7, 1)])])
    target = Target(path, force=True)
    target.begin()
    target.publish()
    target.discard()
    assert list(tmp_path.iterdir()) == [path]
    assert seqs(path) == [7]
