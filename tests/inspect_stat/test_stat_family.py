from __future__ import annotations

import math
from pathlib import Path

import pytest

from ksmtrace.inspect.stat.family import Family


class Processes:
    """A /proc of ours."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self, tgid: int, merged: int, *, parent: int = 0, image: int = 1, start: int = 7,
        state: str = "S", zero: int = 0,
    ) -> None:  # fmt: skip
        here = self.root / str(tgid)
        task = here / "task" / str(tgid)
        task.mkdir(parents=True, exist_ok=True)
        words = [state, str(parent)] + ["0"] * 48
        words[19], words[25], words[45] = str(start), str(image), str(image)
        (here / "stat").write_text(f"{tgid} (a) b) {' '.join(words)}\n")
        (here / "ksm_stat").write_text(
            f"ksm_rmap_items {merged}\nksm_zero_pages {zero}\nksm_merging_pages {merged}\n"
            f"ksm_process_profit {merged * 4000}\n"
        )
        (task / "children").touch()
        if parent:
            with (self.root / str(parent) / "task" / str(parent) / "children").open("a") as out:
                out.write(f"{tgid} ")

    def end(self, tgid: int) -> None:
        for path in sorted((self.root / str(tgid)).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (self.root / str(tgid)).rmdir()
        for children in self.root.glob("*/task/*/children"):
            children.write_text(children.read_text().replace(f"{tgid} ", ""))


@pytest.fixture(name="proc")
def make_proc(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def family(proc: Processes, root: int, *, afresh: bool = True) -> Family:
    return Family(root, counts_afresh=afresh, proc=proc.root)


def test_descendants_are_summed_and_stay_when_their_parent_is_gone(proc: Processes) -> None:
    proc.put(101, 13, image=1)
    proc.put(103, 17, parent=101, image=2)
    proc.put(107, 19, parent=103, image=3, zero=5)
    one = family(proc, 101)
    assert one.sample() == (13 + 17 + 19 + 5, 4000 * 49)
    proc.end(103)
    assert one.sample() == (13 + 19 + 5, 4000 * 32)
    assert one.ever == {101, 103, 107}
    proc.end(101)
    proc.end(107)
    assert one.sample() is None


def test_an_id_given_to_another_process_is_not_the_one_watched(proc: Processes) -> None:
    proc.put(101, 13)
    one = family(proc, 101)
    proc.end(101)
    proc.put(101, 10_007, start=8)
    assert one.sample() is None


def test_a_zombie_has_no_pages(proc: Processes) -> None:
    proc.put(101, 13)
    one = family(proc, 101)
    proc.put(101, 13, state="Z")
    assert one.sample() is None


def test_a_child_that_still_has_its_parents_memory_does_not_count_twice(proc: Processes) -> None:
    proc.put(101, 13, image=1)
    one = family(proc, 101)
    proc.put(103, 13, parent=101, image=1)
    assert one.sample() == (13, 52_000)
    proc.put(103, 2, image=9)
    assert one.sample() == (15, 60_000)


def test_a_forked_child_that_lives_on_counts(proc: Processes) -> None:
    proc.put(101, 13, image=1)
    proc.put(103, 11, parent=101, image=1)
    one = family(proc, 101)
    one.sample()
    assert one.sample() == (24, 96_000)


def test_where_a_fork_copies_the_counts_the_sum_is_not_known(proc: Processes) -> None:
    proc.put(101, 13, image=1)
    proc.put(103, 13, parent=101, image=1)
    one = family(proc, 101, afresh=False)
    one.sample()
    found = one.sample()
    assert found is not None
    assert all(map(math.isnan, found))
