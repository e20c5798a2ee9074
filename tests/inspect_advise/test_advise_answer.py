"""The verdict, the risks, what to know of a kernel; and that any facts give a page."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rich.cells import cell_len
from rich.console import Console
from support.advised import SECONDS, WELL_BEFORE, WELL_KNOBS, host, process

from ksmtrace.inspect.advise.advice import Answer, SharedBy, SharedPair
from ksmtrace.inspect.advise.answer import answer
from ksmtrace.inspect.advise.caveats import BEHAVIOURS
from ksmtrace.inspect.advise.facts import Facts, Process, Series, Writer
from ksmtrace.inspect.advise.rules.table import RULES
from ksmtrace.inspect.advise.situation import Situation
from ksmtrace.views.advise import render_answer

NOTHING = dict.fromkeys(("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"), 0)


def page(found: Answer) -> str:
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(render_answer(found))
    return out.getvalue()


def flat(found: Answer) -> str:
    return " ".join(page(found).split())


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (host(), "pays"),
        (host(now={"general_profit": -1}), "loses"),
        (host(now={**NOTHING, "general_profit": 0}), "idle"),
        (host(now={**NOTHING, "general_profit": 0}, knobs={"run": 0}), "off"),
        (host(knobs={"run": 0}), "pays"),
        (host(now={"pages_sharing": None}), "unknown"),
        (host(now={"pages_sharing": 0, "general_profit": 0}), "idle"),
        # 156 MiB are worth 3.8 % of a core.
        (host(grew={"ksmd_cpu_ns": 390_000_000}), "dear"),
        (host(grew={"ksmd_cpu_ns": 370_000_000}), "pays"),
        (host(grew={"ksmd_cpu_ns": 390_000_000, "pages_sharing": 4_001}), "pays"),
    ],
)
def test_the_verdict(facts: Facts, state: str) -> None:
    assert answer(facts).verdict.state == state


def test_the_figures_are_the_kernels_own() -> None:
    figures = answer(
        host(grew={"pages_sharing": 1_009}, now={"ksm_zero_pages": 53})
    ).verdict.figures
    assert figures["saved_pages"] == 40_009 + 1_009 + 53
    assert figures["saved_bytes"] == (40_009 + 1_009 + 53) * 4096
    assert figures["rmap_items"] == 101_012
    assert figures["ksmd_percent_of_one_core"] == pytest.approx(0.5)
    assert figures["ksmd_percent_of_host"] == pytest.approx(0.5 / 3)
    mean = figures["saved_mean_bytes"]
    assert mean == pytest.approx((40_009 + 53 + 1_009 * 0.45) * 4096, rel=1e-4)
    assert figures["ksmd_cpu_s_per_gib_saved"] == pytest.approx(0.05 / mean * (1 << 30))
    assert figures["ksmd_cpu_s_per_gib_saved_hour"] == pytest.approx(18 / mean * (1 << 30))
    assert figures["saved_bytes_per_s"] == pytest.approx(100.9 * 4096, rel=0.01)


def test_a_kernel_without_general_profit_has_it_reckoned() -> None:
    old = answer(host(now={"general_profit": None}, kernel="6.1.0")).verdict.figures
    assert old["profit_bytes"] == 40_009 * 4096 - 100_003 * 64
    blind = host(now={"general_profit": None}, rmap_item_bytes=None)
    assert answer(blind).verdict.figures["profit_bytes"] is None


def test_a_recording_at_whose_end_all_had_gone_is_judged_at_its_fullest() -> None:
    saved = np.array([0.0, 11, 13, 7, 0])
    facts = host(live=False, series=Series(np.arange(5.0), {"pages_sharing": saved}))
    found = answer(facts)
    assert found.verdict.figures["saved_pages"] == 13
    assert found.verdict.figures["judged_at_s"] == 2
    live = host(live=True, series=facts.series)
    assert answer(live).verdict.figures["saved_pages"] == 0


@pytest.mark.parametrize(
    ("available", "swap", "fits"),
    [(5 << 30, 0, True), (1 << 20, 1 << 20, False), (1 << 20, 5 << 30, True), (None, 1, None)],
)
def test_whether_the_host_survives_unsharing(
    available: int | None, swap: int, fits: bool | None
) -> None:
    found = answer(host(mem_available_bytes=available, swap_free_bytes=swap)).overcommit
    assert found.needed_bytes == 40_009 * 4096
    assert found.fits is fits
    words = {True: "it fits", False: "does NOT fit", None: "not known"}
    assert words[fits] in found.sentence


@pytest.mark.parametrize(
    ("behaviour", "matters", "beside"),
    [
        ("visits_per_batch", {"kernel": "6.9.0"}, {"kernel": "6.10.0"}),
        ("forked_counts", {"kernel": "6.17.0"}, {"kernel": "6.12.117"}),
        ("prctl_lost_at_exec", {"kernel": "6.4.6"}, {"kernel": "6.7.0"}),
        ("prctl_unscanned_after_exec", {"kernel": "6.8.1"}, {"kernel": "6.10.0"}),
        ("opt_in_dropped", {"kernel": "6.18.2"}, {"kernel": "6.18.32"}),
        ("negative_zero_pages", {"now": {"ksm_zero_pages": -3}}, {"now": {"ksm_zero_pages": 0}}),
        ("zero_pages_uncounted", {"kernel": "6.5.0"}, {"kernel": "6.6.0"}),
        ("no_access_unmerged", {"kernel": "6.1.0"}, {"kernel": "6.5.0"}),
        (
            "skipped_are_volatile",
            {"grew": {"pages_skipped": 7}, "now": {"pages_volatile": 57_991, "pages_unshared": 0}},
            {"grew": {"pages_skipped": 7}},
        ),
    ],
)
def test_a_kernels_behaviour_is_told_where_it_matters(
    behaviour: str, matters: dict[str, Any], beside: dict[str, Any]
) -> None:
    assert behaviour in {one.id for one in answer(host(**matters)).caveats}
    assert behaviour not in {one.id for one in answer(host(**beside)).caveats}


def test_every_behaviour_is_tried_above() -> None:
    mark = next(
        m
        for m in test_a_kernels_behaviour_is_told_where_it_matters.pytestmark  # type: ignore[attr-defined]  # set by pytest
    )
    assert [case[0] for case in mark.args[1]] == [one.id for one in BEHAVIOURS]


SHARED = SharedBy(
    "vm", ("a", "b", "c"), 101, 89, 89 * 4096,
    (SharedPair("a", "b", 83, 83 * 4096), SharedPair("b", "c", 6, 6 * 4096)),
)  # fmt: skip


def test_sharing_across_guests_is_told_with_the_pairs_and_the_danger() -> None:
    text = flat(answer(host(shared=(SHARED,))))
    assert "89 of 101 KSM pages (356.0 KiB) are shared across 3 virtual machines" in text
    assert "a and b: 83 pages, 332.0 KiB" in text
    assert "by timing" in text
    assert "mem-merge=off" in text


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (None, "It can't be told"),
        ((), "Nobody: no registered process"),
        ((SharedBy("cgroup", ("/x",), 5, 0, 0, ()),), "One cgroup only, /x"),
        ((SharedBy("cgroup", ("/x", "/y"), 5, 0, 0, ()),), "none maps another's"),
        ((SharedBy("vm", (), 0, 0, 0, ()),), "No KSM page is mapped by any virtual machine"),
    ],
)
def test_no_sharing_is_told_apart_from_not_knowing(
    shared: tuple[SharedBy, ...] | None, words: str
) -> None:
    text = flat(answer(host(shared=shared)))
    assert words in text
    assert "by timing" not in text


def test_a_host_that_is_well_gets_a_short_page() -> None:
    text = page(answer(host()))
    assert len(text.splitlines()) < 24
    assert "no rule finds anything" in text


def test_a_very_ill_host_still_gets_one_page() -> None:
    ill = host(
        processes=tuple(process(n, profit_bytes=-9 << 20) for n in range(3, 40)),
        knobs={"smart_scan": 0, "use_zero_pages": 0, "merge_across_nodes": 0},
        now={"general_profit": -1, "stable_node_chains": 1, "stable_node_dups": 4_001},
        grew={"ksmd_cpu_ns": 9_900_000_000, "cow_ksm": 50_021},
        nodes=2,
        mem_available_bytes=0,
        shared=(SHARED,),
    )
    found = answer(ill)
    text = page(found)
    assert len(found.advice) >= 7
    assert len(text.splitlines()) <= 75
    assert all(one.id in text for one in found.advice[4:])


def test_what_a_process_calls_itself_cannot_steer_the_terminal() -> None:
    rogue = process(31, comm="\x1b[2J[red]", cgroup=None, profit_bytes=-9 << 20)
    assert "\x1b" not in page(answer(host(processes=(rogue,))))


COUNTS = st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62), st.integers(0, 1 << 22))
NATURAL = st.one_of(st.none(), st.integers(0, 1 << 62), st.integers(0, 5))
SECONDS_ = st.one_of(st.none(), st.floats(0, 1e7))
WORDS = st.one_of(st.none(), st.text(max_size=90))
PROCESSES = st.one_of(
    st.none(),
    st.lists(
        st.builds(Process, st.integers(1, 1 << 22), WORDS, WORDS, WORDS, NATURAL, NATURAL, COUNTS,
                  COUNTS, st.one_of(st.none(), st.booleans()), NATURAL),
        max_size=6,
    ).map(tuple),
)  # fmt: skip
KNOBS = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(st.sampled_from(("0", "1", "2", "none", "scan-time", "", "x", value)),
                        st.integers(0, 1 << 32).map(str))
        for name, value in WELL_KNOBS.items()
    },
)  # fmt: skip
SHAREDS = st.one_of(
    st.none(),
    st.lists(
        st.builds(
            SharedBy, st.sampled_from(("vm", "cgroup")),
            st.lists(st.text(max_size=90), max_size=4).map(tuple), st.integers(0, 1 << 40),
            st.integers(0, 1 << 40), st.integers(0, 1 << 60),
            st.lists(st.builds(SharedPair, st.text(max_size=90), st.text(max_size=90),
                               st.integers(0, 1 << 40), st.integers(0, 1 << 60)),
                     max_size=5).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)  # fmt: skip


@st.composite
def series(draw: st.DrawFn) -> Series:
    length = draw(st.integers(0, 5))
    at = np.cumsum(draw(arrays.arrays(np.float64, length, elements=st.floats(0, 1e6))))
    numbers = st.one_of(
        st.just(np.nan), st.integers(-(1 << 53), 1 << 53).map(float),
        st.integers(0, 1000).map(float),
    )  # fmt: skip
    names = draw(st.lists(st.sampled_from(sorted(WELL_BEFORE)), unique=True))
    return Series(at, {n: draw(arrays.arrays(np.float64, length, elements=numbers)) for n in names})


ANY_FACTS = st.builds(
    Facts,
    source=st.text(max_size=90),
    kernel=st.sampled_from(("6.18.2", "6.1.0", "6.8.1", "6.4.6", "unknown", "2.6.32", "", "7.3")),
    live=st.booleans(),
    series=series(),
    knobs=KNOBS,
    page_bytes=st.sampled_from((4096, 65536)),
    rmap_item_bytes=st.one_of(st.none(), st.just(64)),
    cpus=st.one_of(st.none(), st.integers(1, 4096)),
    memory_bytes=NATURAL,
    observed_s=st.floats(0, 1e9),
    stepped=st.booleans(),
    copies_by_order=st.booleans(),
    processes=PROCESSES,
    scan_s=SECONDS_,
    scans=NATURAL,
    merges=NATURAL,
    writers=st.one_of(
        st.none(),
        st.lists(
            st.builds(Writer, st.integers(0, 99), WORDS, WORDS, st.integers(0, 1 << 40)), max_size=3
        ).map(tuple),
    ),
    zero_filled=NATURAL,
    mergeable_bytes=NATURAL,
    nodes=st.one_of(st.none(), st.integers(1, 64)),
    mem_available_bytes=NATURAL,
    swap_free_bytes=NATURAL,
    shared=SHAREDS,
    unknown=st.lists(st.text(max_size=90), max_size=2).map(tuple),
)


@settings(deadline=None, max_examples=100)
@given(ANY_FACTS)
def test_any_facts_give_a_page_of_80_columns_and_json(facts: Facts) -> None:
    found = answer(facts)
    assert max(map(cell_len, page(found).splitlines())) <= 80
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    ids = [one["id"] for one in told["advice"]]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {rule.id for rule in RULES}
    for one in found.advice:
        assert one.commands
        assert one.why.endswith(".")
        assert one.brings.endswith(".")
        assert one.risks.endswith(".")
        assert (one.gain_bytes or 0) >= 0


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 1 << 32), st.integers(1, 10_000), st.integers(1, 10_000), st.floats(1, 10_000)
)
def test_the_proposed_pace_keeps_its_word(
    items: int, sleep: int, ns_per_visit: int, target: float
) -> None:
    visits = 1_000_003
    now = Situation(
        host(
            now={**NOTHING, "pages_unshared": items},
            grew={"pages_scanned": visits, "ksmd_cpu_ns": visits * ns_per_visit},
            knobs={"sleep_millisecs": sleep},
        )
    )
    pace = now.pace_for(target)
    assert pace is not None
    assert pace.cpu_percent is not None
    busy = items * ns_per_visit / 1e9
    # A scan that is due within the target is: but for the last batch's sleep.
    assert pace.scan_s <= max(target, busy / 0.7) + sleep / 1e3 + 1e-6
    assert pace.cpu_percent <= 100
    assert SECONDS == 10
