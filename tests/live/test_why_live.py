"""The cause matrix: for each cause a real process in that state, and the answer about it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.inspect.why.ask import Question, ask, found_in_pages
from ksmtrace.inspect.why.causes import CAUSES
from ksmtrace.kernel.knobs import changed
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM
from ksmtrace.views.why import why_as_dict
from tests.live.conftest import KSMTRACE, Actor, run_ksmtrace

PAGE = 4096
_ALL = "4000000000"
SHOWN_ELSEWHERE = {
    "swapped": "tests/kernels: this host may have no swap",
    "numa": "tests/kernels: this host has one node",
    "special": "below, with device: which of the two a mapping is depends on the kernel",
}
_shown: set[str] = set()


def why(tgid: int, *options: object) -> dict[str, Any]:
    done = run_ksmtrace("why", tgid, *options, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def region_at(answer: dict[str, Any], address: int) -> dict[str, Any]:
    region: dict[str, Any] = next(
        region for region in answer["regions"] if region["start"] <= address < region["end"]
    )
    return region


class Running:
    """ksmd with run=1, asleep until it is nudged: then it does one full scan."""

    def __init__(self) -> None:
        self._turn = 0

    def nudge(self, times: int = 1) -> None:
        for _ in range(times):
            before = int((KSM / "full_scans").read_text())
            deadline = time.monotonic() + 20
            while int((KSM / "full_scans").read_text()) == before:
                self._turn += 1
                (KSM / "sleep_millisecs").write_text(str(3_000_000 + self._turn % 2))
                time.sleep(0.01)
                assert time.monotonic() < deadline, "ksmd does not scan"

    @contextmanager
    def nudged(self) -> Iterator[None]:
        """Nudge it again and again, beside what is done inside."""
        over = threading.Event()

        def nudge() -> None:
            while not over.wait(0.02):
                self.nudge()

        beside = threading.Thread(target=nudge)
        beside.start()
        yield
        over.set()
        beside.join()


def why_between_scans(daemon: Running, tgid: int, scans: int) -> dict[str, Any]:
    """What `why --scans` answers, with exactly so many scans: each done when it waits for one."""

    def say(words: str) -> None:
        if words.startswith("waiting for full scans"):
            daemon.nudge()

    answer = ask(Question(tgid, scans=scans, interval=0), say)
    return why_as_dict(answer, found_in_pages(answer))


@contextmanager
def running(**knobs: object) -> Iterator[Running]:
    """ksmd running with knobs, nothing merged before."""
    some = {"max_page_sharing": 256, "smart_scan": 0, "use_zero_pages": 0} | knobs
    texts = {name: str(value) for name, value in some.items()}
    # Some knobs can be changed, and put back, only while nothing is merged.
    with changed({"run": "2"}):
        pass
    with changed({**texts, "run": "1", "sleep_millisecs": "3000002", "pages_to_scan": _ALL}):
        yield Running()
        (KSM / "run").write_text("2")


_HOLDER = """
import ctypes, mmap, os, sys, threading, time
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def new(pages, flags=0x22, fd=-1, protection=3, unit=4096):
    at = libc.mmap(None, pages * unit, protection, flags, fd, 0)
    if at == 2**64 - 1:
        print("errno", ctypes.get_errno(), flush=True); sys.exit()
    return at
def merge(at, pages): assert libc.madvise(at, pages * 4096, 12) == 0
def fill(at, pages, make):
    for n in range(pages):
        ctypes.memmove(at + n * 4096, make(n).ljust(4096, b"."), 4096)
    return at
unique = lambda n: b"unique %d %d" % (n, os.getpid())
equal = lambda n: b"all the same"
def tell(*addresses):
    print(*addresses, flush=True); sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[Callable[[str], tuple[int, list[int]]]]:
    """Start a process by a few lines that end in tell(addresses); (its id, the addresses)."""
    started: list[subprocess.Popen[str]] = []

    def start(lines: str) -> tuple[int, list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER + lines],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if words[0] == "errno":
            pytest.skip(f"this kernel refuses such a mapping (errno {words[1]})")
        return process.pid, [int(word) for word in words]

    yield start
    for process in started:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


def shows(cause: str) -> None:
    assert cause in CAUSES
    _shown.add(cause)


# The host.


@pytest.mark.parametrize(
    ("knobs", "cause"),
    [
        ({"run": "0"}, "stopped"),
        ({"run": "2"}, "unmerging"),
        ({"run": "1", "pages_to_scan": "0"}, "no_pages_to_scan"),
        ({"run": "1", "sleep_millisecs": "4000000000"}, "asleep"),
    ],
)
def test_a_host_on_which_ksmd_does_nothing(
    knobs: dict[str, str], cause: str, actor: Callable[[list[int]], Actor]
) -> None:
    with changed(knobs):
        answer = why(actor([5, 5, 7]).pid, "--quick")
    assert [found["cause"] for found in answer["host"]] == [cause]
    assert all(f"{name}={value}" in answer["host"][0]["evidence"] for name, value in knobs.items()
               if name != "run" or len(knobs) == 1)  # fmt: skip
    assert "/sys/kernel/mm/ksm/" in answer["host"][0]["remedy"]
    shows(cause)


def test_pages_with_equals_on_a_stopped_host(
    ksmd: Stepper, actor: Callable[[list[int]], Actor]
) -> None:
    assert ksmd is not None
    one = actor([5, 5, 5, 7])
    pages = region_at(why(one.pid), one.start)["pages"]
    assert pages == {"stopped": 3, "unique": 1}


# The process.


def test_a_kernel_thread_and_a_zombie() -> None:
    child = subprocess.Popen(["true"])
    time.sleep(0.3)
    for tgid in (2, child.pid):
        answer = why(tgid)
        assert [found["cause"] for found in answer["process"]] == ["no_memory"]
        assert answer["regions"] == []
    child.wait()
    shows("no_memory")


def test_a_process_that_nobody_registered(holder: Callable[..., tuple[int, list[int]]]) -> None:
    tgid, (at,) = holder("tell(fill(new(13), 13, equal))")
    answer = why(tgid)
    assert [found["cause"] for found in answer["process"]] == ["unregistered"]
    remedy = answer["process"][0]["remedy"]
    assert "prctl(PR_SET_MEMORY_MERGE" in remedy or "MemoryKSM=yes" in remedy
    region = region_at(answer, at)
    assert region["pages"]["unregistered"] >= 13
    shows("unregistered")


# Regions.


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("at = new(17, 0x21); merge(at, 17); tell(fill(at, 17, equal))", "shared"),
        (
            (
                "fd = os.memfd_create('seventeen'); os.ftruncate(fd, 17 * 4096);"
                "at = new(17, 1, fd); merge(at, 17); tell(fill(at, 17, equal))"
            ),
            "shared",
        ),
        ("at = new(17, 0x28); merge(at, 17); tell(fill(at, 17, equal))", "droppable"),
    ],
)
def test_regions_that_ksm_passes_over(
    lines: str, cause: str, holder: Callable[..., tuple[int, list[int]]]
) -> None:
    tgid, (at,) = holder(lines)
    answer = why(tgid)
    region = region_at(answer, at)
    assert region["pages"] == {cause: 17}
    assert not region["mergeable"]
    shows(cause)


def test_huge_pages_of_hugetlbfs(holder: Callable[..., tuple[int, list[int]]]) -> None:
    knob = Path("/proc/sys/vm/nr_hugepages")
    before = knob.read_text()
    knob.write_text(str(int(before) + 3))
    try:
        if int(knob.read_text()) < int(before) + 3:
            pytest.skip("no huge pages could be had")
        lines = "at = new(3, 0x40022, unit=1 << 21); ctypes.memset(at, 7, 3 << 21); tell(at)"
        tgid, (at,) = holder(lines)
        region = region_at(why(tgid), at)
    finally:
        knob.write_text(before)
    # smaps doesn't count them as present.
    assert set(region["pages"]) <= {"hugetlb", "absent"}
    assert "ht" in region["flags"]
    shows("hugetlb")


def test_the_kernels_own_mappings(holder: Callable[..., tuple[int, list[int]]]) -> None:
    tgid, _ = holder("tell(1)")
    regions = {region["name"]: region for region in why(tgid)["regions"]}
    assert set(regions["[vdso]"]["pages"]) <= {"special", "device", "absent"}
    assert set(regions["[vvar]"]["pages"]) <= {"special", "device", "absent"}
    shows("device")


# Pages.


def test_pages_that_are_not_there_or_cost_nothing(
    holder: Callable[..., tuple[int, list[int]]], ksmd: Stepper
) -> None:
    assert ksmd is not None
    tgid, (nothing, read_only, file) = holder(
        "nothing = new(11); merge(nothing, 11)\n"
        "fill(nothing, 1, lambda n: b'nothing')\n"
        "read = new(7); merge(read, 7); fill(read, 1, lambda n: b'read')\n"
        "[ctypes.string_at(read + n * 4096, 1) for n in range(1, 7)]\n"
        "fd = os.open(sys.executable, os.O_RDONLY)\n"
        "file = new(5, 2, fd, 3); merge(file, 5)\n"
        "[ctypes.string_at(file + n * 4096, 1) for n in range(5)]\n"
        "fill(file, 2, unique)\n"
        "tell(nothing, read, file)"
    )
    answer = why(tgid, "--quick")
    # Neighbours may lie in one region: counted by single pages.
    causes = [why(tgid, f"{nothing + n * PAGE:x}")["page"]["cause"] for n in range(3)]
    assert causes == ["unique", "absent", "absent"]
    causes = [why(tgid, f"{read_only + n * PAGE:x}")["page"]["cause"] for n in range(3)]
    assert causes == ["unique", "zero_page", "zero_page"]
    causes = [why(tgid, f"{file + n * PAGE:x}")["page"]["cause"] for n in (1, 2, 4)]
    assert causes == ["unique", "file", "file"]
    assert region_at(answer, file)["pages"]["unmerged"] == 2
    for cause in ("absent", "zero_page", "file"):
        shows(cause)


def test_merged_unique_and_forked_pages(actor: Callable[[list[int]], Actor], ksmd: Stepper) -> None:
    one, other = actor([5] * 13 + [7, 9, 11]), actor([5] * 3 + [8])
    one.do("fork")
    ksmd.scan(3)
    answer = why(one.pid)
    assert region_at(answer, one.start)["pages"] == {"merged": 13, "forked": 3}
    assert region_at(why(other.pid), other.start)["pages"] == {"merged": 3, "unique": 1}
    page = why(one.pid, f"{one.address(4):x}")["page"]
    assert page["cause"] == "merged"
    # 13 of the one, 13 of its child, 3 of the other.
    assert "shared with 28 other mappings" in page["facts"]["frame"]
    assert page["equal_count"] == 28
    assert why(one.pid, f"{one.address(14):x}")["page"]["equal_count"] == 1
    for cause in ("merged", "unique", "forked"):
        shows(cause)


def test_pages_that_change(holder: Callable[..., tuple[int, list[int]]]) -> None:
    with running():
        tgid, (at,) = holder(
            "at = fill(new(23), 23, equal); merge(at, 23)\n"
            "def write():\n"
            "    n = 0\n"
            "    while True:\n"
            "        n += 1; fill(at, 7, lambda page: b'%d' % (n + page)); time.sleep(0.001)\n"
            "threading.Thread(target=write, daemon=True).start()\n"
            "tell(at)"
        )
        answer = why(tgid, "--interval", 0.5)
        page = why(tgid, f"{at + 3 * PAGE:x}", "--interval", 0.5)["page"]
    assert region_at(answer, at)["pages"]["changing"] == 7
    assert page["cause"] == "changing"
    shows("changing")


def test_pages_that_ksmd_has_not_reached(actor: Callable[[list[int]], Actor]) -> None:
    with running() as daemon:
        one = actor([5] * 19 + [7])
        answer = why(one.pid)
        assert region_at(answer, one.start)["pages"] == {"not_reached": 19, "unique": 1}
        assert answer["two_full_scans_s"] > 1000
        daemon.nudge(2)
        assert region_at(why(one.pid), one.start)["pages"] == {"merged": 19, "unique": 1}
    shows("not_reached")


def test_a_page_over_the_limit_of_sharing(actor: Callable[[list[int]], Actor]) -> None:
    with running(max_page_sharing=3) as daemon:
        one = actor([5] * 7 + [9])
        daemon.nudge(4)
        answer = why(one.pid)
        pages = region_at(answer, one.start)["pages"]
        left = [n for n in range(7) if why(one.pid, f"{one.address(n):x}")["page"]["cause"]
                == "sharing_limit"]  # fmt: skip
    assert pages == {"merged": 6, "sharing_limit": 1, "unique": 1}
    assert len(left) == 1
    shows("sharing_limit")


def test_pages_that_smart_scan_skips(actor: Callable[[list[int]], Actor]) -> None:
    with running(smart_scan=1) as daemon:
        one = actor(list(range(1, 14)))
        daemon.nudge(23)
        one.do("write", 777, 2, 5, 11)
        # The pages are passed over for eight scans here; unbounded nudging could run past them.
        few = why_between_scans(daemon, one.pid, 2)
        assert set(region_at(few, one.start)["pages"]) <= {"smart_scan", "unique", "merged"}
        assert region_at(few, one.start)["pages"].get("smart_scan") == 3
        with daemon.nudged():
            why(one.pid, "--scans", 12, "--interval", 0)
        later = region_at(why(one.pid), one.start)["pages"]
        assert later == {"merged": 3, "unique": 10}
    shows("smart_scan")


def test_pages_that_somebody_holds(holder: Callable[..., tuple[int, list[int]]]) -> None:
    lines = (
        "at = fill(new(5), 5, equal); merge(at, 5)\n"
        "ends = os.pipe()\n"
        "vec = (ctypes.c_size_t * 2)(at, 5 * 4096)\n"
        "assert libc.vmsplice(ends[1], vec, 1, 0) == 5 * 4096\n"
        "tell(at)"
    )
    with running() as daemon:
        tgid, (at,) = holder(lines)
        daemon.nudge(2)
        with daemon.nudged():
            answer = why(tgid, "--scans", 3, "--interval", 0)
            page = why(tgid, f"{at:x}", "--scans", 2, "--interval", 0)["page"]
    assert region_at(answer, at)["pages"]["held"] == 5
    assert page["cause"] == "held"
    assert "was not merged" in page["evidence"]
    shows("held")


def test_memory_whose_faults_a_program_handles_is_not_read(
    holder: Callable[..., tuple[int, list[int]]], ksmd: Stepper
) -> None:
    assert ksmd is not None
    tgid, (at,) = holder(
        "fd = libc.syscall(323, 0x80000)\n"
        "if fd < 0: print('errno', ctypes.get_errno(), flush=True); sys.exit()\n"
        "import fcntl, struct\n"
        "fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack('QQQ', 0xAA, 0, 0)))\n"
        "at = fill(new(29), 11, unique); merge(at, 29)\n"
        "fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack('QQQQ', at, 29 * 4096, 1, 0)))\n"
        "tell(at)"
    )
    region = region_at(why(tgid), at)
    assert region["pages"] == {"unread": 11, "absent": 18}
    shows("unread")


# Bad input.


def test_a_process_that_is_not_there() -> None:
    done = run_ksmtrace("why", 2**22 - 3)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no process" in done.stderr
    assert run_ksmtrace("why", 1, "no such region").returncode in (1, 2, 3)


def test_a_process_that_may_not_be_looked_at(actor: Callable[[list[int]], Actor]) -> None:
    one = actor([5])
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", str(KSMTRACE), "why", str(one.pid)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "run with sudo" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_cause_was_shown(request: pytest.FixtureRequest) -> None:
    here = {item.name for item in request.session.items if item.path == Path(__file__)}
    if len(here) < 20:
        pytest.skip("only with all of this file")
    assert set(CAUSES) - _shown == set(SHOWN_ELSEWHERE)
