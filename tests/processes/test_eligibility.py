from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.processes.eligibility import (
    BARS,
    USERFAULTFD,
    bar_of,
    is_watched_by_userfaultfd,
    kind_of_shared,
)
from ksmtrace.processes.regions import Region

HARMLESS = (
    "rd",
    "wr",
    "ex",
    "mr",
    "mw",
    "me",
    "ac",
    "mg",
    "gd",
    "lo",
    "hg",
    "nh",
    "dd",
    "sd",
    "wf",
)


def region(*flags: str, name: str = "") -> Region:
    return Region(0, 4096, "rw-p", name, False, 0, flags)


@pytest.mark.parametrize(
    ("flag", "cause"),
    [
        ("ht", "hugetlb"), ("sh", "shared"), ("ms", "shared"), ("pf", "device"), ("io", "device"),
        ("de", "special"), ("mm", "device"), ("dp", "droppable"),
    ],
)  # fmt: skip
def test_each_flag_that_ksm_passes_over_bars_a_region(flag: str, cause: str) -> None:
    bar = bar_of(region("rd", "wr", flag, "ac"))
    assert bar is not None
    assert (bar.flag, bar.cause) == (flag, cause)
    assert bar.remedy
    assert bar.vm_flag.startswith("VM_")


def test_every_bar_is_tested_and_named_once() -> None:
    assert len({bar.flag for bar in BARS}) == len(BARS) == 8


@given(st.lists(st.sampled_from(HARMLESS)))
def test_no_other_flag_keeps_a_region_from_ksm(flags: list[str]) -> None:
    assert bar_of(region(*flags)) is None


def test_of_several_flags_the_most_telling_is_told() -> None:
    found = bar_of(region("sh", "ms", "de", "ht"))
    assert found is not None
    assert found.cause == "hugetlb"


@pytest.mark.parametrize("flag", USERFAULTFD)
def test_regions_with_userfaultfd_are_known(flag: str) -> None:
    assert is_watched_by_userfaultfd(region("rd", flag))
    assert not is_watched_by_userfaultfd(region("rd", "wr"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/memfd:pc.ram (deleted)", "memfd"), ("/dev/shm/x", "shared memory"),
        ("/SYSV00000000 (deleted)", "shared memory"), ("/dev/zero (deleted)", "shared memory"),
        ("/usr/lib/libc.so.6", "file"), ("", "shared anonymous"),
    ],
)  # fmt: skip
def test_shared_memory_is_told_apart_by_its_name(name: str, kind: str) -> None:
    assert kind_of_shared(region("sh", name=name)) == kind
