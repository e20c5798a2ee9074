"""The part of `report` that writes a page for a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.timeline.build import Timeline
    from ksmtrace.views.html.material import Material, Told


def write_html_report(recording: Path, path: Path, *, force: bool) -> Exit:
    """Write the report of a recording to a file.

    Raises KsmtraceError where the file exists, or can't be written, and for a bad recording.
    """
    from ksmtrace.amounts import size
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.exports.output import check_new_file, new_file
    from ksmtrace.recording.reader import StoredRecording, is_uksm
    from ksmtrace.views.html.report import render_html_report

    check_new_file(path, force=force, option="--html")
    stored = StoredRecording(recording)
    if is_uksm(stored.manifest):
        raise KsmtraceError(
            "a recording of UKSM's counters has no page for a browser yet",
            "ksmtrace report without --html tells what it holds",
            Exit.USAGE,
        )
    status = StatusLine(sys.stderr)
    try:
        with gathered(stored, str(recording), status.working) as material:
            page = render_html_report(material)
        content = page.text.encode()
        with new_file(path, force=force, option="--html") as file:
            file.write(content)
    finally:
        status.clear()
    print(f"{path}: {size(len(content))}", file=sys.stderr)
    for words in page.cut:
        print(f"cut: {words}", file=sys.stderr)
    return Exit.OK


@contextmanager
def gathered(
    recording: StoredRecording, name: str, tell: Callable[[str], None]
) -> Iterator[Material]:
    """What the page is made of. name: what to type for the recording.

    The large tables are made in numpy, which lets another thread work: two go side by side.
    """
    from ksmtrace.timeline.build import timeline_of
    from ksmtrace.views.html.material import Material
    from ksmtrace.views.timeline_parts import run_of

    tell("reading the recording")
    timeline = timeline_of(recording)
    tell("summing up")
    _ = timeline.ends, timeline.index
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(getattr, timeline), ("accounts", "pages", "breaks", "processes")))
        told = pool.submit(_told, recording, timeline)
        run = run_of(timeline, recording.manifest, name)
        yield Material(run=run, samples=timeline.context.host, told=told)


def _told(recording: StoredRecording, timeline: Timeline) -> Told:
    from ksmtrace.inspect.advise.answer import answer
    from ksmtrace.inspect.advise.from_recording import facts_of_timeline
    from ksmtrace.timeline.breaks import break_tables
    from ksmtrace.timeline.sharing import By, sharing_of_fullest
    from ksmtrace.timeline.summary import summarise
    from ksmtrace.views.html.material import Told
    from ksmtrace.views.html.sharing import MOST_GROUPS

    summary = summarise(timeline)
    groupings: tuple[By, ...] = ("vm", "cgroup", "process")
    shared = {by: sharing_of_fullest(timeline, by, MOST_GROUPS) for by in groupings}
    return Told(
        summary=summary,
        answer=answer(facts_of_timeline(recording, timeline, summary)),
        sharing={by: matrix for by, (matrix, _) in shared.items()},
        sharers={by: groups for by, (_, groups) in shared.items()},
        breaks=break_tables(recording, timeline) if recording.manifest.get("cow") else None,
    )
