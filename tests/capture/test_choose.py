from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from ksmtrace.capture import choose
from ksmtrace.capture.choose import choose_source
from ksmtrace.capture.source import EventStream
from ksmtrace.errors import Exit, KsmtraceError, Obstacle
from ksmtrace.events.registry import KINDS, SLOTS

NO_KSM = Obstacle("this kernel has no KSM", "boot another one")
NO_BTF = Obstacle("the kernel has no BTF", "use --backend tracefs")
NO_ROOT = Obstacle("missing CAP_BPF", "run with sudo")


class Fake:
    summary = "a source of these tests"
    fields_unknown = ()

    def __init__(self, name: str, *obstacles: Obstacle) -> None:
        self.name = name
        self._obstacles = obstacles

    def check(self) -> list[Obstacle]:
        return list(self._obstacles)

    def open(self, *, ring_bytes: int) -> AbstractContextManager[EventStream]:
        raise AssertionError("choosing opens nothing")


def sources(monkeypatch: pytest.MonkeyPatch, *fakes: Fake) -> None:
    by_name = {fake.name: fake for fake in fakes}
    monkeypatch.setattr(choose, "SOURCES", dict.fromkeys(by_name, "Fake"))
    monkeypatch.setattr(choose, "load_source", by_name.__getitem__)


def test_auto_takes_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    sources(monkeypatch, Fake("core"), Fake("bcc"))
    choice = choose_source("auto")
    assert choice.source.name == "core"
    assert choice.why == "the best that works here"


def test_auto_steps_past_the_incapable_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    sources(monkeypatch, Fake("core", NO_BTF, NO_ROOT), Fake("bcc", NO_ROOT), Fake("tracefs"))
    choice = choose_source("auto")
    assert choice.source.name == "tracefs"
    assert "core: the kernel has no BTF" in choice.why
    assert "bcc: missing CAP_BPF" in choice.why


def test_where_none_works_every_obstacle_is_told_once_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources(
        monkeypatch,
        Fake("core", NO_KSM, NO_BTF),
        Fake("bcc", NO_KSM, NO_BTF, NO_ROOT),
        Fake("tracefs", NO_KSM),
    )
    with pytest.raises(KsmtraceError) as raised:
        choose_source("auto")
    assert raised.value.exit_code == Exit.HOST_CANNOT
    for obstacle in (NO_KSM, NO_BTF, NO_ROOT):
        assert raised.value.message.count(obstacle.what) == 1
        assert raised.value.message.count(obstacle.remedy) == 1


def test_a_source_asked_for_is_taken_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sources(monkeypatch, Fake("core"), Fake("bcc", NO_BTF), Fake("tracefs"))
    assert choose_source("tracefs").source.name == "tracefs"
    assert choose_source("tracefs").why == "asked for"
    with pytest.raises(KsmtraceError, match="the kernel has no BTF") as raised:
        choose_source("bcc")
    assert raised.value.exit_code == Exit.HOST_CANNOT
    assert "core" not in raised.value.message


@pytest.mark.parametrize("name", ["ebpf", "", "Core", "auto "])
def test_an_unknown_name_is_a_usage_error_that_lists_the_known(name: str) -> None:
    with pytest.raises(KsmtraceError) as raised:
        choose_source(name)
    assert raised.value.exit_code == Exit.USAGE
    for known in ("auto", "core", "fentry", "bcc", "tracefs"):
        assert known in str(raised.value.hint)


def test_every_real_source_has_its_name_and_a_summary() -> None:
    assert list(choose.SOURCES) == ["core", "fentry", "bcc", "tracefs"]
    for name in choose.SOURCES:
        source = choose.load_source(name)
        assert source.name == name
        assert source.summary


def test_what_a_source_cannot_know_are_names_of_fields_or_slots() -> None:
    known = {slot.name for slot in SLOTS} | {name for kind in KINDS for name in kind.fields}
    for name in choose.SOURCES:
        assert set(choose.load_source(name).fields_unknown) <= known
