"""Columns of numbers, small: gzip in base64, which a browser unpacks by itself.

assets/packing.js is the other half.
"""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np
import numpy.typing as npt

_NAMES = {
    "uint8": "Uint8Array", "uint16": "Uint16Array", "uint32": "Uint32Array",
    "int8": "Int8Array", "int16": "Int16Array", "int32": "Int32Array",
    "float32": "Float32Array", "float64": "Float64Array",
}  # fmt: skip


def packed(values: npt.NDArray[Any]) -> dict[str, str]:
    """A column as JSON has it. Whole numbers take the narrowest type that holds them.

    Raises ValueError for whole numbers that need more than 32 bits.
    """
    narrow = _narrow(values)
    # Bytes of one weight lie together, which halves the size: most columns change slowly.
    planes = narrow.view(np.uint8).reshape(len(narrow), narrow.itemsize).T
    data = gzip.compress(np.ascontiguousarray(planes).tobytes(), 6, mtime=0)
    return {"type": _NAMES[narrow.dtype.name], "gzip": base64.b64encode(data).decode()}


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values, "<f4")
    least, most = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
        info = np.iinfo(name)
        if info.min <= least and most <= info.max:
            return np.ascontiguousarray(values, np.dtype(name).newbyteorder("<"))
    raise ValueError(f"numbers from {least} to {most} need more than 32 bits")
