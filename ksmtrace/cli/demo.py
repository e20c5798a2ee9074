"""`make demo`: trace the real ksmd at work on a small workload, and report.

Where this host can't, it says why and reports a real recording that comes with ksmtrace.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from ksmtrace.capture.choose import choose_source
from ksmtrace.capture.record import RecordRequest, record, tidy_up
from ksmtrace.capture.source import DEFAULT_RING_BYTES
from ksmtrace.cli.status import StatusLine
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.summary import summarise
from ksmtrace.views.report import render_report

SHIPPED = Path(__file__).parents[2] / "recordings" / "demo.ksm"
OUTPUT = Path("demo.ksm")
SECONDS = "6"
KNOBS = {"run": "1", "pages_to_scan": "300", "sleep_millisecs": "20", "use_zero_pages": "1"}


def _say(words: str) -> None:
    print(f"ksmtrace demo: {words}", file=sys.stderr, flush=True)


def record_live(output: Path) -> Path:
    """Record the workload here. Raises KsmtraceError where that can't be done."""
    choice = choose_source("auto")
    target = Target(output, force=True)
    tidy_up()
    _say(f"backend {choice.source.name}: {choice.why}")
    _say(f"a small workload runs for {SECONDS} s with ksmd on; knobs are restored afterwards")
    line = StatusLine(sys.stderr)
    command = (sys.executable, "-m", "ksmtrace.lab.workload", SECONDS)
    record(
        RecordRequest(target, choice, DEFAULT_RING_BYTES, knobs=KNOBS, command=command),
        status=line.progress,
        sealing=line.sealing,
    )
    line.clear()
    return output


def main() -> int:
    """Run the demo; returns the exit code."""
    try:
        path = record_live(OUTPUT)
    except KsmtraceError as error:
        if error.exit_code != Exit.HOST_CANNOT:
            raise
        _say(error.message)
        _say("so here is a recording of the same workload that comes with ksmtrace")
        _say("(others, and what each shows: recordings/README.md)")
        path = SHIPPED
    summary = summarise(timeline_of(StoredRecording(path)))
    Console(highlight=False).print(render_report(summary))
    _say(f"look again with: .venv/bin/ksmtrace report {path}")
    return Exit.OK


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KsmtraceError as error:
        _say(error.message)
        if error.hint:
            _say(error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
