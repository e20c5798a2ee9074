from __future__ import annotations

import json

from rich.console import Console

from ksmtrace.capture.doctor import Diagnosis, Finding
from ksmtrace.views.doctor import render_diagnosis

FINDINGS = [
    Finding("KSM", "yes", "Linux 6.18.2"),
    Finding("ksmd", "note", "switched off (run=0): nothing is scanned", "record --run"),
    Finding(
        "backend bcc",
        "no",
        "bcc finds no kernel headers, not even those of a version that is near enough to try",
        "apt install linux-headers-$(uname -r), or scripts/bcc-headers in the sources",
    ),
    Finding("lockdown", "note", "[integrity]: may forbid BPF [red]and[/red] tracefs"),
]


def printed() -> str:
    console = Console(width=80, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(render_diagnosis(Diagnosis(FINDINGS, can_trace=False)))
    return capture.get()


def test_a_diagnosis_fits_80_columns() -> None:
    assert max(len(line) for line in printed().splitlines()) <= 80


def test_each_finding_has_its_state_and_each_lack_its_remedy() -> None:
    lines = printed().splitlines()
    states = [line.split()[:3] for line in lines if line[:1].strip()]
    assert [row[0] for row in states] == ["KSM", "ksmd", "backend", "lockdown"]
    assert ["yes" in states[0], "note" in states[1], "no" in states[2]] == [True] * 3
    assert "→ record --run" in printed()
    assert printed().count("→") == 2


def test_what_the_kernel_says_is_no_markup() -> None:
    assert "[integrity]: may forbid BPF [red]and[/red]" in printed()


def test_a_diagnosis_is_json() -> None:
    told = json.loads(json.dumps(Diagnosis(FINDINGS, can_trace=True).as_dict()))
    assert told["can_trace"] is True
    assert [finding["state"] for finding in told["findings"]] == ["yes", "note", "no", "note"]
    assert told["findings"][0]["remedy"] is None
