from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksmtrace.kernel.sysfs import (
    COUNTERS,
    COUNTERS_BY_NAME,
    KNOBS,
    KNOBS_BY_NAME,
    HostSampler,
    ksmd_pid,
    parse_ksm_stat,
    parse_vmstat,
    read_knob,
    read_ksm_stat,
    read_number,
)

FOUR_LINES = """\
ksm_rmap_items 10007
ksm_zero_pages 13
ksm_merging_pages 503
ksm_process_profit -4099
"""
SIX_LINES = FOUR_LINES + "ksm_merge_any: no\nksm_mergeable: yes\n"


@pytest.fixture(name="ksm")
def make_ksm(tmp_path: Path) -> Path:
    """The files of a kernel before the advisor and smart scan."""
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, text in {
        "run": "1\n",
        "pages_to_scan": "101\n",
        "full_scans": "17\n",
        "pages_shared": "0\n",
        "pages_volatile": "-3\n",
        "general_profit": "-409600\n",
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(name="proc")
def make_proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def process(proc: Path, pid: int, **files: str) -> Path:
    folder = proc / str(pid)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_every_counter_and_knob_is_declared_once() -> None:
    assert len(COUNTERS_BY_NAME) == len(COUNTERS)
    assert len(KNOBS_BY_NAME) == len(KNOBS)
    assert not set(COUNTERS_BY_NAME) & set(KNOBS_BY_NAME)


def test_an_absent_file_is_none_and_never_zero(ksm: Path) -> None:
    assert read_number(ksm / "pages_skipped") is None
    assert read_number(ksm / "pages_shared") == 0
    assert read_knob("smart_scan", ksm) is None
    assert read_number(ksm) is None


@pytest.mark.parametrize("text", ["", "\n", "many", "1 2", "0x10", "1.5"])
def test_a_file_that_is_no_number_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "number").write_text(text)
    assert read_number(tmp_path / "number") is None


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_numbers_keep_their_sign(tmp_path: Path, number: int) -> None:
    (tmp_path / "number").write_text(f"{number}\n")
    assert read_number(tmp_path / "number") == number


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("[none] scan-time\n", "none"),
        ("none [scan-time]\n", "scan-time"),
        ("scan-time\n", "scan-time"),
        ("101\n", "101"),
    ],
)
def test_of_a_choice_the_chosen_word_is_read(ksm: Path, text: str, chosen: str) -> None:
    (ksm / "advisor_mode").write_text(text)
    assert read_knob("advisor_mode", ksm) == chosen


@pytest.fixture(name="vmstat")
def make_vmstat(tmp_path: Path) -> Path:
    place = tmp_path / "vmstat"
    place.write_text("nr_free_pages 90007\nksm_swpin_copy 5\ncow_ksm 70001\nnr_unstable 0\n")
    return place


def test_a_sample_has_what_the_kernel_has_and_nothing_else(
    ksm: Path, vmstat: Path, proc: Path
) -> None:
    sampler = HostSampler(ksm, vmstat, proc)
    try:
        assert sampler.counters() == {
            "full_scans": 17,
            "pages_shared": 0,
            "pages_volatile": -3,
            "general_profit": -409600,
            "cow_ksm": 70001,
            "ksm_swpin_copy": 5,
        }
        assert sampler.knobs() == {"run": "1", "pages_to_scan": "101"}
    finally:
        sampler.close()


def test_a_sampler_sees_what_changed_since_the_last_sample(
    ksm: Path, vmstat: Path, proc: Path
) -> None:
    process(proc, 47, comm="ksmd\n", cmdline="", schedstat="1009 0 0\n")
    (ksm / "advisor_mode").write_text("[none] scan-time\n")
    sampler = HostSampler(ksm, vmstat, proc)
    try:
        assert sampler.counters()["ksmd_cpu_ns"] == 1009
        (ksm / "pages_shared").write_text("307\n")
        (ksm / "advisor_mode").write_text("none [scan-time]\n")
        (proc / "47" / "schedstat").write_text("100003 0 0\n")
        assert sampler.counters()["pages_shared"] == 307
        assert sampler.counters()["ksmd_cpu_ns"] == 100003
        assert sampler.knobs()["advisor_mode"] == "scan-time"
    finally:
        sampler.close()


def test_without_schedstats_cpu_time_is_counted_in_ticks(
    ksm: Path, vmstat: Path, proc: Path
) -> None:
    numbers = " ".join(str(n) for n in range(4, 53))
    process(proc, 47, comm="ksmd\n", cmdline="", stat=f"47 (ksmd) S {numbers}\n")
    sampler = HostSampler(ksm, vmstat, proc)
    try:
        # utime and stime are the 14th and the 15th field.
        assert sampler.counters()["ksmd_cpu_ns"] == (14 + 15) * 10_000_000
    finally:
        sampler.close()


def test_a_host_without_ksm_gives_an_empty_sample(tmp_path: Path, proc: Path) -> None:
    sampler = HostSampler(tmp_path / "no", tmp_path / "such", proc)
    try:
        assert sampler.counters() == {}
        assert sampler.knobs() == {}
    finally:
        sampler.close()


def test_only_the_kernel_thread_is_ksmd(proc: Path) -> None:
    assert ksmd_pid(proc) is None
    process(proc, 4001, comm="ksmd\n", cmdline="ksmd\0--impostor\0")
    process(proc, 43, comm="ksmdx\n", cmdline="")
    (proc / "self").mkdir()
    assert ksmd_pid(proc) is None
    process(proc, 47, comm="ksmd\n", cmdline="")
    assert ksmd_pid(proc) == 47


def test_four_lines_of_ksm_stat() -> None:
    assert parse_ksm_stat(FOUR_LINES) == {
        "ksm_rmap_items": 10007,
        "ksm_zero_pages": 13,
        "ksm_merging_pages": 503,
        "ksm_process_profit": -4099,
    }


def test_six_lines_of_ksm_stat_with_yes_and_no() -> None:
    values = parse_ksm_stat(SIX_LINES)
    assert len(values) == 6
    assert (values["ksm_merge_any"], values["ksm_mergeable"]) == (0, 1)
    assert parse_ksm_stat("ksm_merge_any: yes\n") == {"ksm_merge_any": 1}


def test_lines_of_a_later_kernel_are_left_out() -> None:
    assert parse_ksm_stat("ksm_mood 7\nksm_rmap_items 3\n") == {"ksm_rmap_items": 3}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*COUNTERS_BY_NAME, "other", ""]),
            st.sampled_from([" ", ": ", "\t", ""]),
            st.one_of(st.text(max_size=7), st.text("-0123456789", max_size=5)),
        ),
        max_size=7,
    )
)
def test_garbage_in_ksm_stat_never_raises(lines: list[tuple[str, str, str]]) -> None:
    values = parse_ksm_stat("\n".join("".join(line) for line in lines))
    assert all(isinstance(value, int) for value in values.values())


@example("ksm_process_profit --5")
@example("ksm_rmap_items " + "7" * 5003)
@given(st.text())
def test_any_text_as_ksm_stat_never_raises(text: str) -> None:
    parse_ksm_stat(text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(-(1 << 63), (1 << 63) - 1)
            for name in ("ksm_rmap_items", "ksm_merging_pages", "ksm_process_profit")
        },
    )
)
def test_numbers_of_ksm_stat_are_read_as_written(values: dict[str, int]) -> None:
    assert parse_ksm_stat("".join(f"{name} {n}\n" for name, n in values.items())) == values


def test_a_process_before_6_1_shows_its_merging_pages_elsewhere(proc: Path) -> None:
    process(proc, 11, ksm_stat="ksm_rmap_items 5\n", ksm_merging_pages="3\n")
    assert read_ksm_stat(11, proc) == {"ksm_rmap_items": 5, "ksm_merging_pages": 3}


def test_a_process_that_is_gone_has_no_ksm_stat(proc: Path) -> None:
    assert read_ksm_stat(11, proc) is None


@given(st.dictionaries(st.sampled_from(["cow_ksm", "ksm_swpin_copy"]), st.integers(0, 1 << 63)))
def test_of_vmstat_only_ksm_is_read(values: dict[str, int]) -> None:
    lines = ["nr_free_pages 7", *(f"{name} {n}" for name, n in values.items()), "cow_ksmx 3"]
    assert parse_vmstat("\n".join(lines)) == values
