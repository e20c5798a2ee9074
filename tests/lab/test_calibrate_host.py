from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from ksmtrace.cli.main import main
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.costs import (
    CONSTANTS,
    DEFAULT,
    DEFAULT_SOURCE,
    KSMD,
    USER_SPACE,
    costs_file,
    read_costs,
)
from ksmtrace.lab.calibrate import calibration, on_ksmd, programs
from ksmtrace.lab.calibrate.calibration import Measurement, calibrate, fit_rounds
from ksmtrace.lab.calibrate.experiments import Experiment, unique
from ksmtrace.lab.calibrate.user_space import MEASURED, UserSpace
from ksmtrace.model.content import jhash2_checksum
from ksmtrace.model.uksm.hashing import PageHasher
from ksmtrace.model.work import Work
from ksmtrace.views.calibration import render_calibration

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeUserSpace:
    """Three rounds of made-up measurements."""

    def __init__(self) -> None:
        self._rounds = itertools.count(1)

    def measure(self) -> dict[str, float]:
        return {name: float(next(self._rounds)) for name in MEASURED}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibration.user_space, "UserSpace", FakeUserSpace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def no_ksmd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise KsmtraceError("there is no ksmd", "boot a kernel with CONFIG_KSM=y")

    monkeypatch.setattr(on_ksmd, "refuse_strangers", refuse)


def measurements(*rates: float) -> list[Measurement]:
    """Two experiments that take `rates` times the built-in costs, by round."""
    works = {"e": Work(visits=1009), "f": Work(visits=997, xxhash_bytes=997 * 4096)}
    return [
        Measurement(
            Experiment(name, "", unique(1), 0), work, tuple(r * work.ns(DEFAULT) for r in rates)
        )
        for name, work in works.items()
    ]


def printed(found: calibration.Calibrated) -> str:
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(render_calibration(found))
    return out.getvalue()


@pytest.mark.usefixtures("no_ksmd")
def test_without_ksmd_what_needs_it_keeps_its_default_and_says_so() -> None:
    found = calibrate(3, now=NOW)
    for name in CONSTANTS:
        one = found.calibration.constants[name]
        if name in MEASURED:
            assert one.source == USER_SPACE
            assert one.low_ns is not None
            assert one.low_ns < one.ns
        else:
            assert (one.ns, one.source) == (getattr(DEFAULT, name), DEFAULT_SOURCE)
            assert one.low_ns is None
    assert found.calibration.date == "2026-01-02T03:04:05+00:00"
    text = printed(found)
    assert text.count("not measured: default") == len(CONSTANTS) - len(MEASURED)
    assert "ksmd was not measured: there is no ksmd; boot a kernel" in text
    assert found.as_dict()["constants"]["visit_ns"]["low_ns"] is None


def test_with_ksmd_the_rounds_median_is_taken_and_their_spread_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = (tuple(measurements(0.5, 2.0, 1.0)), [20_011.0, 23_003.0, 29_009.0])
    monkeypatch.setattr(calibration, "_with_ksmd", lambda *_: seen)
    found = calibrate(3, now=NOW)
    visit = found.calibration.constants["visit_ns"]
    assert visit.source == KSMD
    assert visit.ns == pytest.approx(DEFAULT.visit_ns, rel=1e-6)
    assert visit.low_ns == pytest.approx(DEFAULT.visit_ns / 2, rel=0.01)
    assert visit.high_ns == pytest.approx(DEFAULT.visit_ns * 2, rel=0.01)
    assert found.calibration.costs.wakeup_ns == 23_003.0
    text = printed(found)
    assert "with ksmd" in text
    assert "in 2 experiments comes out within 0%" in text
    assert max(map(len, text.splitlines())) <= 80


def test_each_round_is_fitted_by_itself() -> None:
    fits, of_all = fit_rounds(measurements(1.0, 3.0, 1.1), [])
    assert [round(one.prices["visit_ns"] / DEFAULT.visit_ns, 1) for one in fits] == [1.0, 3.0, 1.1]
    assert of_all.prices["visit_ns"] == pytest.approx(1.1 * DEFAULT.visit_ns, rel=0.01)


@pytest.mark.usefixtures("no_ksmd")
def test_the_command_keeps_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "calibrate", "--dry-run", "--rounds", "1"]) == 0
    assert not costs_file().exists()
    capsys.readouterr()
    assert main(["lab", "calibrate", "--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert f"kept in {costs_file()}" in err
    assert max(map(len, out.splitlines())) <= 80
    there = tmp_path / "other.json"
    assert main(["lab", "calibrate", "--rounds", "1", "--json", "--save", str(there)]) == 0
    assert '"not_measured_because": "there is no ksmd"' in capsys.readouterr().out
    assert read_costs(there).costs == read_costs(costs_file()).costs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("why-two-scans", "calibrate needs no 'why-two-scans'"),
        ("--dry-run --save x", "--dry-run and --save contradict"),
        ("--save /proc/none/x", "can't be kept in /proc/none/x"),
        ("--save /", "can't be kept in /"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(
    words: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration.user_space, "UserSpace", None)
    assert main(["lab", "calibrate", *words.split()]) != 0
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["0", "-1", "x"])
def test_no_rounds_are_refused(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lab", "calibrate", "--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err


def test_the_programs_hash_as_the_kernels_do() -> None:
    pages = np.random.default_rng(7).integers(0, 1 << 32, (3, 1024), dtype=np.uint32)
    order = list(range(1024))
    Random(3).shuffle(order)
    visits = np.array([2, 0], np.int64)
    hasher = PageHasher(order)
    for strength in (1, 64, 1024):
        expected = sum(hasher.at(pages[page].tobytes(), strength) for page in (2, 0))
        assert programs.uksm_hashes(pages, visits, np.array(order), strength) == expected
    expected = sum(jhash2_checksum(pages[page].tobytes()) for page in (2, 0))
    assert programs.jhash2_hashes(pages, visits) == expected


def test_the_tree_program_passes_the_nodes_that_are_there() -> None:
    keys = np.array([5, 2, 8, 1, 9], np.int64)
    assert programs.searches(programs.binary_tree(keys), keys) == 1 + 2 + 2 + 3 + 3


def test_times_become_costs_of_one_unit() -> None:
    ticks = itertools.count()
    measured = UserSpace(clock=lambda: next(ticks) / 1000).measure()
    # Each program seems to take a millisecond.
    assert measured["uksm_byte_ns"] == pytest.approx(1e6 / 5_000 / 4096)
    assert measured["jhash2_byte_ns"] == pytest.approx(1e6 / 20_000 / 4096)
    assert 0 < measured["level_ns"] < 1e6 / (1 << 16) / 10
    assert 0 < measured["line_ns"] < 1e6 / 20_000 / 14
