"""`record --cow`: every write to a merged page is seen, and nothing else, on the real ksmd."""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ksmtrace
from ksmtrace.capture.cow import cow_obstacles
from ksmtrace.events.registry import (
    COW_BREAK,
    KERNEL_MODE,
    LEFT_BRK,
    LEFT_DISCARD,
    LEFT_MAP_FIXED,
    LEFT_MREMAP,
    LEFT_MUNMAP,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    UNCHECKED,
    WHOLE_ADDRESS_SPACE,
    ZERO_PAGE,
)
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM, read_number
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.breaks import BreakTables, break_tables
from ksmtrace.timeline.build import timeline_of
from tests.live.conftest import Recorder, run_ksmtrace

pytestmark = pytest.mark.skipif(bool(cow_obstacles()), reason="; ".join(map(str, cow_obstacles())))

_PLAYER = """
import ctypes, mmap, os, socket, sys
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
P, N = ctypes.c_void_p, ctypes.c_size_t
pages = int(sys.argv[1])
memory = mergeable_memory(pages)
memory[:] = (bytes(PAGE) if sys.argv[2] == "zero" else page_of(7)) * pages
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
zeroes = os.open("/dev/zero", os.O_RDONLY)
at = lambda number: start + number * PAGE
def write(first, count):
    for number in range(first, first + count):
        ctypes.memset(P(at(number)), 1, 1)
print(os.getpid(), start, flush=True)
for line in sys.stdin:
    result = eval(line)
    print(result, flush=True)
"""


class Player:
    """A process whose mergeable pages all hold the same; it evaluates what it is told."""

    def __init__(self, pages: int, content: str = "same") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PLAYER, str(pages), content],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid, self.start = (int(word) for word in self._answer().split())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, expression: str) -> str:
        """Evaluate an expression there; returns what it gave."""
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Let it exit."""
        self.process.communicate(timeout=20)


@pytest.fixture
def player() -> Iterator[Callable[..., Player]]:
    """Start players; they end with the test."""
    started: list[Player] = []

    def start(pages: int, content: str = "same") -> Player:
        started.append(Player(pages, content))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end()


def cow_ksm() -> int:
    """Copies made of KSM pages, as the kernel counts."""
    words = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(words["cow_ksm"])


class Story:
    """A recording made with --cow, and what the kernel counted meanwhile."""

    def __init__(self, recorder: Recorder, counted: int) -> None:
        assert recorder.end() == 0, recorder.words()
        self.counted = counted
        self.path = recorder.target
        self.stored = StoredRecording(recorder.target)
        self.frames = ksmtrace.open(recorder.target)
        events = self.frames.events
        self.breaks = events[events["kind"] == "cow_break"]
        self.ranges = events[events["kind"] == "range_left"]

    def tables(self) -> BreakTables:
        return break_tables(self.stored, timeline_of(self.stored))

    def totals(self) -> dict[str, Any]:
        """The account's sums, after a check that it closes."""
        totals = self.tables().totals
        explained = totals["seen"] + totals["undone"] + totals["unshared"] + totals["unseen"]
        assert explained - totals["surplus"] == totals["cow_ksm"] == self.counted
        return {str(name): int(value) for name, value in totals.items()}

    def pages(self, player: Player, breaks: pd.DataFrame | None = None) -> list[int]:
        """Numbers of the player's pages that were seen broken, in order."""
        chosen = self.breaks if breaks is None else breaks
        mine = chosen[chosen["tgid"] == player.pid]
        return sorted((mine["addr"].astype(int) - player.start) // 4096)


def wait_for_census(recorder: Recorder) -> None:
    """Until it is known what was merged before."""
    merged_before = (read_number(KSM / "pages_sharing") or 0) > 0
    while merged_before and not StoredRecording(recorder.target).table("census").num_rows:
        time.sleep(0.01)


@pytest.fixture
def watch(record: Callable[..., Recorder]) -> Callable[..., Story]:
    """Record with --cow while something happens."""

    def during(what: Callable[[], object], *options: str) -> Story:
        recorder = record("--cow", "--raw-pointers", "--interval", "0.25", *options)
        wait_for_census(recorder)
        before = cow_ksm()
        what()
        return Story(recorder, cow_ksm() - before)

    return during


def merged(
    ksmd: Stepper, player: Callable[..., Player], pages: int, content: str = "same"
) -> Player:
    """A player all of whose pages are merged."""
    one = player(pages, content)
    ksmd.scan(3)
    return one


def test_every_write_of_a_process_is_found_and_no_read(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = player(997)

    def play() -> None:
        ksmd.scan(3)
        one.do("sum(memory[number * PAGE] for number in range(pages))")
        one.do("write(101, 211)")
        one.do("write(101, 211)")

    story = watch(play)
    assert story.pages(one) == list(range(101, 312))
    assert not (story.breaks["arg"] & (KERNEL_MODE | ZERO_PAGE)).any()
    assert story.totals()["seen"] == 211 == story.counted


def test_writes_of_the_kernel_for_a_process_are_found(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 211)

    def play() -> None:
        one.do("libc.read(zeroes, P(at(3)), N(53 * PAGE))")
        one.do("(pair := socket.socketpair()) and pair[0].send(b'x' * PAGE)")
        one.do("pair[1].recv_into(memoryview(memory)[101 * PAGE : 102 * PAGE])")

    story = watch(play)
    assert story.pages(one) == [*range(3, 56), 101]
    assert (story.breaks["arg"] & KERNEL_MODE).all()
    totals = story.totals()
    assert (totals["seen"], totals["seen_kernel_mode"]) == (54, 54)
    code = story.stored.table("code").to_pandas()
    assert set(code["file"]) == {"[kernel]"}


def test_refused_writes_are_none(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 211)

    def play() -> None:
        one.do("libc.mprotect(P(at(0)), N(101 * PAGE), 1)")
        one.do("libc.mprotect(P(at(101)), N(13 * PAGE), 0)")
        for number in range(0, 114, 7):
            assert one.do(f"libc.read(zeroes, P(at({number})), N(PAGE))") == "-1"
            assert one.do(f"(lambda p: p or (write({number}, 1), os._exit(0)))(os.fork())")
            assert one.do("os.WTERMSIG(os.wait()[1])") == "11"
        one.do("libc.mprotect(P(at(0)), N(114 * PAGE), 3)")
        one.do("write(3, 1)")

    story = watch(play)
    assert story.pages(one) == [3]
    assert len(story.breaks) == 1
    assert story.totals()["seen"] == 1 == story.counted


def test_each_of_thousands_of_mappings_is_looked_up(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 4001)

    def play() -> None:
        one.do("[libc.mprotect(P(at(n)), N(PAGE), 1) for n in range(0, pages, 2)] and None")
        one.do("[libc.read(zeroes, P(at(n)), N(PAGE)) for n in range(pages)] and None")

    story = watch(play)
    assert story.pages(one) == list(range(1, 4001, 2))
    assert story.totals()["seen"] == 2000 == story.counted
    assert not (story.breaks["arg"] & UNCHECKED).any()


def test_pages_that_were_merged_before_the_recording_are_known(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 499)
    story = watch(lambda: one.do("write(0, 499)"))
    assert story.pages(one) == list(range(499))
    assert story.totals()["seen"] == 499


_FAMILY = """
(lambda child: child and os.waitpid(child, 0)[1] or 1 if child else (
  write(100, 31),
  (lambda grandchild: grandchild and os.waitpid(grandchild, 0) or grandchild or (
     write(200, 13), os._exit(0)))(os.fork()),
  os._exit(0)))(os.fork())
""".replace("\n", " ").strip()


def test_children_and_grandchildren_inherit_merged_pages(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 499)

    def play() -> None:
        one.do("write(0, 7)")  # before the fork: the child's own copies are no KSM pages
        one.do(_FAMILY.replace("write(100, 31)", "write(0, 107)"))
        one.do("write(0, 53)")

    story = watch(play)
    assert story.pages(one) == list(range(53))
    others = story.breaks[story.breaks["tgid"] != one.pid]
    assert sorted(others.groupby("tgid").size()) == [13, 100]
    assert story.totals()["seen"] == 166 == story.counted


def write_from_outside(pid: int, address: int, size: int) -> None:
    """process_vm_writev(2)."""
    data = ctypes.create_string_buffer(size)
    mine = (ctypes.c_size_t * 2)(ctypes.addressof(data), size)
    other = (ctypes.c_size_t * 2)(address, size)
    done = ctypes.CDLL(None).process_vm_writev(
        pid, ctypes.byref(mine), ctypes.c_ulong(1), ctypes.byref(other), ctypes.c_ulong(1), 0
    )
    assert done == size


def test_copies_that_take_no_fault_of_the_process_are_counted_as_unseen(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story], tmp_path: Path
) -> None:
    one = merged(ksmd, player, 499)
    source = tmp_path / "source"
    source.write_bytes(bytes(17 * 4096))
    # A file system without O_DIRECT copies as read(2) does, which is seen.
    one.do(f"(fd := os.open({str(source)!r}, os.O_RDONLY | os.O_DIRECT))")

    def play() -> None:
        with Path(f"/proc/{one.pid}/mem").open("r+b", buffering=0) as memory:
            for number in range(31):
                memory.seek(one.start + number * 4096)
                memory.write(b"x")
        write_from_outside(one.pid, one.start + 200 * 4096, 13 * 4096)
        assert one.do("libc.read(fd, P(at(300)), N(17 * PAGE))") == str(17 * 4096)
        one.do("write(100, 7)")

    story = watch(play)
    totals = story.totals()
    copied = totals["seen_kernel_mode"]
    assert copied in (0, 17)
    assert (totals["seen"], totals["unshared"]) == (7 + copied, 0)
    assert totals["unseen"] == 31 + 13 + 17 - copied


def test_unsharing_by_calls_is_told_apart(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 499)

    def play() -> None:
        one.do("write(10, 3)")
        one.do("libc.madvise(P(at(0)), N(53 * PAGE), 13)")
        one.do("(target := libc.mmap(None, N(29 * PAGE), 0, 0x22, -1, 0))")
        assert one.do("libc.mremap(P(at(100)), N(29 * PAGE), N(29 * PAGE), 3, P(target))") != "-1"
        one.do("write(400, 5)")

    story = watch(play)
    totals = story.totals()
    assert (totals["seen"], totals["unseen"]) == (8, 0)
    assert totals["unshared"] == 53 - 3 + 29
    how = story.ranges[["err", "arg"]].to_numpy().tolist()
    assert [LEFT_UNMERGEABLE, 53] in how
    assert [LEFT_MREMAP, 29] in how


def test_prctl_unshares_everything(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = player(211)
    one.do("libc.prctl(67, 1, 0, 0, 0)")
    ksmd.scan(3)

    def play() -> None:
        one.do("write(0, 7)")
        assert one.do("libc.prctl(67, 0, 0, 0, 0)") == "0"

    story = watch(play)
    (call,) = story.ranges[story.ranges["err"] == LEFT_PRCTL].to_dict("records")
    assert (call["tgid"], call["arg"]) == (one.pid, WHOLE_ADDRESS_SPACE)
    totals = story.totals()
    assert totals["unseen"] == 0
    assert totals["unshared"] >= 204


def test_unmerging_everything_is_told_apart(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 499)

    def play() -> None:
        one.do("write(0, 7)")
        ksmd.unmerge()
        one.do("write(0, 101)")

    story = watch(play)
    totals = story.totals()
    assert (totals["seen"], totals["unshared"], totals["unseen"]) == (7, 492, 0)
    assert story.tables().accounts["run_2"].sum() == 1


def test_ranges_that_are_given_up_are_told_and_cost_no_copy(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = merged(ksmd, player, 499)

    def play() -> None:
        one.do("libc.munmap(P(at(0)), N(13 * PAGE))")
        one.do("libc.madvise(P(at(20)), N(17 * PAGE), 4)")
        one.do("libc.mmap(P(at(50)), N(19 * PAGE), 3, 0x32, -1, 0)")
        one.do("libc.mremap(P(at(490)), N(9 * PAGE), N(2 * PAGE - 7), 0)")
        one.do("libc.sbrk(ctypes.c_long(37 * PAGE)) and libc.sbrk(ctypes.c_long(-23 * PAGE))")
        one.do("libc.munmap(P(1), N(PAGE))")

    story = watch(play)
    mine = story.ranges[story.ranges["tgid"] == one.pid]
    ranges = {
        (int(r.err), (int(r.addr) - one.start) // 4096, int(r.arg)) for r in mine.itertuples()
    }
    assert {
        (LEFT_MUNMAP, 0, 13),
        (LEFT_DISCARD, 20, 17),
        (LEFT_MAP_FIXED, 50, 19),
        (LEFT_MUNMAP, 492, 7),
    } <= ranges
    assert 23 in [int(r.arg) for r in mine.itertuples() if r.err == LEFT_BRK]
    assert story.counted == 0
    assert len(story.breaks) == 0


def test_writes_to_zero_pages_are_apart(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    ksmd.write("use_zero_pages", "1")
    one = merged(ksmd, player, 499, "zero")
    story = watch(lambda: one.do("write(11, 211)"))
    assert story.pages(one) == list(range(11, 222))
    assert (story.breaks["arg"] == ZERO_PAGE).all()
    totals = story.totals()
    assert (totals["seen"], totals["zero_seen"], totals["zero_left"]) == (0, 211, 0)
    assert story.counted == 0


_WRITER = """
#include <sys/mman.h>
#include <stdio.h>
#include <unistd.h>
#include <string.h>
__attribute__((noinline)) void the_writer(volatile char *page) { page[0] = 1; }
int main(void)
{
	char *memory = mmap(0, 101 * 4096, 3, 0x22, -1, 0);
	char word[2];
	memset(memory, 7, 101 * 4096);
	madvise(memory, 101 * 4096, 12);
	write(1, "r", 1);
	read(0, word, 1);
	for (int number = 0; number < 53; number++)
		the_writer(memory + number * 4096);
	write(1, "d", 1);
	return 0;
}
"""


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("nm"), reason="no compiler")
@pytest.mark.parametrize("raw", [True, False])
def test_a_break_is_found_with_its_code_location(
    ksmd: Stepper, record: Callable[..., Recorder], tmp_path: Path, raw: bool
) -> None:
    program = tmp_path / "writer"
    subprocess.run(["gcc", "-O1", "-xc", "-", "-o", program], input=_WRITER, text=True, check=True)
    symbols = subprocess.check_output(["nm", "-S", program], text=True)
    begin, size = next(
        (int(words[0], 16), int(words[1], 16))
        for words in map(str.split, symbols.splitlines())
        if words[-1] == "the_writer"
    )
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        ksmd.scan(3)
        recorder = record("--cow", *(["--raw-pointers"] if raw else []))
        wait_for_census(recorder)
        # It ends at once afterwards: where its code was must be known before.
        process.communicate(b"x", timeout=20)
    recorder.end()
    stored = StoredRecording(recorder.target)
    (writer,) = break_tables(stored, timeline_of(stored)).writers.to_dict("records")
    assert (writer["tgid"], writer["breaks"]) == (process.pid, 53)
    assert writer["file"] == str(program)
    # A file's offset is its address here: nm counts from where the loader maps offset 0.
    assert begin <= writer["offset"] < begin + size


def test_a_recording_with_breaks_is_reported_and_passes_the_legality_check(
    ksmd: Stepper, player: Callable[..., Player], watch: Callable[..., Story]
) -> None:
    one = player(211)

    def play() -> None:
        ksmd.scan(3)
        one.do("write(0, 7)")
        one.do("libc.madvise(P(at(20)), N(17 * PAGE), 4)")
        ksmd.scan(2)

    story = watch(play)
    assert "--cow" not in run_ksmtrace("report", story.path).stderr
    shown = run_ksmtrace("report", story.path).stdout
    assert re.search(r"^seen +7 ", shown, re.MULTILINE)
    assert re.search(r"^unseen +0 ", shown, re.MULTILINE)
    checked = run_ksmtrace("replay", story.path, "--check")
    assert checked.returncode == 0, checked.stdout
    manifest = json.loads((story.path / "manifest.json").read_text())
    assert manifest["cow"]["breaks"] == 7
    assert manifest["cow"]["obstacles"] == []


def test_without_it_nothing_of_it_is_attached(
    ksmd: Stepper, player: Callable[..., Player], record: Callable[..., Recorder]
) -> None:
    one = merged(ksmd, player, 101)
    recorder = record()
    links = []
    for path in Path(f"/proc/{recorder.process.pid}/fdinfo").iterdir():
        # Some are open for a moment only.
        with contextlib.suppress(FileNotFoundError):
            links.append(path.read_text())
    names = set(re.findall(r"^tp_name:\s(.+)$", "".join(links), re.MULTILINE))
    assert "ksm_merge_with_ksm_page" in names
    assert not [name for name in names if not name.startswith("ksm_")]
    one.do("write(0, 7)")
    assert recorder.end() == 0
    recording = StoredRecording(recorder.target)
    assert recording.manifest["cow"] is None
    kinds = {int(kind) for batch in recording.event_batches() for kind in batch["kind"]}
    assert not kinds & {COW_BREAK.id, RANGE_LEFT.id}


def test_other_backends_refuse_with_a_word(tmp_path: Path) -> None:
    for backend in ("bcc", "tracefs"):
        done = run_ksmtrace("record", "-o", tmp_path / "a.ksm", "--cow", "--backend", backend)
        assert done.returncode == 3
        assert f"the {backend} backend can't see writes" in done.stderr
        assert "--backend core" in done.stderr
        assert not (tmp_path / "a.ksm").exists()
