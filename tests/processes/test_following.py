from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fake_host import FakeHost

from ksmtrace.processes.following import Processes, Snapshot


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture(params=[100, 0], ids=["files kept open", "no place for open files"])
def take(host: FakeHost, request: pytest.FixtureRequest) -> Iterator[Callable[[], Snapshot]]:
    one = Processes(50, request.param, host.proc)
    yield one.take
    one.close()


def merging(snapshot: Snapshot) -> dict[tuple[int, str], int]:
    return {
        (row.identity.tgid, row.identity.comm): row.values["ksm_merging_pages"]
        for row in snapshot.rows
    }


def test_each_reading_has_what_is_there_now(host: FakeHost, take: Callable[[], Snapshot]) -> None:
    host.process(101, merging=3)
    host.process(103, merging=5)
    assert merging(take()) == {(101, "python3"): 3, (103, "python3"): 5}
    host.process(101, merging=7)
    host.remove(103)
    host.process(107, merging=11)
    assert merging(take()) == {(101, "python3"): 7, (107, "python3"): 11}


def test_one_that_opts_in_or_out_later_comes_and_goes(
    host: FakeHost, take: Callable[[], Snapshot]
) -> None:
    host.process(101, registered=False)
    assert merging(take()) == {}
    host.process(101, registered=True)
    assert merging(take()) == {(101, "python3"): 0}
    host.process(101, registered=False)
    assert merging(take()) == {}


def test_a_new_name_is_noticed(host: FakeHost, take: Callable[[], Snapshot]) -> None:
    host.process(101, comm=b"sh")
    take()
    host.process(101, comm=b"job")
    assert merging(take()) == {(101, "job"): 0}


def test_kernel_threads_and_zombies_say_nothing_and_are_no_gap(
    host: FakeHost, take: Callable[[], Snapshot]
) -> None:
    host.process(101, merging=3)
    take()
    (host.proc / "101" / "ksm_stat").write_text("")
    snapshot = take()
    assert (snapshot.rows, snapshot.unreadable) == ([], 0)


def test_one_that_goes_away_between_is_no_gap_either(
    host: FakeHost, take: Callable[[], Snapshot]
) -> None:
    host.process(101)
    (host.proc / "101" / "ksm_stat").unlink()
    snapshot = take()
    assert (snapshot.rows, snapshot.unreadable) == ([], 0)


def test_what_may_not_be_read_is_counted_and_in_no_figure(
    host: FakeHost, take: Callable[[], Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.process(101, merging=3)
    host.process(103, merging=5)
    host.process(107, merging=5)
    (host.proc / "107" / "stat").write_text("107 (zombie) Z" + " 0" * 30)
    opened = os.open

    def refused(path: str | Path, *rest: int) -> int:
        if str(path).endswith(("/103/ksm_stat", "/107/ksm_stat")):
            raise PermissionError(13, "no")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refused)
    snapshot = take()
    assert merging(snapshot) == {(101, "python3"): 3}
    assert snapshot.unreadable == 1


def test_before_6_4_merging_pages_come_from_a_file_of_their_own(
    host: FakeHost, take: Callable[[], Snapshot]
) -> None:
    host.process(101, stat="ksm_rmap_items 7\n")
    (host.proc / "101" / "ksm_merging_pages").write_text("5\n")
    before = take()
    assert merging(before) == {(101, "python3"): 5}
    (host.proc / "101" / "ksm_merging_pages").write_text("3\n")
    assert merging(take()) == {(101, "python3"): 3}
    assert merging(before) == {(101, "python3"): 5}
    assert "ksm_process_profit" not in before.rows[0].values


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_do_not_pile_up(host: FakeHost) -> None:
    one = Processes(50, 3, host.proc)
    before = _open_files()
    for tgid in range(101, 131):
        host.process(tgid)
        assert len(one.take().rows) == min(tgid - 100, 7)
        if tgid > 106:
            host.remove(tgid - 6)
    assert _open_files() <= before + 3
    one.close()
    assert _open_files() == before
