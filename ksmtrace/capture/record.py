"""From a source to a recording: what `ksmtrace record` does, without its command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ksmtrace import __version__
from ksmtrace.capture.choose import Choice
from ksmtrace.capture.command import Command
from ksmtrace.capture.context import Context
from ksmtrace.capture.libbpf import struct_size
from ksmtrace.capture.session import Options, Progress, Session, Signals
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel import host, sysfs
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.kernel.knobs import changed
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


@dataclass(frozen=True)
class Recorded:
    """How it went."""

    path: Path
    ended: str
    events: int
    lost: int
    scans: int
    attach_seconds: float
    command_status: int | None


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
    source = request.choice.source
    with ExitStack() as stack:
        stack.enter_context(signals.installed())
        begin = time.monotonic()
        stream = stack.enter_context(source.open(ring_bytes=request.ring_bytes))
        attach_seconds = time.monotonic() - begin
        # Only now what is slow to import: the events of the meantime wait in the ring.
        from ksmtrace.recording.writer import RecordingWriter

        connector, connector_note = _connect()
        if connector is not None:
            stack.callback(connector.close)
        sampler = sysfs.HostSampler()
        stack.callback(sampler.close)
        knobs_before = sampler.knobs()
        stack.enter_context(changed(request.knobs))
        namer = RawPointers() if request.raw_pointers else Pseudonyms()
        writer = RecordingWriter(request.target, _facts(request, knobs_before), namer)
        command: Command | None = None

        def launch() -> int:
            nonlocal command
            command = Command(request.command, merge=request.merge)
            return command.fileno()

        try:
            context = Context(writer, sampler, cmdlines=request.cmdlines, only=request.options.pids)
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
            notes = [note for note in (context.census_note, connector_note) if note]
            if connector is not None and connector.overruns:
                notes.append(f"process events were dropped {connector.overruns} times")
            writer.finish(
                ended,
                _final_facts(session.progress, command_status, notes),
                sealing,
            )
        except KsmtraceError as error:
            writer.abandon(f"error: {error.message}")
            raise
        except BaseException as error:
            writer.abandon(f"error: {type(error).__name__}")
            raise
    progress = session.progress
    return Recorded(
        path=request.target.path,
        ended=ended,
        events=writer.rows["events"],
        lost=int(writer.manifest["lost"]),
        scans=progress.scans,
        attach_seconds=attach_seconds,
        command_status=command_status,
    )


def no_scan_can_end(context: Context) -> bool:
    """Whether ksmd stands still for good: switched off, or nothing on its list."""
    return sysfs.read_knob("run") != "1" or not context.known_tgids


def _connect() -> tuple[ProcConnector | None, str | None]:
    try:
        return ProcConnector(), None
    except OSError as error:
        return None, f"no process events ({error.strerror}): names come from /proc alone"


def _facts(request: RecordRequest, knobs: dict[str, str]) -> dict[str, object]:
    source = request.choice.source
    return {
        "ksmtrace": __version__,
        "kernel": host.kernel_release(),
        "machine": host.machine(),
        "cpus": host.CPUS,
        "memory_bytes": host.memory_bytes(),
        "page_bytes": host.PAGE_BYTES,
        "backend": source.name,
        "backend_why": request.choice.why,
        "fields_unknown": list(source.fields_unknown),
        "pseudonyms": not request.raw_pointers,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "clock": {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()},
        "ring_bytes": request.ring_bytes,
        "only_pids": sorted(request.options.pids) if request.options.pids is not None else None,
        "command": Path(request.command[0]).name if request.command else None,
        "knobs": knobs,
        "knobs_set": dict(request.knobs),
    }


def _final_facts(
    progress: Progress, command_status: int | None, notes: list[str]
) -> dict[str, object]:
    return {
        "duration_s": round(progress.seconds, 6),
        "clock_end": {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()},
        "command_status": command_status,
        "rmap_item_bytes": struct_size("ksm_rmap_item") or rmap_item_bytes(),
        "notes": notes,
    }
