from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.top.rows import labelled
from ksmtrace.top.state import Rows
from ksmtrace.top.table import COLUMNS, listed

NAN = float("nan")


def rows(saved: list[float], cgroups: list[str | None] | None = None,
         exited: list[bool] | None = None) -> Rows:  # fmt: skip
    count = len(saved)
    columns = {column.name: np.full(count, NAN) for column in COLUMNS}
    columns["saved_bytes"] = np.array(saved, np.float64)
    columns["exited"] = np.array(exited or [False] * count, np.float64)
    tgids = 101 + np.arange(count)
    labels = {
        "comm": labelled([f"p{tgid}" for tgid in tgids]),
        "cgroup": labelled(cgroups or [None] * count),
        "vm": labelled([None] * count),
    }
    return Rows(tgids, {str(k): v for k, v in columns.items()}, labels)


@given(st.lists(st.sampled_from([0.0, 3.0, 5.0, -7.0, 11.0, NAN]), max_size=67),
       st.integers(1, 13), st.booleans())  # fmt: skip
def test_the_first_lines_are_those_of_a_plain_sort(
    saved: list[float], most: int, reverse: bool
) -> None:
    found = listed(rows(saved), "process", "saved_bytes", most, reverse=reverse)
    sign = 1 if reverse else -1
    plain = sorted(
        range(len(saved)), key=lambda i: (saved[i] != saved[i], sign * np.nan_to_num(saved[i]), i)
    )
    assert [line.tgid for line in found.lines] == [101 + i for i in plain[:most]]
    assert found.total == len(saved)


def test_who_has_exited_stands_below_who_has_not() -> None:
    table = rows([3, 0, NAN], exited=[True, False, False])
    assert [line.tgid for line in listed(table, "process", "saved_bytes", 3).lines] == [
        102, 103, 101,
    ]  # fmt: skip


def test_a_group_is_the_sum_of_what_is_known_of_its_living_processes() -> None:
    table = rows([3, 5, NAN, 7, 11], ["/a", "/b", "/b", None, "/a"], [False] * 4 + [True])
    lines = listed(table, "cgroup", "saved_bytes", 7).lines
    assert [(line.name, line.processes, line.values["saved_bytes"]) for line in lines] == [
        ("/b", 2, 5.0), ("/a", 1, 3.0),
    ]  # fmt: skip
    assert lines[0].values["merged_pages"] is None
    assert lines[0].tgid is None


def test_a_million_processes_are_listed_in_time() -> None:
    values = np.random.default_rng(7).permutation(1_000_003).astype(np.float64)
    table = Rows(
        np.arange(len(values)),
        {column.name: values for column in COLUMNS},
        {name: labelled([None]) for name in ("comm", "cgroup", "vm")}
        | {"comm": labelled(["a"] * len(values)), "vm": labelled([None] * len(values))},
    )
    found = listed(table, "process", "saved_bytes", 17)
    assert found.total == 1_000_003
    assert [line.values["saved_bytes"] for line in found.lines] == [
        1_000_002.0 - n for n in range(17)
    ]
