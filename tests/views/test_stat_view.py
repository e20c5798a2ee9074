from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from ksmtrace.inspect.stat.compare import compare
from ksmtrace.inspect.stat.figures import STAT_MEASURES
from ksmtrace.inspect.stat.result import Run, StatResult
from ksmtrace.timeline.host_figures import Missing, Value
from ksmtrace.views.stat import render_stat


def run(setting: str | None, seed: int, missing: str | None = None) -> Run:
    random = np.random.default_rng(seed)
    scale = {"bytes": 1e12, "number": 1e9, "s": 5e4, "cpu_s": 1e4, "percent": 100.0}
    values: dict[str, Value] = {
        m.name: float(int(scale[m.unit] * random.random() + 1)) for m in STAT_MEASURES
    }
    if missing is not None:
        values[missing] = Missing("no capture was asked for")
    return Run(setting, "command", 0, values, 101, 0.123, 0.045)


def shown(result: StatResult) -> str:
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(render_stat(result))
    return capture.get()


def result(runs: list[Run], **rest: object) -> StatResult:
    return StatResult("python3 job.py", "6.18", "core", 6, tuple(runs), {"run": "1"}, **rest)  # type: ignore[arg-type]


ONE = result([run(None, 1, "merges")])
MANY = result([run(None, seed, "merges") for seed in range(7)])
AB_RUNS = [run(setting, seed) for seed, setting in enumerate("0110" * 3)]
AB = result(AB_RUNS, comparison=compare("smart_scan", ("0", "1"), "ABBA" * 3, AB_RUNS))


@pytest.mark.parametrize("found", [ONE, MANY, AB], ids=["one", "many", "ab"])
def test_it_fits_80_columns_with_large_figures(found: StatResult) -> None:
    assert max(map(len, shown(found).splitlines())) <= 80


def test_what_is_not_known_is_a_dash_with_its_reason() -> None:
    for found in (ONE, MANY):
        lines = shown(found).splitlines()
        (merges,) = (line for line in lines if line.startswith("merges "))
        assert merges.split() == ["merges", "–"]
        assert "– no capture was asked for: merges" in lines


def test_one_run_tells_bytes_and_pages_side_by_side() -> None:
    values = {**ONE.runs[0].values, "saved_peak_bytes": 331.0 * 4096, "saved_peak_pages": 331.0}
    found = result([Run(None, "command", 0, values, 3, 0.1, 0.1)])
    (line,) = (line for line in shown(found).splitlines() if line.startswith("saved at most"))
    assert line.split() == ["saved", "at", "most", "1.3", "MiB", "331", "pages"]


def test_a_host_has_no_lines_of_a_process() -> None:
    values = {
        name: Missing("no command and no process was given") if name.startswith("process") else 1.0
        for name in ONE.runs[0].values
    }
    text = shown(result([Run(None, "duration", None, values, 3, 0.1, 0.1)]))
    assert "merged at most" not in text
    assert "no command" not in text


def test_a_comparison_names_its_test_its_adjustment_and_its_order() -> None:
    text = " ".join(shown(AB).split())
    assert "Mann–Whitney" in text
    assert "Holm" in text
    assert "ABBAABBAABBA" in text
    assert "smart_scan=0, 6 runs" in text


def test_a_clear_difference_is_shown_with_its_interval() -> None:
    runs = [
        Run(setting, "command", 0, {**run(None, 1).values, "ksmd_cpu_s": cpu}, 3, 0.1, 0.1)
        for setting, cpu in zip("010101010101", (1, 2, 1.1, 2.1, 1.2, 2.2, 1.3, 2.3, 1.4, 2.4, 1.5,
                                                 2.5), strict=True)
    ]  # fmt: skip
    compared = compare("smart_scan", ("0", "1"), "AB" * 6, runs)
    lines = shown(result(runs, comparison=compared)).splitlines()
    (line,) = (line for line in lines if line.startswith("ksmd's CPU"))
    assert line.split()[2:] == [
        "1.25", "s", "2.25", "s", "+1.00", "[+0.70,", "+1.30]", "s", "real",
    ]  # fmt: skip


def test_json_has_every_figure_of_both_settings_and_null_for_what_is_not_known() -> None:
    told = json.loads(json.dumps(AB.as_dict()))
    names = {measure.name for measure in STAT_MEASURES}
    assert set(told["ab"]["figures_a"]) == set(told["ab"]["figures_b"]) == names
    assert told["ab"]["order"] == "ABBA" * 3
    assert told["ab"]["contrasts"]["ksmd_cpu_s"]["verdict"] in ("real", "not shown")
    told = json.loads(json.dumps(ONE.as_dict()))
    assert told["figures"]["merges"] is None
    assert told["runs"][0]["why_unknown"] == {"merges": "no capture was asked for"}
    assert told["ab"] is None
