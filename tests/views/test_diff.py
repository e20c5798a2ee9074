from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from rich.console import Console

from ksmtrace.timeline.difference import Compared, Difference, Pair, Setting, Side
from ksmtrace.timeline.host_figures import Measure, Missing, Value
from ksmtrace.timeline.measures import MEASURES
from ksmtrace.views.diff import diff_as_dict, render_diff

NAMED = {measure.name: measure for measure in MEASURES}


def measure(name: str) -> Measure:
    return NAMED[name]


def difference(*figures: tuple[str, Value, Value], **changes: Any) -> Difference:
    nothing = Difference({}, {}, (True, True), (61.0, 61.0), (), ())
    return replace(
        nothing, figures=tuple(Compared(measure(n), a, b) for n, a, b in figures), **changes
    )


def shown(found: Difference, a: str = "a.ksm", b: str = "b.ksm") -> str:
    console = Console(width=80, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(render_diff(found, a, b))
    return capture.get()


def row(text: str, words: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.startswith(words)).split())


def test_a_figure_stands_beside_its_twin_with_ratio_and_verdict() -> None:
    text = shown(
        difference(
            ("saved_mean_bytes", 3 * 2.0**30, 1.5 * 2**30),
            ("ksmd_cpu_percent", 10.0, 1.0),
            ("scans_per_s", 4.0, 4.0),
        )
    )
    assert row(text, "saved, mean") == "saved, mean over time 3.0 GiB 1.5 GiB ×0.50 worse"
    assert row(text, "ksmd's share") == "ksmd's share of a core 10 % 1 % ×0.10 better"
    assert row(text, "full scans") == "full scans a second 4 4 ="


def test_what_is_not_above_zero_is_compared_by_its_difference() -> None:
    text = shown(difference(("profit_last_bytes", -2048.0, 1024.0), ("copies_per_s", 0.75, 0.0)))
    assert row(text, "profit") == "profit at the end -2.0 KiB 1.0 KiB +3.0 KiB better"
    assert row(text, "copied") == "copied a second 0.75 0 -0.75 better"


def test_what_one_lacks_is_a_dash_and_the_reason_one_line() -> None:
    text = shown(
        difference(
            ("zero_pages_last", Missing("ksm_zero_pages came with Linux 6.6"), 7.0),
            ("breaks_per_s", Missing("recorded without --cow"), Missing("recorded without --cow")),
            ("copies_per_s", 1.0, 1.0),
        )
    )
    assert row(text, "zero pages") == "zero pages at the end – 7"
    assert not any(line.startswith("writes seen") for line in text.splitlines())
    assert "– in A: ksm_zero_pages came with Linux 6.6 (savings)" in text
    assert "– in A and B: recorded without --cow (writes seen a second)" in text


def test_sums_over_different_lengths_are_marked_and_not_judged() -> None:
    figures: tuple[str, Value, Value] = ("ksmd_cpu_s", 1.0, 9.0)
    text = shown(difference(figures, durations_s=(10.0, 61.0)))
    assert row(text, "ksmd's CPU") == "ksmd's CPU* 1.00 s 9.00 s"
    assert "10.00 s and 61.00 s: rates and means are by the time recorded" in " ".join(text.split())
    assert row(shown(difference(figures)), "ksmd's CPU").endswith("×9.00 worse")


def test_kernels_and_knobs_that_differ_come_first() -> None:
    text = shown(
        difference(
            ("scans_per_s", 4.0, 4.0),
            setup={"kernel": ("6.1.5", "6.18.2"), "fields_unknown": ([], ["addr", "tgid"])},
            knobs={
                "pages_to_scan": (Setting("100", "900"), Setting("300", "300")),
                "smart_scan": (Setting(None, None), Setting("1", "1")),
            },
        )
    )
    assert row(text, "Linux") == "Linux 6.1.5 6.18.2"
    assert row(text, "not known") == "not known nothing addr, tgid"
    assert row(text, "pages_to_scan") == "pages_to_scan 100 → 900 300"
    assert row(text, "smart_scan") == "smart_scan – 1"
    assert text.index("smart_scan") < text.index("full scans a second")


def test_knobs_that_one_does_not_know_do_not_differ() -> None:
    knobs = {"run": (Setting(None, None), Setting("1", "1"))}
    text = shown(difference(knobs=knobs, knobs_known=(False, True)))
    assert not any(line.startswith("run") for line in text.splitlines())
    assert "– in A: no knobs were recorded" in text


def test_where_nothing_differs_it_says_so() -> None:
    same = Pair("x", vm=False, cgroup="/", a=Side(1, 7, 7, 3), b=Side(1, 7, 7, 3))
    found = difference(("scans_per_s", 4.0, 4.0), processes=(same,))
    assert shown(found).rstrip().endswith("Nothing differs.")
    assert "Nothing differs" not in shown(replace(found, setup={"cpus": (1, 2)}))


HUGE: Value = 123456789012345.0


@pytest.mark.parametrize("value", [HUGE, 0.000012345, -HUGE, Missing("of a long story " * 9)])
def test_it_fits_80_columns_and_can_steer_no_terminal(value: Value) -> None:
    evil = "\x1b[2J[bold]" + "name" * 31
    side = Side(3, 10**12, 10**12, -(10**15))
    text = shown(
        difference(
            *((m.name, value, HUGE) for m in MEASURES),
            setup={"kernel": (evil, evil), "ended": (evil, None)},
            knobs={"advisor_max_pages_to_scan": (Setting(evil, "2"), Setting("1", evil))},
            processes=tuple(Pair(evil, False, evil, side, None) for _ in range(23)),
            durations_s=(None, 1e9),
        ),
        a="x" * 200 + "\x1b[2J",
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_no_figures_words_are_cut() -> None:
    text = shown(difference(*((m.name, HUGE, HUGE) for m in MEASURES)))
    assert "…" not in text
    for m in MEASURES:
        assert m.words in text


def test_json_has_every_figure_its_unit_in_its_name_and_nulls_with_reasons() -> None:
    side = Side(1, 7, 5, None)
    found = difference(
        ("saved_mean_bytes", 4096.0, 8192.0),
        ("breaks_per_s", Missing("recorded without --cow"), 2.0),
        knobs={"run": (Setting("0", "1"), Setting(None, None))},
        setup={"cpus": (2, 3)},
        processes=(Pair("x", vm=False, cgroup=None, a=side, b=None),),
    )
    told = json.loads(json.dumps(diff_as_dict(found, "a.ksm", "b.ksm")))
    assert told["a"] == {"recording": "a.ksm", "duration_s": 61.0}
    assert told["measures"]["saved_mean_bytes"] == {
        "group": "savings", "a": 4096.0, "b": 8192.0, "delta": 4096.0, "ratio": 2.0,
        "better": "more", "grows_with_length": False,
    }  # fmt: skip
    assert told["measures"]["breaks_per_s"]["a"] is None
    assert told["measures"]["breaks_per_s"]["why_a"] == "recorded without --cow"
    assert told["knobs"] == {
        "run": {"a": {"first": "0", "last": "1"}, "b": {"first": None, "last": None}}
    }
    assert told["setup"] == {"cpus": {"a": 2, "b": 3}}
    assert told["processes"][0]["a"] == {f.name: getattr(side, f.name) for f in fields(Side)}
    assert told["processes"][0]["b"] is None
    assert told["equal"] is False


def test_every_name_in_json_says_its_unit() -> None:
    suffixes = {
        "per_s": ("_per_s", "_per_s_of_scanning"), "s": ("_s",), "us": ("_us_per_visit",),
        "bytes": ("_bytes",), "percent": ("_percent",),
        "cpu_s": ("_cpu_s", "_s_per_gib", "_s_per_gib_hour"),
        "number": ("_last", "_median", "_lost", "_pages"),
    }  # fmt: skip
    assert len({m.name for m in MEASURES}) == len(MEASURES)
    for m in MEASURES:
        assert m.name.endswith(suffixes[m.unit]), m.name
