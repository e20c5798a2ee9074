from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.errors import KsmtraceError
from ksmtrace.processes.identity import all_tgids, stands_as
from ksmtrace.processes.selection import Wanted, select

PF_KTHREAD = 0x00200000


def make_process(
    proc: Path,
    tgid: int,
    comm: str = "a",
    *,
    cgroup: str = "/",
    cmdline: tuple[str, ...] = ("a",),
    state: str = "S",
    flags: int = 0,
    leader: int | None = None,
) -> None:
    here = proc / str(tgid)
    here.mkdir(parents=True)
    numbers = [state, "1", *["0"] * 4, str(flags), *["0"] * 12, "77", *["0"] * 5]
    (here / "stat").write_text(f"{tgid} ({comm}) {' '.join(numbers)}\n")
    (here / "comm").write_text(comm + "\n")
    (here / "cmdline").write_bytes(b"".join(w.encode() + b"\0" for w in cmdline))
    (here / "cgroup").write_text(f"0::{cgroup}\n")
    (here / "status").write_text(f"Name:\t{comm}\nTgid:\t{leader or tgid}\n")


def chosen(proc: Path, **wanted: object) -> list[int]:
    return [p.tgid for p in select(Wanted(**wanted), proc).processes]  # type: ignore[arg-type]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    make_process(tmp_path, 2, "kthreadd", flags=PF_KTHREAD, cmdline=())
    make_process(tmp_path, 11, "redis-server", cgroup="/system.slice/redis.service")
    make_process(tmp_path, 13, "redis-cli", cgroup="/system.slice/redis.service/deep")
    make_process(tmp_path, 17, "redistribute", cgroup="/system.slice/redis.service.d")
    guest = ("/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on")
    make_process(tmp_path, 19, "qemu-system-x86", cmdline=guest, cgroup="/machine.slice")
    make_process(tmp_path, 23, "dead", state="Z", cmdline=())
    make_process(tmp_path, 29, "worker", leader=11)
    (tmp_path / "self").mkdir()
    return tmp_path


def test_a_cgroup_holds_its_children_and_no_namesakes(proc: Path) -> None:
    assert chosen(proc, cgroup="/system.slice/redis.service") == [11, 13]
    assert chosen(proc, cgroup="system.slice/redis.service/") == [11, 13]
    assert chosen(proc, cgroup="/sys/fs/cgroup/system.slice/redis.service") == [11, 13]
    assert chosen(proc, cgroup="/system.slice") == [11, 13, 17]
    assert chosen(proc, cgroup="/system.slice/redis.service/deep") == [13]


def test_the_root_cgroup_holds_every_process(proc: Path) -> None:
    assert chosen(proc, cgroup="/") == chosen(proc, everything=True)


def test_names_are_matched_whole_and_guests_by_theirs(proc: Path) -> None:
    assert chosen(proc, name="redis*") == [11, 13, 17]
    assert chosen(proc, name="redis-?li") == [13]
    assert chosen(proc, name="web") == [19]


def test_kernel_threads_and_zombies_are_never_among_all(proc: Path) -> None:
    assert chosen(proc, everything=True) == [11, 13, 17, 19, 29]


def test_a_kernel_thread_or_zombie_that_is_asked_for_is_told_of(proc: Path) -> None:
    selection = select(Wanted([2, 23, 11, 999]), proc)
    assert [p.tgid for p in selection.processes] == [11]
    assert selection.missing == {
        2: "is a kernel thread and has no memory of its own",
        23: "is a zombie and has no memory of its own",
        999: "does not exist",
    }


def test_a_thread_is_not_counted_beside_its_process(proc: Path) -> None:
    selection = select(Wanted([11, 29]), proc)
    assert [p.tgid for p in selection.processes] == [11]
    assert selection.missing == {29: "is a thread of process 11"}


def test_what_is_asked_for_twice_is_chosen_once(proc: Path) -> None:
    assert chosen(proc, tgids=[11, 11], name="redis*") == [11, 13, 17]
    assert chosen(proc, tgids=[13], vms=True) == [13, 19]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(name="redis"), "called redis"),
        (Wanted(cgroup="/gone.slice"), "cgroup /gone.slice"),
        (Wanted(), "no process was chosen"),
    ],
)
def test_choosing_nothing_is_an_error_that_says_so(proc: Path, wanted: Wanted, words: str) -> None:
    with pytest.raises(KsmtraceError, match=words) as caught:
        select(wanted, proc)
    assert caught.value.hint


def test_a_host_without_guests_is_told(tmp_path: Path) -> None:
    with pytest.raises(KsmtraceError, match="no QEMU guest"):
        select(Wanted(vms=True), tmp_path)


def test_who_asks_is_chosen_only_by_name() -> None:
    own = os.getpid()
    assert own not in chosen(Path("/proc"), everything=True)
    assert chosen(Path("/proc"), tgids=[own]) == [own]


def test_ten_thousand_processes_are_gone_through_in_seconds(tmp_path: Path) -> None:
    for tgid in range(101, 10_102):
        make_process(tmp_path, tgid, f"p{tgid}", cgroup=f"/user.slice/{tgid % 7}")
    begun = time.monotonic()
    assert len(chosen(tmp_path, cgroup="/user.slice/3")) in range(1428, 1430)
    assert time.monotonic() - begun < 10


@settings(max_examples=31)
@given(
    st.text(st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)), max_size=23)
)
def test_no_cgroup_or_name_crashes_the_choice(word: str) -> None:
    for wanted in (Wanted(cgroup=word), Wanted(name=word)):
        with suppress(KsmtraceError):
            select(wanted, Path("/proc/self/task"))


def test_real_processes_stand_as_what_they_are() -> None:
    assert stands_as(os.getpid()) == "process"
    assert stands_as(1 << 30) == "gone"
    kernel = [tgid for tgid in all_tgids() if stands_as(tgid) == "kernel thread"]
    assert all(not Path(f"/proc/{tgid}/cmdline").read_bytes() for tgid in kernel)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        deadline = time.monotonic() + 10
        while stands_as(process.pid) != "zombie":
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_real_thread_is_known_as_one() -> None:
    tids: list[int] = []
    ready, done = threading.Event(), threading.Event()

    def wait() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    missing = select(Wanted(tids)).missing
    done.set()
    thread.join()
    assert missing == {tids[0]: f"is a thread of process {os.getpid()}"}
