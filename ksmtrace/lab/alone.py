"""Whether ksmd is ours alone: nobody else's memory may be merged, or scanned, in the lab."""

from __future__ import annotations

import errno
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import read_knob
from ksmtrace.processes.registered import registered_tgids


def refuse_strangers() -> None:
    """Raise KsmtraceError (host cannot) if a process is seen to be registered with KSM."""
    if strangers := registered_tgids():
        raise _not_alone(strangers)


def prove_alone(stepper: Stepper) -> None:
    """Raise KsmtraceError if anything at all is registered with KSM; ksmd is parked."""
    # What exited before is still on the list until ksmd has come by.
    stepper.batch()
    before = stepper.full_scans()
    stepper.batch()
    strangers = registered_tgids() if stepper.full_scans() != before else []
    if strangers or stepper.full_scans() != before:
        raise _not_alone(strangers)
    stepper.unmerge()
    if _pages_from_elsewhere(stepper):
        raise KsmtraceError(
            "some process still maps KSM pages outside of mergeable regions",
            "the lab needs ksmd for itself; stop the process whose smaps says KSM: and no mg",
            Exit.HOST_CANNOT,
        )


def _not_alone(strangers: list[int]) -> KsmtraceError:
    return KsmtraceError(
        f"other processes are registered with KSM: {_named(strangers)}",
        "the lab needs ksmd for itself; stop them first",
        Exit.HOST_CANNOT,
    )


def _pages_from_elsewhere(stepper: Stepper) -> bool:
    """max_page_sharing can't be changed while any KSM page is mapped (4.13)."""
    present = read_knob("max_page_sharing")
    if present is None:
        return False
    try:
        stepper.write("max_page_sharing", str(int(present) + 1))
        stepper.write("max_page_sharing", present)
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _named(tgids: list[int]) -> str:
    names = {tgid: read_text(Path(f"/proc/{tgid}/comm")) for tgid in tgids[:5]}
    told = ", ".join(f"{tgid} ({name})" if name else str(tgid) for tgid, name in names.items())
    return told + (f" and {len(tgids) - 5} more" if len(tgids) > 5 else "") if told else "unknown"
