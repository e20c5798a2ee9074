"""UKSM's files: each declared once, read as they are, absent ones never 0."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fake_uksm import FILES, FakeUksm

from ksmtrace.kernel import sysfs
from ksmtrace.kernel.uksm import (
    COUNTERS,
    COUNTERS_BY_UKSM_NAME,
    GOVERNORS,
    KNOBS,
    KNOBS_BY_UKSM_NAME,
    SYSFS_COUNTERS,
    UksmSampler,
    cpu_percent,
    parse_count,
    parse_cpu_ratios,
    parse_eval_intervals,
    parse_governors,
)

WORDS = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=7)
ANY_TEXT = st.one_of(st.text(), st.text("0123456789 MAX/[]*^\n-+.", max_size=23))


@pytest.fixture(name="fake")
def make_fake(tmp_path: Path) -> FakeUksm:
    return FakeUksm(tmp_path)


def sample(fake: FakeUksm) -> tuple[dict[str, int], dict[str, str]]:
    sampler = UksmSampler(fake.uksm, fake.proc)
    try:
        return sampler.counters(), sampler.knobs()
    finally:
        sampler.close()


def test_every_file_is_declared_once_and_the_fake_has_each() -> None:
    assert len(COUNTERS_BY_UKSM_NAME) == len(COUNTERS)
    assert len(KNOBS_BY_UKSM_NAME) == len(KNOBS)
    assert sorted([*SYSFS_COUNTERS, *KNOBS_BY_UKSM_NAME]) == sorted(FILES)


def test_a_sample_is_what_the_files_say(fake: FakeUksm) -> None:
    counters, knobs = sample(fake)
    assert counters == {
        "pages_shared": 101, "pages_sharing": 1009, "pages_unshared": 307,
        "pages_scanned": 100003, "full_scans": 17, "hash_strength": 67, "sleep_times": 1013,
        "ema_per_page_time": 509, "zero_pages": 211, "cow_ksm": 23,
        "uksmd_cpu_ns": 1_500_000_007,
    }  # fmt: skip
    assert knobs == {
        "run": "1", "cpu_governor": "full", "max_cpu_percentage": "95",
        "cpu_ratios": "20 40 MAX/4 MAX/1", "eval_intervals": "1000 500 200 50",
        "sleep_millisecs": "100", "abundant_threshold": "10", "thrash_threshold": "50",
    }  # fmt: skip


def test_the_defaults_are_what_a_fresh_kernel_shows() -> None:
    shown = {
        knob.name: FILES[knob.name].replace("[full] medium low quiet", "full") for knob in KNOBS
    }
    assert {knob.name: knob.default for knob in KNOBS} == {n: t.strip() for n, t in shown.items()}


def test_the_label_of_vmstat_that_stands_at_another_counter_is_not_believed(fake: FakeUksm) -> None:
    assert "nr_uksm_zero_pages 999983" in (fake.proc / "vmstat").read_text()
    assert sample(fake)[0]["zero_pages"] == 211
    (fake.proc / "meminfo").write_text("MemTotal: 8000000 kB\n")
    assert "zero_pages" not in sample(fake)[0]


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_absent_and_not_zero(fake: FakeUksm, name: str) -> None:
    whole = sample(fake)
    (fake.uksm / name).unlink()
    counters, knobs = sample(fake)
    assert name not in {**counters, **knobs}
    assert {**whole[0], **whole[1]}.items() > {**counters, **knobs}.items()
    assert len(counters) + len(knobs) == len(whole[0]) + len(whole[1]) - 1


def test_a_sampler_sees_what_changed(fake: FakeUksm) -> None:
    sampler = UksmSampler(fake.uksm, fake.proc)
    try:
        fake.put(pages_sharing="2003", cpu_governor="full medium [low] quiet ")
        fake.zero_pages(0)
        fake.cpu(1_700_000_003)
        assert sampler.counters()["pages_sharing"] == 2003
        assert sampler.counters()["zero_pages"] == 0
        assert sampler.counters()["uksmd_cpu_ns"] == 1_700_000_003
        assert sampler.knobs()["cpu_governor"] == "low"
    finally:
        sampler.close()


def test_a_program_called_uksmd_is_not_the_kernels_thread(fake: FakeUksm) -> None:
    (fake.proc / "47" / "cmdline").write_text("uksmd\0-x\0")
    assert sysfs.thread_pid("uksmd", fake.proc) is None
    assert "uksmd_cpu_ns" not in sample(fake)[0]


def test_a_host_without_uksm_gives_nothing(tmp_path: Path, fake: FakeUksm) -> None:
    sampler = UksmSampler(tmp_path / "nowhere", fake.proc)
    try:
        assert sampler.knobs() == {}
        assert set(sampler.counters()) == {"zero_pages", "cow_ksm", "uksmd_cpu_ns"}
    finally:
        sampler.close()


def test_garbage_in_a_counter_is_unknown(fake: FakeUksm) -> None:
    fake.put(pages_shared="many", pages_sharing="-3", pages_scanned=str(1 << 64))
    counters, _ = sample(fake)
    assert not {"pages_shared", "pages_sharing", "pages_scanned"} & set(counters)


@given(st.integers(0, (1 << 63) - 1), st.sampled_from(["", "\n", " \n"]))
def test_counts_are_read_as_written(number: int, end: str) -> None:
    assert parse_count(f"{number}{end}") == number


@given(st.integers(0, (1 << 32) - 1), st.integers(1, 40))
def test_a_count_that_overflowed_is_scaled_or_unknown(number: int, power: int) -> None:
    value = number << power
    expected = value if value < 1 << 63 else None
    assert parse_count(f"{number} * 2^{power}") == expected


@given(st.lists(WORDS, min_size=1, max_size=7, unique=True), st.data())
def test_governors_are_told_with_the_chosen_one(names: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(names))
    text = "".join(f"[{n}] " if n == chosen else f"{n} " for n in names) + "\n"
    governors = parse_governors(text)
    assert (governors.chosen, governors.choices) == (chosen, tuple(names))
    assert governors.unpublished == tuple(n for n in names if n not in GOVERNORS)
    # The recorder keeps the same word.
    assert sysfs.chosen(text) == chosen


def test_two_chosen_governors_are_no_choice() -> None:
    assert parse_governors("[full] [low]").chosen is None
    assert parse_governors("").choices == ()


@given(
    st.lists(
        st.one_of(st.integers(0, 10_000), st.integers(1, 10_000).map(lambda n: -n)),
        min_size=4,
        max_size=4,
    )
)
def test_cpu_ratios_are_read_as_the_kernel_keeps_them(wanted: list[int]) -> None:
    text = "".join(f"MAX/{-n} " if n < 0 else f"{n} " for n in wanted) + "\n"
    kept = [-(10_000 // -n) if n < 0 else n for n in wanted]
    assert parse_cpu_ratios(text) == tuple(kept)


@pytest.mark.parametrize(
    "text",
    [
        "20 40 MAX/4", "20 40 MAX/4 MAX/1 7", "20 40 MAX/0 MAX/1", "20 40 MAX/10007 1",
        "a b c d", "-1 2 3 4",
    ],
)  # fmt: skip
def test_other_cpu_ratios_are_unknown(text: str) -> None:
    assert parse_cpu_ratios(text) is None


def test_the_presets_shares_of_a_cpu() -> None:
    ratios = parse_cpu_ratios("20 40 MAX/4 MAX/1")
    assert ratios == (20, 40, -2500, -10_000)
    assert [cpu_percent(ratio, 95) for ratio in ratios] == [0.2, 0.4, 23.75, 95.0]
    assert [cpu_percent(ratio, 50) for ratio in ratios] == [0.2, 0.4, 12.5, 50.0]


@given(st.lists(st.integers(0, 10**9), max_size=6))
def test_eval_intervals_are_four_numbers(numbers: list[int]) -> None:
    text = "".join(f"{n} " for n in numbers) + "\n"
    assert parse_eval_intervals(text) == (tuple(numbers) if len(numbers) == 4 else None)


@example("7" * 5003)
@example("1 2 3 " + "4" * 5003)
@example("² ³ ⁴ ⁵")
@example("MAX/ 1 2 3")
@example("[] [x")
@given(ANY_TEXT)
def test_no_text_hurts_a_parser(text: str) -> None:
    parse_count(text)
    parse_governors(text)
    parse_cpu_ratios(text)
    parse_eval_intervals(text)


@given(ANY_TEXT)
def test_no_file_hurts_the_sampler(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "sys"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(text, errors="replace")
    (tmp_path / "meminfo").write_text(f"KsmZeroPages: {text} kB\n", errors="replace")
    sampler = UksmSampler(folder, tmp_path)
    try:
        assert all(0 <= number < 1 << 63 for number in sampler.counters().values())
        assert set(sampler.knobs()) == set(KNOBS_BY_UKSM_NAME)
    finally:
        sampler.close()
