"""The tables as compiled code has them: one number, the address of a list of addresses.

Numba would hand over every array to every function in seven words, and count references to each.
Compiling takes a tenth of the time with one word instead, and nothing is counted. A Handle is valid
as long as the arrays that it was made from; nothing in compiled code keeps or frees them.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    overload_attribute,
    register_model,
    typeof_impl,
    unbox,
)

from ksmtrace.model.fast.tables import DTYPES, Tables

_WORDS = 3


class Handle:
    """Tables for a call. Its `address` is what compiled code gets."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        rows = [(t.ctypes.data, t.shape[0], t.shape[-1]) for t in tables]
        self._list = np.array(rows, np.int64)
        self.address = self._list.ctypes.data


def handle_of(tables: Tables) -> Tables:
    """The tables for a call; typed as what compiled code takes them for."""
    return cast("Tables", Handle(tables))


class _HandleType(types.Type):  # type: ignore[misc]  # numba has no types
    def __init__(self) -> None:
        super().__init__(name="ksmtrace.Handle")


_HANDLE = _HandleType()


@typeof_impl.register(Handle)  # type: ignore[untyped-decorator]  # numba has no types
def _typeof(_value: Handle, _context: Any) -> _HandleType:
    return _HANDLE


@register_model(_HandleType)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@unbox(_HandleType)  # type: ignore[untyped-decorator]
def _unbox(_kind: Any, handle: Any, c: Any) -> NativeValue:
    address = c.pyapi.object_getattr_string(handle, "address")
    value = c.pyapi.long_as_longlong(address)
    c.pyapi.decref(address)
    return NativeValue(value, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, _handle: Any, _word: Any) -> Any:
    """The address that stands at a place of the list."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(_load(builder, *arguments), cgutils.voidptr_t)

    return types.voidptr(_HANDLE, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def _number(_context: Any, _handle: Any, _word: Any) -> Any:
    """The number that stands at a place of the list."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _load(builder, *arguments)

    return types.int64(_HANDLE, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, _handle: Any, _word: Any, _offset: Any) -> Any:
    """Ask for the cache line at so many bytes into a table (its first word in the list)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        handle, word, offset = arguments
        address = builder.add(_load(builder, handle, word), offset)
        pointer = builder.inttoptr(address, cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return _context.get_dummy_value()

    return types.void(_HANDLE, types.int64, types.int64), code


def word_of(name: str) -> int:
    """Where in the list a table's address stands, for `prefetch`."""
    return _WORDS * Tables._fields.index(name)


def _load(builder: Any, address: Any, word: Any) -> Any:
    words = builder.inttoptr(address, ir.IntType(64).as_pointer())
    return builder.load(builder.gep(words, [word]))


def _declare(name: str, at: int) -> None:
    """Let compiled code say handle.NAME."""
    dtype, dimensions = DTYPES[name]
    first, rows, columns = _WORDS * at, _WORDS * at + 1, _WORDS * at + 2

    def one(t: Any) -> Any:
        return carray(_pointer(t, first), (_number(t, rows),), dtype)

    def two(t: Any) -> Any:
        return carray(_pointer(t, first), (_number(t, rows), _number(t, columns)), dtype)

    def choose(t: Any) -> Any:  # noqa: ARG001 numba wants the same argument
        return one if dimensions == 1 else two

    overload_attribute(_HandleType, name)(choose)


for _at, _name in enumerate(Tables._fields):
    _declare(_name, _at)
