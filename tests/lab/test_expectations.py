from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ksmtrace.kernel.releases import profile
from ksmtrace.lab.disappointments import Disappointment, disappointments
from ksmtrace.lab.expectations import applies
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import parse_scenario, scenario_of

# Two equal pages and another: in the second scan the pair merges.
PAIR: list[dict[str, Any]] = [
    {"map": "a.p", "pages": 3},
    {"write": "a.p[0:2]", "content": "a"},
    {"write": "a.p[2]", "content": "b"},
]
MERGED = ["NEW a.p[1]", "ADD a.p[0] to a.p[1]"]


def plan_of(*steps: dict[str, Any], **knobs: Any) -> Plan:
    return plan_scenario(scenario_of({"knobs": knobs, "step": [*PAIR, *steps]}, "x.toml"))


def unmet(expect: Any, kernel: str = "6.18", **step: Any) -> list[tuple[str, Any, Any]]:
    """What an expectation beside `scan = 2`, or another step, is disappointed in."""
    plan = plan_of({**(step or {"scan": 2}), "expect": expect})
    found = disappointments(plan, perform_on_model(plan, profile(kernel)))
    return [(one.what, one.expected, one.seen) for one in found]


def test_what_is_as_expected_does_not_disappoint() -> None:
    expect = {
        "pages_shared": 1, "pages_sharing": 1, "pages_unshared": 1, "pages_volatile": 0,
        "full_scans": 2, "general_profit": 4096 - 3 * 64, "pages_scanned": 6, "cow_ksm": 0,
        "events": MERGED,
        "a": {"ksm_rmap_items": 3, "ksm_merging_pages": 2, "ksm_mergeable": 1},
    }  # fmt: skip
    assert unmet(expect) == []


def test_each_thing_that_is_not_as_expected_is_told() -> None:
    expect = {
        "pages_shared": 2, "pages_sharing": 1, "general_profit": 0, "events": MERGED[:1],
        "a": {"ksm_rmap_items": 5, "ksm_merging_pages": 2},
    }  # fmt: skip
    assert unmet(expect) == [
        ("pages_shared", 2, 1),
        ("general_profit", 0, 3904),
        ("the events", MERGED[:1], MERGED),
        ("a's ksm_rmap_items", 5, 3),
    ]


def test_several_expectations_are_all_checked() -> None:
    assert unmet([{"pages_shared": 2}, {"pages_shared": 1}, {"pages_shared": 3}]) == [
        ("pages_shared", 2, 1),
        ("pages_shared", 3, 1),
    ]


def test_a_disappointment_reads_like_a_sentence_with_its_place() -> None:
    one = Disappointment("ksm:6.18", "x.toml:7", "pages_shared", 2, 1)
    assert str(one) == "x.toml:7: on ksm:6.18, pages_shared is 1, not 2"


def test_it_stands_where_the_step_stands() -> None:
    plan = plan_scenario(
        parse_scenario("[[step]]\nscan = 1\n\n[[step]]\nscan = 1\nexpect = { full_scans = 1 }", "y")
    )
    [one] = disappointments(plan, perform_on_model(plan, profile("6.18")))
    assert (one.where, one.on) == ("y:4", "ksm:6.18")


# Events.


@pytest.mark.parametrize(
    ("events", "met"),
    [
        (MERGED, True),
        (["NEW a.p[1]", "ADD a.p[0]"], True),
        (["NEW a.p", "ADD a.p[0]"], False),
        (["NEW a.p[1]", "ADD a.p[0] to a.p[0]"], False),
        (["ADD a.p[0]", "NEW a.p[1]"], False),
        ([*MERGED, "GONE a.p[1]"], False),
        (MERGED[:1], False),
        ([], False),
        (["NEW! a.p[1]", "ADD a.p[0]"], False),
        (["START 1", *MERGED, "STOP 1"], False),
    ],
)
def test_events_are_expected_whole_and_in_order(events: list[str], met: bool) -> None:
    assert (unmet({"events": events}) == []) is met


def test_the_ksm_page_of_a_gone_or_add_may_be_left_unsaid() -> None:
    plan = plan_of(
        {"scan": 2},
        {"discard": "a.p[0:2]"},
        {"scan": 1, "expect": {"events": ["DROP a.p[1]", "GONE"]}},
    )
    assert disappointments(plan, perform_on_model(plan, profile("6.18"))) == []


def test_events_are_those_of_the_step_and_of_all_its_scans() -> None:
    plan = plan_of(
        {"scan": 1, "expect": {"events": []}},
        {"scan": 3, "expect": {"events": MERGED}},
        {"scan": 1, "expect": {"events": []}},
    )
    assert disappointments(plan, perform_on_model(plan, profile("6.18"))) == []


def test_without_tracepoints_events_are_not_checked_but_counters_are() -> None:
    plan = plan_of({"scan": 2, "expect": {"events": ["GONE"], "pages_shared": 7}})
    performance = replace(perform_on_model(plan, profile("6.18")), has_events=False)
    assert [one.what for one in disappointments(plan, performance)] == ["pages_shared"]


# Counters that not every kernel has.


@pytest.mark.parametrize(
    ("kernel", "met"), [("6.6", True), ("6.7", False), ("2011", True), ("6.18", False)]
)
def test_a_counter_that_a_release_does_not_have_is_not_checked(kernel: str, met: bool) -> None:
    assert (unmet({"pages_skipped": 77}, kernel) == []) is met


def test_absence_can_be_demanded() -> None:
    assert unmet({"pages_skipped": "absent"}, "6.6") == []
    assert unmet({"pages_skipped": "absent"}, "6.7") == [("pages_skipped", "absent", 0)]
    assert unmet({"a": {"ksm_mergeable": "absent"}}, "6.13") == []
    assert unmet({"a": {"ksm_mergeable": "absent"}}, "6.14") == [("a's ksm_mergeable", "absent", 1)]


def test_between_operations_the_state_is_that_after_the_last_one() -> None:
    plan = plan_of(
        {"scan": 2},
        {"say": "Nothing happens here.", "expect": {"pages_shared": 1, "events": []}},
        {"say": "Nor here.", "expect": {"pages_shared": 2}},
    )
    [one] = disappointments(plan, perform_on_model(plan, profile("6.18")))
    assert one.expected == 2


# For whom an expectation is meant.


@pytest.mark.parametrize(
    ("conditions", "kernels"),
    [
        ({}, "2011 4.13 6.1.192 6.10 6.11 6.12 6.12.117 6.18.44"),
        ({"since": "6.11"}, "6.11 6.12 6.12.117 6.18.44"),
        ({"until": "6.10"}, "2011 4.13 6.1.192 6.10"),
        ({"since": "4.13", "until": "6.1"}, "4.13 6.1.192"),
        # A series has its releases' behaviour, but for named fixes.
        ({"until": "6.12"}, "2011 4.13 6.1.192 6.10 6.11 6.12 6.12.117"),
        ({"with": "fork_counters"}, "6.12.117 6.18.44"),
        ({"without": "fork_counters"}, "2011 4.13 6.1.192 6.10 6.11 6.12"),
        ({"since": "6.12", "without": "fork_counters"}, "6.12"),
        ({"with": "range_walk", "until": "6.1"}, "6.1.192"),
    ],
)
def test_conditions_choose_kernels(conditions: dict[str, str], kernels: str) -> None:
    every = ["2011", "4.13", "6.1.192", "6.10", "6.11", "6.12", "6.12.117", "6.18.44"]
    assert [k for k in every if applies(conditions, profile(k))] == kernels.split()


@pytest.mark.parametrize("kernel", ["6.18", "6.19", "6.19.9"])
def test_a_fix_that_came_with_a_release_is_in_all_later_ones(kernel: str) -> None:
    # fork_counters: read in 6.18.2, and in every later kernel.
    assert applies({"with": "fork_counters"}, profile(kernel))
    assert not applies({"without": "fork_counters"}, profile(kernel))


def test_an_expectation_for_other_kernels_is_not_checked() -> None:
    assert unmet({"since": "6.11", "pages_shared": 7}, "6.10") == []
    assert unmet({"since": "6.11", "pages_shared": 7}, "6.11") == [("pages_shared", 7, 1)]
    assert unmet({"with": "fork_counters", "events": []}, "6.12") == []
    assert unmet({"with": "fork_counters", "events": []}, "6.12.117") == [
        ("the events", [], MERGED)
    ]


# What the kernel refuses.


def refusals(*steps: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    plan = plan_of({"scan": 2}, *steps)
    found = disappointments(plan, perform_on_model(plan, profile("6.18")))
    return [(one.what, one.expected, one.seen) for one in found]


def test_a_refusal_that_is_expected_does_not_disappoint() -> None:
    assert refusals({"set": {"max_page_sharing": 7}, "refused": "EBUSY"}) == []
    assert refusals({"set": {"run": 3}, "refused": "EINVAL"}) == []


def test_a_refusal_that_is_not_expected_disappoints_and_so_does_one_that_does_not_come() -> None:
    what = "what the kernel refused with"
    assert refusals({"set": {"max_page_sharing": 7}}) == [(what, "nothing", "EBUSY")]
    assert refusals({"set": {"smart_scan": 0}, "refused": "EBUSY"}) == [(what, "EBUSY", "nothing")]
    assert refusals({"set": {"run": 3}, "refused": "EBUSY"}) == [(what, "EBUSY", "EINVAL")]
