"""From a text to a recording: what `ksmtrace import` does, without its command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ksmtrace import __version__
from ksmtrace.capture.session import Signals
from ksmtrace.capture.trace_pages import NOT_IN_RECORDS
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EventBatch, counts_by_kind
from ksmtrace.events.registry import BY_ID, KINDS
from ksmtrace.kernel.releases import UNKNOWN_KERNEL, profile_of_host
from ksmtrace.processes.identity import clean
from ksmtrace.recording.pseudonyms import Pseudonyms, RawPointers
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter
from ksmtrace.replay.foreign.detect import detect, refuse_binary
from ksmtrace.replay.foreign.formats import FORMATS
from ksmtrace.replay.foreign.parse import Account, TextParser
from ksmtrace.replay.foreign.reading import Reading, is_endless, share_done, whole_lines
from ksmtrace.replay.foreign.textformat import TextFormat
from ksmtrace.replay.foreign.words import loss_known, shortcomings

_SAMPLE = 8 << 20
"""Bytes that may pass before the first line tells the format."""
_PAGE_BYTES = 4096
_WRONG_TEXT = "\n          ".join(
    ["make one with one of:", *(one.make_it for one in FORMATS.values())]
)


@dataclass(frozen=True)
class ImportRequest:
    """What to import and where to.

    descriptor: open for reading. name: what it is called, without its folder. text_format: as
    --format has it, None: detect it. kernel: a release, None: as the text says.
    """

    descriptor: int
    name: str
    target: Target
    text_format: str | None = None
    kernel: str | None = None
    raw_pointers: bool = False


@dataclass
class Imported:
    """How it went, with stable names.

    stopped_at_line: the line at which the text was cut, None if it is whole. pointers: raw, hashed,
    mixed, or None if there were none. lost: None if the text does not tell. other_events: of other
    tracepoints, left out.
    """

    recording: str
    format: str
    kernel: str | None
    events: int
    events_by_kind: dict[str, int]
    lost: int | None
    pointers: str | None
    lines: int
    other_events: dict[str, int]
    unreadable_lines: int
    first_unreadable_line: int | None
    first_unreadable_text: str | None
    stopped_at_line: int | None
    ended: str
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def import_text(
    request: ImportRequest,
    *,
    progress: Callable[[float | None, int], None] = lambda _share, _events: None,
    sealing: Callable[[float], None] = lambda _share: None,
) -> Imported:
    """Read a text to its end, or as far as it goes, into a recording.

    progress: share of the file read (None: not known) and events so far; sealing: share done.
    Raises KsmtraceError: exit code 4 for a file that is none of the texts or holds no ksm event,
    2 for a kernel that is none, 1 where the recording can't be written.
    """
    if request.kernel is not None:
        profile_of_host(request.kernel)
    reading = Reading()
    with ExitStack() as stack:
        signals = None
        if is_endless(request.descriptor):
            signals = stack.enter_context(Signals().installed())
        chunks = whole_lines(request.descriptor, reading, signals)
        text_format, chunks = _begun(request, chunks, reading)
        share = share_done(request.descriptor, reading)
        return _Import(request, text_format, reading).run(
            chunks, lambda events: progress(share(), events), sealing
        )


def _begun(
    request: ImportRequest, chunks: Iterator[bytes], reading: Reading
) -> tuple[TextFormat, Iterator[bytes]]:
    """The text's format, and its chunks again."""
    seen: list[bytes] = []
    found = FORMATS[request.text_format] if request.text_format else None
    for chunk in chunks:
        refuse_binary(reading.start, request.name)
        seen.append(chunk)
        found = found or detect(chunk)
        if found or sum(map(len, seen)) > _SAMPLE:
            break
    if not seen:
        refuse_binary(reading.start, request.name)
        if reading.bytes_read:
            what = "holds not one whole line"
        else:
            what = "is empty" if reading.stopped is None else f": {reading.stopped}"
        raise KsmtraceError(f"{request.name} {what}", _WRONG_TEXT, Exit.BAD_RECORDING)
    if found is None:
        raise KsmtraceError(
            f"{request.name} is no text of perf script, trace-cmd report or tracefs",
            _WRONG_TEXT,
            Exit.BAD_RECORDING,
        )
    return found, chain(seen, chunks)


class _Import:
    def __init__(self, request: ImportRequest, text_format: TextFormat, reading: Reading) -> None:
        self._request = request
        self._format = text_format
        self._reading = reading
        self._parser = TextParser(text_format)
        self._writer: RecordingWriter | None = None
        self._counts = np.zeros(len(KINDS) + 1, np.int64)
        self._held: list[EventBatch] = []

    @property
    def _account(self) -> Account:
        return self._parser.account

    def run(
        self,
        chunks: Iterator[bytes],
        progress: Callable[[int], None],
        sealing: Callable[[float], None],
    ) -> Imported:
        try:
            for chunk in chunks:
                self._take(self._parser.feed(chunk))
                progress(self._account.events)
            self._take(self._parser.finish())
            writer = self._something_read()
            imported = self._imported()
            writer.finish(imported.ended, self._final_facts(imported), sealing)
        except BaseException as error:
            if self._writer is not None:
                words = error.message if isinstance(error, KsmtraceError) else type(error).__name__
                self._writer.abandon(f"error: {words}")
            raise
        return imported

    def _take(self, batch: EventBatch) -> None:
        if not len(batch):
            return
        self._counts += counts_by_kind(batch)
        self._held.append(batch)
        if self._writer is None:
            # Losses alone make no recording.
            if not self._account.events:
                return
            namer = RawPointers() if self._request.raw_pointers else Pseudonyms()
            self._writer = RecordingWriter(self._request.target, self._facts(), namer)
        for one in self._held:
            self._writer.events(one)
        self._held.clear()
        self._writer.flush_if_due()

    def _something_read(self) -> RecordingWriter:
        account, name = self._account, self._request.name
        if self._writer is not None:
            return self._writer
        if account.told.get("latency_format"):
            raise KsmtraceError(
                f"{name} has the latency format, whose times can't be read",
                "trace again with: echo 0 > /sys/kernel/tracing/options/latency-format",
                Exit.BAD_RECORDING,
            )
        if account.first_unreadable is not None:
            number, text = account.first_unreadable
            raise KsmtraceError(
                f"none of the ksm events in {name} can be read; line {number:,} is:"
                f"\n          {clean(text)[:60]}",
                "times, event names and fields must be shown as the tools do by default",
                Exit.BAD_RECORDING,
            )
        raise KsmtraceError(
            f"{name} is a {self._format.tool} text, but holds no ksm event",
            "trace them with -e 'ksm:*' (perf), -e ksm (trace-cmd) or events/ksm/enable (tracefs)",
            Exit.BAD_RECORDING,
        )

    @property
    def _kernel(self) -> str | None:
        told: str | None = self._account.told.get("kernel")
        return self._request.kernel or told

    @property
    def _pointers(self) -> str | None:
        seen = self._account.pointers
        if seen.hashed and seen.raw:
            return "mixed"
        return "hashed" if seen.hashed else "raw" if seen.raw else None

    def _facts(self) -> dict[str, Any]:
        """What the manifest says from the start; all but the pointers is in the texts' headers."""
        account, told = self._account, self._account.told
        unknown = [*NOT_IN_RECORDS, *(["cpu"] if account.without_cpu else [])]
        return {
            "ksmtrace": __version__,
            "kernel": self._kernel or UNKNOWN_KERNEL,
            "machine": told.get("machine"),
            "cpus": told.get("cpus"),
            "memory_bytes": told.get("memory_bytes"),
            "page_bytes": _PAGE_BYTES,
            "backend": self._format.tool,
            "backend_why": f"imported from {self._request.name}",
            "fields_unknown": unknown,
            "pseudonyms": not self._request.raw_pointers,
            "pointers": self._pointers,
            "started": None,
            # What a live recording has here is its begin on the clock of its events.
            "clock": {"monotonic_ns": account.earliest_ns, "wall_ns": None},
            "only_pids": None,
            "command": None,
            "knobs": {},
            "knobs_set": {},
            "imported_from": self._request.name,
        }

    def _final_facts(self, imported: Imported) -> dict[str, Any]:
        account = self._account
        words = shortcomings(
            account, self._format, frozenset(np.flatnonzero(self._counts).tolist()), self._kernel
        )
        imported.notes = words.notes
        return self._facts() | {
            "duration_s": round((account.latest_ns - account.earliest_ns) / 1e9, 9),
            "command_status": None,
            "notes": words.notes,
            "doubts": words.doubts,
            "loss_known": loss_known(account, self._format),
            "import": {
                "lines": account.lines,
                "other_events": dict(account.others),
                "unreadable_lines": account.unreadable,
                "stopped_at_line": imported.stopped_at_line,
            },
        }

    def _imported(self) -> Imported:
        account = self._account
        line, text = account.first_unreadable or (None, None)
        stopped, ended = self._end()
        return Imported(
            recording=str(self._request.target.path),
            format=self._format.name,
            kernel=self._kernel,
            events=account.events,
            events_by_kind={
                BY_ID[kind].name: int(self._counts[kind])
                for kind in np.flatnonzero(self._counts).tolist()
            },
            lost=account.lost if account.lost or loss_known(account, self._format) else None,
            pointers=self._pointers,
            lines=account.lines,
            other_events=dict(account.others),
            unreadable_lines=account.unreadable,
            first_unreadable_line=line,
            first_unreadable_text=text,
            stopped_at_line=stopped,
            ended=ended,
        )

    def _end(self) -> tuple[int | None, str]:
        """The line at which the text was cut, and the manifest's word on the end."""
        account, why = self._account, self._reading.stopped
        here = account.lines + 1
        if why:
            return here, f"cut: stopped at line {here:,}: {why}"
        if self._reading.interrupted:
            return None, self._reading.interrupted
        if account.missing:
            return here, (
                f"cut: stopped at line {here:,}:"
                f" the header tells of {account.missing:,} events more"
            )
        return None, "end of text"


def default_name(name: str) -> str:
    """What the recording of a text is called."""
    return f"{Path(name).stem}.ksm"
