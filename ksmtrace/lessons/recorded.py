"""A recording as a lesson: its pages, put into a simulated memory, scanned by the model.

One of a lab run holds its scenario, and so is played step by step beside what was recorded. Any
other with contents is scanned until nothing more happens, as if nothing had been merged before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from ksmtrace.amounts import count
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile
from ksmtrace.lab.scenario import Scenario
from ksmtrace.lessons.frames import Frame, Frames, Kind, View
from ksmtrace.lessons.lesson import Lesson, lesson_of
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.scene import Member
from ksmtrace.model.visit_log import VisitRecord
from ksmtrace.processes.identity import clean
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.whatif.loading import load_readable
from ksmtrace.whatif.moment import Moment, read_moment

MOST_PAGES = 5000
"""Pages that are stepped through; of a larger recording the first ones, or those of a process."""
MOST_SCANS = 12
_SHOWN = 24
_PLACES = 31


def step_recording(
    recording: StoredRecording, kernel: Profile, tgid: int | None = None
) -> tuple[Lesson, Frames]:
    """A recording with contents as a lesson. tgid: of one process's pages only.

    Raises KsmtraceError: it tells no contents, or not of that process.
    """
    moment = read_moment(recording)
    whole = len(moment)
    if tgid is not None:
        moment = _only(moment, moment.tgids == tgid)
        if not len(moment):
            known = ", ".join(map(str, np.unique(read_moment(recording).tgids)[:8].tolist()))
            raise KsmtraceError(
                f"no page of process {tgid} is told", f"there are those of {known}", Exit.USAGE
            )
    moment = _only(moment, np.arange(len(moment)) < MOST_PAGES)
    names = {row["tgid"]: row["comm"] for row in recording.table("identities").to_pylist()}
    left = f" of its {count(whole)}" if len(moment) < whole else ""
    about = (
        f"{count(len(moment))}{left} pages of {len(set(moment.tgids.tolist()))} processes, as the"
        f" recording's last look found them; KSM of Linux {kernel.name} scans them from the"
        " beginning, as if nothing had been merged before."
    )
    if moment.changing.any():
        about += f" {count(int(moment.changing.sum()))} of them changed: they go on changing."
    name = recording.path.name
    lesson = lesson_of(Scenario(name, name, about), name, [f"ksm:{kernel.name}"])
    return lesson, Frames(frames_of(moment, kernel, names, about))


def _only(moment: Moment, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Moment:
    return replace(
        moment,
        tgids=moment.tgids[chosen],
        addresses=moment.addresses[chosen],
        contents=moment.contents[chosen],
        frames=moment.frames[chosen],
        changing=moment.changing[chosen],
    )


def frames_of(
    moment: Moment, kernel: Profile, names: Mapping[int, str], about: str
) -> Iterator[Frame]:
    """The stops of a moment's scans. names: of processes; about: what it is."""
    loaded = load_readable(moment, kernel, log_visits=True)
    scanner = loaded.scanner
    assert isinstance(scanner, KsmScanner)
    known = {
        mm.id: f"{clean(names.get(mm.tgid) or 'process')} {mm.tgid}" for mm in scanner.memory.mms
    }

    def name(page: Member) -> str:
        return f"{known[page[0]]}:{page[1]:x}"

    on = f"ksm:{kernel.name}"
    shown: dict[str, int] = {}

    def view(at: Member | None = None) -> View:
        nonlocal shown
        counters = scanner.counters
        made = View(
            on, counters, shown, scanner.scene(at=at, most=_SHOWN, places=_PLACES), name=name
        )
        shown = counters
        return made

    yield Frame(Kind.OPENING, 0, (view(),), text=about)
    visits: list[View] = []

    def visited(record: VisitRecord) -> None:
        at = (record.mm, record.address)
        visits.append(replace(view(at), page=name(at), visit=at, steps=record.steps))

    scanner.watch_visits(visited)
    for scan in range(1, MOST_SCANS + 1):
        before = _what_counts(scanner)
        scanner.finish_scan()
        scanner.take_events()
        for number, one in enumerate(visits, start=1):
            yield Frame(
                Kind.VISIT, scan, (one,), scan, {"scan": 1}, visit=number, visits=len(visits)
            )
        visits.clear()
        yield Frame(Kind.DONE, scan, (view(),), scan, {"scan": 1})
        if scan > 2 and _what_counts(scanner) == before:
            break
        loaded.change()
    saved = scanner.counters["pages_sharing"] + scanner.counters.get("ksm_zero_pages", 0)
    words = f"After {scan} scans {count(saved)} pages are saved."
    yield Frame(Kind.CLOSING, 0, (view(),), scan, text=words)


def _what_counts(scanner: KsmScanner) -> list[int]:
    counters = scanner.counters
    names = ("pages_shared", "pages_sharing", "pages_unshared", "ksm_zero_pages")
    return [counters.get(name, 0) for name in names]
