from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel.releases import (
    BEHAVIOURS,
    FIXES,
    FIXES_BY_NAME,
    RELEASES,
    Profile,
    checksum_comes_first,
    merge_any_at_exec,
    parse_release,
    profile,
    profile_of_host,
)

NUMBERS = st.integers(0, 4099)


@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["", "-rc7", "-amd64", "+deb12-amd64", ".el9"]))
def test_the_three_numbers_are_read_whatever_follows(
    major: int, minor: int, patch: int, suffix: str
) -> None:
    assert parse_release(f"{major}.{minor}.{patch}{suffix}") == (major, minor, patch)


def test_a_release_without_a_patch_number_is_its_first() -> None:
    assert parse_release("6.11") == (6, 11, 0)
    assert parse_release("6.1-rc7") == (6, 1, 0)


@given(st.text())
def test_any_text_is_a_release_or_zeros(text: str) -> None:
    assert len(parse_release(text)) == 3


@pytest.mark.parametrize("text", ["", "linux", "v6.1", "6"])
def test_a_text_without_numbers_is_zeros(text: str) -> None:
    assert parse_release(text) == (0, 0, 0)


@pytest.mark.parametrize(
    ("release", "fate"),
    [
        ("2.6.32", "absent"),
        ("5.15.135", "absent"),
        ("6.3.8", "absent"),
        ("6.4.0", "lost"),
        ("6.6.17", "lost"),
        ("6.7.0-rc1", "unscanned"),
        ("6.9.12", "unscanned"),
        ("6.10", "kept"),
        ("6.18.2-amd64", "kept"),
        ("7.1.3", "kept"),
    ],
)
def test_what_becomes_of_merge_any_at_exec(release: str, fate: str) -> None:
    assert merge_any_at_exec(release) == fate


@pytest.mark.parametrize(
    ("release", "first"),
    [("6.9.7", False), ("6.10.0", False), ("6.11.0", True), ("6.18.2", True), ("5.15.7", False)],
)
def test_the_checksum_comes_first_since_6_11(release: str, first: bool) -> None:
    assert checksum_comes_first(release) is first


@pytest.mark.parametrize("name", [release.version for release in RELEASES])
def test_a_release_of_the_table_is_its_own_profile(name: str) -> None:
    found = profile(name)
    assert found.name == found.release.version == name
    assert found.version == parse_release(name)
    assert found.note == ""


def test_2011_is_the_oldest() -> None:
    assert profile("2011").release is RELEASES[0]
    assert profile("2011").name == "2011"


@pytest.mark.parametrize(
    ("name", "fixes"),
    [
        ("6.12", ""),
        ("6.12.0", ""),
        ("6.12.116", ""),
        ("6.12.117", "fork_counters keeps_merge_any range_walk"),
        ("6.12.117+deb12-amd64", "fork_counters keeps_merge_any range_walk"),
        ("6.12.139", "fork_counters keeps_merge_any range_walk"),
        ("6.12.0+fork_counters", "fork_counters"),
        ("6.12+range_walk+keeps_merge_any", "keeps_merge_any range_walk"),
        ("6.13.117", ""),
        ("6.18", "fork_counters"),
        ("6.18.2", "fork_counters range_walk"),
        ("6.18.2-amd64", "fork_counters range_walk"),
        ("6.18.31", "fork_counters range_walk"),
        ("6.18.32", "fork_counters keeps_merge_any range_walk"),
        ("6.1.191", ""),
        ("6.1.192", "range_walk"),
        ("6.1.0-13-amd64", ""),
    ],
)
def test_a_full_version_tells_which_fixes_are_carried(name: str, fixes: str) -> None:
    assert profile(name).fixes == tuple(fixes.split())


@pytest.mark.parametrize(
    ("name", "fork_counters", "drop_clears"),
    [
        ("6.12.0", "inherited", True),
        ("6.12.117", "fresh", False),
        ("6.12+fork_counters", "fresh", True),
        ("6.17", "inherited", True),
        ("6.18.2", "fresh", True),
        ("6.18.32", "fresh", False),
        ("6.19", "fresh", False),
    ],
)
def test_a_fix_changes_the_behaviour(name: str, fork_counters: str, drop_clears: bool) -> None:
    behaviour = profile(name).behaviour
    assert behaviour.fork_counters == fork_counters
    assert behaviour.drop_clears_merge_any is drop_clears


@pytest.mark.parametrize(
    ("name", "prot_none", "found"),
    [
        ("6.0.19", "visited", True),
        ("6.1-rc7", "not_visited", False),
        ("6.1.192", "not_found", False),
        ("6.1+range_walk", "not_found", False),
        ("6.2.1", "not_visited", True),
        ("6.4.6", "not_visited", True),
        ("6.5", "visited", True),
        ("6.18.2", "visited", True),
    ],
)
def test_what_becomes_of_prot_none_pages(name: str, prot_none: str, found: bool) -> None:
    behaviour = profile(name).behaviour
    assert behaviour.prot_none == prot_none
    assert behaviour.unshare_finds_prot_none is found


@given(st.integers(0, 307))
def test_a_fix_once_there_stays_in_its_series(patch: int) -> None:
    for fix in FIXES:
        for (major, minor), first in fix.stable.items():
            carried = profile(f"{major}.{minor}.{patch}").fixes
            assert (fix.name in carried) is (patch >= first)


@pytest.mark.parametrize(
    ("name", "taken_as"),
    [
        ("3.2", "2.6.38"),
        ("4.8.17", "3.9"),
        ("5.10.0-31-amd64", "5.9"),
        ("6.20", "6.19"),
        ("7.1.3", "6.19"),
    ],
)
def test_an_unknown_release_is_taken_as_the_nearest_older_one(name: str, taken_as: str) -> None:
    found = profile(name)
    assert found.release.version == taken_as
    assert found.behaviour == BEHAVIOURS[taken_as]
    assert name in found.note
    assert f"taken as {taken_as}" in found.note


@given(st.integers(3, 11), st.integers(0, 23), st.integers(0, 307))
def test_no_release_of_the_table_lies_between_a_kernel_and_its_profile(
    major: int, minor: int, patch: int
) -> None:
    found = profile(f"{major}.{minor}.{patch}")
    assert found.version == (major, minor, patch)
    series = [parse_release(release.version)[:2] for release in RELEASES]
    assert parse_release(found.release.version)[:2] == max(
        known for known in series if known <= (major, minor)
    )
    assert bool(found.note) is ((major, minor) not in series)


@pytest.mark.parametrize("name", ["", "linux", "6", "v6.1", "2.4.37", "1.0", "2.5"])
def test_what_is_no_release_or_too_old_is_a_usage_error(name: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        profile(name)
    assert caught.value.exit_code == Exit.USAGE
    assert repr(name) in caught.value.message
    assert RELEASES[0].version in (caught.value.hint or "")
    assert RELEASES[-1].version in (caught.value.hint or "")


def test_an_unknown_fix_is_a_usage_error_that_names_the_known_ones() -> None:
    with pytest.raises(KsmtraceError) as caught:
        profile("6.12+fork_counter")
    assert caught.value.exit_code == Exit.USAGE
    assert "'fork_counter'" in caught.value.message
    assert all(name in (caught.value.hint or "") for name in FIXES_BY_NAME)


def test_something_exists_from_its_release_on() -> None:
    assert profile("6.4").has("6.4")
    assert profile("6.12.117").has("6.12")
    assert not profile("6.3.8").has("6.4")
    assert not profile("6.12").has(None)


def test_each_fix_moves_switches_that_there_are() -> None:
    switches = vars(BEHAVIOURS["2.6.38"])
    for fix in FIXES:
        assert set(fix.changes) <= set(switches)


KEY_SWITCHES = """
2.6.38  jhash2 own    no-chains  absent     - absent    - 0 absent
3.9     jhash2 stable no-chains  absent     - absent    - 0 absent
4.10    jhash2 stable no-chains  absent     - absent    - 0 absent
4.11    jhash2 stable no-chains  uncounted  - absent    - 0 absent
4.13    jhash2 stable with-room  uncounted  - absent    - 0 absent
4.19    jhash2 stable with-room  uncounted  - absent    - 0 absent
5.0     xxhash stable with-room  uncounted  - absent    - 0 absent
5.4     xxhash stable with-room  uncounted  - absent    - 0 absent
5.9     xxhash stable with-room  uncounted  - absent    - 0 absent
5.19    xxhash stable with-room  uncounted  - absent    - 0 absent
6.0     xxhash stable with-room  uncounted  - absent    - 0 absent
6.1     xxhash stable with-room  uncounted  - absent    - 0 absent
6.2     xxhash stable with-room  uncounted  - absent    - 0 absent
6.3     xxhash stable with-room  uncounted  - absent    - 0 absent
6.4     xxhash stable with-room  uncounted  - absent    - 8 lost
6.5     xxhash stable with-room  uncounted  - absent    - 8 lost
6.6     xxhash stable with-room  counted    - per_batch - 8 lost
6.7     xxhash stable with-room  counted    s per_batch - 8 unscanned
6.8     xxhash stable with-room  counted    s per_batch a 9 unscanned
6.9     xxhash stable with-room  counted    s per_batch a 9 unscanned
6.10    xxhash stable with-room  counted    s exact     a 9 kept
6.11    xxhash checksum any-full counted    s exact     a 9 kept
6.12    xxhash checksum any-full counted    s exact     a 9 kept
6.13    xxhash checksum any-full counted    s exact     a 9 kept
6.14    xxhash checksum any-full counted    s exact     a 9 kept
6.15    xxhash checksum any-full counted    s exact     a 9 kept
6.16    xxhash checksum any-full counted    s exact     a 9 kept
6.17    xxhash checksum any-full counted    s exact     a 9 kept
6.18    xxhash checksum any-full counted    s exact     a 9 kept
6.19    xxhash checksum any-full counted    s exact     a 9 kept
"""
"""Release, checksum, what is done first, chains, zero pages, smart scan, pages_scanned, advisor,
tracepoints, PR_SET_MEMORY_MERGE at exec: each read in that release's source, 6.7, 6.15 and 6.16
excepted."""


def key_switches(found: Profile) -> list[str]:
    behaviour = found.behaviour
    chains = {"absent": "no-chains", "longest_with_room": "with-room", "longest": "any-full"}
    return [
        found.name,
        behaviour.checksum,
        behaviour.visit_order.partition("_")[0],
        chains[behaviour.chains],
        behaviour.zero_pages,
        "s" if behaviour.smart_scan else "-",
        behaviour.pages_scanned,
        "a" if behaviour.advisor else "-",
        str(sum(found.has(kind.since) for kind in TRACEPOINTS)),
        behaviour.merge_any,
    ]


def test_each_releases_key_switches() -> None:
    rows = [line.split() for line in KEY_SWITCHES.strip().splitlines()]
    assert [key_switches(profile(release.version)) for release in RELEASES] == rows


@pytest.mark.parametrize(
    ("switch", "value", "first", "until"),
    [
        ("numa_trees", True, "3.9", None),
        ("run_2_appends", True, "3.9", None),
        ("run_2_sweeps", True, "3.9", None),
        ("stale_node_on_walk", "restart", "4.10", None),
        ("same_huge_page_splits", True, "4.19", None),
        ("locked_page_is_busy", True, "5.4", None),
        ("sole_mapping_reused", True, "5.4", "5.9"),
        ("prot_none", "not_visited", "6.1", "6.5"),
        ("unshare_finds_prot_none", False, "6.1", "6.2"),
        ("unshare", "unshare_fault", "6.2", None),
        ("huge_page_split_maps_zero_pages", True, "6.12", None),
        ("fork_counters", "fresh", "6.18", None),
        ("drop_clears_merge_any", False, "6.19", None),
    ],
)
def test_the_other_switches_by_where_they_begin_and_end(
    switch: str, value: object, first: str, until: str | None
) -> None:
    begin, end = parse_release(first), parse_release(until or "99.0")
    for release, behaviour in BEHAVIOURS.items():
        assert (getattr(behaviour, switch) == value) is (begin <= parse_release(release) < end)


@pytest.mark.parametrize(
    ("release", "build", "version"),
    [
        ("6.18.44-fc-v657", "#1 SMP", (6, 18, 44)),
        ("6.1.0-41-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-02)", (6, 1, 192)),
        ("6.12.117+deb12-amd64", "#1 SMP Debian 6.12.117-1~bpo12+1", (6, 12, 117)),
        ("6.6.44-production+truenas", "", (6, 6, 44)),
        ("6.12.3+debug", "", (6, 12, 3)),
        ("6.11-rc7", "", (6, 11, 0)),
    ],
)
def test_a_hosts_own_words_name_its_version(
    release: str, build: str, version: tuple[int, int, int]
) -> None:
    assert profile_of_host(release, build).version == version
    assert checksum_comes_first(release) == (version >= (6, 11, 0))


def test_kernels_before_the_table_have_no_profile() -> None:
    for release in ("2.6.32", "2.6.37.6", "2.4.0"):
        with pytest.raises(KsmtraceError):
            profile(release)
    assert profile("2.6.39").release.version == "2.6.38"
    assert profile("2.6.39").note
