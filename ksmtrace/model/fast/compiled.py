"""Compiling with numba, kept on disk from one run to the next.

Numba keeps what it compiled by the file of the outermost function alone, and would not notice a
change in another file whose functions were compiled into it. So the folder is named after the
contents of all files of this package.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import xxhash
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function for use within compiled ones."""
    made: F = njit(nogil=True)(function)
    return made


def entry(function: F) -> F:
    """A compiled function that Python calls; what is compiled is kept in the user's cache."""
    folder = _folder()
    if folder is None:
        return compiled(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        made: F = njit(nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
    return made


def _folder() -> Path | None:
    """Where to keep it; None where nothing can be written."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    digest = xxhash.xxh64(f"{numba.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = Path(base).expanduser() / "ksmtrace" / f"compiled-{digest.hexdigest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None
