from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.costs import (
    CONSTANTS,
    DEFAULT,
    DEFAULT_SOURCE,
    KSMD,
    USER_SPACE,
    Calibration,
    Constant,
    Costs,
    costs_file,
    host_costs,
    read_costs,
    write_costs,
)
from ksmtrace.kernel.host import cpu_model, kernel_release

any_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
nanoseconds = st.floats(0, 1e9)
measured = st.tuples(
    st.lists(nanoseconds, min_size=3, max_size=3).map(sorted), st.sampled_from([KSMD, USER_SPACE])
).map(lambda told: Constant(told[0][1], told[1], told[0][0], told[0][2]))
unmeasured = nanoseconds.map(lambda ns: Constant(ns, DEFAULT_SOURCE))
words = st.text(st.characters(categories=["L", "N"]), max_size=20)
calibrations = st.builds(
    Calibration,
    words,
    words,
    words,
    st.fixed_dictionaries(dict.fromkeys(CONSTANTS, measured | unmeasured)),
)


def calibration(**visit: Any) -> Calibration:
    constants = {name: Constant(getattr(DEFAULT, name), DEFAULT_SOURCE) for name in CONSTANTS}
    constants["visit_ns"] = replace(Constant(401.0, KSMD, 397.0, 409.0), **visit)
    return Calibration(kernel_release(), cpu_model(), "2026-01-02T03:04:05+00:00", constants)


@any_tmp_path
@given(calibrations)
def test_what_is_written_is_read(tmp_path: Path, made: Calibration) -> None:
    path = tmp_path / "a" / "costs.json"
    write_costs(path, made)
    assert read_costs(path) == made
    assert [one.name for one in path.parent.iterdir()] == ["costs.json"]


@any_tmp_path
@given(st.binary(max_size=200))
def test_no_file_crashes_the_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(content)
    with pytest.raises(KsmtraceError):
        read_costs(path)


@any_tmp_path
@given(
    st.sampled_from(["ksmtrace_costs", "kernel", "cpu", "date", "constants", *CONSTANTS]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers(-(10**400), 10**400) | words,
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["ns", "source"]), inner),
    ),
)
def test_a_file_with_a_wrong_value_is_refused_or_read_in_full(
    tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "costs.json"
    write_costs(path, calibration())
    told = json.loads(path.read_text())
    place = told["constants"] if name in CONSTANTS else told
    place[name] = value
    path.write_text(json.dumps(told))
    try:
        read = read_costs(path)
    except KsmtraceError:
        return
    assert set(read.constants) == set(CONSTANTS)
    assert all(0 <= one.ns < float("inf") for one in read.constants.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ns": -1.0}, "visit_ns is no number of nanoseconds"),
        ({"ns": 1e12}, "visit_ns is not within its spread"),
        ({"source": "guess"}, "the source of visit_ns is none of"),
        ({"source": DEFAULT_SOURCE}, "visit_ns is not measured and yet has a spread"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "costs.json"
    write_costs(path, calibration(**change))
    with pytest.raises(KsmtraceError, match=words):
        read_costs(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(KsmtraceError, match="No such file"):
        read_costs(tmp_path / "none.json")
    with pytest.raises(KsmtraceError, match="can't be kept"):
        write_costs(Path("/proc/costs.json"), calibration())


def test_costs_of_this_host_are_used(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    write_costs(path, calibration())
    found = host_costs(path)
    assert found.costs == replace(DEFAULT, visit_ns=401.0)
    assert found.origin.startswith("measured on this host, 2026-01-02")
    assert found.calibration == calibration()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kernel": "2.6.32"}, "of another kernel (2.6.32)"), ({"cpu": "i386"}, "of another cpu")],
)
def test_costs_of_another_host_are_not_used(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    path = tmp_path / "costs.json"
    write_costs(path, replace(calibration(), **change))  # type: ignore[arg-type]
    found = host_costs(path)
    assert found.costs is DEFAULT
    assert words in found.origin


def test_a_bad_file_is_not_used_and_said(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text("{}")
    found = host_costs(path)
    assert found.costs is DEFAULT
    assert "holds no costs" in found.origin


def test_the_file_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert costs_file() == tmp_path / "ksmtrace" / "costs.json"
    assert host_costs().costs is DEFAULT
    write_costs(costs_file(), calibration())
    assert host_costs().costs.visit_ns == 401.0


def test_every_built_in_cost_is_one() -> None:
    assert all(getattr(DEFAULT, name) > 0 for name in CONSTANTS)
    assert isinstance(DEFAULT, Costs)


def test_the_processor_is_called_by_its_name() -> None:
    assert (
        cpu_model("processor\t: 0\nmodel name\t: A CPU  @ 3 GHz \nflags : x\n") == "A CPU  @ 3 GHz"
    )
    assert cpu_model("processor\t: 0\n") == cpu_model("")
