from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ksmtrace.capture import fentry
from ksmtrace.capture.fentry import FUNCTIONS, PREPARE, SWITCHES, VARIABLES, FentrySource
from ksmtrace.errors import Obstacle
from ksmtrace.kernel import host

SOURCE = Path(__file__).parents[2] / "bpf" / "ksm.fentry.bpf.c"
PARTS = ("bpf_loop", "register_ftrace_direct")
EVERYTHING = (*FUNCTIONS.values(), *VARIABLES, *PARTS)
Change = Callable[..., list[Obstacle]]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Change:
    """What `check` says on a kernel where all is well but what is changed."""

    def check(
        *,
        general: tuple[Obstacle, ...] = (),
        tracepoints: tuple[str, ...] = (),
        machine: str = "x86_64",
        without: tuple[str, ...] = (),
        altered: tuple[str, ...] = (),
        hidden: bool = False,
        object_missing: bool = False,
    ) -> list[Obstacle]:
        symbols = {name: 0 if hidden else 7 for name in EVERYTHING if name not in without}
        monkeypatch.setattr(host, "bpf_obstacles", lambda: list(general))
        monkeypatch.setattr(host, "ksm_tracepoints", lambda _names: tracepoints)
        monkeypatch.setattr(host, "machine", lambda: machine)
        monkeypatch.setattr(host, "in_btf", lambda name: name not in altered)
        monkeypatch.setattr(fentry, "kernel_symbols", lambda _names: symbols)
        missing = [Obstacle("no object", "make bpf")] if object_missing else []
        monkeypatch.setattr(fentry, "object_obstacles", lambda _path: missing)
        return FentrySource().check()

    return check


def test_a_kernel_without_tracepoints_that_has_everything_will_do(checked: Change) -> None:
    assert checked() == []


def test_a_kernel_with_tracepoints_is_told_only_that_core_sees_the_same(checked: Change) -> None:
    (obstacle,) = checked(tracepoints=("ksm_enter",), machine="riscv64", without=EVERYTHING)
    assert "has the ksm tracepoints" in obstacle.what
    assert "core" in obstacle.remedy


def test_what_hinders_every_backend_is_told_alone(checked: Change) -> None:
    no_root = Obstacle("missing CAP_BPF", "run with sudo")
    assert checked(general=(no_root,), tracepoints=("ksm_enter",)) == [no_root]
    assert [o.what for o in checked(object_missing=True, machine="arm")] == ["no object"]


def test_another_machine_is_named(checked: Change) -> None:
    (obstacle,) = checked(machine="aarch64")
    assert "x86-64 only, not aarch64" in obstacle.what


@pytest.mark.parametrize("function", FUNCTIONS.values())
@pytest.mark.parametrize("how", ["without", "altered"])
def test_each_function_that_is_inlined_or_altered_is_named(
    function: str, how: str, checked: Change
) -> None:
    (obstacle,) = checked(**{how: (function,)})
    assert obstacle.what == f"this kernel can't be hooked at {function}"


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_missing_variable_is_named(variable: str, checked: Change) -> None:
    (obstacle,) = checked(without=(variable,))
    assert obstacle.what == f"/proc/kallsyms lacks {variable}"


@pytest.mark.parametrize(
    ("part", "told"), [("bpf_loop", "Linux 5.17"), ("register_ftrace_direct", "DYNAMIC_FTRACE")]
)
def test_what_bpf_lacks_is_told(part: str, told: str, checked: Change) -> None:
    (obstacle,) = checked(without=(part,))
    assert told in obstacle.what


def test_hidden_addresses_are_no_missing_functions(checked: Change) -> None:
    (obstacle,) = checked(hidden=True)
    assert "kptr_restrict" in obstacle.remedy


def test_every_program_and_every_symbol_of_the_object_is_declared() -> None:
    text = SOURCE.read_text()
    functions = re.findall(r"^FUNCTION\((\w+), (\w+)\)$", text, re.MULTILINE)
    assert {f"{moment}_{name}": name for moment, name in functions} == FUNCTIONS
    assert re.findall(r"^PROGRAM\((\w+)\)$", text, re.MULTILINE) == [PREPARE, SWITCHES]
    assert tuple(re.findall(r"^extern const void (\w+) __ksym;$", text, re.MULTILINE)) == VARIABLES
