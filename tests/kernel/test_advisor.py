from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide

SECOND = 1_000_000_000
KNOBS = AdvisorKnobs()


def decisions(
    scans: int,
    *,
    seconds: float,
    cpu_percent: float,
    pages: int = 500,
    knobs: AdvisorKnobs = KNOBS,
    cpu_before: int = 0,
) -> tuple[list[int], list[AdvisorState], list[int]]:
    """pages_to_scan, the state and the CPU share after each of so many equal scans."""
    state, cpu = AdvisorState(), cpu_before
    chosen, states, shares = [], [], []
    for _ in range(scans):
        cpu += int(seconds * SECOND * cpu_percent / 100)
        made = decide(
            state, knobs, pages_to_scan=pages, scan_ns=int(seconds * SECOND), ksmd_cpu_ns=cpu
        )
        state, pages = made.state, made.pages_to_scan
        chosen.append(pages)
        states.append(state)
        shares.append(made.cpu_percent)
    return chosen, states, shares


@pytest.mark.parametrize(
    ("seconds", "cpu_percent", "chosen"),
    # The examples of the specification, section 6.
    [
        (10, 5, [1000, 2000, 4000, 8000, 16000]),
        (400, 20, [300, 306, 397, 595, 975]),
        (1, 1, [5000, 30000, 30000]),
    ],
)
def test_the_specification_s_examples(
    seconds: float, cpu_percent: float, chosen: list[int]
) -> None:
    found, _, shares = decisions(len(chosen), seconds=seconds, cpu_percent=cpu_percent)
    assert found == chosen
    assert set(shares) == {cpu_percent}


def test_the_change_of_scans_of_equal_length_begins_low_and_rises_to_100() -> None:
    _, states, _ = decisions(40, seconds=10, cpu_percent=20)
    assert [state.change for state in states[:5]] == [30, 51, 65, 75, 82]
    # Whole numbers only: 30 + 70 * 97 // 100 is 97 again.
    assert states[-1].change == 97


def test_a_scan_that_takes_longer_than_the_last_counts_more() -> None:
    first = decide(AdvisorState(), KNOBS, pages_to_scan=500, scan_ns=10 * SECOND, ksmd_cpu_ns=0)
    second = decide(first.state, KNOBS, pages_to_scan=500, scan_ns=20 * SECOND, ksmd_cpu_ns=0)
    assert first.state.change == 30
    assert second.state.change == (70 * 30 + 30 * 200) // 100


def test_a_scan_lasts_a_second_at_least_and_uses_a_percent_at_least() -> None:
    made = decide(AdvisorState(), KNOBS, pages_to_scan=500, scan_ns=1, ksmd_cpu_ns=1)
    assert (made.scan_time, made.cpu_percent) == (1, 1)
    assert made.state == AdvisorState(1, 30, 1)


def test_seconds_and_percents_are_whole_ones() -> None:
    made = decide(
        AdvisorState(cpu_ns=SECOND), KNOBS,
        pages_to_scan=500, scan_ns=3 * SECOND - 1, ksmd_cpu_ns=SECOND + 199_999_999,
    )  # fmt: skip
    # 199 ms in 2 s.
    assert (made.scan_time, made.cpu_percent) == (2, 9)


def test_the_first_scan_of_the_mode_pays_for_all_cpu_time_since_boot() -> None:
    _, _, shares = decisions(3, seconds=10, cpu_percent=5, cpu_before=1000 * SECOND)
    assert shares == [10_005, 5, 5]


def test_pages_never_exceed_the_maximum_but_may_fall_below_the_initial_ones() -> None:
    most = AdvisorKnobs(max_pages_to_scan=7)
    assert decisions(5, seconds=1, cpu_percent=1, knobs=most)[0] == [7] * 5
    # 500 pages in 2000 s with all of a core: at the floor of 10 % less and less suffices.
    chosen, _, _ = decisions(7, seconds=1, cpu_percent=100)
    assert min(chosen) < 500


def test_a_busy_ksmd_is_held_to_its_share() -> None:
    # Far too slow for the target, but with 70 % of a core already.
    chosen, _, _ = decisions(1, seconds=4000, cpu_percent=70, pages=700)
    assert chosen == [700]
    half = AdvisorKnobs(max_cpu=35)
    assert decisions(1, seconds=4000, cpu_percent=70, pages=700, knobs=half)[0] == [350]


def test_a_hundred_times_the_pages_is_a_number_of_32_bits() -> None:
    """The kernel's product overflows; with 2**32 / 100 pages next to nothing is left of it."""
    pages = (1 << 32) // 100 + 1
    knobs = AdvisorKnobs(max_pages_to_scan=(1 << 32) - 1, target_scan_time=1)
    made = decide(
        AdvisorState(), knobs, pages_to_scan=pages, scan_ns=SECOND, ksmd_cpu_ns=10 * SECOND
    )
    # Without the overflow it would be about a third of the pages: change is 30.
    assert made.pages_to_scan == pages // 1000 * 10


@given(
    st.builds(AdvisorState, st.integers(0, 5000), st.integers(0, 500), st.integers(0, 9 * SECOND)),
    st.builds(AdvisorKnobs, st.integers(0, 100), st.integers(0, 1 << 32), st.integers(1, 1 << 20)),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 1 << 43),
    st.integers(9 * SECOND, 1 << 43),
)
def test_any_decision_is_a_possible_one(
    state: AdvisorState, knobs: AdvisorKnobs, pages: int, scan_ns: int, cpu_ns: int
) -> None:
    made = decide(state, knobs, pages_to_scan=pages, scan_ns=scan_ns, ksmd_cpu_ns=cpu_ns)
    assert 0 <= made.pages_to_scan <= knobs.max_pages_to_scan
    cost = max(1, pages // made.cpu_percent)
    assert made.pages_to_scan >= min(10 * cost, knobs.max_pages_to_scan)
    assert made.pages_to_scan <= max(cost * knobs.max_cpu, 10 * cost)
    assert made.scan_time >= 1
    assert made.cpu_percent >= 1
    assert made.state.scan_time == made.scan_time
    assert made.state.cpu_ns == cpu_ns
