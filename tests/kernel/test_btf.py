from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ksmtrace.kernel import btf
from ksmtrace.kernel.btf import BtfError, StructLayout, rmap_item_bytes, struct_layouts

HEADER_BYTES = 24
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT = range(9, 17)
DECL_TAG, TYPE_TAG, ENUM64 = 17, 18, 19


class Blob:
    """BTF bytes, a type at a time (Documentation/bpf/btf.rst)."""

    def __init__(self) -> None:
        self._text = bytearray(b"\0")
        self._types = bytearray()
        self._count = 0

    def text(self, name: str) -> int:
        if not name:
            return 0
        whole = b"\0" + name.encode() + b"\0"
        found = self._text.find(whole)
        if found >= 0:
            return found + 1
        self._text += whole[1:]
        return len(self._text) - len(whole) + 1

    def add(
        self, kind: int, name: str, size: int, *words: int, entries: int = 0, flag: int = 0
    ) -> int:
        """A type; returns its id."""
        info = flag << 31 | kind << 24 | entries
        self._types += struct.pack("<III", self.text(name), info, size)
        self._types += struct.pack(f"<{len(words)}I", *words)
        self._count += 1
        return self._count

    def group(
        self, kind: int, name: str, size: int, *members: tuple[str, int, int], flag: int = 0
    ) -> int:
        """A struct or union; members: name, type id, offset word."""
        words = [word for member in members for word in (self.text(member[0]), *member[1:])]
        return self.add(kind, name, size, *words, entries=len(members), flag=flag)

    def bytes(self) -> bytes:
        head = (HEADER_BYTES, 0, len(self._types), len(self._types), len(self._text))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, *head) + bytes(self._types + self._text)


def kernel_like() -> Blob:
    """One type of every kind, so that whatever is skipped is skipped by its right length."""
    blob = Blob()
    number = blob.add(INT, "int", 4, 32)
    pointer = blob.add(PTR, "", number)
    blob.add(ARRAY, "", 0, number, number, 7)
    blob.add(ENUM, "colour", 4, blob.text("RED"), 0, blob.text("BLUE"), 1, entries=2)
    blob.add(FWD, "later", 0)
    blob.add(TYPEDEF, "u32", number)
    blob.add(VOLATILE, "", number)
    blob.add(CONST, "", number)
    blob.add(RESTRICT, "", pointer)
    proto = blob.add(FUNC_PROTO, "", number, blob.text("a"), number, 0, 0, entries=2)
    blob.add(FUNC, "main", proto, entries=1)
    variable = blob.add(VAR, "jiffies", number, 1)
    blob.add(DATASEC, ".data", 12, variable, 0, 4, entries=1)
    blob.add(FLOAT, "double", 8)
    blob.add(DECL_TAG, "tag", number, 0xFFFFFFFF)
    blob.add(TYPE_TAG, "rcu", number)
    blob.add(ENUM64, "big", 8, blob.text("HUGE"), 1, 2, entries=1)
    # struct page { long flags; union { struct { long a, lru; }; int order; }; int _mapcount; }
    inner = blob.group(STRUCT, "", 16, ("a", number, 0), ("lru", number, 64))
    union = blob.group(UNION, "", 16, ("", inner, 0), ("order", number, 0))
    blob.group(
        STRUCT, "page", 28, ("flags", number, 0), ("", union, 64), ("_mapcount", number, 192)
    )
    # The high 8 bits of an offset are the width of a bit field where the flag is set.
    blob.group(
        STRUCT,
        "task_struct",
        24,
        ("mm", pointer, 0),
        ("lazy", number, 3 << 24 | 64),
        ("", number, 5 << 24 | 67),
        ("wide", number, 7 << 24 | 72),
        ("tgid", number, 128),
        flag=1,
    )
    blob.group(UNION, "mm_struct", 8, ("wrong", number, 0))
    blob.group(STRUCT, "mm_struct", 40, ("owner", pointer, 256))
    return blob


def test_a_struct_of_plain_members() -> None:
    layouts = struct_layouts(["mm_struct"], kernel_like().bytes())
    assert layouts == {"mm_struct": StructLayout(40, {"owner": 32})}


def test_members_of_anonymous_structs_and_unions_are_the_structs_own() -> None:
    page = struct_layouts(["page"], kernel_like().bytes())["page"]
    assert page.size == 28
    assert page.offsets == {"flags": 0, "a": 8, "lru": 16, "order": 8, "_mapcount": 24}


def test_bit_fields_lie_in_the_byte_where_they_begin() -> None:
    task = struct_layouts(["task_struct"], kernel_like().bytes())["task_struct"]
    assert task.offsets == {"mm": 0, "lazy": 8, "wide": 9, "tgid": 16}


def test_a_struct_that_is_not_there_is_missing() -> None:
    found = struct_layouts(["page", "rmap_item", "pag", "age", "int"], kernel_like().bytes())
    assert set(found) == {"page"}


@given(
    st.dictionaries(
        st.text("abcdefghij_", min_size=1, max_size=7),
        st.dictionaries(st.text("klmnop_", min_size=1, max_size=5), st.integers(0, 511)),
        max_size=5,
    )
)
def test_what_was_described_is_found(structs: dict[str, dict[str, int]]) -> None:
    blob = Blob()
    number = blob.add(INT, "int", 4, 32)
    for name, members in structs.items():
        blob.group(STRUCT, name, 512, *((m, number, at * 8) for m, at in members.items()))
    assume("int" not in structs)
    expected = {name: StructLayout(512, members) for name, members in structs.items()}
    assert struct_layouts(structs, blob.bytes()) == expected


@given(st.binary(max_size=211))
def test_any_bytes_are_btf_or_a_btf_error(data: bytes) -> None:
    with contextlib.suppress(BtfError):
        struct_layouts(["page"], data)


GOOD = kernel_like().bytes()
NAMES = ["page", "task_struct", "mm_struct"]


@given(st.integers(0, len(GOOD)))
def test_btf_cut_anywhere_is_a_btf_error_or_incomplete(length: int) -> None:
    with contextlib.suppress(BtfError):
        struct_layouts(NAMES, GOOD[:length])


@example([(HEADER_BYTES + 4, 0xFF)])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=7))
def test_damaged_btf_is_read_or_a_btf_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(BtfError):
        struct_layouts(NAMES, bytes(data))


def test_an_anonymous_struct_inside_itself_is_a_btf_error() -> None:
    blob = Blob()
    blob.group(STRUCT, "page", 8, ("", 1, 0))
    with pytest.raises(BtfError):
        struct_layouts(["page"], blob.bytes())


@pytest.mark.parametrize("name", ["ksm_rmap_item", "rmap_item"])
def test_the_size_of_an_rmap_item_is_found_by_either_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Blob()
    blob.group(STRUCT, name, 88)
    (tmp_path / "vmlinux").write_bytes(blob.bytes())
    monkeypatch.setattr(btf, "BTF", tmp_path / "vmlinux")
    assert rmap_item_bytes() == 88


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF" + bytes(101)])
def test_without_btf_the_size_is_unknown(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "vmlinux").write_bytes(content)
    monkeypatch.setattr(btf, "BTF", tmp_path / "vmlinux")
    assert rmap_item_bytes() is None
