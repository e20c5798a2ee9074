"""A lab run kept as a recording: events, counters after every step, processes, contents.

The manifest holds the scenario itself, so that the run can be predicted from nothing but the
recording (`replay.prediction`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from ksmtrace import __version__
from ksmtrace.capture.context import Context
from ksmtrace.kernel import host as machine
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.lab import operations as op
from ksmtrace.lab.on_kernel import Host
from ksmtrace.lab.performance import Observation, Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.scenario import to_toml
from ksmtrace.processes.contents import read_contents
from ksmtrace.recording.contents import ContentBook
from ksmtrace.recording.pseudonyms import Pseudonyms
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter

STEP = "step"
"""Why a counter sample was taken: an operation of the scenario was done."""


def record_performance(
    host: Host,
    plan: Plan,
    target: Target,
    *,
    watch: Callable[[Observation], None] = lambda _seen: None,
) -> Performance:
    """Perform a scenario on the real ksmd and keep it. Raises KsmtraceError."""
    namer = Pseudonyms()
    writer = RecordingWriter(target, _facts(host, plan), namer)
    begin = time.monotonic()
    try:
        context = Context(writer, host.sampler)
        context.sample_host("start")
        with closing(ContentBook(namer, writer.folder)) as book:
            keeper = _Keeper(writer, context, book)
            performance = host.perform(plan, watch=keeper.watching(watch), attend=keeper)
            for rows in book.ranks():
                writer.table("ranks", rows)
        writer.finish(
            "scenario",
            {
                "duration_s": round(time.monotonic() - begin, 6),
                "clock_end": _clock(),
                "command_status": None,
                "rmap_item_bytes": rmap_item_bytes(),
                "notes": [
                    *performance.notes,
                    *([context.census_note] if context.census_note else []),
                ],
                "censuses": list(context.censuses.values()),
                "lab": {
                    "scenario": to_toml(plan.scenario),
                    "processes": {str(tgid): name for tgid, name in performance.tgids.items()},
                },
            },
        )
    except BaseException as error:
        writer.abandon(f"error: {type(error).__name__}")
        raise
    return performance


class _Keeper:
    """Writes what happens in the lab into a recording."""

    def __init__(self, writer: RecordingWriter, context: Context, book: ContentBook) -> None:
        self._writer = writer
        self._context = context
        self._book = book

    def watching(self, watch: Callable[[Observation], None]) -> Callable[[Observation], None]:
        """Keep each observation and hand it on."""

        def keep(seen: Observation) -> None:
            ts = time.monotonic_ns()
            self._writer.events(seen.events)
            self._context.events(seen.events)
            while self._context.work(1.0):
                pass
            self._context.sample_host(STEP)
            rows = [
                {"ts": ts, "reason": STEP, "tgid": tgid, **seen.processes[name]}
                for tgid, name in seen.tgids.items()
                if name in seen.processes
            ]
            self._writer.table("counters", rows)
            self._writer.flush_if_due()
            watch(seen)

        return keep

    def before(self, operation: op.Operation, tgids: list[int], full_scans: int) -> None:
        """Note what the pages hold, before ksmd works."""
        self._contents(operation, tgids, full_scans, "before")

    def after(self, operation: op.Operation, tgids: list[int], full_scans: int) -> None:
        """The same afterwards; `full_scans` is still the scan's own number."""
        self._contents(operation, tgids, full_scans, "after")

    def end(self) -> None:
        """The last samples."""
        self._context.finish()
        while self._context.work(1.0):
            pass
        self._context.sample_host("end")

    def _contents(self, operation: op.Operation, tgids: list[int], seq: int, phase: str) -> None:
        if not isinstance(operation, op.Scan | op.Batch):
            return
        for tgid in tgids:
            pages = read_contents(tgid)
            rows = list(self._book.rows(time.monotonic_ns(), seq, phase, tgid, pages))
            self._writer.table("contents", rows)


def _clock() -> dict[str, int]:
    return {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()}


def _facts(host: Host, plan: Plan) -> dict[str, Any]:
    return {
        "ksmtrace": __version__,
        "kernel": machine.kernel_release(),
        "kernel_build": machine.kernel_build(),
        "machine": machine.machine(),
        "cpus": machine.CPUS,
        "memory_bytes": machine.memory_bytes(),
        "page_bytes": machine.PAGE_BYTES,
        "backend": host.source.name,
        "backend_why": host.why,
        "fields_unknown": list(host.source.fields_unknown),
        "pseudonyms": True,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "clock": _clock(),
        "ring_bytes": 0,
        "only_pids": None,
        "command": None,
        "knobs": host.sampler.knobs(),
        "knobs_set": dict(plan.knobs),
    }
