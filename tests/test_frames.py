from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from support.compared import small_recording
from support.recordings import BEGIN, host_sample, make_recording, open_writer

import ksmtrace
from ksmtrace.errors import KsmtraceError
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.schema import MANIFEST
from ksmtrace.recording.schema import TABLES as STORED
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.sharing import sharing
from ksmtrace.timeline.tables import TABLES as DERIVED


def test_importing_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, ksmtrace; sys.exit(bool({'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_opening_reads_the_manifest_and_no_table(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    for file in path.iterdir():
        if file.name != MANIFEST:
            file.write_bytes(b"spoilt")
    recording = ksmtrace.open(path)
    assert recording.manifest["kernel"] == "6.18.2"
    assert "6.18.2" in repr(recording)
    with pytest.raises(KsmtraceError, match="damaged"):
        _ = recording.counters
    with pytest.raises(KsmtraceError, match="damaged"):
        _ = recording.scans


@pytest.mark.parametrize("name", STORED)
def test_every_stored_table_is_there_with_its_columns(name: str, tmp_path: Path) -> None:
    recording = ksmtrace.open(small_recording(tmp_path / "a.ksm"))
    table = getattr(recording, name)
    assert list(table.columns) == [column.name for column in STORED[name].columns]
    assert getattr(recording, name) is table


@pytest.mark.parametrize("name", DERIVED)
def test_every_derived_table_is_the_timelines(name: str, tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    recording = ksmtrace.open(path)
    table = getattr(recording, name)
    pd.testing.assert_frame_equal(table, getattr(timeline_of(StoredRecording(path)), name))
    assert getattr(recording, name) is table


def test_sharing_is_the_timelines_by_process_and_by_cgroup_and_at_a_moment(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    recording, timeline = ksmtrace.open(path), timeline_of(StoredRecording(path))
    assert recording.sharing().to_numpy().tolist() == [[11, 1], [1, 1]]
    pd.testing.assert_frame_equal(recording.sharing("cgroup"), sharing(timeline, by="cgroup"))
    early = recording.sharing(at_ns=BEGIN + 6_000_000_000)
    assert early.to_numpy().tolist() == [[11]]


def test_tables_can_be_queried(tmp_path: Path) -> None:
    recording = ksmtrace.open(small_recording(tmp_path / "a.ksm"))
    assert len(recording.pages.query("how == 'inherited' and tgid == 80")) == 1


class _Text(HTMLParser):
    """Collects a page's tags and words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def told(path: Path) -> dict[str, str]:
    cells = _Text(ksmtrace.open(path)._repr_html_()).cells[1:]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def test_a_notebook_shows_what_is_at_hand(tmp_path: Path) -> None:
    assert told(small_recording(tmp_path / "a.ksm")) == {
        "kernel": "Linux 6.18.2",
        "backend": "core",
        "duration": "10.00 s",
        "events": "33, none lost",
        "full scans": "3",
        "merged at the end": "23 pages in 11 KSM pages",
        "saved at the end": "52.0 KiB",
        "processes": "2: child, mother",
    }


def test_a_notebook_does_not_need_the_stream(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    (path / "events.parquet").write_bytes(b"spoilt")
    assert told(path)["full scans"] == "3"


def test_what_a_notebook_cannot_tell_is_a_dash(tmp_path: Path) -> None:
    bare = told(make_recording(tmp_path / "a.ksm"))
    assert bare["full scans"] == bare["merged at the end"] == bare["saved at the end"] == "–"
    old = make_recording(
        tmp_path / "b.ksm", tables={"counters": [host_sample(BEGIN, pages_sharing=3)]}
    )
    assert told(old)["saved at the end"] == "12.0 KiB"
    assert told(old)["merged at the end"] == "–"


def test_a_cut_recording_is_called_cut_in_a_notebook(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.ksm")
    try:
        assert told(tmp_path / "a.ksm")["duration"] == "cut"
    finally:
        writer.finish("duration", {"duration_s": 1.0})


def test_a_name_is_text_in_a_notebook_whatever_it_is(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J&amp;"
    path = make_recording(
        tmp_path / "<b>.ksm",
        tables={"identities": [{"ts": BEGIN, "what": "present", "tgid": 7, "comm": evil}]},
        facts={"backend": evil, "kernel": evil},
    )
    html = ksmtrace.open(path)._repr_html_()
    assert set(_Text(html).tags) == {"table", "caption", "tbody", "tr", "th", "td"}
    assert "\x1b" not in html
    assert not re.search(r"https?:|\bon\w+=", html)
    assert told(path)["processes"] == r"1: <script>alert(1)</script>\x1b[2J&amp;"
