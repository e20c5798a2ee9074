from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.processes.registered import is_registered, registered_tgids

MERGEABLE = "00100000-00103000 rw-p 00000000 00:00 0 [heap]\nVmFlags: rd wr mg\n"
PLAIN = "00100000-00103000 rw-p 00000000 00:00 0 [heap]\nVmFlags: rd wr\n"


def process(proc: Path, tgid: int, stat: str | None, smaps: str = PLAIN) -> None:
    folder = proc / str(tgid)
    folder.mkdir()
    if stat is not None:
        (folder / "ksm_stat").write_text(stat)
    (folder / "smaps").write_text(smaps)


@pytest.mark.parametrize(
    ("stat", "smaps", "registered"),
    [
        ("ksm_rmap_items 3\n", PLAIN, True),
        ("ksm_rmap_items 0\n", PLAIN, False),
        ("ksm_rmap_items 0\n", MERGEABLE, True),
        ("ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: yes\n", PLAIN, True),
        ("ksm_rmap_items 0\nksm_merge_any: yes\nksm_mergeable: no\n", PLAIN, True),
        ("ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: no\n", MERGEABLE, False),
        ("", MERGEABLE, False),
        (None, MERGEABLE, False),
    ],
)
def test_a_process_is_registered_if_its_files_say_so(
    tmp_path: Path, stat: str | None, smaps: str, registered: bool
) -> None:
    process(tmp_path, 11, stat, smaps)
    assert is_registered(11, tmp_path) is registered


def test_registered_processes_are_listed_in_order(tmp_path: Path) -> None:
    for tgid in (101, 7, 23):
        process(tmp_path, tgid, "ksm_rmap_items 3\n")
    process(tmp_path, 11, "ksm_rmap_items 0\nksm_mergeable: no\n")
    (tmp_path / "self").mkdir()
    assert registered_tgids(tmp_path) == [7, 23, 101]
