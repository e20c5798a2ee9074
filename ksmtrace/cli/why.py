"""why: why KSM does not merge a process, a region or a page, and what to do

Walks the causes in the order in which ksmd would meet them, for the host, the
process, its regions and their pages, each with what was read that shows it.
First from page tables; then, as root, the contents of all registered memory
are read twice, to tell pages without an equal from those that change or wait.
Nothing is stopped, written or brought in from swap.

REGION chooses regions by part of their names, or those that lie in START-END;
ADDR is one page. Both are in hex.

examples:
  sudo ksmtrace why 1234
  sudo ksmtrace why 1234 --quick
  sudo ksmtrace why 1234 '[heap]' --scans 2
  sudo ksmtrace why 1234 7f12a4c01000
  sudo ksmtrace why 1234 --json | jq .pages
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit

if TYPE_CHECKING:
    from ksmtrace.inspect.why.answer import Answer


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import process_id, seconds, whole

    add = parser.add_argument
    add("pid", type=process_id, metavar="PID", help="the process")
    add("where", nargs="?", metavar="ADDR|REGION", help="one page or some regions; else all")
    add("--quick", action="store_true", help="don't look at contents, only at page tables")
    add(
        "--scans",
        type=whole("a number of scans", 0, 1000),
        default=0,
        metavar="N",
        help="wait for N full scans between looks",
    )
    add("--interval", type=seconds, default=1.0, metavar="S", help="between looks (default 1)")
    add("--seconds", type=seconds, default=60.0, metavar="S", help="at most, waiting (default 60)")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Answer; see the module's docstring."""
    from rich.console import Console

    from ksmtrace.cli.status import StatusLine
    from ksmtrace.inspect.why.ask import Question, ask, found_in_pages
    from ksmtrace.views.why import render_regions, render_why, why_as_dict

    line = StatusLine(sys.stderr)
    console = Console(highlight=False)

    def first(answer: Answer) -> None:
        # What is quickly known is shown at once; a pipe gets the final answer only.
        if not args.json and answer.page is None and console.is_terminal:
            line.clear()
            console.print(render_regions(answer))

    question = Question(
        args.pid, args.where, contents=not args.quick, scans=args.scans,
        interval=args.interval, seconds=args.seconds,
    )  # fmt: skip
    try:
        answer = ask(question, line.working, first)
    finally:
        line.clear()
    causes = found_in_pages(answer)
    if args.json:
        import json

        print(json.dumps(why_as_dict(answer, causes), indent=1))
    else:
        console.print(render_why(answer, causes))
    return Exit.OK
