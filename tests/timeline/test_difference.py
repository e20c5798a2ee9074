from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.batches import batch_of, joins_ksm_page, makes_ksm_page
from support.compared import small_recording
from support.recordings import BEGIN, host_sample, make_recording

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.difference import Compared, Difference, Setting, Side, difference
from ksmtrace.timeline.host_figures import Missing
from ksmtrace.timeline.measures import MEASURES

NAMED = {measure.name: measure for measure in MEASURES}
SAVED, CPU, RATE = (
    NAMED[name] for name in ("saved_mean_bytes", "ksmd_cpu_s", "pages_scanned_per_s")
)


def compared(a: Path, b: Path) -> Difference:
    return difference(timeline_of(StoredRecording(a)), timeline_of(StoredRecording(b)))


def figures(found: Difference) -> Mapping[str, Compared]:
    return {figure.measure.name: figure for figure in found.figures}


def with_processes(path: Path, *processes: tuple[str, str, str | None, int]) -> Path:
    """Processes (name, cgroup, guest, pairs of pages merged)."""
    rows: list[Any] = []
    for tgid, (_name, _cgroup, _vm, pairs) in enumerate(processes, 70):
        for number in range(pairs):
            where = {"pfn": tgid * 1000 + number, "mm": tgid, "tgid": tgid}
            ts, addr = BEGIN + len(rows) + 1, (number + 1) << 13
            rows += [
                makes_ksm_page(ts=ts, item=tgid << 20 | number * 2, addr=addr, **where),
                joins_ksm_page(
                    ts=ts + 1, item=tgid << 20 | number * 2 + 1, addr=addr + 4096, **where
                ),
            ]
    identities: Sequence[Mapping[str, Any]] = [
        {"ts": BEGIN, "what": "present", "tgid": t, "comm": name, "cgroup": cgroup, "vm": vm}
        for t, (name, cgroup, vm, _pairs) in enumerate(processes, 70)
    ]
    return make_recording(path, [batch_of(rows)], tables={"identities": identities})


def test_a_recording_compared_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    found = compared(path, path)
    assert found.equal
    assert all(figure.equal for figure in found.figures)
    assert not any(figure.delta for figure in found.figures)
    assert {figure.ratio for figure in found.figures} <= {1.0, None}


def test_any_single_difference_is_noticed(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    same = compared(path, path)
    figure = Compared(SAVED, 1.0, 2.0)
    assert not replace(same, setup={"kernel": ("6.1", "6.18")}).equal
    assert not replace(same, knobs={"run": (Setting("1", "1"), Setting("0", "1"))}).equal
    assert not replace(same, figures=(*same.figures, figure)).equal
    pair = replace(same.processes[0], b=None)
    assert not replace(same, processes=(pair,)).equal


def test_rates_of_a_slower_recording_are_smaller_and_savings_equal(tmp_path: Path) -> None:
    found = compared(
        small_recording(tmp_path / "a.ksm"), small_recording(tmp_path / "b.ksm", slower=7)
    )
    by_name = figures(found)
    assert by_name["pages_scanned_per_s"].ratio == pytest.approx(1 / 7)
    assert by_name["saved_mean_bytes"].equal
    assert by_name["ksmd_cpu_s"].equal
    assert found.durations_s == (10.0, 70.0)
    assert not found.same_length


def test_the_kernel_and_the_knobs_that_differ_are_told_and_no_others(tmp_path: Path) -> None:
    def recording(name: str, kernel: str, *values: str) -> Path:
        samples = [
            {**host_sample(BEGIN + n), "knob_pages_to_scan": value, "knob_run": "1"}
            for n, value in enumerate(values)
        ]
        return make_recording(
            tmp_path / name, tables={"counters": samples}, facts={"kernel": kernel}
        )

    found = compared(
        recording("a.ksm", "6.1.5", "100", "300", "900"), recording("b.ksm", "6.18.2", "100")
    )
    assert found.setup == {"kernel": ("6.1.5", "6.18.2")}
    assert found.knobs == {"pages_to_scan": (Setting("100", "900"), Setting("100", "100"))}


def test_a_knob_that_was_never_sampled_is_as_the_manifest_has_it(tmp_path: Path) -> None:
    a = make_recording(tmp_path / "a.ksm", facts={"knobs": {"run": "0"}, "knobs_set": {"run": "1"}})
    b = make_recording(tmp_path / "b.ksm", facts={"knobs": {}})
    found = compared(a, b)
    assert found.knobs == {"run": (Setting("1", "1"), Setting(None, None))}
    assert found.knobs_known == (True, False)


def test_processes_are_matched_by_guest_then_name_and_cgroup_then_name(tmp_path: Path) -> None:
    a = with_processes(
        tmp_path / "a.ksm",
        ("qemu", "/vm/1", "red", 2),
        ("web", "/x", None, 3),
        ("web", "/y", None, 5),
        ("db", "/x", None, 7),
        ("gone", "/x", None, 11),
    )
    b = with_processes(
        tmp_path / "b.ksm",
        ("web", "/y", None, 13),
        ("web", "/x", None, 1),
        ("web", "/x", None, 1),
        ("db", "/z", None, 7),
        ("qemu", "/vm/2", "red", 2),
    )
    peaks = {
        (pair.name, pair.cgroup): tuple(
            side and (side.processes, side.merged_peak) for side in (pair.a, pair.b)
        )
        for pair in compared(a, b).processes
    }
    assert peaks == {
        ("red", None): ((1, 4), (1, 4)),
        ("web", "/x"): ((1, 6), (2, 4)),
        ("web", "/y"): ((1, 10), (1, 26)),
        ("db", None): ((1, 14), (1, 14)),
        ("gone", "/x"): ((1, 22), None),
    }


def test_processes_that_differ_most_come_first(tmp_path: Path) -> None:
    a = with_processes(tmp_path / "a.ksm", ("x", "/", None, 3), ("y", "/", None, 5))
    b = with_processes(tmp_path / "b.ksm", ("x", "/", None, 2), ("y", "/", None, 11))
    assert [pair.name for pair in compared(a, b).processes] == ["y", "x"]


def test_more_saved_is_better_and_more_cpu_is_worse_and_a_rate_is_neither() -> None:
    assert Compared(SAVED, 1.0, 2.0).b_is_better is True
    assert Compared(CPU, 1.0, 2.0).b_is_better is False
    assert Compared(RATE, 1.0, 2.0).b_is_better is None
    assert Compared(SAVED, 2.0, 2.0).b_is_better is None
    assert Compared(SAVED, Missing("why"), 2.0).b_is_better is None


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 3.0), (3.0, -1.0)])
def test_nothing_is_a_multiple_of_nothing_or_less(a: float, b: float) -> None:
    figure = Compared(SAVED, a, b)
    assert figure.ratio is None
    assert figure.delta == b - a


def test_a_profit_nobody_knows_is_not_a_profit_of_zero(tmp_path: Path) -> None:
    path = with_processes(tmp_path / "a.ksm", ("x", "/", None, 3))
    assert compared(path, path).processes[0].a == Side(1, 6, 6, None)


def test_profits_of_one_name_are_summed_and_unknown_ones_left_out(tmp_path: Path) -> None:
    profits = {70: 5003, 71: -1009, 72: None}
    path = make_recording(
        tmp_path / "a.ksm",
        [batch_of([makes_ksm_page(n, BEGIN, mm=n, tgid=n, item=n, addr=n << 12) for n in profits])],
        tables={
            "identities": [
                {"ts": BEGIN, "what": "present", "tgid": n, "comm": "x", "cgroup": "/"}
                for n in profits
            ],
            "counters": [
                {"ts": BEGIN + 1, "reason": "end", "tgid": n, "ksm_process_profit": profit}
                for n, profit in profits.items()
            ],
        },
    )
    [pair] = compared(path, path).processes
    assert pair.a is not None
    assert (pair.a.processes, pair.a.profit_bytes) == (3, 3994)
