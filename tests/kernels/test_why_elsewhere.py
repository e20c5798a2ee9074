"""Causes that need two NUMA nodes or swap: a guest of the lab has both."""

from __future__ import annotations

import json

from tests.support.kernels import Visited

PROGRAM = r"""
import ctypes, io, json, os
from contextlib import redirect_stdout
from pathlib import Path
from ksmtrace.cli.main import main
from ksmtrace.kernel.knobs import changed

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.syscall.argtypes = [ctypes.c_long] * 7
MBIND, MPOL_BIND, MERGEABLE, PAGEOUT = 237, 2, 12, 21

def new(pages, node, content):
    # Apart from its neighbours, so that each stays a region of its own.
    at = libc.mmap(None, (pages + 2) * 4096, 0, 0x22, -1, 0) + 4096
    assert libc.mprotect(ctypes.c_void_p(at), pages * 4096, 3) == 0
    mask = ctypes.c_ulong(1 << node)
    assert libc.syscall(MBIND, at, pages * 4096, MPOL_BIND, ctypes.addressof(mask), 64, 0) == 0
    for n in range(pages):
        ctypes.memmove(at + n * 4096, (content % n).ljust(4096, b"."), 4096)
    assert libc.madvise(ctypes.c_void_p(at), pages * 4096, MERGEABLE) == 0
    return at

here, there, mine = new(7, 0, b"both %d"), new(7, 1, b"both %d"), new(11, 0, b"mine %d")

def ask(*words):
    text = io.StringIO()
    with redirect_stdout(text):
        assert main([*words, "--json"]) == 0
    return json.loads(text.getvalue())

def swapped(at, pages):
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(at // 4096 * 8)
        words = memoryview(pagemap.read(pages * 8)).cast("Q")
    return sum(word >> 62 & 1 for word in words)

with changed({"run": "2"}):
    pass
with changed({"run": "1", "merge_across_nodes": "0", "pages_to_scan": "5000"}):
    pid = str(os.getpid())
    answer = ask("why", pid, "--scans", "3", "--seconds", "40")
    page = ask("why", pid, f"{here + 3 * 4096:x}")["page"]
    Path("/sys/kernel/mm/ksm/run").write_text("2")
libc.madvise(ctypes.c_void_p(mine), 11 * 4096, PAGEOUT)
before = swapped(mine, 11)
later = ask("why", str(os.getpid()))
estimate = ask("estimate", str(os.getpid()))
regions = {name: next(r["pages"] for r in told["regions"] if r["start"] <= at < r["end"])
           for name, at, told in (("here", here, answer), ("there", there, answer),
                                  ("mine", mine, later))}
print(json.dumps({"regions": regions, "page": page["cause"], "before": before,
                  "after": swapped(mine, 11), "estimate": estimate["pages"]["swapped"]}))
"""


def test_pages_on_another_node_and_pages_in_swap(visited: Visited) -> None:
    status, told, words = visited.guest.python(PROGRAM, 280)
    assert status == 0, words
    seen = json.loads(told.splitlines()[-1])
    assert seen["regions"]["here"] == {"numa": 7}
    assert seen["regions"]["there"] == {"numa": 7}
    assert seen["page"] == "numa"
    assert seen["before"] > 0
    assert seen["regions"]["mine"]["swapped"] == seen["before"]
    # Nobody was brought in by looking.
    assert seen["after"] == seen["before"] <= seen["estimate"]
