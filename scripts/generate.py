"""Write what follows from the registries: the C header and the generated parts of the docs."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ksmtrace.cli.main import COMMANDS, build_parser
from ksmtrace.events.c_header import c_header
from ksmtrace.events.docs import events_page
from ksmtrace.lab.docs import scenarios_page
from ksmtrace.recording.docs import recording_page
from ksmtrace.replay.conformance import RULES

ROOT = Path(__file__).parents[1]
_RULES = re.compile(r"(<!-- rules -->\n).*?(<!-- /rules -->)", re.DOTALL)
_HELP = re.compile(r"(<!-- help -->\n```text\n).*?(\n```\n<!-- /help -->)", re.DOTALL)


def help_text(verb: str) -> str:
    """What `ksmtrace VERB --help` prints in a terminal of 80 columns."""
    os.environ["COLUMNS"] = "80"
    actions = build_parser()._subparsers  # noqa: SLF001 argparse has no other way
    assert actions is not None
    group = actions._group_actions[0]  # noqa: SLF001 as above
    assert isinstance(group, argparse._SubParsersAction)  # noqa: SLF001 as above
    text: str = group.choices[verb].format_help()
    return text.strip()


def command_page(verb: str) -> str:
    """docs/VERB.md with the command's present help, and the rules it keeps, in their places."""
    page = (ROOT / "docs" / f"{verb}.md").read_text()
    help_now = help_text(verb)
    page = _HELP.sub(lambda found: found[1] + help_now + found[2], page)
    rules = "".join(f"- **{name}**: {meaning}\n" for name, meaning in RULES.items())
    return _RULES.sub(lambda found: found[1] + rules + found[2], page)


GENERATED: dict[str, Callable[[], str]] = {
    "bpf/event.h": c_header,
    "docs/events.md": events_page,
    "docs/recording.md": recording_page,
    "docs/scenarios.md": scenarios_page,
    **{
        f"docs/{verb}.md": partial(command_page, verb)
        for verbs in COMMANDS.values()
        for verb in verbs
    },
}


def main() -> int:
    """Write every generated file; with --check only name those that differ, and exit 1."""
    differing = [name for name, text in GENERATED.items() if (ROOT / name).read_text() != text()]
    if "--check" in sys.argv:
        print("\n".join(f"{name} is out of date: run make bpf" for name in differing))
        return int(bool(differing))
    for name in differing:
        (ROOT / name).write_text(GENERATED[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
