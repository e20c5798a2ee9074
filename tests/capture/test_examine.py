from __future__ import annotations

import pytest

from ksmtrace.capture import doctor
from ksmtrace.capture.doctor import examine
from ksmtrace.errors import Obstacle
from ksmtrace.kernel import host
from ksmtrace.kernel.diagnosis import Finding

LACK = Obstacle("something is missing", "get it")


class Fake:
    def __init__(self, name: str, *obstacles: Obstacle) -> None:
        self.summary = f"what {name} does"
        self._obstacles = obstacles

    def check(self) -> list[Obstacle]:
        return list(self._obstacles)


def examined(
    monkeypatch: pytest.MonkeyPatch, tracepoints: tuple[str, ...], **lacks: bool
) -> dict[str, Finding]:
    fakes = {name: Fake(name, *([LACK] if lacking else [])) for name, lacking in lacks.items()}
    monkeypatch.setattr(doctor, "SOURCES", dict.fromkeys(fakes, "Fake"))
    monkeypatch.setattr(doctor, "load_source", fakes.__getitem__)
    monkeypatch.setattr(doctor, "cow_obstacles", list)
    monkeypatch.setattr(host, "ksm_tracepoints", lambda _names: tracepoints)
    diagnosis = examine()
    assert diagnosis.can_trace == (not all(lacks.values()))
    return {finding.topic: finding for finding in diagnosis.findings}


def test_the_backend_that_record_takes_is_named_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = examined(monkeypatch, (), core=True, fentry=False, bcc=False)
    assert found["backend core"].detail == LACK.what
    assert found["backend fentry"].detail == "what fentry does (record takes it)"
    assert found["backend bcc"].detail == "what bcc does"


def test_missing_tracepoints_are_a_lack_only_where_nothing_else_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert examined(monkeypatch, (), core=True, fentry=False)["tracepoints"].state == "note"
    alone = examined(monkeypatch, (), core=True, fentry=True)["tracepoints"]
    assert alone.state == "no"
    assert alone.remedy


def test_writes_are_seen_only_where_core_works(monkeypatch: pytest.MonkeyPatch) -> None:
    without = examined(monkeypatch, (), core=True, fentry=False)["record --cow"]
    assert (without.state, "core" in without.detail) == ("no", True)
    assert examined(monkeypatch, ("ksm_enter",), core=False)["record --cow"].state == "yes"
