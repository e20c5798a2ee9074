"""kernels: say how KSM differs between Linux releases

Without RELEASE it lists what came with each and what that means for a trace,
oldest first; with one, everything about it.

A release is 6.11, 6.12.117, host for the running one, or 2011 for the first.
6.12+fork_counters is 6.12 with a fix that some of its stable kernels carry.

--uksm lists the ports of UKSM instead: a patch that takes KSM's place.

examples:
  ksmtrace kernels
  ksmtrace kernels host
  ksmtrace kernels --changes
  ksmtrace kernels 6.11 --json | jq .behaviour
  ksmtrace kernels --uksm
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.kernel.releases import Profile


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("release", nargs="?", metavar="RELEASE", help="only this one, in full")
    parser.add_argument("--changes", action="store_true", help="list commits, status and effect")
    parser.add_argument("--uksm", action="store_true", help="list UKSM's ports: size, tests")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Tell; see the module's docstring."""
    if args.uksm:
        return _uksm(args)
    from ksmtrace.kernel.releases import profile, running_profile

    if args.release is None:
        kernel = None
    else:
        kernel = running_profile() if args.release == "host" else profile(args.release)
    if kernel is not None and kernel.note:
        print(f"ksmtrace: {kernel.note}", file=sys.stderr)
    if args.json:
        _print_json(kernel, only_changes=args.changes)
    else:
        _print_text(kernel, only_changes=args.changes)
    return Exit.OK


def _print_json(kernel: Profile | None, *, only_changes: bool) -> None:
    import json

    from ksmtrace.views.kernels import changes_as_dict, kernel_as_dict, releases_as_dict

    if only_changes:
        told = changes_as_dict(kernel)
    else:
        told = releases_as_dict() if kernel is None else kernel_as_dict(kernel)
    print(json.dumps(told, indent=1))


def _print_text(kernel: Profile | None, *, only_changes: bool) -> None:
    from rich.console import Console

    from ksmtrace.views.kernels import render_changes, render_kernel, render_releases

    if only_changes:
        told = render_changes(kernel)
    else:
        told = render_releases() if kernel is None else render_kernel(kernel)
    Console(highlight=False).print(told)


def _uksm(args: argparse.Namespace) -> int:
    from ksmtrace.kernel.host import kernel_release
    from ksmtrace.kernel.uksm_ports import known_port
    from ksmtrace.views.uksm_ports import ports_as_dict, render_ports

    if args.changes:
        raise KsmtraceError(
            "the commits of --changes are KSM's, not UKSM's", "leave one of them out", Exit.USAGE
        )
    release = kernel_release() if args.release == "host" else args.release
    port = None if release is None else known_port(release)
    if args.json:
        import json

        print(json.dumps(ports_as_dict(port), indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_ports(port))
    return Exit.OK
