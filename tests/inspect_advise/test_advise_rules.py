"""Each rule fires on the facts it is for, and not on those beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.advised import MIB, host, process

from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.answer import advice, answer
from ksmtrace.inspect.advise.facts import Writer
from ksmtrace.inspect.advise.rules.table import RULES
from ksmtrace.inspect.advise.situation import Situation

Case = Mapping[str, Any]
LOSER = process(31, comm="unique", merging_pages=11, profit_bytes=-3 * MIB, cgroup="/u.service")
SLOW = {"scan_s": 401.0, "scans": 0}
ADVISED = {"advisor_mode": "scan-time", "advisor_target_scan_time": 200, "pages_to_scan": 30_000}
BUSY = {"ksmd_cpu_ns": 2_000_000_000}
COPIED = {"cow_ksm": 211}
SPARSE = {"mergeable_bytes": 1 << 45, "scans": 0, "kernel": "6.17.0", "scan_s": None}
ENTERED = {"now": {"general_profit": -5, "pages_sharing": 7, "pages_unshared": 97_993}}

NOTHING = dict.fromkeys(("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"), 0)

CASES: Mapping[str, tuple[Case, tuple[Case, ...]]] = {
    "overcommitted": (
        {"mem_available_bytes": 100 * MIB, "swap_free_bytes": 56 * MIB},
        ({"mem_available_bytes": 100 * MIB, "swap_free_bytes": 57 * MIB},
         {"mem_available_bytes": None}),
    ),
    "ksmd_stopped": (
        {"knobs": {"run": 0}},
        ({"knobs": {"run": 1}}, {"knobs": {"run": None}}, {"knobs": {"run": 0}, "stepped": True},
         {"knobs": {"run": 2}}),
    ),
    "all_unmerged": ({"knobs": {"run": 2}}, ({"knobs": {"run": 0}}, {"knobs": {"run": 1}})),
    "ksmd_stopped_unseen": (
        {"processes": None, "knobs": {"run": 0}, "now": NOTHING},
        ({"processes": (), "knobs": {"run": 0}, "now": NOTHING},
         {"processes": None, "knobs": {"run": 0}},
         {"processes": None, "knobs": {"run": 1}, "now": NOTHING}),
    ),
    "nothing_registered": (
        {"processes": (), "now": dict.fromkeys(
            ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"), 0)},
        ({"processes": ()},
         {"processes": None, "now": dict.fromkeys(
             ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"), 0)}),
    ),
    "endless_scan": (
        SPARSE,
        ({**SPARSE, "kernel": "6.18.2"}, {**SPARSE, "kernel": "6.20.1"}, {**SPARSE, "scans": 1},
         {**SPARSE, "mergeable_bytes": 1 << 35}, {**SPARSE, "mergeable_bytes": None},
         {**SPARSE, "kernel": "unknown"}),
    ),
    "negative_profit": (
        {"now": {"general_profit": -1}},
        ({"now": {"general_profit": 0}},
         {"now": {"general_profit": None, "pages_sharing": None}}),
    ),
    "unprofitable_processes": (
        {"processes": (process(), LOSER)},
        ({"processes": (process(), process(31, profit_bytes=-MIB))},  # 1 % is more than 1 MiB
         {"processes": (process(), LOSER), "now": {"general_profit": -1}},
         {"processes": None}),
    ),
    "volatile_memory": (
        {"now": {"pages_volatile": 50_021, "pages_unshared": 7_970}},
        ({"now": {"pages_volatile": 49_999, "pages_unshared": 7_992}},
         {"now": {"pages_volatile": 50_021, "pages_unshared": 7_970, "full_scans": 0},
          "grew": {"full_scans": 1}},
         {"now": {"pages_volatile": 50_021, "pages_unshared": 7_970},
          "grew": {"pages_skipped": 20_011}},  # what smart scan skipped need not change
         {"now": {"pages_volatile": None}}),
    ),
    "sharing_limit": (
        {"now": {"stable_node_chains": 3, "stable_node_dups": 409}},
        ({"now": {"stable_node_chains": 3, "stable_node_dups": 397}},  # 394: below 1 % saved
         {"now": {"stable_node_chains": 0, "stable_node_dups": 0}},
         {"now": {"stable_node_chains": 3, "stable_node_dups": None}},
         {"now": {"stable_node_chains": 3, "stable_node_dups": 409},
          "knobs": {"max_page_sharing": None}}),
    ),
    "zero_pages_unused": (
        {"zero_filled": 67, "knobs": {"use_zero_pages": 0}},
        ({"zero_filled": 67}, {"zero_filled": 61, "knobs": {"use_zero_pages": 0}},
         {"zero_filled": None, "knobs": {"use_zero_pages": 0}}),
    ),
    "long_chains": (
        {"now": {"stable_node_chains": 1, "stable_node_dups": 17},
         "knobs": {"use_zero_pages": 0}},
        ({"now": {"stable_node_chains": 1, "stable_node_dups": 17}},
         {"now": {"stable_node_chains": 2, "stable_node_dups": 31},
          "knobs": {"use_zero_pages": 0}},
         {"now": {"stable_node_chains": 1, "stable_node_dups": 17},
          "knobs": {"use_zero_pages": 0}, "zero_filled": 0}),
    ),
    "ksmd_full_core": (
        {"grew": {"ksmd_cpu_ns": 9_600_000_000}},
        ({"grew": {"ksmd_cpu_ns": 9_400_000_000}}, {"now": {"ksmd_cpu_ns": None}},
         {"grew": {"ksmd_cpu_ns": 9_600_000_000}, "stepped": True}),
    ),
    "scans_too_fast": (
        {"grew": {**BUSY, "pages_scanned": 500_009}},
        ({"grew": {"pages_scanned": 500_009}},  # cheap
         {"grew": {**BUSY, "pages_scanned": 500_009}, "scans": 2},
         {"grew": {**BUSY, "pages_scanned": 500_009, "pages_sharing": 4_001}},  # still growing
         {"grew": {**BUSY, "pages_scanned": 500_009}, "knobs": ADVISED},
         {"grew": {**BUSY, "pages_scanned": 500_009}, "kernel": "6.8.1"},  # no cost of a visit
         {"grew": {**BUSY, "pages_scanned": 500_009}, "knobs": {"run": 0}}),
    ),
    "advisor_floor": (
        {"knobs": ADVISED, "grew": {**BUSY, "pages_scanned": 500_009}},
        ({"knobs": ADVISED, "grew": {**BUSY, "pages_scanned": 500_009}, "scan_s": 51.0},
         {"knobs": ADVISED},
         {"grew": BUSY}),
    ),
    "smart_scan_off": (
        {"knobs": {"smart_scan": 0}, "grew": {"ksmd_cpu_ns": 200_000_000}},
        ({"knobs": {"smart_scan": 0}}, {"grew": {"ksmd_cpu_ns": 200_000_000}},
         {"knobs": {"smart_scan": None}, "grew": {"ksmd_cpu_ns": 200_000_000}},
         {"knobs": {"smart_scan": 0, "run": 0}, "grew": {"ksmd_cpu_ns": 200_000_000}}),
    ),
    "scans_too_slowly": (
        {**SLOW, "now": {"pages_unshared": 20_000_003}},
        ({**SLOW, "scan_s": 299.0, "now": {"pages_unshared": 20_000_003}},
         {**SLOW, "now": {"pages_unshared": 20_000_003}, "knobs": ADVISED},
         {**SLOW, "now": {"pages_unshared": 20_000_003}, "knobs": {"run": 0}},
         {**SLOW, "now": {"pages_unshared": 20_000_003}, "stepped": True}),
    ),
    "advisor_page_limit": (
        {"knobs": ADVISED, "scan_s": 251.0},
        ({"knobs": ADVISED, "scan_s": 249.0},
         {"knobs": {**ADVISED, "pages_to_scan": 29_999}, "scan_s": 251.0},
         {"knobs": ADVISED, "scan_s": 251.0, "grew": {"ksmd_cpu_ns": 6_900_000_000}},
         {"scan_s": 251.0}),
    ),
    "advisor_cpu_limit": (
        {"knobs": ADVISED, "scan_s": 251.0, "grew": {"ksmd_cpu_ns": 6_400_000_000}},
        ({"knobs": ADVISED, "scan_s": 251.0, "grew": {"ksmd_cpu_ns": 6_200_000_000}},
         {"knobs": ADVISED, "scan_s": 249.0, "grew": {"ksmd_cpu_ns": 6_400_000_000}}),
    ),
    "nodes_apart": (
        {"knobs": {"merge_across_nodes": 0}, "nodes": 2},
        ({"knobs": {"merge_across_nodes": 0}, "nodes": 1}, {"nodes": 2},
         {"knobs": {"merge_across_nodes": None}, "nodes": 2}),
    ),
    "churn": (
        {"grew": COPIED, "merges": 1_051},
        ({"grew": COPIED, "merges": 1_061}, {"grew": {"cow_ksm": 61}, "merges": 0},
         {"grew": COPIED, "merges": 1_051, "copies_by_order": True},
         {"now": {"cow_ksm": None}, "merges": 1}),
    ),
}  # fmt: skip


def advised(**changes: Any) -> dict[str, Advice]:
    return {one.id: one for one in advice(Situation(host(**changes)))}


def test_a_host_that_is_well_is_left_alone() -> None:
    assert advised() == {}
    assert answer(host()).verdict.state == "pays"


def test_every_rule_is_tried_here_and_named_once() -> None:
    assert list(CASES) == [rule.id for rule in RULES]


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_fires_on_what_it_is_for(rule: str) -> None:
    found = advised(**CASES[rule][0])
    assert rule in found
    assert found[rule].commands
    assert found[rule].evidence


@pytest.mark.parametrize(
    ("rule", "beside"), [(rule, beside) for rule, (_, cases) in CASES.items() for beside in cases]
)
def test_a_rule_keeps_quiet_beside_it(rule: str, beside: Case) -> None:
    assert rule not in advised(**beside)


def test_pages_to_scan_is_what_the_arithmetic_says() -> None:
    # 20,042,015 visits a scan at 1 µs each: 20.04 s busy. 179.96 s are left for sleeps of 20 ms:
    # 8,998 batches of 2,227.4 pages; of two digits, rounded up: 2,300.
    now = {"pages_unshared": 20_000_003}
    one = advised(**SLOW, now=now, grew={"pages_scanned": 50_000})["scans_too_slowly"]
    assert one.commands[0] == "echo 2300 > /sys/kernel/mm/ksm/pages_to_scan"
    batches = -(-20_042_015 // 2_300)
    seconds = batches * 0.02 + 20.042015
    assert one.evidence["proposed_scan_s"] == pytest.approx(seconds)
    assert one.evidence["proposed_percent_of_one_core"] == pytest.approx(2_004.2015 / seconds)


def test_a_host_too_big_for_the_target_gets_the_time_that_the_cpu_allows() -> None:
    # 1,000 million visits at 1 µs are 1,000 s of CPU: 1,429 s at 70 % of a core.
    now = {"pages_unshared": 999_957_988}
    one = advised(**SLOW, now=now, grew={"pages_scanned": 50_000})["scans_too_slowly"]
    scan = one.evidence["proposed_scan_s"]
    assert isinstance(scan, float)
    assert 1_380 < scan <= 1_429
    share = one.evidence["proposed_percent_of_one_core"]
    assert isinstance(share, float)
    assert 70 <= share < 73


def test_the_slower_pace_takes_a_negligible_share() -> None:
    found = advised(grew={**BUSY, "pages_scanned": 500_009})["scans_too_fast"]
    assert found.gain_cpu_percent == pytest.approx(19, abs=0.1)
    assert found.evidence["proposed_percent_of_one_core"] == pytest.approx(1, abs=0.1)


def test_the_loss_is_the_sum_of_the_losing_processes_worst_first() -> None:
    small = process(37, comm="small", profit_bytes=-MIB - 1)
    found = advised(processes=(small, process(), LOSER))["unprofitable_processes"]
    assert found.gain_bytes == 4 * MIB + 1
    assert found.evidence["worst_tgid"] == 31
    assert found.commands[0] == "systemctl edit u.service    # [Service] MemoryKSM=no"


def test_a_loss_before_two_full_scans_is_no_certainty() -> None:
    early = advised(now={"general_profit": -1, "full_scans": 0}, grew={"full_scans": 1})
    assert early["negative_profit"].confidence == "possible"
    assert "second full scan" in early["negative_profit"].why
    assert advised(now={"general_profit": -1})["negative_profit"].confidence == "sure"


@pytest.mark.parametrize(
    ("loser", "way"),
    [
        (process(31, vm="guest-a", profit_bytes=-3 * MIB), "mem-merge=off"),
        (process(31, cgroup="/x/web.service", profit_bytes=-3 * MIB), "systemctl edit web.service"),
        (process(31, cgroup="/", profit_bytes=-3 * MIB), "PR_SET_MEMORY_MERGE, 0"),
        (process(31, cgroup=None, merge_any=False, profit_bytes=-3 * MIB), "MADV_UNMERGEABLE"),
    ],
)
def test_each_process_is_opted_out_the_way_it_came_in(loser: Any, way: str) -> None:
    assert way in advised(processes=(loser,))["unprofitable_processes"].commands[0]


def test_memory_seen_for_the_first_time_is_not_surely_changing() -> None:
    idle = (process(31, merging_pages=0),)
    now = {"pages_volatile": 50_021, "pages_unshared": 7_970}
    told = [
        advised(now=now, scans=scans, processes=idle, knobs={"smart_scan": 0})["volatile_memory"]
        for scans in (1, 2)
    ]
    assert [one.confidence for one in told] == ["possible", "likely"]
    assert ["first time" in one.why for one in told] == [True, False]


def test_raising_the_sharing_limit_says_whether_unmerging_fits() -> None:
    now = {"stable_node_chains": 3, "stable_node_dups": 409}
    found = advised(now=now)["sharing_limit"]
    assert found.gain_bytes == 406 * 4096
    # 256 * 409 / 3 = 34,901: the next power of two is 65,536.
    assert found.commands == (
        "echo 2 > /sys/kernel/mm/ksm/run",
        "echo 65536 > /sys/kernel/mm/ksm/max_page_sharing",
        "echo 1 > /sys/kernel/mm/ksm/run",
    )
    assert "which there is" in found.risks
    short = advised(now=now, mem_available_bytes=MIB)
    assert "NOT" in short["sharing_limit"].risks
    assert "overcommitted" in short


def test_zero_pages_spare_their_list_entries_and_ksm_pages() -> None:
    found = advised(zero_filled=521, knobs={"use_zero_pages": 0})["zero_pages_unused"]
    assert found.gain_bytes == 521 * 64 + 3 * 4096


def test_before_6_6_zero_pages_are_said_to_be_uncounted() -> None:
    found = advised(zero_filled=521, knobs={"use_zero_pages": 0}, kernel="6.1.0")
    assert "6.6" in found["zero_pages_unused"].risks


def test_churn_names_who_wrote_most_and_from_where() -> None:
    writer = process(41, comm="cache", breaks=199, cgroup="/cache.service")
    found = advised(
        grew=COPIED, merges=401, processes=(process(breaks=11), writer),
        writers=(Writer(41, "cache", "libc.so.6+0x1", 199),),
    )["churn"]  # fmt: skip
    assert "cache (41) 199 times, shop (4007) 11 times" in found.why
    assert "libc.so.6+0x1 (199)" in found.why
    assert found.commands[0].startswith("systemctl edit cache.service")
    assert found.confidence == "likely"
    blind = advised(grew=COPIED, merges=401)["churn"]
    assert "--cow" in blind.commands[0]
    assert blind.confidence == "possible"


def test_merges_that_nobody_counted_are_at_least_the_growth_and_the_copies() -> None:
    found = advised(grew={**COPIED, "pages_sharing": 101})["churn"]
    assert found.evidence["merges"] == 312
    assert "at least 312" in found.why


def test_a_kernel_that_loses_prctl_at_exec_is_told_when_nothing_is_registered() -> None:
    fire = CASES["nothing_registered"][0]
    assert "exec" in advised(**fire, kernel="6.8.1")["nothing_registered"].risks
    assert "exec" not in advised(**fire, kernel="6.10.0")["nothing_registered"].risks


def test_what_helps_most_comes_first() -> None:
    found = advice(
        Situation(
            host(
                processes=(process(), LOSER),
                zero_filled=67,
                knobs={"use_zero_pages": 0, "smart_scan": 0},
                grew=BUSY,
                mem_available_bytes=MIB,
            )
        )
    )
    order = [one.id for one in found]
    assert order[:3] == ["overcommitted", "unprofitable_processes", "zero_pages_unused"]
    assert order.index("scans_too_fast") < order.index("smart_scan_off")
