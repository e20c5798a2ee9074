from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

from ksmtrace.errors import KsmtraceError
from ksmtrace.exports.output import new_file, new_folder


def test_a_file_is_private_and_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with new_file(path) as sink:
        sink.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_is_there_stays_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("mine")
    with pytest.raises(KsmtraceError, match="exists"), new_file(path):
        pass
    with pytest.raises(KsmtraceError, match="exists"), new_folder(path):
        pass
    with new_file(path, force=True) as sink:
        sink.write(b"new")
    assert path.read_text() == "new"


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.json", tmp_path / "tables"
    path.write_text("mine")
    folder.mkdir()
    with contextlib.suppress(RuntimeError), new_file(path, force=True) as sink:
        sink.write(b"half")
        raise RuntimeError
    with contextlib.suppress(RuntimeError), new_folder(folder, force=True) as fresh:
        (fresh / "a.csv").write_text("half")
        raise RuntimeError
    assert path.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "tables"]
    assert not list(folder.iterdir())


def test_a_folder_is_private_and_replaces_only_its_like(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    for text in ("one", "two"):
        with new_folder(path, force=True, ours=lambda name: name.endswith(".csv")) as fresh:
            (fresh / "a.csv").write_text(text)
            assert text == "one" or (path / "a.csv").read_text() == "one"
    assert (path / "a.csv").read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "a.csv").stat().st_mode & 0o777 == 0o600
    (path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(KsmtraceError, match="no folder of such tables alone"),
        new_folder(path, force=True, ours=lambda name: name.endswith(".csv")),
    ):
        pass
    assert (path / "thesis.txt").read_text() == "mine"


def test_a_link_is_never_followed_nor_a_folder_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        pytest.raises(KsmtraceError, match="no folder of such tables"),
        new_folder(tmp_path / "link", force=True),
    ):
        pass
    with pytest.raises(KsmtraceError, match="is a folder"), new_file(tmp_path / "real", force=True):
        pass


def test_where_the_folder_is_missing_it_says_what_to_type(tmp_path: Path) -> None:
    with (
        pytest.raises(KsmtraceError, match="does not exist") as refused,
        new_file(tmp_path / "no" / "a.json"),
    ):
        pass
    assert refused.value.hint == f"mkdir -p {tmp_path / 'no'}"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for make in (new_file, new_folder):
        with (
            pytest.raises(KsmtraceError, match=rf"no space left for {tmp_path}/a"),
            make(tmp_path / "a"),
        ):
            raise full
    assert not list(tmp_path.iterdir())
    with pytest.raises(BrokenPipeError), new_file(tmp_path / "a"):
        raise BrokenPipeError
