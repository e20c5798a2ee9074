"""Watching one run: samples at an interval, events as they come, until something ends it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ksmtrace.capture.session import Signals
from ksmtrace.capture.source import EventStream
from ksmtrace.inspect.stat.family import Family
from ksmtrace.inspect.stat.figures import Observation, ProcessSamples
from ksmtrace.inspect.stat.series import Series
from ksmtrace.inspect.stat.tally import EventTally
from ksmtrace.kernel import host
from ksmtrace.kernel.sysfs import COUNTERS, HostSampler
from ksmtrace.timeline.host_figures import Missing

_HOST_COUNTERS = tuple(c.name for c in COUNTERS if c.where != "process")
_OWN = ("merged", "profit")
_LONGEST_WAIT = 0.05
"""The ring holds a third of a second of the worst burst."""
_MOST_SHARE = 0.05
"""Of one core, that looking at processes may take."""
_STATUS_SECONDS = 0.5


@dataclass(frozen=True)
class Until:
    """What ends a run, beside its command or process and signals; None: not that.

    duration: seconds. quiet_scans: full scans in which no more was saved than ever before.
    """

    duration: float | None = None
    quiet_scans: int | None = None


@dataclass(frozen=True)
class Subject:
    """What is watched. fd: readable when it has ended. family: whose ksm_stat counts.

    Both None: the whole host.
    """

    fd: int | None = None
    family: Family | None = None


@dataclass(frozen=True)
class Eyes:
    """What there is to watch with. stream: None without a capture, then `blind` says why."""

    sampler: HostSampler
    signals: Signals
    stream: EventStream | None
    blind: str
    tgids_known: bool


@dataclass(frozen=True)
class Progress:
    """What a status line can show. saved_pages: now."""

    seconds: float
    full_scans: int | None
    saved_pages: int | None


@dataclass(frozen=True)
class Watched:
    """What was seen, and what ended it: a signal's name, duration, quiet, or subject."""

    seen: Observation
    ended: str
    samples: int
    own_cpu_s: float
    sampling_cpu_s: float
    notes: tuple[str, ...] = ()


def pump(stream: EventStream | None, tally: EventTally | None = None) -> None:
    """Take what has arrived; without a tally it is thrown away."""
    if stream is not None:
        batch = stream.read()
        if tally is not None:
            tally.take(batch)


def saved_pages(counters: Mapping[str, int]) -> int | None:
    """pages_sharing + ksm_zero_pages; None without KSM."""
    sharing = counters.get("pages_sharing")
    return None if sharing is None else sharing + counters.get("ksm_zero_pages", 0)


@dataclass
class _Quiet:
    """Whether saving has stopped to grow."""

    most: int = 0
    since_scan: int | None = None

    def scans(self, counters: Mapping[str, int]) -> int:
        """Full scans since most was saved."""
        saved, done = saved_pages(counters) or 0, counters.get("full_scans", 0)
        if self.since_scan is None or saved > self.most or done < self.since_scan:
            self.most, self.since_scan = max(saved, self.most), done
        return done - self.since_scan


@dataclass
class _Recorder:
    """What one run's samples are put into."""

    eyes: Eyes
    family: Family | None = None
    host: Series = field(default_factory=lambda: Series(_HOST_COUNTERS))
    own: Series = field(default_factory=lambda: Series(_OWN))
    cpu_s: float = 0.0
    look_again: float = 0.0

    def sample(self) -> dict[str, int]:
        """Read everything that is due; returns the host's counters."""
        begin = time.thread_time()
        counters = self.eyes.sampler.counters()
        self.host.add(time.monotonic_ns(), counters)
        if self.family is not None and time.monotonic() >= self.look_again:
            cpu_before = time.thread_time()
            found = self.family.sample()
            if found is not None:
                self.own.add(time.monotonic_ns(), dict(zip(_OWN, found, strict=True)))
            # A family of thousands is looked at less often. By CPU time: on a busy host one look
            # may last long, and that is no reason to miss the rest of the run.
            cost = time.thread_time() - cpu_before
            self.look_again = time.monotonic() + cost / _MOST_SHARE
        self.cpu_s += time.thread_time() - begin
        return counters


def watch(
    eyes: Eyes,
    launch: Callable[[], Subject],
    until: Until,
    interval: float,
    status: Callable[[Progress], None] = lambda _progress: None,
) -> Watched:
    """Watch one run. launch: begins it, after the first sample. interval: seconds."""
    cpu_before = time.process_time()
    tally = EventTally(tgids_known=eyes.tgids_known) if eyes.stream is not None else None
    pump(eyes.stream)
    recorder = _Recorder(eyes)
    quiet = _Quiet()
    quiet.scans(recorder.sample())
    begin_ns = time.monotonic_ns()
    subject = launch()
    recorder.family = subject.family
    ended = _loop(eyes, subject, until, interval, recorder, tally, quiet, begin_ns, status)
    lived = len(recorder.host) + (ended != "subject")
    recorder.sample()
    end_ns = time.monotonic_ns()
    pump(eyes.stream, tally)
    family = subject.family
    own = None if family is None else family.ever
    seen = Observation(
        begin_ns=begin_ns,
        end_ns=end_ns,
        kernel=host.kernel_release(),
        page_bytes=host.PAGE_BYTES,
        host=recorder.host.samples(),
        lived=lived,
        processes=None if family is None else _own(recorder.own),
        events=Missing(eyes.blind) if tally is None else tally.counts(own),
    )
    thinned = recorder.host.thinned
    notes = (f"samples were thinned {thinned} times: peaks may be missed",) if thinned else ()
    return Watched(
        seen,
        ended,
        len(recorder.host),
        time.process_time() - cpu_before,
        recorder.cpu_s,
        notes,
    )


def _own(series: Series) -> ProcessSamples:
    columns = series.columns()
    return ProcessSamples(series.ts, columns["merged"], columns["profit"])


def _loop(
    eyes: Eyes,
    subject: Subject,
    until: Until,
    interval: float,
    recorder: _Recorder,
    tally: EventTally | None,
    quiet: _Quiet,
    begin_ns: int,
    status: Callable[[Progress], None],
) -> str:
    poll = select.poll()
    poll.register(eyes.signals.fileno(), select.POLLIN)
    if subject.fd is not None:
        poll.register(subject.fd, select.POLLIN)
    begin = begin_ns / 1e9
    next_sample, next_status = begin, 0.0
    while True:
        now = time.monotonic()
        if now >= next_sample:
            counters = recorder.sample()
            next_sample = max(next_sample + interval, now)
            if until.quiet_scans is not None and quiet.scans(counters) >= until.quiet_scans:
                return "quiet"
            if now >= next_status:
                done, saved = counters.get("full_scans"), saved_pages(counters)
                status(Progress(now - begin, done, saved))
                next_status = now + _STATUS_SECONDS
        pump(eyes.stream, tally)
        if until.duration is not None and now - begin >= until.duration:
            return "duration"
        end = begin + until.duration if until.duration is not None else now + _LONGEST_WAIT
        wait = min(_LONGEST_WAIT, end - now, next_sample - time.monotonic())
        ready = {fd for fd, _ in poll.poll(max(0.0, 1000 * wait))}
        if eyes.signals.caught:
            return eyes.signals.caught[0]
        if subject.fd in ready:
            return "subject"
