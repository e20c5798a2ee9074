"""The command line: finds the verb, runs it, prints errors once."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from ksmtrace import __version__
from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMANDS: dict[str, tuple[str, ...]] = {
    "capture": ("record", "top", "stat", "exporter"),
    "look": ("report", "timeline", "diff", "export", "import"),
    "ask": ("why", "estimate", "advise", "tune", "doctor"),
    "model": ("lab", "simulate", "replay", "kernels", "learn"),
}
"""Every verb, by what it is for. A verb is a module of this package with a docstring that is its
help, `configure(parser)` and `run(args) -> int`."""


_INDENT = " " * len("ksmtrace: ")
_KEPT = "\0"
"""A space that no line is broken at."""


def _module(verb: str) -> ModuleType:
    # No module can be called `import`.
    return importlib.import_module(f"ksmtrace.cli.{verb}{'_' * keyword.iskeyword(verb)}")


class _Parser(argparse.ArgumentParser):
    """A parser whose help fails as any other output does: argparse's own passes errors over."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message and file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(_harmless(message) if message else message, file)


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
    parser = _Parser(
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
    _open_closed_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except KsmtraceError as error:
        _say(f"ksmtrace: {error.message}")
        for line in _wrapped(error.hint or ""):
            _say(_INDENT + line)
        return error.exit_code
    except KeyboardInterrupt:
        print("ksmtrace: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            what = f"{error.strerror} ({error.filename})" if error.filename else str(error)
            _say(f"ksmtrace: {what}")
        # What still waits for a full disk would be tried once more at the end, and told in
        # Python's words.
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # The reader of our output has gone, as `head` does; that is no error.
        return Exit.OK if isinstance(error, BrokenPipeError) else Exit.FAILED


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    try:
        args = _parsed(parser, arguments)
    except SystemExit:
        # argparse has printed help or what is wrong; whether that can be written is ours to tell.
        sys.stdout.flush()
        raise
    if args.verb is None:
        parser.print_help()
        return Exit.USAGE
    code: int = _module(args.verb).run(args)
    return code


def _say(words: str) -> None:
    print(_harmless(words), file=sys.stderr)


def _harmless(words: str) -> str:
    """The same lines with what could steer a terminal escaped: a file's name may hold anything."""
    from ksmtrace.processes.identity import clean

    return "\n".join(map(clean, words.split("\n")))


def _open_closed_streams() -> None:
    """Put /dev/null where the shell closed a standard stream (`>&-`): Python has None there."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        # Else the next file that is opened would be taken for it, by us and by what we start.
        descriptor = os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, number == descriptor)
        mode = "w" if number else "r"
        setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 until the end


def _wrapped(hint: str) -> list[str]:
    """A hint's lines. One that can't be made to fit, for a long path in it, stays whole."""
    width = 80 - len(_INDENT)
    lines: list[str] = []
    for line in hint.splitlines():
        # What stands behind the colon may be a command to copy: it stays on one line if it can.
        head, colon, tail = line.rpartition(": ")
        kept = head + colon + (tail.replace(" ", _KEPT) if len(tail) <= width else tail)
        parts = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
        fits = all(len(part) <= width for part in parts)
        lines += [part.replace(_KEPT, " ") for part in parts] if fits else [line]
    return lines


if __name__ == "__main__":
    sys.exit(main())
