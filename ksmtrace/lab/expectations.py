"""What a scenario says should be seen: `expect` beside a step, checked on each performance.

An expectation is a table of counters, of `events`, and of processes with their ksm_stat lines. It
may be limited to some kernels: since, until (releases, both included), with, without (fixes). With
scanner = "uksm" it is of UKSM, whose counters have names of their own; otherwise of KSM. A
counter that a release does not have is not checked there; "absent" demands that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ksmtrace.kernel.releases import FIXES_BY_NAME, Profile, parse_release
from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME
from ksmtrace.lab.planner import Planner

CONDITIONS = ("since", "until", "with", "without", "scanner")
SCANNERS = ("ksm", "uksm")
ABSENT = "absent"
MORE_COUNTERS = {"ksm_zero_pages"}


def check_expectation(planner: Planner, expectation: Mapping[str, Any]) -> None:
    """Raise ScenarioError for an expectation that can never be checked."""
    of_uksm = expectation.get("scanner") == "uksm"
    for key, value in expectation.items():
        if key in CONDITIONS:
            _check_condition(planner, key, value)
        elif key == "events":
            if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
                raise planner.error(
                    "events must be a list of texts", 'for example ["NEW a.heap[1]"]'
                )
        elif key in planner.processes and isinstance(value, dict):
            planner.living(key)
            for name, number in value.items():
                _check_number(planner, name, number, of_process=True)
        elif of_uksm:
            _check_value(planner, key, value)
        else:
            _check_number(planner, key, value, of_process=False)


def _check_condition(planner: Planner, key: str, value: object) -> None:
    if key in ("since", "until"):
        if not isinstance(value, str) or parse_release(value) == (0, 0, 0):
            raise planner.error(f'{key} must be a release like "6.11"')
    elif key == "scanner":
        if value not in SCANNERS:
            raise planner.error(f"scanner must be one of {', '.join(SCANNERS)}")
    elif not isinstance(value, str) or value not in FIXES_BY_NAME:
        raise planner.error(f"{key} must be one of {', '.join(FIXES_BY_NAME)}")


def _check_number(planner: Planner, name: str, value: object, *, of_process: bool) -> None:
    counter = COUNTERS_BY_NAME.get(name)
    elsewhere = counter is not None and (counter.where == "process") != of_process
    if counter is None or (elsewhere and name not in MORE_COUNTERS):
        raise planner.error(
            f"expect: there is no counter or process {name!r}",
            f"the counters are {', '.join(COUNTERS_BY_NAME)}",
        )
    _check_value(planner, name, value)


def _check_value(planner: Planner, name: str, value: object) -> None:
    if value != ABSENT and (isinstance(value, bool) or not isinstance(value, int)):
        raise planner.error(f'expect: {name} must be a whole number or "{ABSENT}"')


def applies(expectation: Mapping[str, Any], profile: Profile, scanner: str = SCANNERS[0]) -> bool:
    """Whether an expectation is meant for this scanner, and this kernel."""
    if expectation.get("scanner", SCANNERS[0]) != scanner:
        return False
    version = profile.version[:2]
    if "since" in expectation and version < parse_release(expectation["since"])[:2]:
        return False
    if "until" in expectation and version > parse_release(expectation["until"])[:2]:
        return False
    if "with" in expectation and not _carries(profile, expectation["with"]):
        return False
    return "without" not in expectation or not _carries(profile, expectation["without"])


def _carries(profile: Profile, fix: str) -> bool:
    """Whether a kernel behaves as with a fix: it was backported, or came with the release."""
    changes = FIXES_BY_NAME[fix].changes
    return fix in profile.fixes or (
        bool(changes) and all(getattr(profile.behaviour, n) == v for n, v in changes.items())
    )
