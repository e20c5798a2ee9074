"""exporter: serve KSM's counters, processes, cgroups and guests to Prometheus

Keeps the names of node_exporter's ksmd collector and adds what it lacks.
Without --capture it only reads /sys and /proc; to read other users' processes
it needs root or CAP_DAC_READ_SEARCH. Changes nothing on the host.

examples:
  sudo ksmtrace exporter
  sudo ksmtrace exporter --listen '[::1]:9437' --processes 20
  sudo ksmtrace exporter --capture          # scan durations, merges
  sudo ksmtrace exporter --capture --cow    # and who breaks the sharing
  ksmtrace exporter --print-unit > ksmtrace-exporter.service
  ksmtrace exporter --print-dashboard > dashboard.json
"""

from __future__ import annotations

import argparse

from ksmtrace.cli.workload import say
from ksmtrace.errors import Exit, KsmtraceError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import whole

    add = parser.add_argument
    add(
        "--listen",
        default="127.0.0.1:9437",
        metavar="ADDRESS:PORT",
        help="where (default: 127.0.0.1:9437)",
    )
    add(
        "--processes",
        type=whole("a number", 0, 10_000),
        default=50,
        metavar="N",
        help="processes with series of their own (default: 50)",
    )
    add(
        "--cgroups",
        type=whole("a number", 0, 10_000),
        default=50,
        metavar="N",
        help="cgroups, and guests, with such (default: 50)",
    )
    add("--capture", action="store_true", help="trace KSM too: scans, merges, losses")
    add("--cow", action="store_true", help="with --capture: writes to merged pages, and who")
    add("--backend", metavar="NAME", help="with --capture: auto, core, fentry, bcc or tracefs")
    add("--print-unit", action="store_true", help="print a systemd unit")
    add("--print-dashboard", action="store_true", help="print a dashboard for Grafana")


def run(args: argparse.Namespace) -> int:
    """Serve; see the module's docstring."""
    from ksmtrace.kernel.signals import signals_interrupt

    # Before all that is slow to import: a signal is how an exporter ends, at any moment.
    try:
        with signals_interrupt():
            _run(args)
    except KeyboardInterrupt:
        pass
    return Exit.OK


def _run(args: argparse.Namespace) -> None:
    from ksmtrace.exporter import files

    if args.print_unit:
        unit = files.unit()
        if unit.shut:
            say(_shut(unit.shut))
        print(unit.text, end="")
        return
    if args.print_dashboard:
        print(files.dashboard(), end="")
        return
    if not args.capture and (args.cow or args.backend):
        raise KsmtraceError("--cow and --backend are about a capture", "add --capture", Exit.USAGE)
    from ksmtrace.exporter.listening import parse_address
    from ksmtrace.exporter.run import Plan, export

    export(
        Plan(
            address=parse_address(args.listen),
            processes=args.processes,
            groups=args.cgroups,
            backend=(args.backend or "auto") if args.capture else None,
            cow=args.cow,
        ),
        say,
    )


def _shut(folder: str) -> str:
    return (
        f"the unit's user can't enter {folder}, where ksmtrace or its Python lies:\n"
        "          install it where all may, as in /opt or /usr/local, for a service"
    )
