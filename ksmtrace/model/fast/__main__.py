"""Compile the fast engine: `python -m ksmtrace.model.fast`. What is compiled is kept."""

from __future__ import annotations

import numpy as np

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.contents import NumberedContents
from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.scanner import FastScanner
from ksmtrace.model.fast.space import FastMm

_START = 1 << 30
_PAGES = 3


def compile_all() -> None:
    """Do everything once that Python asks of compiled code."""
    memory = FastMemory(contents=NumberedContents(9))
    scanner = FastScanner(memory)
    mm = memory.spawn(1)
    assert isinstance(mm, FastMm)
    memory.map(mm, _START, _PAGES)
    memory.madvise_mergeable(mm, _START, _START + _PAGES * PAGE_SIZE)
    memory.fill(mm, _START, np.ones(_PAGES, np.uint32))
    scanner.set_knob("merge_across_nodes", 0)
    scanner.scan(2)
    memory.rewrite(np.array([mm.place_of(_START)]), np.array([2], np.uint32))
    scanner.set_knob("run", 2)


if __name__ == "__main__":
    compile_all()
