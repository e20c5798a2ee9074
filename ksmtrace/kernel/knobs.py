"""Changing KSM's knobs for a while: locked, journalled, restored, also after a crash.

KSM's state is one per machine. Whoever changes a knob holds the lock; what was there before is in
a journal file until it is restored. A journal without a living owner is from a run that was
killed: the next start restores it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import boot_id
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME, KSM, read_knob

RUN_DIRECTORY = Path("/run/ksmtrace")
"""Cleared at boot, as KSM's knobs are."""

_ADVISOR = "advisor_"
_MODE = "advisor_mode"


def parse_assignments(texts: list[str]) -> dict[str, str]:
    """`KNOB=VALUE` texts as a dict. Raises KsmtraceError (usage) for anything else."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise KsmtraceError(
                f"{text!r} is not KNOB=VALUE", "for example --set pages_to_scan=1000", Exit.USAGE
            )
        if name not in KNOBS_BY_NAME:
            raise KsmtraceError(
                f"KSM has no knob called {name!r}",
                f"the knobs are {', '.join(KNOBS_BY_NAME)}",
                Exit.USAGE,
            )
        values[name] = value
    return values


def in_order(names: Iterable[str]) -> list[str]:
    """Knobs as they must be written: the advisor's own, its mode, the others, and run last.

    Entering its mode sets pages_to_scan to advisor_min_pages_to_scan; in it pages_to_scan can't be
    written. ksmd must not run with half the settings.
    """

    def rank(name: str) -> int:
        if name.startswith(_ADVISOR):
            return int(name == _MODE)
        return 3 if name == "run" else 2

    return sorted(names, key=rank)


def _write(name: str, value: str, ksm: Path) -> None:
    try:
        (ksm / name).write_text(value)
    except OSError as error:
        raise _cannot_set(name, value, error, ksm) from error


def _cannot_set(name: str, value: str, error: OSError, ksm: Path = KSM) -> KsmtraceError:
    if isinstance(error, FileNotFoundError):
        since = KNOBS_BY_NAME[name].since
        return KsmtraceError(
            f"this kernel has no knob {name}", f"it came with Linux {since}", Exit.HOST_CANNOT
        )
    if isinstance(error, PermissionError):
        return KsmtraceError("changing KSM's knobs needs root", "run with sudo", Exit.HOST_CANNOT)
    if error.errno == errno.EBUSY:
        return KsmtraceError(
            f"the kernel does not change {name} while pages are merged",
            "unmerge everything first: echo 2 > /sys/kernel/mm/ksm/run",
        )
    hint = f"it takes {KNOBS_BY_NAME[name].values}"
    if name == "pages_to_scan" and read_knob(_MODE, ksm) == "scan-time":
        hint = "pages_to_scan is the advisor's while advisor_mode is scan-time"
    return KsmtraceError(
        f"the kernel refuses {name}={value}: {error.strerror}",
        hint,
        Exit.USAGE,
    )


def _restore(values: Mapping[str, str], ksm: Path) -> None:
    """Put back what can be put back, then raise for what can't."""
    failures = []
    for name in in_order(values):
        try:
            _restore_one(name, values[name], ksm)
        except KsmtraceError as error:
            failures.append(f"{name}={values[name]} ({error.message})")
    if failures:
        raise KsmtraceError(
            f"these knobs could not be restored: {', '.join(failures)}",
            "write them yourself into /sys/kernel/mm/ksm",
        )


def _restore_one(name: str, value: str, ksm: Path) -> None:
    if read_knob(name, ksm) == value:
        return
    try:
        _write(name, value, ksm)
    except KsmtraceError:
        if not KNOBS_BY_NAME[name].needs_nothing_merged:
            raise
        # It could be changed at the start, so nothing was merged then either.
        running = read_knob("run", ksm) or "0"
        try:
            _write("run", "2", ksm)
            _write(name, value, ksm)
        finally:
            _write("run", running, ksm)


class _Journal:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "knobs.json"

    def write(self, values: Mapping[str, str]) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"boot": boot_id(), "knobs": dict(values)}))
        fresh.replace(self.path)

    def read(self) -> dict[str, str]:
        try:
            stored = json.loads(self.path.read_text())
            knobs = stored["knobs"] if stored["boot"] == boot_id() else {}
            return {
                name: value
                for name, value in knobs.items()
                if name in KNOBS_BY_NAME and isinstance(value, str)
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@contextmanager
def _lock(directory: Path) -> Iterator[bool]:
    """Whether we hold the right to change knobs; it ends with the process, also when killed.

    Raises OSError where there can be no lock.
    """
    directory.mkdir(mode=0o755, exist_ok=True)
    handle = os.open(directory / "knobs.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def recover(directory: Path = RUN_DIRECTORY, ksm: Path = KSM) -> dict[str, str]:
    """Restore what a killed run left changed; returns the restored knobs, {} if there was none.

    Raises KsmtraceError, once, for what can't be restored.
    """
    journal = _Journal(directory)
    if not journal.path.exists() or not os.access(directory, os.W_OK):
        return {}
    with _lock(directory) as ours:
        values = journal.read() if ours else {}
        try:
            if values:
                _restore(values, ksm)
        finally:
            if ours:
                journal.clear()
        return values


class Change:
    """Knobs that are being changed for a while. before: what will be restored, by name.

    held: knobs that may be set. pages_to_scan is among them, and not restored, where the advisor
    set it before: the advisor's mode brings its own.
    """

    def __init__(self, before: Mapping[str, str], held: Iterable[str], ksm: Path) -> None:
        self.before = before
        self._held = frozenset(held) | before.keys()
        self._ksm = ksm

    def set(self, values: Mapping[str, str]) -> None:
        """Give the knobs other values; one that is left out gets what it had before.

        Raises KsmtraceError as the kernel refuses, ValueError for a knob that is not restored.
        """
        if unheld := values.keys() - self._held:
            raise ValueError(f"not held: {unheld}")
        wanted = {**self.before, **values}
        if wanted.get(_MODE) == "scan-time":
            wanted.pop("pages_to_scan", None)
        for name in in_order(wanted):
            _write(name, wanted[name], self._ksm)

    def unmerge(self) -> None:
        """Undo all merging on the host, and forget what ksmd knew: run=2, where it stays.

        Raises KsmtraceError as the kernel refuses, ValueError unless `run` is restored.
        """
        if "run" not in self.before:
            raise ValueError("run is not held")
        _write("run", "2", self._ksm)


@contextmanager
def changed(
    values: Mapping[str, str], directory: Path = RUN_DIRECTORY, ksm: Path = KSM
) -> Iterator[Change]:
    """Set knobs on entry, restore them on exit; {} changes nothing and takes no lock.

    Raises KsmtraceError where another run holds the lock or the kernel refuses a value; then
    everything is as it was.
    """
    if not values:
        yield Change({}, (), ksm)
        return
    if not os.access(ksm / "run", os.W_OK):
        if os.geteuid() == 0:
            raise KsmtraceError(
                "KSM's knobs are read-only here",
                "run on the host, not in a container",
                Exit.HOST_CANNOT,
            )
        raise KsmtraceError("changing KSM's knobs needs root", "run with sudo", Exit.HOST_CANNOT)
    recover(directory, ksm)
    with ExitStack() as stack:
        before = _values_before(values, ksm)
        journal = _Journal(directory)
        try:
            ours = stack.enter_context(_lock(directory))
            if ours:
                journal.write(before)
        except OSError as error:
            raise KsmtraceError(
                f"the journal of changed knobs can't be kept in {directory}: {error.strerror}",
                "make that folder writable, or record without --set and --run",
            ) from None
        if not ours:
            raise KsmtraceError(
                "another ksmtrace run is changing KSM's knobs", "wait until it has ended"
            )
        try:
            for name in in_order(values):
                _write(name, values[name], ksm)
            yield Change(before, values, ksm)
        finally:
            try:
                _restore(before, ksm)
            finally:
                journal.clear()


def _values_before(values: Mapping[str, str], ksm: Path) -> dict[str, str]:
    """What must be written to undo `values`."""
    before = {}
    for name, value in values.items():
        present = read_knob(name, ksm)
        if present is None:
            raise _cannot_set(name, value, FileNotFoundError())
        before[name] = present
    # Leaving the advisor's mode resets pages_to_scan, so that one is always kept as well.
    if "advisor_mode" in values and (pages := read_knob("pages_to_scan", ksm)) is not None:
        before.setdefault("pages_to_scan", pages)
    if before.get("advisor_mode") == "scan-time":
        before.pop("pages_to_scan", None)
    return before
