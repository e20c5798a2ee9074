"""Searching settings: what it finds keeps the limits, and nothing that was tried is better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ksmtrace.cli.main import main
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.kernel.knobs import parse_assignments
from ksmtrace.kernel.releases import profile
from ksmtrace.whatif.moment import Moment
from ksmtrace.whatif.tuned import sysfs_lines, tmpfiles_lines
from ksmtrace.whatif.tuning import Limits, Tuning, tune

RECORDINGS = Path(__file__).parents[2] / "recordings"
SNAPSHOT = RECORDINGS / "volatile-pages.ksm"


def services(pages: int = 4001) -> Moment:
    """A process with equal pages, zero pages and pages of its own."""
    dice = np.random.default_rng(1)
    contents = np.where(dice.random(pages) < 0.6, dice.integers(0, 300, pages), 1000)
    contents = np.where(contents == 1000, 1000 + np.arange(pages), contents)
    contents[: pages // 5] = 0
    return Moment(
        tgids=np.full(pages, 7), addresses=np.arange(pages) * 4096 + (1 << 20),
        contents=contents, frames=np.arange(pages), changing=np.zeros(pages, np.bool_),
        different=1000 + pages, regions={7: [(1 << 20, (1 << 20) + pages * 4096)]},
        knobs={"pages_to_scan": "100", "sleep_millisecs": "20"}, page_bytes=4096,
    )  # fmt: skip


def tuned(limits: Limits, kernel: str = "6.18", most: int = 50) -> Tuning:
    return tune(services(), profile(kernel), limits, costs=DEFAULT, tick_ns=4_000_000, most=most)


@pytest.mark.parametrize("limits", [Limits(5), Limits(1), Limits(20, 2.0), Limits(100, 0.5)])
def test_what_is_best_keeps_the_limits(limits: Limits) -> None:
    found = tuned(limits)
    assert found.best
    assert not found.nearest
    for each in found.best:
        assert each.cpu_percent <= limits.max_cpu_percent
        assert limits.within_s is None or each.seconds <= limits.within_s
    assert found.best[0].prediction.pages_saved == max(
        each.prediction.pages_saved for each in found.best
    )


def test_more_cpu_is_sooner() -> None:
    seconds = [tuned(Limits(share)).best[0].seconds for share in (0.5, 3, 20)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 2 * seconds[-1]


def test_the_fastest_pace_could_not_be_a_step_faster() -> None:
    found = tuned(Limits(3))
    plain = next(each for each in found.best if each.pace.advisor_mode == "none")
    assert plain.cpu_percent > 2


def test_where_nothing_keeps_the_limits_the_nearest_are_told() -> None:
    found = tuned(Limits(0.1, 0.2))
    assert not found.best
    shortest, cheapest = found.nearest
    assert shortest.cpu_percent <= 0.1
    assert shortest.seconds > 0.2
    assert cheapest.seconds <= 0.2
    assert cheapest.cpu_percent > 0.1


def test_only_what_the_kernel_has_is_tried() -> None:
    for kernel, lacking in (("6.6", "smart_scan"), ("3.8", "use_zero_pages")):
        for each in tuned(Limits(5), kernel).best:
            assert lacking not in each.knobs
            assert "advisor_mode" not in each.knobs


def test_memory_without_equal_pages_is_told() -> None:
    alone = services(211)
    alone.contents[:] = np.arange(1, 212)
    with pytest.raises(KsmtraceError, match="no settings would save anything"):
        tune(alone, profile("6.18"), Limits(5), costs=DEFAULT, tick_ns=4_000_000)


def test_lines_to_paste_set_what_was_found() -> None:
    best = tuned(Limits(5)).best[0]
    words = [line.split() for line in sysfs_lines(best)]
    written = {line[3].rpartition("/")[2]: line[1] for line in words}
    assert best.knobs.items() <= written.items()
    assert written["run"] == "1"
    assert words[-1][3].endswith("/run")
    assert parse_assignments([f"{name}={value}" for name, value in written.items()]) == written
    assert [line.split()[1].rpartition("/")[2] for line in tmpfiles_lines(best)] == list(written)


def test_an_advisor_is_switched_off_only_where_there_is_one() -> None:
    for kernel, has_it in (("6.18", True), ("6.7", False)):
        best = tuned(Limits(5), kernel).best
        plain = next(each for each in best if each.pace.advisor_mode == "none")
        assert ("advisor_mode" in plain.knobs) == has_it
        assert any("advisor_mode" in line for line in sysfs_lines(plain)) == has_it
        assert next(iter(plain.knobs)) == ("advisor_mode" if has_it else "smart_scan")


# The command.


def test_tune_on_a_shipped_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(SNAPSHOT), "--max-cpu", "5%", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reachable"]
    assert told["best"][0]["pages_saved"] == 43
    assert told["best"][0]["cpu_percent_at_most"] <= 5
    assert main(["tune", str(SNAPSHOT), "--max-cpu", "5"]) == 0
    text = capsys.readouterr().out
    assert "echo 1 > /sys/kernel/mm/ksm/run" in text
    assert "w /sys/kernel/mm/ksm/" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([str(SNAPSHOT), "--max-cpu", "0.001%", "--within", "1s"], 1, "no setting stays within"),
        ([str(RECORDINGS / "demo.ksm"), "--max-cpu", "5%"], 4, "doesn't tell what pages held"),
        ([str(SNAPSHOT), "--max-cpu", "lots"], 2, "is no share of a core"),
        ([str(SNAPSHOT), "--max-cpu", "5%", "--within", "soon"], 2, "is no time"),
        ([str(SNAPSHOT), "--max-cpu", "5%", "--on", "uksm:full"], 2, "for KSM only"),
        (["nowhere", "--max-cpu", "5%"], 4, "nowhere"),
    ],
)
def test_errors_say_what_to_do(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["tune", *arguments])
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == code
    assert words in " ".join(capsys.readouterr().err.split())
