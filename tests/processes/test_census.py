from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes import census, page_tables
from ksmtrace.processes.census import CENSUS, census_obstacle, take_census

PRESENT, SWAPPED, SOFT_DIRTY = 1 << 63, 1 << 62, 1 << 55
KPF_KSM, KPF_ANON = 1 << 21, 1 << 12


def make_proc(
    proc: Path, regions: list[tuple[int, int]], entries: dict[int, int], flags: dict[int, int]
) -> None:
    """regions: first page and number of pages; entries: pagemap by page; flags: by frame."""
    (proc / "11").mkdir(parents=True, exist_ok=True)
    lines = [
        f"{first * PAGE_BYTES:x}-{(first + count) * PAGE_BYTES:x} rw-p 00000000 00:00 0\n"
        f"KSM: 4 kB\nVmFlags: rd mg\n"
        for first, count in regions
    ]
    (proc / "11" / "smaps").write_text("".join(lines))
    for place, values in ((proc / "11" / "pagemap", entries), (proc / "kpageflags", flags)):
        words = np.zeros(max(values, default=0) + 1, "<u8")
        for number, value in values.items():
            words[number] = value
        place.write_bytes(words.tobytes())


def taken(proc: Path) -> list[tuple[int, int, int]]:
    rows = np.concatenate([np.empty(0, CENSUS), *take_census(11, proc)])
    return [(int(row["tgid"]), int(row["addr"]), int(row["pfn"])) for row in rows]


def test_only_present_ksm_pages_are_counted(tmp_path: Path) -> None:
    entries = {
        100: PRESENT | 7,
        101: PRESENT | 11,
        102: SWAPPED | 7,
        103: PRESENT | SOFT_DIRTY | 7,
        104: 0,
    }
    make_proc(tmp_path, [(100, 5)], entries, {7: KPF_KSM | KPF_ANON, 11: KPF_ANON})
    assert taken(tmp_path) == [(11, 100 * PAGE_BYTES, 7), (11, 103 * PAGE_BYTES, 7)]


@settings(max_examples=61)
@given(
    pages=st.dictionaries(st.integers(0, 307), st.integers(1, 3001), max_size=43),
    ksm=st.sets(st.integers(1, 3001)),
    borders=st.sets(st.integers(1, 306), max_size=3),
    at_once=st.sampled_from([1, 3, 17, 512]),
)
def test_every_mapping_of_every_ksm_page_is_found_once(
    tmp_path: Path,
    pages: dict[int, int],
    ksm: set[int],
    borders: set[int],
    at_once: int,
) -> None:
    edges = [0, *sorted(borders), 308]
    regions = [(first, end - first) for first, end in pairwise(edges)]
    entries = {page: PRESENT | frame for page, frame in pages.items()}
    make_proc(tmp_path, regions, entries, dict.fromkeys(ksm, KPF_KSM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_tables, "PAGES_AT_ONCE", 13)
        patch.setattr(page_tables, "_FRAMES_AT_ONCE", at_once)
        assert taken(tmp_path) == [
            (11, page * PAGE_BYTES, pages[page]) for page in sorted(pages) if pages[page] in ksm
        ]


def test_frames_without_flags_are_no_ksm_pages(tmp_path: Path) -> None:
    entries = {100: PRESENT | 7, 101: PRESENT | (1 << 40)}
    make_proc(tmp_path, [(100, 2)], entries, {7: KPF_KSM})
    assert taken(tmp_path) == [(11, 100 * PAGE_BYTES, 7)]


def test_a_mapping_that_shrank_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    make_proc(tmp_path, [(100, 50_021)], {100: PRESENT | 7}, {7: KPF_KSM})
    assert taken(tmp_path) == [(11, 100 * PAGE_BYTES, 7)]


def test_a_process_that_is_gone_has_no_census(tmp_path: Path) -> None:
    assert taken(tmp_path) == []
    make_proc(tmp_path, [(100, 1)], {100: PRESENT | 7}, {7: KPF_KSM})
    (tmp_path / "11" / "pagemap").unlink()
    assert taken(tmp_path) == []


def test_the_obstacles_have_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = census_obstacle(tmp_path)
    assert absent is not None
    assert absent.remedy
    (tmp_path / "kpageflags").write_bytes(b"")
    monkeypatch.setattr(census, "capabilities", lambda: frozenset({"CAP_BPF"}))
    hidden = census_obstacle(tmp_path)
    assert hidden is not None
    assert "CAP_SYS_ADMIN" in hidden.what
    monkeypatch.setattr(census, "capabilities", lambda: frozenset({"CAP_SYS_ADMIN"}))
    assert census_obstacle(tmp_path) is None


def test_a_kernel_whose_flag_says_nothing_has_no_census(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "capabilities", lambda: frozenset({"CAP_SYS_ADMIN"}))
    monkeypatch.setattr(census, "ksm_flag_tells", lambda: False)
    obstacle = census_obstacle()
    assert obstacle is not None
    assert "calls every anonymous page a KSM page" in str(obstacle)
