from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes import page_tables
from ksmtrace.processes.page_tables import (
    FILE_OR_SHARED,
    PRESENT,
    SWAPPED,
    PageTables,
    entries_of,
    frames_of,
    present_pages,
    words_of_frames,
)


def written(path: Path, words: list[int]) -> int:
    path.write_bytes(np.array(words, "<u8").tobytes())
    return os.open(path, os.O_RDONLY)


@settings(max_examples=61)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=301),
    st.lists(st.integers(0, 2000), max_size=101),
)
def test_each_frame_gets_its_own_word_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, words: list[int], frames: list[int]
) -> None:
    file = written(tmp_path_factory.mktemp("k") / "kpageflags", words)
    found = words_of_frames(file, np.array(frames, np.uint64))
    os.close(file)
    assert found.tolist() == [words[f] if f < len(words) else 0 for f in frames]


@settings(max_examples=61)
@given(st.integers(0, 97), st.integers(0, 97), st.integers(1, 23))
def test_chunks_of_entries_are_the_range_and_end_where_the_file_does(
    tmp_path_factory: pytest.TempPathFactory, begin: int, pages: int, at_once: int
) -> None:
    words = [PRESENT.item() | n for n in range(131)]
    file = written(tmp_path_factory.mktemp("p") / "pagemap", words)
    end = begin + pages
    chunks = list(entries_of(file, begin * PAGE_BYTES, end * PAGE_BYTES, at_once))
    os.close(file)
    found = {first + n: word for first, e in chunks for n, word in enumerate(e.tolist())}
    assert found == {n: words[n] for n in range(begin, min(end, 131))}


def test_only_present_pages_are_told_with_their_frames(tmp_path: Path) -> None:
    soft_dirty, exclusive = 1 << 55, 1 << 56
    words = [0, PRESENT.item() | soft_dirty | exclusive | 7, SWAPPED.item() | 9, PRESENT.item()]
    file = written(tmp_path / "pagemap", words)
    ((first, present, frames),) = present_pages(file, 0, 4 * PAGE_BYTES)
    os.close(file)
    assert (first, present.tolist(), frames.tolist()) == (0, [1, 3], [7, 0])


def test_a_process_without_page_flags_has_none(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "pagemap").write_bytes(bytes(8))
    with PageTables(7, tmp_path) as tables:
        assert not tables.tell_flags
        assert tables.flags(np.array([1], np.uint64)) is None
        assert tables.mappings(np.array([1], np.uint64)) is None


def test_a_process_that_is_gone_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PageTables(7, tmp_path)


def test_frames_are_read_without_the_bits_beside_them() -> None:
    entry = np.array([PRESENT | FILE_OR_SHARED | np.uint64((1 << 55) - 1)])
    assert frames_of(entry).tolist() == [(1 << 55) - 1]


def test_frames_that_are_hidden_have_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    # Root without CAP_SYS_ADMIN opens kpageflags, and pagemap shows it frame 0 everywhere.
    monkeypatch.setattr(page_tables, "capabilities", lambda: frozenset({"CAP_BPF"}))
    with PageTables(os.getpid()) as tables:
        assert not tables.tell_flags
        assert tables.flags(np.array([1, 2], np.uint64)) is None
        assert tables.mappings(np.array([1, 2], np.uint64)) is None
