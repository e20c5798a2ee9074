"""Write what follows from the registries: the C header and the generated parts of the docs."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from library.readme import readme
from worked import refreshed

from ksmtrace.cli.main import COMMANDS, build_parser
from ksmtrace.cli.main import main as cli
from ksmtrace.events.c_header import c_header
from ksmtrace.events.docs import events_page
from ksmtrace.exporter.docs import metrics_table
from ksmtrace.inspect.advise.docs import behaviours_table, rules_table
from ksmtrace.inspect.stat.figures import STAT_MEASURES
from ksmtrace.inspect.why.causes import CAUSES
from ksmtrace.kernel.releases import parse_release
from ksmtrace.lab.docs import scenarios_page
from ksmtrace.lab.where import HOST
from ksmtrace.recording.docs import recording_page
from ksmtrace.replay.conformance import RULES
from ksmtrace.timeline.docs import timeline_tables_page
from ksmtrace.timeline.host_figures import Measure
from ksmtrace.timeline.measures import MEASURES
from ksmtrace.top.docs import columns_table, figures_table, keys_table
from ksmtrace.views.uksm_ports import ports_table

ROOT = Path(__file__).parents[1]
_HELP = re.compile(r"(<!-- help -->\n```text\n).*?(\n```\n<!-- /help -->)", re.DOTALL)
_OUTPUT = re.compile(
    r"(<!-- output: ksmtrace ([^\n]*) -->\n```text\n).*?(```\n<!-- /output -->)", re.DOTALL
)


def output(command_line: str) -> str:
    """What a command prints on a terminal of 80 columns, run where the recordings are."""
    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed):
        cli(shlex.split(command_line))
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


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
    """docs/VERB.md with the command's present help, output and tables in place."""
    page = (ROOT / "docs" / f"{verb}.md").read_text()
    help_now = help_text(verb)
    page = _HELP.sub(lambda found: found[1] + help_now + found[2], page)
    page = _OUTPUT.sub(lambda found: found[1] + output(found[2]) + found[3], page)
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


def rules_list() -> str:
    """The rules that `ksmtrace replay --check` keeps."""
    return "".join(f"- **{name}**: {meaning}\n" for name, meaning in RULES.items())


def causes_table() -> str:
    """The causes that `ksmtrace why` knows, in ksmd's order."""
    lines = ["| cause | of the | | what to do |", "|---|---|---|---|"]
    lines += [
        f"| `{c.name}` | {c.level} | {c.what}: {c.meaning} | {c.remedy or 'see below'} |"
        for c in CAUSES.values()
    ]
    return "\n".join(lines) + "\n"


def measures_table(measures: Sequence[Measure[Any]]) -> str:
    """What `ksmtrace diff` compares, or what `ksmtrace stat` tells."""
    lines = ["| | figure | name in JSON | meaning |", "|---|---|---|---|"]
    lines += [f"| {m.group} | {m.words} | `{m.name}` | {m.meaning} |" for m in measures]
    return "\n".join(lines) + "\n"


def tried_table() -> str:
    """The kernels that `make test-kernels` tried, and what it found."""
    results = json.loads((ROOT / "docs" / "kernels-tried.json").read_text())
    lines = []
    for place, found in sorted(results.items(), key=lambda item: parse_release(item[1]["kernel"])):
        where = "the host" if place == HOST else "QEMU, software emulation"
        lines += [
            f"### Linux {found['kernel']} ({where})",
            "",
            f"{found['scenarios']:,} scenarios, {found['scans']:,} full scans, "
            f"{found['events']:,} events, {found['ksm_pages']:,} KSM pages made: "
            + (
                "every counter and every event as the model has them."
                if not found["differing"]
                else f"**{found['differing']} differ.**"
            ),
            f"Each of {len(found['switches_noticed'])} other settings of its profile's switches was"
            " noticed"
            + (
                f"; not noticed: {', '.join(found['switches_unnoticed'])}."
                if found["switches_unnoticed"]
                else "."
            ),
            "",
            "| backend | verdict | compared | events seen |",
            "|---|---|---|---|",
        ]
        for name, one in found["backends"].items():
            seen = ", ".join(f"`{kind}`" for kind in one["events"]) or "–"
            verdict = "works" if one["able"] else f"no: {one['why']}"
            compared = f"{one['scenarios']:,} scenarios" if one["able"] else "–"
            lines.append(f"| `{name}` | {verdict} | {compared} | {seen} |")
        lines.append("")
    return "\n".join(lines)


def reality_table() -> str:
    """What `ksmtrace estimate` said, and what the kernel reached: `make bench-estimate-reality`."""
    kept = json.loads((ROOT / "docs" / "estimate-reality.json").read_text())
    lines = [
        "| workload | zero pages | processes | pages | changed | estimated | reached | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['workload']} | {'on' if one['use_zero_pages'] else 'off'} | {one['processes']} "
        f"| {one['candidates']:,} | {one['changed']:,} | {one['estimated']:,} "
        f"| {one['reached']:,} | {one['error']:+.2%} |"
        for one in kept["outcomes"]
    ]
    return "\n".join(lines) + "\n"


def contests_table() -> str:
    """KSM and UKSM on the shipped workloads, as `make bench-contests` found them."""
    kept = json.loads((ROOT / "docs" / "contests.json").read_text())
    lines = []
    for report in kept:
        lines += [
            f"### {report['title']}",
            "",
            f"`{report['scenario']}`: {report['optimum_pages']:,} pages can be saved.",
            "",
            "| protocol | scanner | saved | on average | 50 % | 90 % | 99 % | CPU | visits |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        told = set()
        for protocol in report["protocols"]:
            for one in protocol["outcomes"]:
                row = _contest_row(protocol["title"], one)
                if row not in told:
                    lines.append(row)
                told.add(row)
        lines += ["", *(f"{note}." for note in report["notes"]), ""]
    return "\n".join(lines)


def _contest_row(protocol: str, one: dict[str, Any]) -> str:
    times = (one[f"time_to_{part}_s"] for part in (50, 90, 99))
    under = protocol if "pages_to_scan" in one["settings"] else "any"
    return (
        f"| {under} | {one['on']} | {one['saved_pages']:,} | {one['saved_pages_mean']:,.0f} | "
        + " | ".join("–" if seconds is None else f"{seconds:.1f} s" for seconds in times)
        + f" | {one['cpu_s']:.2f} s | {one['page_visits']:,} |"
    )


def whatif_table() -> str:
    """What was predicted of settings and what ksmd then did: `make bench-whatif`."""
    lines = [
        "| workload | settings | | predicted | measured | rounds | difference | others busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _whatif_rows():
        head, busy = f"{row['workload']} | {_settings_in_words(row)}", f"{row['others_busy']:.0%}"
        for name, one in row["figures"].items():
            words, unit, digits = _WHATIF_FIGURES[name]
            predicted, measured, low, high = (
                f"{one[key]:,.{digits}f}" for key in ("predicted", "measured", "low", "high")
            )
            rounds = f"{low} to {high}" if row["rounds"] > 1 else "one"
            lines.append(
                f"| {head} | {words} | {predicted}{unit} | {measured}{unit} | {rounds} "
                f"| {one['error']:+.1%} | {busy} |"
            )
            head, busy = " | ", ""
    return "\n".join(lines) + "\n"


def whatif_short_table() -> str:
    """The same, a row for each setting: predicted, measured, difference."""
    titles = [words for words, _, _ in _WHATIF_FIGURES.values()]
    lines = [
        f"| workload | settings | {' | '.join(titles)} |",
        "|---|---|" + "---|" * len(titles),
    ]
    for row in _whatif_rows():
        cells = [
            f"{one['predicted']:,.{digits}f}{unit}, {one['measured']:,.{digits}f}{unit} "
            f"({one['error']:+.0%})"
            for name, one in row["figures"].items()
            for _, unit, digits in [_WHATIF_FIGURES[name]]
        ]
        lines.append(
            f"| {row['workload']} | {_settings_in_words(row)} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


_WHATIF_FIGURES = {
    "seconds_to_90_percent": ("90 % saved after", " s", 1),
    "pages_saved": ("pages saved", "", 0),
    "cpu_seconds_to_99_percent": ("CPU until 99 %", " s", 2),
    "cpu_percent_afterwards": ("of a core afterwards", " %", 1),
}
"""In words, with their unit, to so many digits."""


def _whatif_rows() -> list[dict[str, Any]]:
    kept = json.loads((ROOT / "docs" / "whatif-reality.json").read_text())
    rows: list[dict[str, Any]] = kept["outcomes"]
    return rows


def _settings_in_words(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row["settings"].items())


TABLES: dict[str, Callable[[], str]] = {
    "advice": rules_table,
    "behaviours": behaviours_table,
    "causes": causes_table,
    "contests": contests_table,
    "figures": partial(measures_table, STAT_MEASURES),
    "measures": partial(measures_table, MEASURES),
    "metrics": metrics_table,
    "reality": reality_table,
    "rules": rules_list,
    "top-columns": columns_table,
    "top-figures": figures_table,
    "top-keys": keys_table,
    "tried": tried_table,
    "uksm-ports": ports_table,
    "whatif": whatif_table,
    "whatif-short": whatif_short_table,
}
"""What may stand between <!-- NAME --> and <!-- /NAME --> in a command's page."""
_TABLE = re.compile(rf"(<!-- ({'|'.join(TABLES)}) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def worked_page(name: str) -> str:
    """docs/NAME.md with what its examples print now."""
    with contextlib.chdir(ROOT):
        return refreshed(ROOT / "docs" / f"{name}.md")


def compare_page() -> str:
    """docs/compare.md with its example's output and its table in place."""
    page = (ROOT / "docs" / "compare.md").read_text()
    # What work costs on the machine where docs are made must not matter.
    with tempfile.TemporaryDirectory() as empty:
        kept = os.environ.get("KSMTRACE_CACHE")
        os.environ["KSMTRACE_CACHE"] = empty
        try:
            page = _OUTPUT.sub(lambda found: found[1] + output(found[2]) + found[3], page)
        finally:
            os.environ.pop("KSMTRACE_CACHE")
            if kept is not None:
                os.environ["KSMTRACE_CACHE"] = kept
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


def front_page() -> str:
    """README.md with its generated tables in place."""
    page = (ROOT / "README.md").read_text()
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


GENERATED: dict[str, Callable[[], str]] = {
    "README.md": front_page,
    "bpf/event.h": c_header,
    "docs/analysis.md": partial(worked_page, "analysis"),
    "docs/compare.md": compare_page,
    "docs/events.md": events_page,
    "docs/recording.md": recording_page,
    "docs/scenarios.md": scenarios_page,
    "docs/timeline-tables.md": timeline_tables_page,
    "recordings/README.md": readme,
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
