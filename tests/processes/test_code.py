from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.processes.code import (
    KERNEL,
    UNKNOWN,
    KernelSymbols,
    Location,
    Mapping,
    executable_mappings,
    locate,
    parse_maps,
)
from ksmtrace.processes.identity import clean

MAPS = b"""\
55d0c0000000-55d0c0001000 r--p 00000000 fe:00 131 /usr/bin/a program
55d0c0001000-55d0c0005000 r-xp 00001000 fe:00 131 /usr/bin/a program
7f0000000000-7f0000002000 rwxp 00000000 00:00 0 \n\
7f0000100000-7f0000101000 r-xp 00003000 fe:00 7                          /lib/x.so (deleted)
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
"""
NAMES = st.binary(max_size=31).map(lambda raw: raw.replace(b"\n", b"").strip())


def test_an_instruction_is_told_as_file_and_offset() -> None:
    mappings = tuple(parse_maps(MAPS.splitlines(keepends=True)))
    assert locate(mappings, 0x55D0C0001234) == Location("/usr/bin/a program", 0x1234)
    assert locate(mappings, 0x7F0000100011) == Location("/lib/x.so (deleted)", 0x3011)
    assert locate(mappings, 0x7F0000000013) == Location("[anonymous]", 0x13)
    assert locate(mappings, 0x7FFC00000007) == Location("[vdso]", 7)


@pytest.mark.parametrize("ip", [0, 0x55D0C0000FFF, 0x55D0C0005000, 0x7FFC00002000, (1 << 63) - 1])
def test_what_is_not_executable_there_is_unknown(ip: int) -> None:
    assert locate(tuple(parse_maps(MAPS.splitlines(keepends=True))), ip) == UNKNOWN


@given(
    spans=st.lists(st.tuples(st.integers(1, 31), st.integers(1, 31)), max_size=7),
    offset=st.integers(0, 1 << 40),
    names=st.lists(NAMES, min_size=7, max_size=7),
    ip=st.integers(0, 331 << 12),
)
def test_maps_are_read_as_the_kernel_writes_them(
    spans: list[tuple[int, int]], offset: int, names: list[bytes], ip: int
) -> None:
    mappings, end = [], 0
    for (gap, pages), name in zip(spans, names, strict=False):
        start = end + gap * 4096
        end = start + pages * 4096
        mappings.append(Mapping(start, end, offset, clean(name)))
    lines = [
        f"{m.start:08x}-{m.end:08x} r-xp {m.offset:08x} fe:00 7 ".encode().ljust(73) + name + b"\n"
        for m, name in zip(mappings, names, strict=False)
    ]
    assert list(parse_maps(lines)) == mappings
    inside = [m for m in mappings if m.start <= ip < m.end]
    found = locate(tuple(mappings), ip)
    assert found.offset == (ip - inside[0].start + offset if inside else None)


@given(st.lists(st.binary(max_size=97)))
def test_no_text_crashes_the_reader_of_maps(lines: list[bytes]) -> None:
    list(parse_maps(lines))


def test_our_own_code_is_found_and_a_process_that_is_gone_has_none() -> None:
    mine = executable_mappings(os.getpid())
    assert any("python" in mapping.name or "libc" in mapping.name for mapping in mine)
    assert executable_mappings(4_194_399) == ()


def symbols(path: Path, text: bytes) -> KernelSymbols:
    path.write_bytes(text)
    found = KernelSymbols(path)
    for _ in found.load():
        pass
    assert found.loaded
    return found


def test_a_kernel_instruction_is_told_as_function_and_offset(tmp_path: Path) -> None:
    found = symbols(
        tmp_path / "kallsyms",
        b"ffffffff81000100 t second\nffffffff81000000 T first\nffffffff81000110 d data\n"
        b"ffffffffc0000000 t third [module]\n",
    )
    assert found.locate(0xFFFFFFFF81000013) == Location(KERNEL, 0x13, "first")
    assert found.locate(0xFFFFFFFF81000117) == Location(KERNEL, 0x17, "second")
    assert found.locate(0xFFFFFFFFC0000000) == Location(KERNEL, 0, "third")
    assert found.locate(0xFFFFFFFF80000000) == Location(KERNEL)


@pytest.mark.parametrize("text", [b"", b"0000000000000000 T first\n", b"zz T first\n", b"\n1 T\n"])
def test_hidden_addresses_give_no_function(tmp_path: Path, text: bytes) -> None:
    assert symbols(tmp_path / "kallsyms", text).locate(0xFFFFFFFF81000013) == Location(KERNEL)


@given(st.binary(max_size=331))
def test_no_text_crashes_the_reader_of_symbols(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    symbols(tmp_path_factory.mktemp("k") / "kallsyms", text).locate(1 << 63)
