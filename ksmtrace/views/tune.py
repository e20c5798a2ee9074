"""Settings that were searched for, as rich renderables: data in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import count, seconds, size
from ksmtrace.views.text import named_table


def render_tuning(told: Mapping[str, Any]) -> RenderableType:
    """A table of settings, the reasons, and lines to paste; fits 80 columns."""
    parts: list[RenderableType] = [_table(told), Text()]
    if told["reachable"]:
        parts += [Text(f"- {reason}") for reason in told["why"]]
        parts += [Text(), Text("To set it now:"), *_lines(told["sysfs"])]
        parts += [Text(), Text("At each boot, in /etc/tmpfiles.d/ksm.conf:")]
        parts += _lines(told["tmpfiles"])
    parts.append(Text())
    parts.append(
        Text(f"{told['tried']} settings reckoned. CPU costs: {told['costs']}", style="dim")
    )
    return Group(*parts)


def _lines(lines: list[str]) -> list[RenderableType]:
    return [Text(f"  {line}", no_wrap=True, overflow="ignore") for line in lines]


def _table(told: Mapping[str, Any]) -> Table:
    table = named_table(f"{told['on']}: {count(told['pages'])} pages", collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("settings")
    for name in ("saved", "99 % after", "CPU then", "CPU after"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [("now", told["now"])]
    rows += [(str(number), each) for number, each in enumerate(told["best"], 1)]
    rows += [("nearest", each) for each in told["nearest"]]
    for name, each in rows:
        prediction = each["prediction"]
        until = prediction["cpu_percent_until_saved"]
        table.add_row(
            name,
            settings_in_words(each["knobs"]),
            size(each["pages_saved"] * told["page_bytes"]),
            seconds(each["seconds"]),
            f"{until or 0:.2f} %",
            f"{prediction['cpu_percent']:.2f} %",
        )
    return table


def settings_in_words(knobs: Mapping[str, str]) -> str:
    """Settings, shortly: what ksmd does, and how fast."""
    words = []
    for name, short in (("smart_scan", "smart"), ("use_zero_pages", "zero pages")):
        if name in knobs:
            words.append(short if knobs[name] == "1" else f"no {short}")
    if knobs.get("advisor_mode", "none") == "none":
        words.append(f"{int(knobs['pages_to_scan']):,}/{knobs['sleep_millisecs']} ms")
    else:
        words.append(f"advisor {knobs['advisor_target_scan_time']} s")
    return ", ".join(words)
