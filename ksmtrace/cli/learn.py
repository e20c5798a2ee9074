"""learn: lessons in how ksmd works, step by step, on the reference scanner

Without a name it lists the lessons. A lesson is walked through with single
keys: Enter goes on, b back, g 3 jumps to scan 3, ? tells all keys. At each stop
it shows the page under the cursor, the decision and the rule behind it, both
trees, and the counters that changed; and it asks what will happen next.
Where nobody sits at a terminal, all stops are printed one after the other.

LESSON is a name or number from the list, a lesson or scenario file
(docs/teaching.md tells how to write one), or a recording with contents: that is
stepped through the scanner in the same way.

examples:
  ksmtrace learn
  ksmtrace learn why-two-scans
  ksmtrace learn copy-on-write --on ksm:6.1
  sudo ksmtrace learn why-two-scans --live     # the real ksmd beside the model
  ksmtrace learn why-two-scans --html lesson.html
  ksmtrace learn recordings/first-merges.ksm
  ksmtrace learn smart-scan --scan 5 | less    # one scan's stops only
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.lab.performance import Performance
    from ksmtrace.lessons.frames import Frame, Frames
    from ksmtrace.lessons.lesson import Lesson

_MOST_ON_A_PAGE = 2000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import process_id, whole

    add = parser.add_argument
    add("lesson", nargs="?", metavar="LESSON", help="which; without it they are listed")
    add(
        "--on", action="append", metavar="WHERE",
        help="another scanner: ksm:6.1, ksm:2011, uksm:full; up to three",
    )  # fmt: skip
    add("--live", action="store_true", help="do it on this host's ksmd, too (root)")
    add("--html", type=Path, metavar="FILE", help="write a page with a stepper")
    add("--force", action="store_true", help="replace an existing file")
    add("--scan", type=whole("a scan", 0, 1_000_000), metavar="N", help="begin at that scan")
    add("--pid", type=process_id, metavar="PID", help="of a recording: that process's pages only")
    add("--backend", default="auto", metavar="NAME", help="with --live: core, bcc, tracefs, fentry")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List, or play one; see the module's docstring."""
    if args.lesson is None:
        return _list(as_json=args.json)
    lesson, frames = _opened(args)
    if args.html is not None:
        return _write_page(args, lesson, frames)
    if args.json:
        import json

        from ksmtrace.views.lesson_data import frames_as_dicts, lesson_as_dict

        stops = frames_as_dicts(_made(frames))
        print(json.dumps({**lesson_as_dict(lesson), "stops": stops}, indent=1))
        return Exit.OK
    if sys.stdin.isatty() and sys.stdout.isatty():
        from ksmtrace.cli.learning import walk

        return walk(lesson, frames, args.scan)
    _print(lesson, frames, args.scan)
    return Exit.OK


def _opened(args: argparse.Namespace) -> tuple[Lesson, Frames]:
    from ksmtrace.lessons.lesson import find_lesson, read_lesson
    from ksmtrace.lessons.play import play

    if Path(args.lesson).is_dir():
        return _recording(args)
    if args.pid is not None:
        raise KsmtraceError("--pid is for recordings", "leave it out", Exit.USAGE)
    lesson = read_lesson(find_lesson(args.lesson), args.on)
    if not args.live:
        return lesson, play(lesson)
    real = _on_host(args, lesson)
    # The model beside it is of the kernel that runs.
    lesson = replace(lesson, places=(replace(lesson.places[0], profile=real.profile),))
    return lesson, play(lesson, real)


def _on_host(args: argparse.Namespace, lesson: Lesson) -> Performance:
    """The lesson's scenario, performed by the real ksmd before it is walked through."""
    from ksmtrace.lab.on_kernel import host_stage
    from ksmtrace.lab.where import HOST

    if len(lesson.places) != 1 or lesson.places[0].uksm is not None:
        raise KsmtraceError(
            f"{lesson.name} compares scanners, so it has no --live",
            "name one kernel: --on ksm:6.18 --live",
            Exit.USAGE,
        )
    with host_stage(args.backend) as host:
        print(f"ksmtrace: events by {host.source.name}, {host.why}", file=sys.stderr)
        performance = host.perform(lesson.plan)
    performance.on = HOST
    return performance


def _recording(args: argparse.Namespace) -> tuple[Lesson, Frames]:
    from ksmtrace.lab.where import parse_all
    from ksmtrace.lessons.lesson import lesson_of
    from ksmtrace.lessons.play import play
    from ksmtrace.lessons.recorded import step_recording
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.replay.check import kernel_of
    from ksmtrace.replay.lab_run import is_lab_run, recorded_performance

    if args.live:
        raise KsmtraceError("a recording has been live", "leave --live out", Exit.USAGE)
    recording = StoredRecording(Path(args.lesson))
    profile = kernel_of(recording, None)
    if args.on:
        (place, *more) = parse_all(args.on, models_only=True)
        if more or place.uksm is not None:
            raise KsmtraceError("a recording is stepped by one KSM", "--on ksm:6.12", Exit.USAGE)
        profile = place.profile
    if is_lab_run(recording) and args.pid is None and not args.on:
        plan, performance = recorded_performance(recording, profile)
        lesson = lesson_of(plan.scenario, Path(args.lesson).name)
        place = replace(lesson.places[0], name=f"ksm:{profile.name}", profile=profile)
        lesson = replace(lesson, places=(place,))
        return lesson, play(lesson, performance)
    return step_recording(recording, profile, args.pid)


def _list(*, as_json: bool) -> int:
    from ksmtrace.lessons.lesson import shipped_lessons
    from ksmtrace.views.lesson_data import lesson_as_dict
    from ksmtrace.views.lesson_list import render_lessons

    lessons = shipped_lessons()
    if as_json:
        import json

        print(json.dumps([lesson_as_dict(lesson) for lesson in lessons], indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_lessons(lessons))
    return Exit.OK


def _print(lesson: Lesson, frames: Frames, scan: int | None) -> None:
    """All stops, or those from the beginning of a scan to its end."""
    from rich.console import Console

    from ksmtrace.views.lesson import Look, render_frame

    console = Console(highlight=False, soft_wrap=True)
    width = min(console.width, 100)
    number = 0
    while (frame := frames.get(number)) is not None:
        number += 1
        if scan is not None and frame.scan != scan:
            continue
        look = Look(width, answered=frame.question is not None, position=f"stop {number}")
        for line in render_frame(lesson, frame, look):
            console.print(line)
        console.print()


def _made(frames: Frames, most: int | None = None) -> list[Frame]:
    """All stops, or the first so many; a terminal is told how many there are so far."""
    from ksmtrace.cli.status import StatusLine

    status = StatusLine(sys.stderr)
    try:
        while (most is None or frames.made < most) and frames.get(frames.made) is not None:
            status.working(f"{frames.made:,} stops so far")
    finally:
        status.clear()
    return frames.all(frames.made)


def _write_page(args: argparse.Namespace, lesson: Lesson, frames: Frames) -> int:
    from ksmtrace.amounts import size
    from ksmtrace.exports.output import check_new_file, new_file
    from ksmtrace.views.html.lesson import lesson_page

    check_new_file(args.html, force=args.force, option="--html")
    stops = _made(frames, _MOST_ON_A_PAGE)
    cut_short = frames.get(len(stops)) is not None
    content = lesson_page(lesson, stops, cut=cut_short).encode()
    with new_file(args.html, force=args.force, option="--html") as file:
        file.write(content)
    only = "the first " if cut_short else ""
    print(f"{args.html}: {only}{len(stops):,} stops, {size(len(content))}", file=sys.stderr)
    return Exit.OK
