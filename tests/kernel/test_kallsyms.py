from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.kallsyms import kernel_symbols, parse_symbols

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.$]{0,12}", fullmatch=True)
LINES = st.dictionaries(NAMES, st.tuples(st.integers(0, (1 << 64) - 1), st.sampled_from("tTdDbBr")))


def written(symbols: dict[str, tuple[int, str]]) -> bytes:
    lines = [f"{address:016x} {letter} {name}\n" for name, (address, letter) in symbols.items()]
    return "".join(lines).encode()


@given(LINES, st.sets(NAMES))
def test_the_asked_for_symbols_are_found_and_no_others(
    symbols: dict[str, tuple[int, str]], others: set[str]
) -> None:
    asked = {*list(symbols)[::2], *others}
    found = parse_symbols(written(symbols), asked)
    assert found == {name: symbols[name][0] for name in asked & set(symbols)}


@given(LINES)
def test_a_modules_symbols_are_not_the_kernels(symbols: dict[str, tuple[int, str]]) -> None:
    text = written(symbols).replace(b"\n", b"\t[a_module]\n")
    assert parse_symbols(text, set(symbols)) == {}


@given(NAMES, st.sampled_from([".isra.0", ".constprop.0", ".part.0", ".cold"]))
def test_a_name_with_a_suffix_is_another(name: str, suffix: str) -> None:
    assert parse_symbols(written({name + suffix: (1, "t")}), {name}) == {}


@given(st.binary(), st.sets(NAMES))
def test_any_bytes_can_be_read(text: bytes, names: set[str]) -> None:
    assert set(parse_symbols(text, names)) <= names


def test_of_several_the_first_is_taken() -> None:
    text = written({"a": (3, "d")}) + written({"a": (5, "b")})
    assert parse_symbols(text, {"a"}) == {"a": 3}


def test_a_file_that_cant_be_read_has_none(tmp_path: Path) -> None:
    assert kernel_symbols({"a"}, tmp_path / "nothing") == {}


def test_this_kernel_has_its_own() -> None:
    assert set(kernel_symbols({"__ksm_enter", "no_such_symbol"})) == {"__ksm_enter"}
