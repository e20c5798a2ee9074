"""What a drill-down names: a process, a page, a region, a KSM page, a scan."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.amounts import count
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_parts import Run, process_label

Rows = npt.NDArray[np.int64]

_MOST_CANDIDATES = 7
_HEXADECIMAL = re.compile(r"(?:0x)?([0-9a-f]{1,16})", re.IGNORECASE)


def _usage(message: str, hint: str) -> KsmtraceError:
    return KsmtraceError(message, hint, Exit.USAGE)


def _absent(message: str, hint: str) -> KsmtraceError:
    return KsmtraceError(message, hint, Exit.FAILED)


def parse_address(text: str) -> int:
    """A virtual address, hexadecimal as in /proc/PID/maps, with or without 0x.

    Raises KsmtraceError (exit code 2) for anything else.
    """
    found = _HEXADECIMAL.fullmatch(text)
    if found is None:
        raise _usage(
            f"{clean(text)!r} is no address", "addresses are hexadecimal: 7f2a10000000, 0x5000"
        )
    return int(found[1], 16)


def split_page(text: str) -> tuple[str, int]:
    """The process and the address of PID:ADDR. Raises KsmtraceError (exit code 2)."""
    process, colon, address = text.rpartition(":")
    if not colon or not process:
        raise _usage(
            f"{clean(text)!r} names no page",
            "a page is a process and an address: 1234:7f2a10000000",
        )
    return process, parse_address(address)


def processes_named(processes: pd.DataFrame, text: str) -> Rows:
    """Rows of `processes` that a pid, a name, a VM's name, or @ROW stands for; at least one.

    Raises KsmtraceError: exit code 1 if there is none, 2 if @ is not followed by a number.
    """
    row = text.removeprefix("@")
    if row != text:
        if not row.isascii() or not row.isdecimal():
            raise _usage(f"{clean(text)!r} is no row", "rows are named @0, @1, ...")
        if int(row) >= len(processes):
            raise _absent(f"there is no process {clean(text)}", _those_there(processes))
        return np.array([int(row)])
    matching = np.zeros(len(processes), bool)
    if text.isascii() and text.isdecimal():
        matching = (processes["tgid"] == int(text)).to_numpy(bool) & (int(text) > 0)
    for column in ("comm", "vm"):
        if not matching.any():
            matching = (processes[column] == text).fillna(value=False).to_numpy(bool)
    found = np.flatnonzero(matching)
    if not len(found):
        raise _absent(f"no process {clean(text)} is in this recording", _those_there(processes))
    return found


def one_process(processes: pd.DataFrame, text: str) -> int:
    """The one row that `text` stands for. Raises KsmtraceError: also if there are several (2)."""
    found = processes_named(processes, text)
    if len(found) > 1:
        listed = _listed(processes, found)
        raise _usage(f"{clean(text)} is {count(len(found))} processes: {listed}",
                     f"name one by its pid or row, as in --process @{found[0]}")  # fmt: skip
    return int(found[0])


def _those_there(processes: pd.DataFrame) -> str:
    if not len(processes):
        return "there is no process in it at all"
    most = processes["merges"].to_numpy().argsort(kind="stable")[::-1]
    return f"there are: {_listed(processes, most)}"


def _listed(processes: pd.DataFrame, rows: Rows) -> str:
    words = [
        f"{process_label(processes, row)} (@{row})" for row in rows[:_MOST_CANDIDATES].tolist()
    ]
    more = len(rows) - len(words)
    return ", ".join(words) + (f" and {count(more)} more" if more else "")


def page_named(run: Run, text: str) -> tuple[Rows, int]:
    """The lives (rows of `pages`, in order) of the page PID:ADDR, and its address.

    ADDR may lie anywhere in the page. Raises KsmtraceError: exit code 2 if `text` names no page,
    1 if that page is not in the recording.
    """
    pages, processes = run.tables.pages, run.tables.processes
    who, address = split_page(text)
    address -= address % run.page_bytes
    owners = processes_named(processes, who)
    own = pages["process"].isin(owners.tolist()).fillna(value=False).to_numpy(bool)
    addresses = pages["addr"].to_numpy(np.uint64)
    if not run.addresses_known:
        raise _absent(
            "this recording knows no addresses", "record with --backend core or bcc to have them"
        )
    found = np.flatnonzero(own & (addresses == np.uint64(address)))
    if len(found):
        return found, address
    mine = np.unique(addresses[own])
    label = process_label(processes, owners[0]) if len(owners) == 1 else clean(who)
    if not len(mine):
        raise _absent(f"no page of {label} was merged", "see who was with: --sharing")
    near = mine[min(int(np.searchsorted(mine, np.uint64(address))), len(mine) - 1)]
    raise _absent(
        f"the page {address:#x} of {label} was never merged",
        f"{count(len(mine))} of its pages were; the nearest is {int(near):#x}",
    )


def regions_named(ledger: pd.DataFrame, processes: pd.DataFrame, text: str) -> Rows:
    """Rows of `region_ledger` for a name, PID:ADDR, or @ROW; all for no text.

    Raises KsmtraceError: exit code 1 if there is none, 2 if @ is not followed by a number.
    """
    if not text:
        return np.arange(len(ledger))
    row = text.removeprefix("@")
    if row != text:
        if not row.isascii() or not row.isdecimal():
            raise _usage(f"{clean(text)!r} is no row", "rows are named @0, @1, ...")
        found = np.arange(len(ledger))[int(row) : int(row) + 1]
    else:
        names = ledger["name"]
        same = (names == text).fillna(value=False).to_numpy(bool)
        if not same.any():
            same = names.str.contains(text, regex=False, na=False).to_numpy(bool)
        found = np.flatnonzero(same)
        if not len(found) and ":" in text:
            who, address = split_page(text)
            own = ledger["process"].isin(processes_named(processes, who).tolist())
            at = np.uint64(address)
            inside = (ledger["start"] <= at) & (ledger["end"] > at)
            found = np.flatnonzero((own & inside).fillna(value=False).to_numpy(bool))
    if not len(found):
        listed = ", ".join(clean(str(n)) for n in ledger["name"].dropna().unique()[:7])
        there = f"there are: {listed}" if listed else "none of its regions has a name"
        raise _absent(f"no region {clean(text)} is in this recording", there)
    return found


def ksm_page_numbered(stable_pages: pd.DataFrame, number: int) -> int:
    """The row of a KSM page. Raises KsmtraceError (exit code 1) if there is none."""
    if 0 <= number < len(stable_pages):
        return number
    last = len(stable_pages) - 1
    raise _absent(
        f"there is no KSM page {number} in this recording",
        f"its KSM pages are numbered 0 to {last}" if last >= 0 else "there is none in it at all",
    )


def scan_numbered(scans: pd.DataFrame, number: int) -> int:
    """The row of a full scan. Raises KsmtraceError (exit code 1) if there is none."""
    found = np.flatnonzero(scans["scan"].to_numpy() == number)
    if len(found):
        return int(found[0])
    there = scans["scan"]
    raise _absent(
        f"there is no scan {number} in this recording",
        f"its scans are numbered {there.min()} to {there.max()}"
        if len(there)
        else "there is none in it at all",
    )
