from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.foreign_texts import lines_of, printable_events, text_of, with_times_of_losses

from ksmtrace.events.batch import EVENT, EventBatch, concatenate
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KINDS,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.replay.foreign.formats import FORMATS
from ksmtrace.replay.foreign.parse import Account, TextParser

SAMPLES = Path(__file__).parent / "samples"
FORM = st.sampled_from(sorted(FORMATS))
DIGITS = st.sampled_from([6, 9])
SAMPLE_FORMS = {
    "perf.txt": "perf",
    "trace-cmd.txt": "trace-cmd",
    "trace-cmd-dropped.txt": "trace-cmd",
    "tracefs.txt": "tracefs",
    "tracefs-raw-pointers.txt": "tracefs",
    "tracefs-overwritten.txt": "tracefs",
    "trace-pipe.txt": "tracefs",
}


def parse(text: bytes, form: str, *borders: int) -> tuple[EventBatch, Account]:
    """Parse whole lines, in chunks that end at lines' ends."""
    parser = TextParser(FORMATS[form])
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    edges = [0, *sorted(min(border, len(lines)) for border in borders), len(lines)]
    parts = [parser.feed(b"".join(lines[begin:end])) for begin, end in pairwise(edges)]
    return concatenate([*parts, parser.finish()]), parser.account


def sample(name: str) -> tuple[EventBatch, Account]:
    return parse((SAMPLES / name).read_bytes(), SAMPLE_FORMS[name])


def kinds(events: EventBatch) -> dict[str, int]:
    counted = np.bincount(events["kind"], minlength=len(KINDS) + 1)
    return {kind.name: int(counted[kind.id]) for kind in KINDS if counted[kind.id]}


WHOLE_RUN = {
    KSM_ENTER.name: 2,
    "ksm_exit": 2,
    KSM_START_SCAN.name: 5,
    KSM_STOP_SCAN.name: 5,
    KSM_MERGE_ONE_PAGE.name: 10,
    KSM_MERGE_WITH_KSM_PAGE.name: 98,
    KSM_REMOVE_RMAP_ITEM.name: 39,
    KSM_REMOVE_KSM_PAGE.name: 7,
    KSM_ADVISOR.name: 1,
}
"""What all samples of one run of the real ksmd hold: 2 processes with 23, 5 and 3 pages."""


@pytest.mark.parametrize(
    "name", ["perf.txt", "trace-cmd.txt", "tracefs.txt", "tracefs-raw-pointers.txt"]
)
def test_every_event_of_the_real_tools_is_read(name: str) -> None:
    events, account = sample(name)
    assert kinds(events) == WHOLE_RUN
    assert account.events == sum(WHOLE_RUN.values())
    assert account.unreadable == account.lost == account.missing == account.backwards == 0
    assert account.told["cpus"] == 2


def test_the_real_tools_tell_of_the_same_run_the_same() -> None:
    texts = [sample(name)[0] for name in ("perf.txt", "trace-cmd.txt", "tracefs.txt")]
    for slot in ("kind", "pfn", "err", "arg"):
        columns = [events[slot].tolist() for events in texts]
        assert columns[1] == columns[2]
        assert sorted(columns[0]) == sorted(columns[1])
    # Hashed or not, a pointer is the same thing wherever it comes again.
    for slot in ("item", "mm"):
        _, raw = np.unique(texts[1][slot], return_inverse=True)
        pairs = set(zip(raw.tolist(), texts[2][slot].tolist(), strict=True))
        assert len(pairs) == len(set(raw.tolist())) == len(set(texts[2][slot].tolist()))


def test_pointers_are_known_to_be_hashed_or_raw() -> None:
    for name, hashed in (
        ("perf.txt", False),
        ("trace-cmd.txt", False),
        ("tracefs-raw-pointers.txt", False),
        ("tracefs.txt", True),
    ):
        events, account = sample(name)
        named = int(np.count_nonzero(events["item"]) + np.count_nonzero(events["mm"]))
        assert account.pointers.hashed == (named if hashed else 0)
        assert account.pointers.raw == (0 if hashed else named)


def test_nanoseconds_are_read_where_they_are_printed() -> None:
    assert (sample("perf.txt")[0]["ts"] % 1000).any()
    assert (sample("trace-cmd.txt")[0]["ts"] % 1000).any()
    assert not (sample("tracefs.txt")[0]["ts"] % 1000).any()


def test_perfs_header_tells_of_the_host() -> None:
    assert sample("perf.txt")[1].told == {
        "kernel": "6.18.44",
        "machine": "x86_64",
        "cpus": 2,
        "memory_bytes": 24684092 * 1024,
    }


@pytest.mark.parametrize("name", ["trace-pipe.txt", "trace-cmd-dropped.txt"])
def test_a_loss_stands_where_the_text_has_it(name: str) -> None:
    events, account = sample(name)
    place = int(np.flatnonzero(events["kind"] == LOST.id)[0])
    assert account.lost == events["addr"][place] == 108
    assert events["cpu"][place] == events["cpu"][place + 1] == 1
    assert events["ts"][place] == events["ts"][place + 1]
    assert not (events["cpu"][:place] == 1).any()


def test_what_the_header_says_is_overwritten_is_lost_before_each_cpus_first_event() -> None:
    events, account = sample("tracefs-overwritten.txt")
    losses = np.flatnonzero(events["kind"] == LOST.id)
    assert events["addr"][losses].tolist() == [108, 0]
    assert events["cpu"][losses].tolist() == [0, 1]
    assert losses[0] == 0
    # The ring of the one that lost begins where the other tools have the loss.
    pipe, _ = sample("trace-pipe.txt")
    assert losses[1] - 1 == np.flatnonzero(pipe["kind"] == LOST.id)[0]
    assert account.lost == 108
    assert account.missing == 0


@given(printable_events(), FORM, DIGITS)
def test_what_a_tool_prints_is_read_as_it_was(batch: EventBatch, form: str, digits: int) -> None:
    batch["ts"] -= batch["ts"] % 10 ** (9 - digits)
    events, account = parse(text_of(batch, form, digits), form)
    assert np.array_equal(events, with_times_of_losses(batch))
    assert account.unreadable == 0
    assert not account.others


@given(printable_events(), FORM, st.lists(st.integers(0, 23), max_size=5))
def test_any_split_gives_the_same(batch: EventBatch, form: str, borders: list[int]) -> None:
    text = text_of(batch, form)
    whole, account = parse(text, form)
    parts, other = parse(text, form, *borders)
    assert np.array_equal(whole, parts)
    assert account == other


@given(st.data())
def test_any_split_of_a_real_text_gives_the_same(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SAMPLE_FORMS)))
    whole, account = sample(name)
    borders = data.draw(st.lists(st.integers(0, 233), max_size=7))
    parts, other = parse((SAMPLES / name).read_bytes(), SAMPLE_FORMS[name], *borders)
    assert np.array_equal(whole, parts)
    assert account == other


@given(st.data())
def test_a_truncated_real_text_gives_the_events_before_its_end(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SAMPLE_FORMS)))
    text = (SAMPLES / name).read_bytes()
    length = data.draw(st.integers(0, len(text)))
    whole, _ = sample(name)
    begin = text[: text.rfind(b"\n", 0, length) + 1]
    events = TextParser(FORMATS[SAMPLE_FORMS[name]]).feed(begin)
    assert np.array_equal(events, whole[: len(events)])
    lines = [line for line in begin.splitlines() if b"ksm_" in line and line[:1] != b"#"]
    assert int((events["kind"] != LOST.id).sum()) == len(lines)


GARBAGE = st.binary(max_size=47).map(lambda some: some.replace(b"\n", b" ").replace(b"ksm_", b"."))


@given(printable_events(7), FORM, st.lists(GARBAGE, max_size=9), st.randoms())
def test_garbage_between_lines_changes_no_event(
    batch: EventBatch, form: str, garbage: list[bytes], random: object
) -> None:
    batch = batch[batch["kind"] != LOST.id]
    lines = lines_of(batch, form)
    for some in garbage:
        lines.insert(random.randint(0, len(lines)), some + b"\n")  # type: ignore[attr-defined]
    events, account = parse(b"".join(lines), form)
    assert np.array_equal(events[events["kind"] != LOST.id], batch)
    assert account.lines == len(lines)


@given(
    st.lists(st.binary(max_size=67).map(lambda some: some.replace(b"\n", b"")), max_size=9), FORM
)
def test_random_bytes_never_raise(lines: list[bytes], form: str) -> None:
    events, account = parse(b"".join(line + b"\n" for line in lines), form)
    assert events.dtype == EVENT
    assert account.lines == len(lines)


@given(printable_events(5), FORM, st.lists(st.tuples(st.integers(0), st.binary(max_size=3))))
@example(np.zeros(0, EVENT), "perf", [])
def test_spoilt_lines_never_raise_and_are_read_or_counted(
    batch: EventBatch, form: str, changes: list[tuple[int, bytes]]
) -> None:
    text = bytearray(b"".join(lines_of(batch, form)))
    for place, new in changes:
        at = place % (len(text) + 1)
        text[at : at + len(new)] = new
    whole = bytes(text[: text.rfind(b"\n") + 1])
    events, account = parse(whole, form)
    assert account.events == int((events["kind"] != LOST.id).sum())
    assert account.lines == whole.count(b"\n")


# One line each.

GOOD = b"pfn 7 rmap_item 0xb mm 0xd error 0"


def perf_line(told: bytes, name: bytes = b"ksm_merge_with_ksm_page") -> bytes:
    return b"            ksmd    37 [001]  5.000007: ksm:" + name + b": " + told + b"\n"


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"pfn 7 rmap_item 0xb mm 0xd",
        b"pfn 7 rmap_item 0xb mm 0xd error",
        b"pfn 7 rmap_item 0xg mm 0xd error 0",
        b"pfn -7 rmap_item 0xb mm 0xd error 0",
        b"pfn 99999999999999999999 rmap_item 0xb mm 0xd error 0",
        b"pfn 7 rmap_item 0x11112222333344445 mm 0xd error 0",
        b"pfn 7 rmap_item 0xb mm 0xd error 4294967296",
        b"pfn 7 rmap_item 0xb mm 0xd error 0 and more",
        b"ksm ksm pfn 7 rmap_item 0xb mm 0xd error 0",
    ],
)
def test_a_line_that_names_an_event_but_is_none_is_counted_with_its_place(told: bytes) -> None:
    events, account = parse(perf_line(GOOD) + perf_line(told) + perf_line(GOOD), "perf")
    assert len(events) == account.events == 2
    assert account.unreadable == 1
    assert account.first_unreadable is not None
    number, text = account.first_unreadable
    assert number == 2
    assert text.encode() in b"ksm:ksm_merge_with_ksm_page: " + told


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize(
    "line", [b"ksmd 45 ksm_exit: mm 1\n", b"ksm_exit:\n", b" ksm:ksm_exit: x\n"]
)
def test_a_line_without_a_time_is_counted_too(line: bytes, form: str) -> None:
    events, account = parse(line, form)
    assert (len(events), account.unreadable) == (0, 1)


EXIT = b"ksm:ksm_exit: mm 0xffff88812fe20640"


@pytest.mark.parametrize(
    "line",
    [
        b"          python 16196 22542.362125:               " + EXIT,
        b"16196/16196 22542.362125:               " + EXIT,
        b"[001] 22542.362125:               " + EXIT,
        b"          python 16196/16196 [001] 22542.362125:       " + EXIT,
        b"          python 22542.362125:               " + EXIT,
        b"          python 16036 [001] K     22542.362125:      " + EXIT,
        b"          python 16036 [001] 22542.362125:          1               " + EXIT,
        b"          python 16036 [001] 22542.362125:  " + EXIT + b" ffffffff81661ad9 __traceiter",
        b"       [9] 1.0: x  16036 [001] 22542.362125:      " + EXIT,
    ],
)
def test_whatever_perf_script_shows_beside_an_event_it_is_read(line: bytes) -> None:
    events, account = parse(line + b"\n", "perf")
    assert events["ts"].tolist() == [22542362125000]
    assert events["mm"].tolist() == [0xFFFF88812FE20640]
    assert events["cpu"].tolist() == [int(b"[001]" in line)]
    assert account.without_cpu == int(b"[001]" not in line)


@pytest.mark.parametrize(
    "line",
    [
        b"           <...>-37    [001] 22542.362125: ksm_exit:             mm 0x7ffe1",
        b"            ksmd-37    [001] ..... 22542.362125: ksm_exit:       mm 0x7ffe1",
        b"  python-16196   1..... 22542.362125: ksm_exit:            mm 0x7ffe1",
        b"            ksmd-37    [001] 22542.362125: (+47966) ksm_exit:        mm 0x7ffe1",
        b" a-1 [000] 1.0: -37    [001] 22542.362125: ksm_exit:             mm 0x7ffe1",
        b"            ksmd-37    [001] 22542.362125: ksm_exit:             mm 0x7ffe1\r",
    ],
)
def test_whatever_trace_cmd_shows_beside_an_event_it_is_read(line: bytes) -> None:
    events, _ = parse(line + b"\n", "trace-cmd")
    assert events["ts"].tolist() == [22542362125000]
    assert (events["mm"].tolist(), events["cpu"].tolist()) == ([0x7FFE1], [1])


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("perf", b"\tffffffff81661ad9 __traceiter_ksm_enter+0x49 ([kernel.kallsyms])"),
        ("perf", b"        swapper     0 [000]     0.000000: PERF_RECORD_FORK(1:1):(0:0)"),
        ("perf", b"# event : name = ksm:ksm_advisor, , id = { 836, 837 }, type = 2"),
        ("tracefs", b" => ksm_scan_thread"),
        ("tracefs", b"            ksmd-37    [001] ..... 22542.362125: <stack trace>"),
        ("trace-cmd", b"CPU 0 is empty"),
    ],
)
def test_what_tools_print_between_events_is_left_out(form: str, line: bytes) -> None:
    events, account = parse(line + b"\n", form)
    assert (len(events), account.unreadable, account.lines) == (0, 0, 1)


def test_a_counters_ticks_are_kept_as_they_are() -> None:
    line = b"  bash-16232   (  16232) [001] d..2.            3: ksm_exit: mm 00000000000007ff\n"
    events, account = parse(line, "tracefs")
    assert events["ts"].tolist() == [3]
    assert account.ticks


def test_a_pointer_that_the_kernel_hides_or_lacks_is_unknown() -> None:
    text = b"".join(
        b" ksmd-45 [001] ..... 1.000001: ksm_exit: mm " + shown + b"\n"
        for shown in (b"(____ptrval____)", b"(null)", b"(nil)", b"0000000000000000")
    )
    events, account = parse(text, "tracefs")
    assert events["mm"].tolist() == [0] * 4
    assert account.pointers.hashed == account.pointers.raw == 0


def test_events_of_others_are_counted_by_name_and_new_ones_of_ksm_told_apart() -> None:
    text = perf_line(GOOD) + perf_line(b"x", b"ksm_new") + perf_line(GOOD).replace(b"ksm:", b"a:")
    events, account = parse(text, "perf")
    assert len(events) == 1
    assert dict(account.others) == {"ksm:ksm_new": 1, "a:ksm_merge_with_ksm_page": 1}
    assert account.unknown_kinds == {"ksm:ksm_new": 1, "a:ksm_merge_with_ksm_page": 1}


def test_times_that_go_back_keep_the_texts_order() -> None:
    line = b" ksmd-45 [00%d] ..... 1.00000%d: ksm_remove_ksm_page: pfn %d\n"
    text = b"".join(line % row for row in ((0, 3, 11), (1, 2, 13), (0, 5, 17), (1, 4, 19)))
    events, account = parse(text, "tracefs")
    assert events["pfn"].tolist() == [11, 13, 17, 19]
    assert account.backwards == 2
    assert (account.earliest_ns, account.latest_ns) == (1000002000, 1000005000)


@pytest.mark.parametrize(
    ("form", "line", "count"),
    [
        ("tracefs", b"CPU:3 [LOST EVENTS]\n", 1),
        ("trace-cmd", b"CPU:3 [EVENTS DROPPED]\n", 1),
        ("trace-cmd", b"CPU:3 [LOST 7 EVENTS]\n", 7),
        ("perf", b" dd 16340 [003] 22600.920910: PERF_RECORD_LOST lost 5\n", 5),
        ("perf", b" dd 16340 [003] 22600.920910: PERF_RECORD_LOST_SAMPLES lost 5\n", 5),
    ],
)
def test_a_loss_at_the_end_is_kept(form: str, line: bytes, count: int) -> None:
    events, account = parse(line, form)
    assert events["kind"].tolist() == [LOST.id]
    assert (events["addr"].tolist(), events["cpu"].tolist()) == ([count], [3])
    assert account.lost == count


def test_no_number_of_lost_events_is_too_large() -> None:
    header = b"# entries-in-buffer/entries-written: 0/%d   #P:2\n" % (10**18 - 1)
    events, _ = parse(header * 31 + b" ksmd-45 [001] ..... 1.000001: ksm_exit: mm 1\n", "tracefs")
    assert events["addr"].tolist() == [(1 << 63) - 1, 0]


def test_perfs_warning_that_chunks_were_lost_is_noticed() -> None:
    text = b"Warning:\nProcessed 1108633 events and lost 25 chunks!\n" + perf_line(GOOD)
    assert parse(text, "perf")[1].told == {"lost_chunks": 25}


def test_a_ksm_page_is_told_by_its_prefix_and_only_where_it_means_that() -> None:
    zero = perf_line(b"ksm " + GOOD, b"ksm_merge_one_page")
    events, _ = parse(perf_line(b"ksm " + GOOD) + perf_line(GOOD) + zero, "perf")
    assert events["arg"].tolist() == [INTO_EXISTING, 0, 0]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_long_lines_of_the_wrong_kind_take_no_time(form: str) -> None:
    begin = time.process_time()
    for some in (b" ", b"-", b"[1", b"1.", b"1", b"a-1 [1] ", b": ", b"CPU:1 ["):
        parse((some * 9973)[:99991] + b"\n", form)
    assert time.process_time() - begin < 2
