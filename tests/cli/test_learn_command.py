"""`ksmtrace learn`: the list, lessons printed and as JSON, files with mistakes, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from ksmtrace.cli.main import main
from ksmtrace.errors import Exit
from ksmtrace.lessons.lesson import shipped_lessons

RECORDINGS = Path(__file__).parents[2] / "recordings"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["learn", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_has_every_lesson(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    told = json.loads(run(capsys, "--json")[1])
    names = [lesson.name for lesson in shipped_lessons()]
    assert code == Exit.OK
    assert [one["name"] for one in told] == names
    assert all(name in out for name in names)
    assert max(map(len, out.splitlines())) <= 80


def test_without_a_terminal_all_stops_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "why-two-scans")
    assert (code, err) == (Exit.OK, "")
    told = json.loads(run(capsys, "why-two-scans", "--json")[1])
    printed = [int(number) for number in re.findall(r"  stop (\d+)  ", out)]
    assert printed == list(range(1, len(told["stops"]) + 1))
    assert told["stops"][0]["kind"] == "opening"
    assert "scan 2, visit 2 of 3" in out
    only = run(capsys, "why-two-scans", "--scan", 2)[1]
    wanted = [
        number
        for number, stop in enumerate(told["stops"], start=1)
        if (stop["scan"] == 2 and stop["where"] != "before scan 3")
        or stop["where"] == "before scan 2"
    ]
    assert [int(number) for number in re.findall(r"  stop (\d+)  ", only)] == wanted


def test_another_scanner_shows_another_behaviour(capsys: pytest.CaptureFixture[str]) -> None:
    rules = {}
    for on in ("ksm:6.10", "ksm:6.18"):
        told = json.loads(run(capsys, "volatile-pages", "--on", on, "--json")[1])
        rules[on] = [d["rule"] for stop in told["stops"] for d in stop["views"][0]["decisions"]]
    # Until 6.10 the stable tree was searched before the checksum was looked at.
    assert rules["ksm:6.10"][0] == "stable_none"
    assert rules["ksm:6.18"][0] == "first_sight"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["none-such"], "there is no lesson none-such", Exit.USAGE),
        (["why-two-scans", "--on", "ksm:1.0"], "1.0", Exit.USAGE),
        (["why-two-scans", "--on", "host"], "the real ksmd beside one is --live", Exit.USAGE),
        (["why-two-scans", "--scan", "99"], "its last one is scan 6", Exit.USAGE),
        (["why-two-scans", "--backend", "core"], "--backend goes with --live", Exit.USAGE),
        (["why-two-scans", "--live", "--on", "ksm:6.1"], "contradict", Exit.USAGE),
        (["why-two-scans", "--html", "x.html", "--json"], "contradict", Exit.USAGE),
        (["--live"], "--live needs a lesson", Exit.USAGE),
        (["--html", "x.html"], "--html needs a lesson", Exit.USAGE),
        (["why-two-scans", "--pid", "5"], "--pid is for recordings", Exit.USAGE),
        (["ksm-against-uksm", "--live"], "not for the real ksmd", Exit.USAGE),
        ([RECORDINGS / "first-merges.ksm", "--live"], "has been live", Exit.USAGE),
        ([RECORDINGS / "two-guests.ksm"], "doesn't tell what pages held", Exit.BAD_RECORDING),
        ([RECORDINGS], "", Exit.BAD_RECORDING),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[object], words: str, code: Exit
) -> None:
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert err.startswith("ksmtrace: ")


def test_a_lesson_with_a_mistake_names_file_and_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'title = "x"\n\n[[step]]\nmap = "a.heap"\npages = 1\nask = { question = "?" }\n'
    )
    code, _, err = run(capsys, file)
    assert code == Exit.USAGE
    assert f"{file}:3: ask must have question, answers, right, because" in err


def test_an_expectation_that_is_not_met_is_told_at_its_step_and_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'title = "x"\n[[step]]\nmap = "a.heap"\npages = 3\n'
        'expect = { pages_shared = 7, events = ["NEW a.heap[1]"] }\n'
    )
    code, out, _ = run(capsys, file)
    assert code == Exit.DIFFERENCES
    assert "Otherwise than written: on ksm:6.18, pages_shared is 0; the lesson expects 7." in out
    assert "the events are ENTER a; the lesson expects NEW a.heap[1]" in " ".join(out.split())


def test_on_another_kernel_each_step_says_what_its_words_do_not_fit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "why-two-scans", "--on", "ksm:6.10")
    assert code == Exit.OK
    assert "Otherwise than written: on ksm:6.10, pages_sharing is 3; the lesson expects 2." in out
    assert str(Path(__file__).parents[2]) not in out


def test_a_file_without_steps_is_no_lesson(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    code, _, err = run(capsys, file)
    assert code == Exit.USAGE
    assert "it has no [[step]]" in err


def test_a_terminal_that_cannot_be_drawn_on_gets_all_stops_printed() -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ksmtrace.cli.main", "learn", "why-two-scans"],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "dumb"},
    )
    text = read_until(primary, "what to remember")
    assert "can't be drawn on (TERM), so all stops are printed" in text
    assert "\x1b[?" not in text
    assert process.wait(20) == Exit.OK
    os.close(primary)
    os.close(secondary)


def test_a_recorded_lab_run_is_stepped_beside_what_was_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, RECORDINGS / "linux-6.1.ksm")
    assert code == Exit.OK
    assert "recording and ksm:6.1.192 agree in every counter and every event." in out


def test_in_a_terminal_keys_steer_and_it_is_left_as_it_was() -> None:
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, 80))
    before = termios.tcgetattr(secondary)
    process = subprocess.Popen(
        [sys.executable, "-m", "ksmtrace.cli.main", "learn", "why-two-scans"],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
    )
    screen = read_until(primary, "1  before it begins")
    for key, words in [
        (b"\r", "done: map = a.heap"),
        (b"g2\r", "before scan 2"),
        (b"n", "scan 2, visit 1 of 3"),
        (b"n", "scan 2, visit 2 of 3"),
        (b"b", "scan 2, visit 1 of 3"),
        (b"?", "jump to scan 3"),
        (b"x", "Enter next"),
        (b"\x1b[F", "what to remember"),
    ]:
        os.write(primary, key)
        screen = read_until(primary, words)
    assert "\x1b[?1049h" not in screen
    os.write(primary, b"q")
    last = read_until(primary, "\x1b[?1049l")
    assert process.wait(10) == Exit.OK
    assert "Traceback" not in last
    assert termios.tcgetattr(secondary) == before
    os.close(primary)
    os.close(secondary)


_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def read_until(descriptor: int, words: str) -> str:
    """What a terminal was sent, to the words and a little further."""
    text = ""
    deadline = time.monotonic() + 20
    while words not in (plain := _CODES.sub("", text)) and words not in text:
        assert time.monotonic() < deadline, plain
        if select.select([descriptor], [], [], 0.1)[0]:
            text += os.read(descriptor, 65536).decode(errors="replace")
    return text
