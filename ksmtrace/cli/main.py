"""The command line: finds the verb, runs it, prints errors once."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ksmtrace import __version__
from ksmtrace.errors import Exit, KsmtraceError

COMMANDS: dict[str, tuple[str, ...]] = {
    "capture": ("record", "stat", "exporter"),
    "look": ("report", "timeline", "diff", "export", "import"),
    "ask": ("why", "estimate", "advise", "doctor"),
    "model": ("lab", "simulate", "replay", "kernels"),
}
"""Every verb, by what it is for. A verb is a module of this package with a docstring that is its
help, `configure(parser)` and `run(args) -> int`."""


def _module(verb: str) -> ModuleType:
    # No module can be called `import`.
    return importlib.import_module(f"ksmtrace.cli.{verb}{'_' * keyword.iskeyword(verb)}")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    lines = ["See what Linux Kernel Samepage Merging (KSM) does.", ""]
    for group, verbs in COMMANDS.items():
        lines.append(f"{group}:")
        for verb in verbs:
            summary = (_module(verb).__doc__ or "").split("\n", 1)[0].partition(": ")[2]
            lines.append(f"  {verb:<10} {summary}")
    lines += [
        "",
        "begin with:",
        "  sudo ksmtrace doctor",
        "  sudo ksmtrace record -o a.ksm --duration 10",
    ]
    lines += ["  ksmtrace report a.ksm"]
    parser = argparse.ArgumentParser(
        prog="ksmtrace",
        usage="ksmtrace COMMAND [OPTIONS]",
        description="\n".join(lines),
        epilog="ksmtrace COMMAND --help explains a command, with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ksmtrace {__version__}")
    children = parser.add_subparsers(dest="verb", metavar="COMMAND", help=argparse.SUPPRESS)
    for group_verbs in COMMANDS.values():
        for verb in group_verbs:
            module = _module(verb)
            summary, _, rest = (module.__doc__ or "").partition("\n")
            child = children.add_parser(
                verb,
                prog=f"ksmtrace {verb}",
                description=f"{summary.partition(': ')[2]}\n{rest}".rstrip(),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.configure(child)
    return parser


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The arguments, options and others in any order, except where all that follows is a command.

    argparse alone takes what may be left out as left out once an option has come.
    """
    known = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)  # noqa: SLF001 argparse has no other way
    child = known.choices.get(arguments[0]) if known is not None and arguments else None
    if child is None or any(a.nargs == argparse.REMAINDER for a in child._actions):  # noqa: SLF001 as above
        return parser.parse_args(arguments)
    args: argparse.Namespace = child.parse_intermixed_args(arguments[1:])
    args.verb = arguments[0]
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    # numpy's linear algebra, which nothing here uses, would start a thread a core at import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrow's own allocator keeps what it was given; a recorder shall stay small.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    parser = build_parser()
    args = _parsed(parser, list(sys.argv[1:] if arguments is None else arguments))
    if args.verb is None:
        parser.print_help()
        return Exit.USAGE
    try:
        code: int = _module(args.verb).run(args)
        sys.stdout.flush()
        return code
    except KsmtraceError as error:
        print(f"ksmtrace: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"          {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ksmtrace: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            what = f"{error.strerror} ({error.filename})" if error.filename else str(error)
            print(f"ksmtrace: {what}", file=sys.stderr)
            return Exit.FAILED
        # The reader of our output has gone, as `head` does; that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
