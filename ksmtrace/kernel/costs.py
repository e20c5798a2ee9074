"""What a scanner's work costs in CPU time: constants of a host, measured by `lab calibrate`."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.host import cache_folder, cpu_model, kernel_release

_FORMAT = 1
_LARGEST_FILE = 1 << 20

KSMD = "ksmd"
USER_SPACE = "user space"
DEFAULT_SOURCE = "default"
SOURCES = (KSMD, USER_SPACE, DEFAULT_SOURCE)
"""How a constant came about: measured with the real ksmd, as a program, or not on this host."""


@dataclass(frozen=True)
class Costs:
    """Nanoseconds of CPU time by kind of work; a scanner's time is their sum.

    visit_ns: to come to a page and find what it is. absent_ns: to find that there is none to look
    at. skip_ns: to leave a page out by smart scan. *_byte_ns: hashing a byte with KSM's two
    checksums and with UKSM's hash. line_ns: bringing a cache line of a page that is not cached,
    for a hash of a part of it. compare_byte_ns: comparing. level_ns: passing a node of a tree whose
    keys are numbers (UKSM). stable_level_ns, unstable_level_ns: passing a node of KSM's trees, its
    page found; cold_level_ns: what is added where the node is too deep to be cached. ksm_page_ns:
    making a KSM page. merge_ns: mapping a page onto another. wakeup_ns: waking up.
    """

    visit_ns: float
    absent_ns: float
    xxhash_byte_ns: float
    jhash2_byte_ns: float
    uksm_byte_ns: float
    line_ns: float
    compare_byte_ns: float
    level_ns: float
    merge_ns: float
    wakeup_ns: float = 0.0
    skip_ns: float = 0.0
    stable_level_ns: float = 0.0
    unstable_level_ns: float = 0.0
    cold_level_ns: float = 0.0
    ksm_page_ns: float = 0.0


CONSTANTS = tuple(field.name for field in fields(Costs))
"""The constants' names."""

DEFAULT = Costs(
    visit_ns=317.0,
    absent_ns=27.0,
    skip_ns=257.0,
    xxhash_byte_ns=0.135,
    jhash2_byte_ns=0.285,
    uksm_byte_ns=0.32,
    line_ns=15.2,
    compare_byte_ns=0.07,
    level_ns=8.9,
    stable_level_ns=83.0,
    unstable_level_ns=250.0,
    cold_level_ns=370.0,
    ksm_page_ns=900.0,
    merge_ns=810.0,
    wakeup_ns=24_600.0,
)
"""Measured: Linux 6.18, x86-64 (AMD EPYC), a virtual machine with two processors.

Repeated calibrations of it lay 10 % apart in most constants, up to a half in merge_ns, ksm_page_ns,
compare_byte_ns and wakeup_ns, and a third higher beside a busy neighbour (docs/costs.md).
"""


@dataclass(frozen=True)
class Constant:
    """One of Costs. ns: its value. low_ns, high_ns: of the rounds; None where it isn't measured."""

    ns: float
    source: str
    low_ns: float | None = None
    high_ns: float | None = None


@dataclass(frozen=True)
class Calibration:
    """Constants measured on a host. date: ISO 8601. constants: all of CONSTANTS, by name."""

    kernel: str
    cpu: str
    date: str
    constants: Mapping[str, Constant]

    @property
    def costs(self) -> Costs:
        """The values alone."""
        return replace(DEFAULT, **{name: one.ns for name, one in self.constants.items()})


@dataclass(frozen=True)
class HostCosts:
    """The constants to reckon with on this host, and where they come from, in words."""

    costs: Costs
    origin: str
    calibration: Calibration | None = None


def costs_file() -> Path:
    """Where `lab calibrate` keeps this host's."""
    return cache_folder() / "costs.json"


def host_costs(path: Path | None = None) -> HostCosts:
    """This host's calibrated costs, or DEFAULT where none fit. path: costs_file() if None."""
    try:
        path = path or costs_file()
        if not path.exists():
            return HostCosts(DEFAULT, "built in; sudo ksmtrace lab calibrate measures this host's")
        found = read_costs(path)
    except KsmtraceError as error:
        return HostCosts(DEFAULT, f"built in: {error.message}")
    except PermissionError:
        return HostCosts(DEFAULT, f"built in: {path} may not be read")
    here = {"kernel": kernel_release(), "cpu": cpu_model()}
    there = {"kernel": found.kernel, "cpu": found.cpu}
    for what, value in there.items():
        if value != here[what]:
            origin = f"built in: {path} is of another {what} ({value})"
            return HostCosts(DEFAULT, origin)
    return HostCosts(found.costs, f"measured on this host, {found.date} ({path})", found)


def write_costs(path: Path, calibration: Calibration) -> None:
    """Keep a calibration, replacing an older one. Raises KsmtraceError where that can't be."""
    told = {"ksmtrace_costs": _FORMAT, **asdict(calibration)}
    with _beside(path) as fresh:
        fresh.write_text(json.dumps(told, indent=1) + "\n")
        fresh.replace(path)


def prove_writable(path: Path) -> None:
    """Raise KsmtraceError now if `write_costs` would."""
    with _beside(path) as fresh:
        fresh.touch()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file's place beside another, which holds nothing afterwards."""
    fresh = path.parent / f".{path.name}.new"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise KsmtraceError(
            f"the costs can't be kept in {path}: {error.strerror}", "name another file with --save"
        ) from None


def read_costs(path: Path) -> Calibration:
    """A file that `write_costs` wrote. Raises KsmtraceError for anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE)
    except OSError as error:
        raise KsmtraceError(f"{path} can't be read: {error.strerror}") from None
    try:
        return _calibration(json.loads(text))
    except (ValueError, OverflowError, RecursionError) as error:
        why = "it is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise KsmtraceError(
            f"{path} holds no costs: {why}", "write it anew: sudo ksmtrace lab calibrate"
        ) from None


def _calibration(told: Any) -> Calibration:
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 one kind of error for a bad file
    if told.get("ksmtrace_costs") != _FORMAT:
        raise ValueError(f"ksmtrace_costs is not {_FORMAT}")
    constants = told.get("constants")
    if not isinstance(constants, dict) or set(constants) != set(CONSTANTS):
        raise ValueError(f"its constants are not {', '.join(CONSTANTS)}")
    read = {name: _constant(name, constants[name]) for name in CONSTANTS}
    kernel, cpu, date = (_words(name, told.get(name)) for name in ("kernel", "cpu", "date"))
    return Calibration(kernel, cpu, date, MappingProxyType(read))


def _words(name: str, told: Any) -> str:
    if not isinstance(told, str) or not told.isprintable():
        raise ValueError(f"{name} is missing or no text")
    return told


def _constant(name: str, told: Any) -> Constant:
    if not isinstance(told, dict) or told.get("source") not in SOURCES:
        raise ValueError(f"the source of {name} is none of {', '.join(SOURCES)}")
    value = _nanoseconds(name, told.get("ns"))
    if told["source"] == DEFAULT_SOURCE:
        if told.get("low_ns") is not None or told.get("high_ns") is not None:
            raise ValueError(f"{name} is not measured and yet has a spread")
        return Constant(value, DEFAULT_SOURCE)
    low, high = (_nanoseconds(name, told.get(key)) for key in ("low_ns", "high_ns"))
    if not low <= value <= high:
        raise ValueError(f"{name} is not within its spread")
    return Constant(value, told["source"], low, high)


def _nanoseconds(name: str, told: Any) -> float:
    fits = isinstance(told, int | float) and not isinstance(told, bool)
    if not fits or not math.isfinite(told) or told < 0:
        raise ValueError(f"{name} is no number of nanoseconds")
    return float(told)
