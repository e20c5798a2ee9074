"""What `lab calibrate` prints: a calibration in, a table out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN
from ksmtrace.kernel.costs import DEFAULT_SOURCE, KSMD, Constant
from ksmtrace.lab.calibrate.calibration import Calibrated
from ksmtrace.processes.identity import clean

_MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "visit_ns": ("visit of a page", "page"),
        "absent_ns": ("no page to merge there", "page"),
        "skip_ns": ("page left out", "page"),
        "xxhash_byte_ns": ("xxhash (since 5.0)", "KiB"),
        "jhash2_byte_ns": ("jhash2 (before 5.0)", "KiB"),
        "uksm_byte_ns": ("UKSM's hash", "KiB"),
        "line_ns": ("line not cached", "line"),
        "compare_byte_ns": ("comparing", "KiB"),
        "level_ns": ("level of UKSM's trees", "level"),
        "stable_level_ns": ("level of stable tree", "level"),
        "unstable_level_ns": ("level of unstable tree", "level"),
        "cold_level_ns": ("added below the 12th", "level"),
        "ksm_page_ns": ("making a KSM page", "page"),
        "merge_ns": ("mapping onto another", "page"),
        "wakeup_ns": ("waking up", "time"),
    }
)
_KIB = 1024


def render_calibration(found: Calibrated) -> RenderableType:
    """The constants with their spread and source, and how well they fit; 80 columns."""
    calibration = found.calibration
    table = Table(box=None, pad_edge=False)
    table.add_column("work", no_wrap=True)
    table.add_column("ns", justify="right", no_wrap=True)
    table.add_column("for a", no_wrap=True)
    table.add_column("rounds", justify="right", no_wrap=True)
    table.add_column("how measured", no_wrap=True)
    for name in _MEANINGS:
        table.add_row(*_row(name, calibration.constants[name]))
    head = Text(f"{clean(calibration.cpu)}, Linux {clean(calibration.kernel)}", style="bold")
    parts: list[RenderableType] = [head, table]
    if found.errors:
        pairs = zip(found.measurements, found.errors, strict=True)
        worst, error = max(pairs, key=lambda pair: abs(pair[1]))
        words = f"With these ksmd's time in {len(found.errors)} experiments comes out within "
        words += f"{abs(error):.0%} (worst: {worst.experiment.name})."
        parts.append(Text(words))
    if found.obstacle is not None:
        hint = f"; {found.obstacle.hint}" if found.obstacle.hint else ""
        parts.append(Text(f"ksmd was not measured: {found.obstacle.message}{hint}."))
    return Group(*parts)


def _row(name: str, constant: Constant) -> tuple[str, str, str, str, str]:
    words, unit = _MEANINGS[name]
    factor = _KIB if unit == "KiB" else 1
    if constant.source == DEFAULT_SOURCE or constant.low_ns is None or constant.high_ns is None:
        spread, source = UNKNOWN, "not measured: default"
    else:
        spread = f"{_number(constant.low_ns * factor)} to {_number(constant.high_ns * factor)}"
        source = "with ksmd" if constant.source == KSMD else "in user space"
    return words, _number(constant.ns * factor), unit, spread, source


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
