"""Where the kernel's own functions and variables are: /proc/kallsyms."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC


def kernel_symbols(names: Collection[str], path: Path = PROC / "kallsyms") -> dict[str, int]:
    """Addresses of those of `names` that the kernel has, modules left out.

    An address is 0 where the kernel hides it. Empty where the file can't be read. Of symbols that
    share a name the first is taken. A whole kernel takes about 0.1 s.
    """
    try:
        return parse_symbols(path.read_bytes(), names)
    except OSError:
        return {}


def parse_symbols(text: bytes, names: Collection[str]) -> dict[str, int]:
    """The same from the file's content: lines of an address, a letter and a name."""
    if not names:
        return {}
    any_name = b"|".join(re.escape(name.encode()) for name in names)
    line = re.compile(rb"^([0-9a-f]{1,16}) [A-Za-z?] (" + any_name + rb")$", re.MULTILINE)
    found: dict[str, int] = {}
    for match in line.finditer(text):
        found.setdefault(match[2].decode(), int(match[1], 16))
    return found
