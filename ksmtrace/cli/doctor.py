"""doctor: say what this host can and can't do for tracing KSM

Each thing that is missing comes with its remedy. Exit code 3 if KSM can't be
traced here at all. Of a kernel with UKSM in its place it says what can be seen.

examples:
  sudo ksmtrace doctor
  ksmtrace doctor --json
"""

from __future__ import annotations

import argparse

from ksmtrace.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Examine; see the module's docstring."""
    from ksmtrace.capture.doctor import examine

    diagnosis = examine()
    if args.json:
        import json

        print(json.dumps(diagnosis.as_dict(), indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.doctor import render_diagnosis

        Console(highlight=False).print(render_diagnosis(diagnosis))
    return Exit.OK if diagnosis.can_record else Exit.HOST_CANNOT
