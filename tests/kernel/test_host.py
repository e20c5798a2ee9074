from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Obstacle
from ksmtrace.kernel import host

BITS = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def status(mask: int) -> str:
    return f"Name:\tpython3\nCapInh:\t0000000000000000\nCapEff:\t{mask:016x}\nSeccomp:\t0\n"


@given(st.sets(st.sampled_from(sorted(BITS))), st.integers(0, (1 << 41) - 1))
def test_the_effective_capabilities_are_read(names: set[str], others: int) -> None:
    mask = others & ~sum(1 << bit for bit in BITS.values())
    mask |= sum(1 << BITS[name] for name in names)
    assert host.capabilities(status(mask)) == names


@pytest.mark.parametrize("text", ["", "Name:\tpython3\n", "CapPrm:\t000001ffffffffff\n"])
def test_without_the_line_there_are_none(text: str) -> None:
    assert host.capabilities(text) == frozenset()


def test_a_file_that_is_absent_or_a_folder_reads_as_none(tmp_path: Path) -> None:
    assert host.read_text(tmp_path / "nothing") is None
    assert host.read_text(tmp_path) is None


@given(st.binary(max_size=31))
def test_any_bytes_are_some_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert isinstance(host.read_text(tmp_path / "file"), str)


def obstacles_with(monkeypatch: pytest.MonkeyPatch, *have: str) -> list[str]:
    monkeypatch.setattr(host, "capabilities", lambda: frozenset(have))
    return [obstacle.what for obstacle in host.privilege_obstacles(("CAP_BPF", "CAP_PERFMON"))]


def test_missing_capabilities_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert obstacles_with(monkeypatch) == ["missing CAP_BPF and CAP_PERFMON"]
    assert obstacles_with(monkeypatch, "CAP_BPF") == ["missing CAP_PERFMON"]
    assert obstacles_with(monkeypatch, "CAP_BPF", "CAP_PERFMON") == []


def test_sys_admin_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert obstacles_with(monkeypatch, "CAP_SYS_ADMIN") == []


def test_tracepoints_are_found_in_tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ksm_enter", "ksm_exit"):
        (tmp_path / "events" / "ksm" / name).mkdir(parents=True)
    monkeypatch.setattr(host, "tracefs", lambda: tmp_path)
    assert host.ksm_tracepoints(("ksm_exit", "ksm_advisor", "ksm_enter")) == (
        "ksm_exit",
        "ksm_enter",
    )


def test_without_tracefs_they_are_found_in_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "tracefs", lambda: None)
    monkeypatch.setattr(
        host, "_btf_bytes", lambda: b"\0int\0btf_trace_ksm_enter\0btf_trace_ksm_exit_too\0"
    )
    assert host.ksm_tracepoints(("ksm_enter", "ksm_exit", "sm_enter")) == ("ksm_enter",)


def test_tracefs_is_the_first_place_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = (tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(host, "TRACEFS_PLACES", places)
    assert host.tracefs() is None
    (tmp_path / "b" / "events").mkdir(parents=True)
    assert host.tracefs() == tmp_path / "b"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("[none] integrity confidentiality", "none"),
        ("none [integrity] confidentiality", "integrity"),
        (None, None),
        ("", None),
    ],
)
def test_the_lockdown_mode_is_the_chosen_word(
    monkeypatch: pytest.MonkeyPatch, text: str | None, mode: str | None
) -> None:
    monkeypatch.setattr(host, "read_text", lambda _path: text)
    assert host.lockdown() == mode


def test_missing_tracepoints_are_told_only_where_bpf_would_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "ksm_tracepoints", lambda _names: ())
    monkeypatch.setattr(host, "bpf_obstacles", list)
    assert host.tracepoint_bpf_obstacles(("ksm_enter",)) == [host.tracepoint_obstacle()]
    lack = Obstacle("missing CAP_BPF", "run with sudo")
    monkeypatch.setattr(host, "bpf_obstacles", lambda: [lack])
    assert host.tracepoint_bpf_obstacles(("ksm_enter",)) == [lack]


def test_btf_is_searched_for_whole_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_btf_bytes", lambda: b"\0int\0get_ksm_page.part.0\0break_cow\0")
    assert host.in_btf("break_cow")
    assert not host.in_btf("get_ksm_page")
    assert not host.in_btf("cow")
