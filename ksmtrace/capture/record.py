"""From a source to a recording: what `ksmtrace record` does, without its command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ksmtrace import __version__
from ksmtrace.capture.choose import Choice, open_first
from ksmtrace.capture.code_book import CodeBook
from ksmtrace.capture.command import Command
from ksmtrace.capture.context import Context
from ksmtrace.capture.cow import CowWatch
from ksmtrace.capture.libbpf import struct_size
from ksmtrace.capture.session import Options, Progress, Session, Signals
from ksmtrace.capture.uksm import NO_EVENTS, UksmSource
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel import host, sysfs
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.kernel.knobs import changed, recover
from ksmtrace.kernel.stepper import STEPPING_KNOBS, the_stepper
from ksmtrace.kernel.uksm import UksmSampler
from ksmtrace.processes.lifecycle import ProcConnector
from ksmtrace.recording.target import Target


@dataclass(frozen=True)
class RecordRequest:
    """What to record and where to."""

    target: Target
    choice: Choice
    ring_bytes: int
    options: Options = field(default_factory=Options)
    knobs: dict[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    merge: bool = False
    raw_pointers: bool = False
    cmdlines: bool = False
    contents: bool = False
    watch: CowWatch | None = None
    """Filled in by the source that `choice` names; None: writes to merged pages are not watched."""


@dataclass(frozen=True)
class Recorded:
    """How it went."""

    path: Path
    ended: str
    events: int
    lost: int
    scans: int
    command_status: int | None
    samples: int = 0
    """Of UKSM's counters, where there is no KSM."""


def record(
    request: RecordRequest,
    *,
    status: Callable[[Progress], None] = lambda _progress: None,
    sealing: Callable[[float], None] = lambda _share: None,
    say: Callable[[str], None] = lambda _words: None,
) -> Recorded:
    """Record until an option, a signal or the command ends it.

    status, sealing: progress while recording (Progress) and while sealing (share done). say: words
    for the person in between. Knobs are restored before this returns or raises.
    Raises KsmtraceError; what was recorded until then is kept.
    """
    from ksmtrace.recording.pseudonyms import Pseudonyms, RawPointers

    signals = Signals()
    with ExitStack() as stack:
        stack.enter_context(signals.installed())
        choice, stream, attach_seconds = open_first(stack, request.choice, request.ring_bytes, say)
        # Only now what is slow to import: the events of the meantime wait in the ring.
        from ksmtrace.capture.stepped import SteppedSession
        from ksmtrace.recording.contents import ContentBook
        from ksmtrace.recording.writer import RecordingWriter

        beside = _beside(_system(choice))
        sampler, connector, notes = beside.sampler, beside.connector, beside.notes
        if connector is not None:
            stack.callback(connector.close)
        stack.callback(sampler.close)
        knobs_before = sampler.knobs()
        stepper = the_stepper() if request.contents else None
        stack.enter_context(changed(request.knobs | (STEPPING_KNOBS if stepper else {})))
        namer = RawPointers() if request.raw_pointers else Pseudonyms()
        writer = RecordingWriter(request.target, _facts(request, choice, knobs_before), namer)
        command: Command | None = None

        def launch() -> int:
            nonlocal command
            command = Command(request.command, merge=request.merge)
            return command.fileno()

        try:
            context = Context(
                writer,
                sampler,
                cmdlines=request.cmdlines,
                only=request.options.pids,
                process_ids_match=beside.processes,
                code=CodeBook(writer, request.watch) if request.watch else None,
            )
            context.search_for_processes = connector is None
            session: Session | SteppedSession
            if stepper is not None:
                book = stack.enter_context(closing(ContentBook(namer, writer.folder)))
                session = SteppedSession(
                    stream,
                    writer,
                    context,
                    signals,
                    request.options,
                    stepper=stepper,
                    book=book,
                    connector=connector,
                    launch=launch if request.command else None,
                    status=status,
                )
            else:
                session = Session(
                    stream,
                    writer,
                    context,
                    signals,
                    request.options,
                    connector=connector,
                    launch=launch if request.command else None,
                    status=status,
                    nothing_to_wait_for=lambda: no_scan_can_end(context),
                )
            say(f"recording to {request.target.path} (attached in {1000 * attach_seconds:.0f} ms)")
            ended = session.run()
            command_status = command.end() if command else None
            if command and command_status is None:
                say(f"{request.command[0]} still runs, as process {command.pid}")
            if context.census_note and beside.system == "ksm":
                notes.append(context.census_note)
            if connector is not None and connector.overruns:
                notes.append(f"process events were dropped {connector.overruns} times")
            facts = _final_facts(request, session.progress, command_status, notes, context)
            writer.finish(ended, facts, sealing)
        except BaseException as error:
            words = error.message if isinstance(error, KsmtraceError) else type(error).__name__
            replaced = writer.abandon(f"error: {words}")
            if replaced is not None:
                say(f"the recording that was to be replaced is kept as {replaced}")
            raise
    return Recorded(
        path=request.target.path,
        ended=ended,
        events=writer.rows["events"],
        lost=int(writer.manifest["lost"]),
        scans=session.progress.scans,
        command_status=command_status,
        samples=writer.rows["uksm"],
    )


_FOREIGN_PROCESS_IDS = (
    "this is a container: events carry the host's process ids, so nothing was read about processes"
)


def tidy_up() -> str | None:
    """Undo what killed runs left behind; returns what in words, or None if there was nothing.

    Raises KsmtraceError for a knob that can't be restored.
    """
    from ksmtrace.capture.tracefs import remove_stale_instances

    removed = remove_stale_instances()
    restored = [f"{name}={value}" for name, value in recover().items()]
    return " ".join(restored + removed) or None


def no_scan_can_end(context: Context) -> bool:
    """Whether ksmd stands still for good: switched off, or nothing on its list."""
    return sysfs.read_knob("run") != "1" or not context.known_tgids


@dataclass(frozen=True)
class _Beside:
    """What is read beside the events. processes: whether anything can be read about them."""

    system: str
    sampler: sysfs.HostSampler | UksmSampler
    connector: ProcConnector | None
    notes: list[str]
    processes: bool


def _system(choice: Choice) -> str:
    """Which of the two the kernel has: ksm or uksm."""
    return "uksm" if choice.source.name == UksmSource.name else "ksm"


def _beside(system: str) -> _Beside:
    if system == "uksm":
        # UKSM wants nobody registered, and the kernel tells of no process what it merged there.
        return _Beside(system, UksmSampler(), None, [NO_EVENTS], processes=False)
    sampler = sysfs.HostSampler()
    if not host.in_initial_pid_namespace():
        return _Beside(system, sampler, None, [_FOREIGN_PROCESS_IDS], processes=False)
    return _Beside(system, sampler, *_connect(), processes=True)


def _connect() -> tuple[ProcConnector | None, list[str]]:
    try:
        return ProcConnector(), []
    except OSError as error:
        return None, [f"no process events ({error.strerror}): /proc is searched at each interval"]


def _facts(request: RecordRequest, choice: Choice, knobs: dict[str, str]) -> dict[str, object]:
    source = choice.source
    return {
        "ksmtrace": __version__,
        "kernel": host.kernel_release(),
        "kernel_build": host.kernel_build(),
        "machine": host.machine(),
        "cpus": host.CPUS,
        "memory_bytes": host.memory_bytes(),
        "page_bytes": host.PAGE_BYTES,
        "system": _system(choice),
        "backend": source.name,
        "backend_why": choice.why,
        "fields_unknown": list(source.fields_unknown),
        "pseudonyms": not request.raw_pointers,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "clock": {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()},
        "ring_bytes": request.ring_bytes,
        "only_pids": sorted(request.options.pids) if request.options.pids is not None else None,
        "command": Path(request.command[0]).name if request.command else None,
        "knobs": knobs,
        "knobs_set": dict(request.knobs),
        **_cow_facts(request.watch),
    }


def _cow_facts(watch: CowWatch | None) -> dict[str, object]:
    return {"cow": watch.facts() if watch is not None else None}


def _final_facts(
    request: RecordRequest,
    progress: Progress,
    command_status: int | None,
    notes: list[str],
    context: Context,
) -> dict[str, object]:
    return {
        "duration_s": round(progress.seconds, 6),
        "clock_end": {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()},
        "command_status": command_status,
        "rmap_item_bytes": struct_size("ksm_rmap_item") or rmap_item_bytes(),
        "notes": notes,
        "censuses": list(context.censuses.values()),
        **_cow_facts(request.watch),
    }
