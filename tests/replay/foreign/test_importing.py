from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import (
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)
from support.foreign_texts import header, lines_of, printable_events, text_of

from ksmtrace.capture.trace_pages import NOT_IN_RECORDS
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import KSM_REMOVE_KSM_PAGE, LOST
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.replay.check import check
from ksmtrace.replay.foreign.detect import LONGEST_LINE
from ksmtrace.replay.foreign.formats import FORMATS
from ksmtrace.replay.foreign.importing import Imported, ImportRequest, default_name, import_text
from ksmtrace.replay.play import play
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.summary import summarise

SAMPLES = Path(__file__).parent / "samples"
FORM = st.sampled_from(sorted(FORMATS))

MM = 0x1_0000_0007


def item(number: int) -> int:
    return 0x10_0000_0000 + 0x40 * number


RUN = batch_of(
    [
        scan_starts(3, 1_000_000, 4),
        scan_stops(3, 2_000_000, 4),
        scan_starts(4, 3_000_000, 4),
        makes_ksm_page(101, 4_000_000, item=item(1), mm=MM),
        joins_ksm_page(101, 5_000_000, item=item(2), mm=MM),
        joins_ksm_page(101, 6_000_000, item=item(3), mm=MM),
        scan_stops(4, 7_000_000, 4),
    ]
)


def do_import(path: Path, text: bytes, **options: Any) -> Imported:
    source = path / "a.txt"
    source.write_bytes(text)
    descriptor = os.open(source, os.O_RDONLY)
    force = options.pop("force", True)
    try:
        return import_text(
            ImportRequest(descriptor, "a.txt", Target(path / "a.ksm", force=force), **options)
        )
    finally:
        os.close(descriptor)


def stored(path: Path) -> EventBatch:
    return concatenate(list(StoredRecording(path / "a.ksm").event_batches()))


def refused(path: Path, text: bytes, **options: Any) -> KsmtraceError:
    with pytest.raises(KsmtraceError) as caught:
        do_import(path, text, **options)
    assert not (path / "a.ksm").exists()
    assert not [place for place in path.iterdir() if place.name.startswith(".")]
    return caught.value


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_text_becomes_a_recording_of_its_events(form: str, tmp_path: Path) -> None:
    imported = do_import(tmp_path, text_of(RUN, form), raw_pointers=True, kernel="6.12.3")
    assert np.array_equal(stored(tmp_path), RUN)
    assert imported.format == form
    assert imported.events == len(RUN)
    assert imported.pointers == "raw"
    assert imported.ended == "end of text"
    assert imported.stopped_at_line is None


def test_the_manifest_says_what_the_text_lacks(tmp_path: Path) -> None:
    do_import(tmp_path, (SAMPLES / "tracefs.txt").read_bytes())
    manifest = StoredRecording(tmp_path / "a.ksm").manifest
    assert manifest["backend"] == "tracefs text"
    assert manifest["fields_unknown"] == list(NOT_IN_RECORDS)
    assert manifest["imported_from"] == "a.txt"
    assert manifest["pointers"] == "hashed"
    assert manifest["kernel"] == "unknown"
    assert manifest["machine"] is manifest["memory_bytes"] is manifest["started"] is None
    assert manifest["cpus"] == 2
    assert manifest["loss_known"] is True
    assert manifest["events"] == 169
    assert str(tmp_path) not in json.dumps(manifest)


def test_pointers_are_replaced_unless_asked_and_stay_the_same_thing(tmp_path: Path) -> None:
    do_import(tmp_path, text_of(RUN, "perf"))
    events = stored(tmp_path)
    assert len(set(events["item"][3:6].tolist())) == 3
    assert set(events["mm"][3:6].tolist()) != {MM}
    assert len(set(events["mm"][3:6].tolist())) == 1
    assert events["pfn"][3] == events["pfn"][4] != 101
    words = json.dumps(StoredRecording(tmp_path / "a.ksm").manifest)
    assert f"{MM:x}" not in words


def test_no_pointer_of_an_unreadable_line_gets_into_the_recording(tmp_path: Path) -> None:
    spoilt = b" ksmd 45 [001] 1.000001: ksm:ksm_exit: mm 0xffff8881cafe0000 and more\n"
    imported = do_import(tmp_path, text_of(RUN, "perf") + spoilt)
    assert imported.unreadable_lines == 1
    assert "cafe" in str(imported.first_unreadable_text)
    manifest = StoredRecording(tmp_path / "a.ksm").manifest
    assert "cafe" not in json.dumps(manifest)
    assert any("can't be read" in note and "line 13" in note for note in manifest["notes"])


def test_the_kernel_is_the_one_named_or_else_the_texts(tmp_path: Path) -> None:
    text = text_of(RUN, "perf")
    assert do_import(tmp_path, text).kernel == "6.12.3"
    assert do_import(tmp_path, text, kernel="6.9").kernel == "6.9"
    assert do_import(tmp_path, text_of(RUN, "tracefs")).kernel is None


def test_a_kernel_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    assert refused(tmp_path, text_of(RUN, "perf"), kernel="new").exit_code == Exit.USAGE


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("kernel", [None, "6.12"])
def test_what_reads_recordings_reads_imports(form: str, kernel: str | None, tmp_path: Path) -> None:
    # perf's header names a kernel.
    lines = b"".join(lines_of(RUN, form))
    do_import(tmp_path, lines if form == "perf" else text_of(RUN, form), kernel=kernel)
    summary = summarise(timeline_of(StoredRecording(tmp_path / "a.ksm"))).as_dict()
    assert summary["totals"]["merges"] == 3
    assert summary["totals"]["inherited"] is None
    assert summary["lost"] == (None if form == "perf" else 0)
    assert summary["duration_s"] == pytest.approx(0.006)
    assert play(tmp_path / "a.ksm", None).lost == summary["lost"]
    verdict = check(tmp_path / "a.ksm")
    assert verdict["legal"]["answer"] == "yes"
    assert bool(verdict["notes"]) == (kernel is None)
    assert verdict["lost"] == summary["lost"]


@pytest.mark.parametrize("name", sorted(place.name for place in SAMPLES.iterdir()))
def test_what_the_real_ksmd_did_is_legal(name: str, tmp_path: Path) -> None:
    do_import(tmp_path, (SAMPLES / name).read_bytes(), kernel="6.18.44")
    verdict = check(tmp_path / "a.ksm")
    assert verdict["legal"]["answer"] == "yes", verdict["legal"]


WRONG = RUN[[0, 2, 3, 4, 5, 6]]
"""A scan that does not end before the next begins."""


@pytest.mark.parametrize(
    ("form", "kernel", "answer", "doubt"),
    [
        ("trace-cmd", "6.12", "no", None),
        ("tracefs", "6.12", "no", None),
        ("trace-cmd", None, "not claimed", "its kernel is not known"),
        ("perf", "6.12", "not claimed", "lost events may not be told"),
    ],
)
def test_what_looks_impossible_is_only_called_so_where_nothing_is_in_doubt(
    form: str, kernel: str | None, answer: str, doubt: str | None, tmp_path: Path
) -> None:
    do_import(tmp_path, text_of(WRONG, form), kernel=kernel)
    verdict = check(tmp_path / "a.ksm")
    assert verdict["legal"]["answer"] == answer
    assert verdict["ok"] == (answer != "no")
    assert verdict["legal"]["finding"]["index"] == 1
    if doubt:
        assert doubt in verdict["legal"]["why"]


@settings(deadline=None, max_examples=60)
@given(printable_events(), FORM, st.data())
def test_any_truncation_gives_the_events_before_it_and_says_where(
    tmp_path_factory: pytest.TempPathFactory, batch: EventBatch, form: str, data: st.DataObject
) -> None:
    batch = batch[batch["kind"] != LOST.id]
    text = text_of(batch, form)
    length = data.draw(st.integers(0, len(text)))
    # tracefs' header tells of events that are not there.
    told = form == "tracefs" and text[:length].count(b"\n") < text.count(b"\n")
    path = tmp_path_factory.mktemp("cut")
    lines = text[:length].count(b"\n")
    whole = length == 0 or text[length - 1 : length] == b"\n"
    begin = header(form, 0).count(b"\n")
    cut = told or not whole
    if lines - begin < 1:
        assert refused(path, text[:length]).exit_code == Exit.BAD_RECORDING
        return
    imported = do_import(path, text[:length], raw_pointers=True)
    assert np.array_equal(stored(path), batch[: lines - begin])
    assert StoredRecording(path / "a.ksm").cut == cut
    assert imported.stopped_at_line == (lines + 1 if cut else None)
    assert imported.ended.startswith("cut: ") == cut


def test_a_cut_text_says_so_in_its_report(tmp_path: Path) -> None:
    from rich.console import Console

    from ksmtrace.views.report import render_report

    text = text_of(RUN, "perf")
    do_import(tmp_path, text[:-3])
    summary = summarise(timeline_of(StoredRecording(tmp_path / "a.ksm")))
    assert summary.as_dict()["ended"] == "cut"
    console = Console(width=80)
    with console.capture() as shown:
        console.print(render_report(summary))
    assert "CUT: stopped at line 12" in shown.get()
    assert "losses not known" in shown.get()


def test_a_tracefs_text_with_fewer_events_than_its_header_says_is_cut(tmp_path: Path) -> None:
    text = (SAMPLES / "tracefs.txt").read_bytes()
    lines = text.splitlines(keepends=True)
    imported = do_import(tmp_path, b"".join(lines[:101]))
    assert imported.stopped_at_line == 102
    assert "80 events more" in imported.ended
    assert StoredRecording(tmp_path / "a.ksm").cut
    imported = do_import(tmp_path, text)
    assert imported.stopped_at_line is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"no line's end", "not one whole line"),
        (b"something else\n", "is no text of"),
        (bytes(range(256)) * 41, "is no text of"),
        (b"x" * (LONGEST_LINE + 5003), "not one whole line"),
        (b"PERFILE2h\0\0\0", "perf's own binary"),
        (b"PERFILE2h\n\0\0", "perf's own binary"),
        (b"\x17\x08Dtracing6\0\n", "trace-cmd's own binary"),
        (b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n", "no ksm event"),
        (b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 3/9   #P:2\n", "no ksm event"),
        (b"cpus=2\nCPU:1 [7 EVENTS DROPPED]\n", "no ksm event"),
        (b" bash-1 [000] ..... 1.000001: sched_wakeup: x\n", "no ksm event"),
        (
            b"cpus=2\n ksmd-1 [000] 1.000001: ksm_exit:  mm=0x7\n",
            "line 2 is:\n          ksm_exit: mm=0x7",
        ),
        (
            b"# tracer: nop\n#\n# nop latency trace v1.1.5 on 6.18.44\n  bash-1 1....    1: x: y\n",
            "latency format",
        ),
    ],
)
def test_a_file_without_ksm_events_is_refused_and_leaves_nothing(
    text: bytes, words: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, text)
    assert error.exit_code == Exit.BAD_RECORDING
    assert words in error.message
    assert error.hint


def test_the_text_of_an_unreadable_line_is_shown_harmlessly(tmp_path: Path) -> None:
    assert "\x1b" not in refused(tmp_path, b"cpus=2\nksm_exit: \x1b[31mred\n").message


def test_a_refused_file_leaves_the_recording_that_it_was_to_replace(tmp_path: Path) -> None:
    do_import(tmp_path, text_of(RUN, "perf"))
    with pytest.raises(KsmtraceError):
        do_import(tmp_path, b"nothing\n")
    assert len(stored(tmp_path)) == len(RUN)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a.ksm", "a.txt"]


def test_a_format_that_is_named_is_not_detected(tmp_path: Path) -> None:
    text = b"".join(lines_of(RUN, "trace-cmd"))
    assert do_import(tmp_path, text, text_format="tracefs").format == "tracefs"
    imported = do_import(tmp_path, text)
    assert imported.format == "trace-cmd"
    with pytest.raises(KsmtraceError) as caught:
        do_import(tmp_path, text, text_format="perf")
    assert "none of the ksm events" in caught.value.message


def test_a_file_whose_reading_fails_is_refused_with_the_reason(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(KsmtraceError, match="can't be read any further") as caught:
        import_text(ImportRequest(descriptor, "a", Target(tmp_path / "a.ksm")))
    os.close(descriptor)
    assert caught.value.exit_code == Exit.BAD_RECORDING


def test_a_line_without_an_end_in_the_middle_cuts_the_text(tmp_path: Path) -> None:
    text = text_of(RUN, "perf") + b"\0" * (LONGEST_LINE + (2 << 20)) + b"\n" + text_of(RUN, "perf")
    imported = do_import(tmp_path, text)
    assert imported.events == len(RUN)
    assert imported.stopped_at_line == 13
    assert "no text" in imported.ended


def test_a_long_header_does_not_hide_the_format(tmp_path: Path) -> None:
    header = b"# filler of a long header\n" * 100_003
    assert do_import(tmp_path, header + text_of(RUN, "perf")).events == len(RUN)


@pytest.mark.parametrize(("times", "answer"), [(11, "no"), (1009, "not claimed")])
def test_so_many_hashed_pointers_that_two_may_be_one_are_a_doubt(
    times: int, answer: str, tmp_path: Path
) -> None:
    batch = concatenate([WRONG[:2], *[WRONG[2:5]] * times, WRONG[5:]])
    batch["ts"] = 1_000_000 * np.arange(1, len(batch) + 1)
    for slot in ("item", "mm"):
        batch[slot] &= (1 << 32) - 1
    text = text_of(batch, "tracefs")
    imported = do_import(tmp_path, text, kernel="6.12")
    assert imported.pointers == "hashed"
    verdict = check(tmp_path / "a.ksm")
    assert verdict["legal"]["answer"] == answer
    assert ("one hash" in verdict["legal"]["why"]) == (answer != "no")


@pytest.mark.parametrize("form", ["tracefs", "trace-cmd"])
def test_a_part_without_the_header_may_not_tell_of_losses(form: str, tmp_path: Path) -> None:
    assert do_import(tmp_path, text_of(RUN, form)).lost == 0
    imported = do_import(tmp_path, b"".join(lines_of(RUN, form)))
    assert imported.lost is None
    assert any("no header" in note for note in imported.notes)


def test_losses_of_everybody_are_told(tmp_path: Path) -> None:
    batch = concatenate([RUN[:4], batch_of([loses(13, 5_000_000, cpu=1)]), RUN[4:]])
    other = b"     bash-1 [000] ..... 1.000001: sched_wakeup: x\n"
    imported = do_import(tmp_path, other + text_of(batch, "tracefs"))
    assert imported.lost == 13
    assert imported.other_events == {"sched_wakeup": 1}
    recording = StoredRecording(tmp_path / "a.ksm")
    assert recording.manifest["lost"] == 13
    assert any("not only KSM's" in note for note in recording.manifest["notes"])


def test_perfs_losses_are_known_only_if_it_tells_of_some(tmp_path: Path) -> None:
    assert do_import(tmp_path, text_of(RUN, "perf")).lost is None
    batch = concatenate([RUN[:4], batch_of([loses(13, 5_000_000)]), RUN[4:]])
    assert do_import(tmp_path, text_of(batch, "perf")).lost == 13
    chunks = b"Processed 17 events and lost 5 chunks!\n"
    imported = do_import(tmp_path, chunks + text_of(RUN, "perf"))
    assert imported.lost is None
    assert any("lost events 5 times" in note for note in imported.notes)


def test_without_scans_the_text_may_hold_only_some_of_the_events(tmp_path: Path) -> None:
    imported = do_import(tmp_path, text_of(RUN[3:6], "trace-cmd"))
    assert any("no ksm_start_scan and ksm_stop_scan" in note for note in imported.notes)


def test_times_that_go_back_keep_the_order_and_are_told(tmp_path: Path) -> None:
    rows = [event(KSM_REMOVE_KSM_PAGE, ts, pfn=7, cpu=cpu) for cpu, ts in ((0, 9), (1, 5), (0, 11))]
    batch = batch_of([row | {"ts": row["ts"] * 1_000_000} for row in rows])
    imported = do_import(tmp_path, text_of(batch, "tracefs"), raw_pointers=True)
    assert np.array_equal(stored(tmp_path), batch)
    assert any("go back 1 times" in note for note in imported.notes)
    manifest = StoredRecording(tmp_path / "a.ksm").manifest
    assert manifest["duration_s"] == 0.006
    assert summarise(timeline_of(StoredRecording(tmp_path / "a.ksm"))).duration_s == 0.006


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(text_of(RUN, "perf") * 20_011)
    seen: list[tuple[float | None, int]] = []
    with source.open("rb") as file:
        import_text(
            ImportRequest(file.fileno(), "a.txt", Target(tmp_path / "a.ksm")),
            progress=lambda share, events: seen.append((share, events)),
        )
    assert seen == sorted(seen, key=lambda row: row[1])
    assert seen[-1] == (1.0, len(RUN) * 20_011)
    assert len(seen) > 7


def test_a_pipe_is_read_to_its_end_however_it_comes(tmp_path: Path) -> None:
    text = text_of(RUN, "tracefs")
    read, write = os.pipe()

    def feed() -> None:
        for at in range(0, len(text), 37):
            os.write(write, text[at : at + 37])
        os.close(write)

    feeder = threading.Thread(target=feed)
    feeder.start()
    shares: list[float | None] = []
    imported = import_text(
        ImportRequest(read, "standard input", Target(tmp_path / "a.ksm"), raw_pointers=True),
        progress=lambda share, _events: shares.append(share),
    )
    feeder.join()
    os.close(read)
    assert imported.ended == "end of text"
    assert np.array_equal(stored(tmp_path), RUN)
    assert set(shares) == {None}


@pytest.mark.parametrize(
    ("name", "made"), [("a.txt", "a.ksm"), ("trace", "trace.ksm"), ("a.b.c", "a.b.ksm")]
)
def test_a_recording_is_called_like_its_text(name: str, made: str) -> None:
    assert default_name(name) == made
