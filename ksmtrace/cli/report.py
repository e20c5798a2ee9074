"""report: say what a recording holds, on one screen

examples:
  ksmtrace report a.ksm
  ksmtrace report a.ksm --json | jq .totals
  ksmtrace report a.ksm --html a.html   # charts, page maps: for any browser
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.recording.reader import StoredRecording


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recording", type=Path, metavar="REC", help="a .ksm folder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page for a browser, in one file"
    )
    parser.add_argument("--force", action="store_true", help="with --html: replace FILE")


def run(args: argparse.Namespace) -> int:
    """Report; see the module's docstring."""
    if args.force and args.html is None:
        raise KsmtraceError("--force is for --html FILE", "leave it out", Exit.USAGE)
    if args.html is not None:
        from ksmtrace.cli.one_heap import keep_freed_memory

        keep_freed_memory()
        from ksmtrace.cli.report_html import write_html_report

        return write_html_report(args.recording, args.html, force=args.force)
    from ksmtrace.recording.reader import StoredRecording, is_uksm
    from ksmtrace.timeline.build import timeline_of
    from ksmtrace.timeline.summary import summarise

    recording = StoredRecording(args.recording)
    if is_uksm(recording.manifest):
        return _uksm(recording, as_json=args.json)
    timeline = timeline_of(recording)
    summary = summarise(timeline)
    breaks = None
    if recording.manifest.get("cow"):
        from ksmtrace.timeline.breaks import break_tables

        breaks = break_tables(recording, timeline)
    shared = None
    if timeline.processes["vm"].notna().any():
        from ksmtrace.timeline.sharing import sharing

        shared = sharing(timeline, by="vm")
    if args.json:
        import json

        from ksmtrace.views.breaks import breaks_as_dict

        told = {
            "breaks": breaks and breaks_as_dict(breaks),
            "ksm_pages_shared_by_vms": None if shared is None else shared.to_dict(),
        }
        print(json.dumps(summary.as_dict() | told, indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.report import render_report

        Console(highlight=False).print(render_report(summary, breaks, shared))
    return Exit.OK


def _uksm(recording: StoredRecording, *, as_json: bool) -> int:
    from ksmtrace.timeline.uksm import summarise_uksm

    summary = summarise_uksm(recording)
    if as_json:
        import json

        print(json.dumps(summary.as_dict(), indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.uksm_report import render_uksm_report

        Console(highlight=False).print(render_uksm_report(summary))
    return Exit.OK
