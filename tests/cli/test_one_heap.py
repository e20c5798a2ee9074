"""Freed memory is used again by a program that asked for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
from ksmtrace.cli.one_heap import keep_freed_memory
keep_freed_memory()
import resource
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = faults()
    array = np.ones(61 << 20, np.uint8)
    del array
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_large_array_is_made_where_another_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100
