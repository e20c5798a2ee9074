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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtrace.kernel.releases import Profile
    from ksmtrace.lab.performance import Performance
    from ksmtrace.lab.where import Where
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
    add("--scan", type=whole("a scan", 1, 1_000_000), metavar="N", help="begin at that scan")
    add("--pid", type=process_id, metavar="PID", help="of a recording: that process's pages only")
    add("--backend", metavar="NAME", help="with --live: auto, core, bcc, tracefs or fentry")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List, or play one; see the module's docstring."""
    _check(args)
    if args.lesson is None:
        return _list(as_json=args.json)
    lesson, frames = _opened(args)
    if args.scan is not None and (frames.find_scan(args.scan) is None):
        last = frames.all()[-1].scan
        raise KsmtraceError(
            f"{args.lesson} has no scan {args.scan}", f"its last one is scan {last}", Exit.USAGE
        )
    if args.html is not None:
        _write_page(args, lesson, frames)
    elif args.json:
        import json

        from ksmtrace.views.lesson_data import frame_as_dict, lesson_as_dict

        head = json.dumps(lesson_as_dict(lesson), indent=1)
        # Stop by stop: all of them at once may take gigabytes.
        print(head.removesuffix("\n}") + ',\n "stops": [', end="")
        for number, frame in enumerate(_as_made(frames)):
            print(",\n" if number else "\n", json.dumps(frame_as_dict(frame)), end="")
        print("\n ]\n}")
    elif (obstacle := _screen_obstacle()) is None:
        from ksmtrace.cli.learning import walk

        walk(lesson, frames, args.scan)
        return Exit.OK
    else:
        if sys.stdout.isatty():
            print(f"ksmtrace: {obstacle}, so all stops are printed", file=sys.stderr)
        _print(lesson, frames, args.scan)
    # With other scanners than its own a lesson's words may be wrong, and that is what one sees.
    otherwise = any(frame.unmet for frame in frames.all(frames.made))
    return Exit.DIFFERENCES if otherwise and not args.on else Exit.OK


def _screen_obstacle() -> str | None:
    from ksmtrace.terminal import screen_obstacle

    return screen_obstacle() if sys.stdin.isatty() else "standard input is no terminal"


def _check(args: argparse.Namespace) -> None:
    """Raise KsmtraceError (usage) for options that say nothing together."""
    given = {
        "--on": args.on, "--live": args.live, "--html": args.html, "--force": args.force,
        "--scan": args.scan is not None, "--json": args.json, "--pid": args.pid,
        "--backend": args.backend,
    }  # fmt: skip
    named = [name for name, value in given.items() if value]
    if args.lesson is None and named not in ([], ["--json"]):
        raise KsmtraceError(
            f"{named[0]} needs a lesson", f"ksmtrace learn why-two-scans {named[0]}", Exit.USAGE
        )
    for option, other in (("--backend", "--live"), ("--force", "--html")):
        if option in named and other not in named:
            raise KsmtraceError(f"{option} goes with {other}", "leave it out", Exit.USAGE)
    pairs = (("--live", "--on"), ("--html", "--scan"), ("--json", "--scan"), ("--html", "--json"))
    for option, other in pairs:
        if option in named and other in named:
            why = "the model beside the real ksmd is of its own kernel" if other == "--on" else ""
            raise KsmtraceError(
                f"{option} and {other} contradict", why or "leave one out", Exit.USAGE
            )


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
    lesson = replace(lesson, places=(_model_of(real.profile),))
    return lesson, play(lesson, real)


def _model_of(profile: Profile) -> Where:
    from ksmtrace.lab.where import KSM, Where

    return Where(f"{KSM}:{profile.name}", profile, real=False)


def _on_host(args: argparse.Namespace, lesson: Lesson) -> Performance:
    """The lesson's scenario, performed by the real ksmd before it is walked through."""
    from ksmtrace.lab.on_kernel import host_stage
    from ksmtrace.lab.where import HOST

    if lesson.plan.scenario.lesson and not lesson.live:
        raise KsmtraceError(
            f"{lesson.name} is not for the real ksmd: it compares scanners, or does what only"
            " models can",
            "`ksmtrace learn` says which are live; of a lesson of your own, live = true in its"
            " [lesson] table",
            Exit.USAGE,
        )
    with host_stage(args.backend or "auto") as host:
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
        lesson = replace(lesson, places=(_model_of(profile),))
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
    for number, frame in enumerate(_as_made(frames), start=1):
        if scan is not None and frame.of_scan != scan:
            continue
        look = Look(width, answered=frame.question is not None, position=f"stop {number}")
        for line in render_frame(lesson, frame, look):
            console.print(line)
        console.print()


def _made(frames: Frames, most: int | None = None) -> list[Frame]:
    """All stops, or the first so many."""
    return list(islice(_as_made(frames), most))


def _as_made(frames: Frames) -> Iterator[Frame]:
    """Stop after stop; a terminal is told how many there are so far."""
    from ksmtrace.cli.status import StatusLine

    status = StatusLine(sys.stderr)
    frames.working = lambda made: status.working(f"the scanners are working: {made:,} stops so far")
    number = 0
    try:
        while (frame := frames.get(number)) is not None:
            # What is printed to the same terminal wipes it by itself.
            if sys.stdout.isatty():
                status.clear()
            yield frame
            number += 1
    finally:
        status.clear()


def _write_page(args: argparse.Namespace, lesson: Lesson, frames: Frames) -> None:
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
