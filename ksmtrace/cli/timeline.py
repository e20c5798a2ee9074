"""timeline: show a recording in time, and drill down

Without an option: a strip chart of the run. A page is named by process and
address (hexadecimal, as in /proc/PID/maps); a process by its pid, its name or
@ROW of the table of processes.

examples:
  ksmtrace timeline a.ksm
  ksmtrace timeline a.ksm --scan 3
  ksmtrace timeline a.ksm --process qemu-system-x86
  ksmtrace timeline a.ksm --page 1234:7f2a10000000
  ksmtrace timeline a.ksm --region '[heap]'
  ksmtrace timeline a.ksm --sharing cgroup --csv > matrix.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.timeline.build import Timeline
    from ksmtrace.timeline.sharing import By
    from ksmtrace.views.timeline_parts import Run, View


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recording", type=Path, metavar="REC", help="a .ksm folder")
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "--scan", nargs="?", type=int, const=True, metavar="N",
        help="a full scan: what it did, and to whom; all without N",
    )  # fmt: skip
    add(
        "--process", nargs="?", const="", metavar="P",
        help="a process: how its pages merged and ended; all without P",
    )  # fmt: skip
    add("--page", metavar="PID:ADDR", help="a page: each time it was merged, and by whom broken")
    add("--ksm-page", type=int, metavar="ID", help="a KSM page: born, shared, dead")
    add(
        "--region", nargs="?", const="", metavar="R",
        help="the ledger of mappings; R is a name, PID:ADDR or @ROW",
    )  # fmt: skip
    add(
        "--sharing", nargs="?", const="process", choices=("process", "cgroup", "vm"),
        help="who shares with whom",
    )  # fmt: skip
    add("--breaks", action="store_true", help="who wrote to merged pages, and from where")
    add("--advisor", action="store_true", help="the advisor's decisions, and its formula's")
    add("--accounts", action="store_true", help="what events say against what the kernel counts")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print the view's table as CSV")


def run(args: argparse.Namespace) -> int:
    """Show; see the module's docstring."""
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.timeline.build import timeline_of
    from ksmtrace.views.timeline_parts import run_of

    stored = StoredRecording(args.recording)
    timeline = timeline_of(stored)
    view = _chosen(args, run_of(timeline, stored.manifest, str(args.recording)), timeline)
    if args.json:
        print(view.as_json())
    elif args.csv:
        print(view.as_csv(), end="")
    else:
        _print(view)
    return Exit.OK


def _chosen(args: argparse.Namespace, run: Run, timeline: Timeline) -> View:
    for option, view in _VIEWS.items():
        if (named := getattr(args, option)) is not None and named is not False:
            return view(run, named, timeline)
    from ksmtrace.views.timeline_chart import strip_chart

    return strip_chart(run)


def _scan(run: Run, number: int, _: Timeline) -> View:
    from ksmtrace.views.timeline_scan import scan_view
    from ksmtrace.views.timeline_scans import scans_view
    from ksmtrace.views.timeline_select import scan_numbered

    if number is True:
        return scans_view(run)
    return scan_view(run, scan_numbered(run.tables.scans, number))


def _process(run: Run, named: str, _: Timeline) -> View:
    from ksmtrace.views.timeline_process import process_view, processes_view
    from ksmtrace.views.timeline_select import one_process

    if not named:
        return processes_view(run)
    return process_view(run, one_process(run.tables.processes, named))


def _page(run: Run, named: str, _: Timeline) -> View:
    from ksmtrace.views.timeline_page import page_view
    from ksmtrace.views.timeline_select import page_named

    return page_view(run, *page_named(run, named))


def _ksm_page(run: Run, number: int, _: Timeline) -> View:
    from ksmtrace.views.timeline_ksm_page import ksm_page_view
    from ksmtrace.views.timeline_select import ksm_page_numbered

    return ksm_page_view(run, ksm_page_numbered(run.tables.stable_pages, number))


def _region(run: Run, named: str, _: Timeline) -> View:
    from ksmtrace.views.timeline_regions import regions_view
    from ksmtrace.views.timeline_select import regions_named

    tables = run.tables
    return regions_view(run, regions_named(tables.region_ledger, tables.processes, named))


def _sharing(run: Run, by: By, timeline: Timeline) -> View:
    from ksmtrace.timeline.sharing import sharing
    from ksmtrace.views.timeline_sharing import sharing_view

    return sharing_view(run, sharing(timeline, by=by), by)


def _breaks(run: Run, _named: bool, timeline: Timeline) -> View:
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.timeline.breaks import break_tables
    from ksmtrace.views.timeline_writers import breaks_view

    if not run.manifest.get("cow"):
        raise KsmtraceError(
            "this recording does not say who wrote to merged pages",
            "record with --cow to see it",
        )
    return breaks_view(run, break_tables(StoredRecording(run.name), timeline))


def _advisor(run: Run, _named: bool, _: Timeline) -> View:
    from ksmtrace.views.timeline_advisor import advisor_view

    return advisor_view(run)


def _accounts(run: Run, _named: bool, _: Timeline) -> View:
    from ksmtrace.views.timeline_accounts import accounts_view

    return accounts_view(run)


_VIEWS: dict[str, Callable[[Run, Any, Timeline], View]] = {
    "scan": _scan,
    "process": _process,
    "page": _page,
    "ksm_page": _ksm_page,
    "region": _region,
    "sharing": _sharing,
    "breaks": _breaks,
    "advisor": _advisor,
    "accounts": _accounts,
}
"""The drill-downs, by their options."""


def _print(view: View) -> None:
    from rich.console import Console

    from ksmtrace.views.timeline_parts import in_ascii

    console = Console(highlight=False)
    if console.encoding.startswith("utf"):
        console.print(view.render(console.width))
        return
    with console.capture() as capture:
        console.print(view.render(console.width))
    sys.stdout.write(in_ascii(capture.get()))
