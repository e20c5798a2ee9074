from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.report import report_of
from ksmtrace.lab.run import load_plan, run_everywhere, shipped_scenarios
from ksmtrace.lab.scenario import scenario_of
from ksmtrace.lab.where import parse_all
from ksmtrace.views.lab import render_lab


def _report(name: str, *on: str, visits: bool = False) -> dict[str, Any]:
    places = parse_all(list(on), models_only=True)
    return report_of(run_everywhere(load_plan(name, {}), places, visits=visits))


def _text(report: dict[str, Any]) -> str:
    out = Console(file=StringIO(), width=80, highlight=False)
    out.print(render_lab(report))
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
@pytest.mark.parametrize("visits", [False, True])
def test_every_shipped_scenario_fits_80_columns_and_is_as_expected(path: Any, visits: bool) -> None:
    report = _report(path.stem, "ksm:2011", "ksm:6.6", "ksm:6.18", visits=visits)
    assert report["as_expected"], report["disappointments"]
    text = _text(report)
    assert max(map(len, text.splitlines())) <= 80
    assert report["title"].split()[0] in text


def test_two_that_agree_say_so() -> None:
    text = _text(_report("why-two-scans", "ksm:6.12", "ksm:6.18"))
    assert "ksm:6.12, ksm:6.18: agree in every counter and every event" in text
    assert "NEW a.heap[1], ADD a.heap[0] to a.heap[1]" in text


def test_the_first_difference_is_told_with_both_sides() -> None:
    report = _report("the-process-of-2011", "ksm:2011", "ksm:6.18")
    assert report["agree"] is False
    assert report["first_difference"]["scan"] == 3
    assert report["first_difference"]["event"]["told"] == ["ADD z.heap to y.heap", "STOP 2"]
    assert report["first_difference"]["counters"]["pages_sharing"] == [2, 1]
    text = _text(report)
    assert "the first difference is at step 12 (scan 3)" in text
    assert "ksm:2011: ADD z.heap to y.heap" in text
    assert "ksm:2011, ksm:6.18: differ" in text


def test_a_counter_that_a_release_lacks_is_a_dash_not_zero() -> None:
    report = _report("zero-pages", "ksm:6.5", "ksm:6.6")
    last = report["scans"][-1]["counters"]["ksm_zero_pages"]
    assert last == {"ksm:6.6": 5}
    line = next(
        line for line in _text(report).splitlines() if line.strip().startswith("ksm_zero_pages")
    )
    assert line.split()[1:] == ["–", "8"]


def test_visits_are_told_in_this_kernels_order() -> None:
    report = _report("the-process-of-2011", "ksm:2011", "ksm:6.18", visits=True)
    visits = report["scans"][1]["visits"]
    old, new = (dict(visits[on])["y.heap"] for on in ("ksm:2011", "ksm:6.18"))
    assert old.startswith("stable tree: empty; checksum ")
    assert new.startswith("checksum ")
    for told in (old, new):
        assert told.endswith("unstable tree: twin; become a KSM page: done; merge: done")


def test_what_was_expected_otherwise_is_told_with_its_line() -> None:
    scenario = scenario_of(
        {"step": [{"map": "a.heap", "pages": 2}, {"scan": 1, "expect": {"pages_shared": 7}}]},
        "wrong.toml",
        [3, 9],
    )
    places = parse_all(["ksm:6.18"], models_only=True)
    report = report_of(run_everywhere(plan_scenario(scenario), places))
    assert report["as_expected"] is False
    assert report["disappointments"] == ["wrong.toml:9: on ksm:6.18, pages_shared is 0, not 7"]
    assert "expected otherwise: wrong.toml:9" in _text(report).replace("\n", " ")


def test_a_knob_that_a_release_lacks_is_noted() -> None:
    assert _report("smart-scan", "ksm:6.6")["notes"] == []
    notes = _report("zero-pages", "ksm:4.9")["notes"]
    assert "ksm:4.9: 4.9 is not in the table of releases; taken as 3.9" in notes
    assert "ksm:4.9: there is no knob use_zero_pages; it came with Linux 4.11" in notes
