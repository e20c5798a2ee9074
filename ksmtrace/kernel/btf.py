"""The kernel's own description of its types (BTF): sizes and member offsets of structs.

Format: Documentation/bpf/btf.rst. Read from /sys/kernel/btf/vmlinux, so it is the running
kernel's truth, which headers of a nearby version are not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.kernel.host import BTF

_MAGIC = 0xEB9F
_STRUCT, _UNION = 4, 5
_MEMBER_BYTES = {_STRUCT: 12, _UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes a vlen entry takes behind a type: struct, union; enum, func_proto, datasec, enum64."""
_FIXED_BYTES = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes behind a type whatever its vlen: int, array, var, decl_tag."""


@dataclass(frozen=True)
class StructLayout:
    """A struct's size and the byte offsets of its members, those of anonymous ones included."""

    size: int
    offsets: dict[str, int]


class BtfError(ValueError):
    """The bytes are no BTF."""


def struct_layouts(names: Iterable[str], data: bytes | None = None) -> dict[str, StructLayout]:
    """Layouts of the structs called `names`; one that the kernel doesn't have is missing.

    data: BTF bytes, by default the running kernel's. Takes some 50 ms for a whole
    kernel. Raises BtfError, and OSError where the kernel has no BTF.
    """
    if data is None:
        data = Path(BTF).read_bytes()
    try:
        magic, _version, _flags, header, type_at, type_length, text_at, text_length = (
            struct.unpack_from("<HBBIIIII", data)
        )
    except struct.error:
        raise BtfError("too short for a header") from None
    if magic != _MAGIC:
        raise BtfError("wrong magic")
    text = data[header + text_at : header + text_at + text_length]
    wanted = {text.find(b"\0" + name.encode() + b"\0") + 1: name for name in names}
    wanted.pop(0, None)
    positions = _positions(data, header + type_at, header + type_at + type_length)
    layouts: dict[str, StructLayout] = {}
    try:
        for position in positions:
            name_at, info, size = struct.unpack_from("<III", data, position)
            if name_at in wanted and info >> 24 & 0x1F == _STRUCT:
                offsets: dict[str, int] = {}
                _members(data, text, positions, position, 0, offsets)
                layouts[wanted[name_at]] = StructLayout(size, offsets)
    except (struct.error, ValueError, LookupError, RecursionError):
        raise BtfError("damaged") from None
    return layouts


def rmap_item_bytes() -> int | None:
    """sizeof(struct ksm_rmap_item), which profit is reckoned with; None if the kernel won't say."""
    try:
        layouts = struct_layouts(("ksm_rmap_item", "rmap_item"))
    except (OSError, BtfError):
        return None
    return next((layout.size for layout in layouts.values()), None)


def _positions(data: bytes, begin: int, end: int) -> list[int]:
    """Where each type stands; index is type id - 1."""
    positions = []
    position = begin
    unpack = struct.Struct("<I").unpack_from
    try:
        while position < end:
            positions.append(position)
            (info,) = unpack(data, position + 4)
            kind = info >> 24 & 0x1F
            extra = _FIXED_BYTES.get(kind)
            if extra is None:
                extra = (info & 0xFFFF) * _MEMBER_BYTES.get(kind, 0)
            position += 12 + extra
    except struct.error:
        raise BtfError("cut off") from None
    return positions


def _members(
    data: bytes,
    text: bytes,
    positions: list[int],
    position: int,
    base: int,
    offsets: dict[str, int],
) -> None:
    _, info, _ = struct.unpack_from("<III", data, position)
    bitfields = info >> 31
    for number in range(info & 0xFFFF):
        name_at, type_id, offset = struct.unpack_from("<III", data, position + 12 + 12 * number)
        bits = offset & 0xFFFFFF if bitfields else offset
        if name_at:
            name = text[name_at : text.index(b"\0", name_at)].decode()
            offsets.setdefault(name, base + bits // 8)
            continue
        if not type_id:
            raise BtfError("an anonymous member of no type")
        inner = positions[type_id - 1]
        if struct.unpack_from("<I", data, inner + 4)[0] >> 24 & 0x1F in (_STRUCT, _UNION):
            _members(data, text, positions, inner, base + bits // 8, offsets)
