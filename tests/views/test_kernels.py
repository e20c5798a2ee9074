from __future__ import annotations

import json
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from rich.console import Console, RenderableType

from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel.changes import CHANGES
from ksmtrace.kernel.releases import BEHAVIOURS, RELEASES, Behaviour, Release, profile
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS
from ksmtrace.views.kernels import (
    MEANINGS,
    came_with,
    changes_as_dict,
    kernel_as_dict,
    releases_as_dict,
    render_changes,
    render_kernel,
    render_releases,
)

NAMES = [release.version for release in RELEASES]
OTHERS = ["2011", "5.10.0-31-amd64", "6.1.192", "6.12.117+deb12-amd64", "7.1.3", "6.12+range_walk"]


def printed(view: RenderableType) -> str:
    console = Console(width=80, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def words(view: RenderableType) -> str:
    """What is printed, without where its lines end."""
    return " ".join(printed(view).split())


def row(release: str) -> str:
    """One release's lines of the table of releases."""
    lines = printed(render_releases()).splitlines()
    begins = {line.split()[0]: n for n, line in enumerate(lines) if line[:1].isdecimal()}
    after = [n for n in (*begins.values(), lines.index("")) if n > begins[release]]
    return " ".join(" ".join(lines[begins[release] : min(after)]).split())


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_a_kernel_fits_80_columns(name: str) -> None:
    for view in (render_kernel(profile(name)), render_changes(profile(name))):
        assert max(len(line) for line in printed(view).splitlines()) <= 80


def test_the_tables_fit_80_columns() -> None:
    for view in (render_releases(), render_changes()):
        assert max(len(line) for line in printed(view).splitlines()) <= 80


def test_every_release_has_a_row_oldest_first() -> None:
    lines = printed(render_releases()).splitlines()
    assert [line.split()[0] for line in lines if line[:1].isdecimal()] == NAMES


@pytest.mark.parametrize("release", RELEASES, ids=NAMES)
def test_a_row_says_how_it_is_known_and_how_many_events_there_are(release: Release) -> None:
    events = sum(profile(release.version).has(kind.since) for kind in TRACEPOINTS)
    told = row(release.version)
    assert told.startswith(f"{release.version} {release.evidence} {events} ")
    assert all(note in told for note in release.notes)


def test_a_row_has_what_came_with_the_release() -> None:
    assert "+ 8 tracepoints; counters general_profit, ksm_process_profit" in row("6.4")
    assert "+ 1 tracepoint; knobs advisor_mode, " in row("6.8")
    assert "+ counter pages_skipped; knob smart_scan" in row("6.7")
    assert "+" not in row("6.11")


def test_a_row_has_its_commits_and_what_they_mean() -> None:
    assert "d58a361b0350 modelled: A new page joins a KSM page at its second visit" in row("6.11")
    assert "8b47933544a6 visible: " in row("6.6")
    assert row("6.6").endswith("2 further commits without effect")
    assert row("6.12").endswith("1 commit without effect")


def test_without_a_modelled_commit_a_row_says_what_the_switch_means() -> None:
    assert "prot_none visited: PROT_NONE pages are visited" in row("6.5")
    assert "visit_order checksum_first" not in row("6.11")


def test_no_changes_is_told_apart_from_no_list_of_changes() -> None:
    assert row("6.9").endswith("no changes")
    assert row("6.13").endswith("no change is known")
    assert words(render_changes(profile("6.9"))) == "no changes"
    assert "not listed: commits are listed from 6.0 to 6.12" in words(
        render_changes(profile("6.13"))
    )


def test_whatever_is_declared_came_with_exactly_one_release() -> None:
    came = [came_with(release) for release in RELEASES]
    told = [n for new in came for n in (*new.tracepoints, *new.counters, *new.knobs)]
    declared = [kind.name for kind in TRACEPOINTS]
    declared += [counter.name for counter in COUNTERS] + [knob.name for knob in KNOBS]
    assert sorted(told) == sorted(declared)


@pytest.mark.parametrize("switch", [field.name for field in fields(Behaviour)])
def test_each_value_of_each_switch_has_a_meaning(switch: str) -> None:
    kind = get_type_hints(Behaviour)[switch]
    values = get_args(kind) if get_origin(kind) is Literal else (False, True)
    assert set(MEANINGS[switch]) == set(values)
    assert len(set(MEANINGS[switch].values())) == len(values)


def test_there_is_no_meaning_of_a_switch_that_is_gone() -> None:
    assert set(MEANINGS) == {field.name for field in fields(Behaviour)}


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_has_every_switch_with_its_value_and_meaning(name: str) -> None:
    lines = printed(render_kernel(profile(name))).splitlines()
    starts = [line.split()[0] if line.strip() else "" for line in lines]
    for switch, value in vars(BEHAVIOURS[name]).items():
        place = starts.index(switch)
        shown = value if isinstance(value, str) else {True: "yes", False: "no"}[value]
        assert starts[place + 1] == shown
        assert MEANINGS[switch][value].split()[0] in lines[place]


def test_a_kernel_lists_what_exists_there_and_nothing_else() -> None:
    told = words(render_kernel(profile("6.3.8")))
    assert "tracepoints none: the fentry backend hooks its functions" in told
    assert "of a process: ksm_rmap_items, ksm_merging_pages knobs" in told
    assert "general_profit" not in told
    assert "tracepoints none: only counters tell" in words(render_kernel(profile("5.4")))
    told = words(render_kernel(profile("6.8")))
    assert "ksm_remove_ksm_page, ksm_advisor counters" in told
    assert "pages_scanned, pages_skipped" in told


def test_a_kernel_says_which_fixes_it_carries_and_which_a_later_one_has() -> None:
    assert words(render_kernel(profile("6.12.117"))).count("(carried)") == 3
    before = words(render_kernel(profile("6.12.113")))
    assert "(carried)" not in before
    assert before.count("(seen in 6.12.117, not assumed before)") == 3
    assert "no fix of later releases is known in a stable 6.11" in words(
        render_kernel(profile("6.11"))
    )
    assert "fork_counters: a forked child's ksm_stat begins at zero (carried)" in words(
        render_kernel(profile("6.11+fork_counters"))
    )


def test_a_kernel_has_all_its_commits_also_those_without_effect() -> None:
    told = words(render_kernel(profile("6.10")))
    assert "c2dc78b86e08 visible mm/ksm: fix ksm_zero_pages accounting → ksm_zero_pages is" in told
    assert "no effect mm: remove PageSwapCache" in words(render_kernel(profile("6.12")))


def test_all_changes_have_commit_status_and_effect() -> None:
    told = words(render_changes())
    for change in CHANGES:
        begin = f"{change.commit} {change.status} {change.subject} → {change.effect}"
        assert begin in told
    assert " 6.9 no changes 6.10 " in told


def test_the_releases_as_json_have_stable_names() -> None:
    told = json.loads(json.dumps(releases_as_dict()))["releases"]
    assert [release["release"] for release in told] == NAMES
    for release in told:
        assert " ".join(release) == "release evidence notes behaviour_changes new changes"
        assert " ".join(release["new"]) == "tracepoints counters knobs"
    by_name = {release["release"]: release for release in told}
    assert by_name["6.9"]["changes"] == []
    assert by_name["6.13"]["changes"] is None
    assert by_name["6.11"]["behaviour_changes"]["visit_order"] == "checksum_first"
    assert len(by_name["6.4"]["new"]["tracepoints"]) == 8


def test_a_kernel_as_json_has_stable_names() -> None:
    told = json.loads(json.dumps(kernel_as_dict(profile("6.12.117+deb12-amd64"))))
    assert " ".join(told) == (
        "name version release evidence note notes behaviour fixes tracepoints counters knobs"
        " changes"
    )
    assert told["name"] == "6.12.117+deb12-amd64"
    assert (told["version"], told["release"], told["note"]) == ("6.12.117", "6.12", None)
    assert told["behaviour"] == vars(profile("6.12.117").behaviour)
    assert all(fix["carried"] and fix["seen_in"] == "6.12.117" for fix in told["fixes"])
    assert told["changes"][0]["commit"] == "32f51ead3d77"


def test_a_kernel_taken_as_another_says_so_in_json() -> None:
    told = kernel_as_dict(profile("5.10"))
    assert (told["version"], told["release"], told["changes"]) == ("5.10.0", "5.9", None)
    assert "taken as 5.9" in told["note"]


def test_an_added_fix_was_seen_in_no_stable_kernel_of_another_series() -> None:
    told = kernel_as_dict(profile("6.11+fork_counters"))["fixes"]
    assert [(fix["name"], fix["carried"], fix["seen_in"]) for fix in told] == [
        ("fork_counters", True, None)
    ]


def test_changes_as_json() -> None:
    assert len(changes_as_dict()["changes"]) == len(CHANGES)
    assert " ".join(changes_as_dict()["changes"][0]) == "commit release subject status effect"
    assert [c["commit"] for c in changes_as_dict(profile("6.11"))["changes"]] == ["d58a361b0350"]
    assert changes_as_dict(profile("6.9")) == {"changes": []}
    assert changes_as_dict(profile("6.13")) == {"changes": None}
