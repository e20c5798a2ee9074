"""The questions that `why` understands, and how it answers."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.estimate.sample import MemorySample, SampledProcess, SampledRegion
from ksmtrace.inspect.why.answer import Answer, Found, PageAnswer, RegionAnswer
from ksmtrace.inspect.why.ask import Question, _tell, ask, choose_regions, found_in_pages
from ksmtrace.inspect.why.causes import CAUSES, HARMLESS
from ksmtrace.inspect.why.contents import Registered
from ksmtrace.inspect.why.host import HostFacts, host_causes, registration
from ksmtrace.inspect.why.regions import UNMERGED
from ksmtrace.processes.eligibility import BARS
from ksmtrace.processes.identity import Identity
from ksmtrace.processes.regions import Region
from ksmtrace.views.why import render_why, why_as_dict

HEAP = Region(0x5000_0000, 0x5001_0000, "rw-p", "[heap]", mergeable=True, ksm_bytes=0)
ANON = Region(0x7F00_0000_0000, 0x7F00_0010_0000, "rw-p", "", mergeable=False, ksm_bytes=0)
LIBC = Region(0x7F00_0020_0000, 0x7F00_0030_0000, "r--p", "/lib/libc.so.6", False, 0)
REGIONS = [HEAP, ANON, LIBC]


def identity(**values: object) -> Identity:
    known: dict[str, object] = {
        "tgid": 11, "parent_tgid": 1, "start_ticks": 5, "comm": "worker", "cgroup": "/",
        "vm": None, "cmdline": None,
    }  # fmt: skip
    return Identity(**(known | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "regions", "address"),
    [
        (None, REGIONS, None),
        ("[heap]", [HEAP], None),
        ("heap", [HEAP], None),
        ("[anonymous]", [ANON], None),
        ("libc", [LIBC], None),
        ("7f0000000123", [ANON], 0x7F00_0000_0123),
        ("0x50000000", [HEAP], 0x5000_0000),
        ("5000ffff", [HEAP], 0x5000_FFFF),
        ("0-7f0000000001", [HEAP, ANON], None),
        ("0x7f0000001000-0x7f0000200001", [ANON, LIBC], None),
    ],
)
def test_regions_are_found_by_name_range_and_address(
    where: str | None, regions: list[Region], address: int | None
) -> None:
    chosen = choose_regions(REGIONS, where)
    assert (chosen.regions, chosen.address) == (regions, address)


@pytest.mark.parametrize("where", ["nothing", "50010000", "1-2", "50001000-50000000"])
def test_what_names_no_region_is_told(where: str) -> None:
    with pytest.raises(KsmtraceError) as told:
        choose_regions(REGIONS, where)
    assert told.value.exit_code == Exit.USAGE
    assert told.value.hint


@given(st.text(max_size=30))
def test_no_words_for_a_region_break_it(where: str) -> None:
    try:
        assert choose_regions(REGIONS, where).regions
    except KsmtraceError as told:
        assert told.exit_code == Exit.USAGE  # noqa: PT017 either is fine


@pytest.mark.parametrize(
    ("knobs", "causes"),
    [
        ({"run": "1"}, []),
        ({"run": "0"}, ["stopped"]),
        ({"run": "2"}, ["unmerging"]),
        ({"run": "1", "pages_to_scan": "0"}, ["no_pages_to_scan"]),
        ({"run": "0", "pages_to_scan": "0"}, ["stopped", "no_pages_to_scan"]),
        ({"run": "1", "sleep_millisecs": "3600000"}, []),
        ({"run": "1", "sleep_millisecs": "3600001"}, ["asleep"]),
    ],
)
def test_causes_of_the_host(knobs: dict[str, str], causes: list[str]) -> None:
    assert [found.cause for found in host_causes(HostFacts(knobs, {}))] == causes


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"vm": "guest-a"}, "mem-merge=on"),
        ({"cgroup": "/system.slice/redis.service"}, "MemoryKSM=yes"),
        ({"cgroup": "/system.slice/redis.service/inner"}, "systemctl edit redis.service"),
        ({}, "prctl(PR_SET_MEMORY_MERGE, 1)"),
    ],
)
def test_how_to_register_depends_on_what_it_is(who: dict[str, str], words: str) -> None:
    (found,) = registration(identity(**who), [ANON, LIBC], {})
    assert found.cause == "unregistered"
    assert words in found.remedy


def test_one_mergeable_region_is_a_registration() -> None:
    assert registration(identity(), [ANON, HEAP], {"ksm_merge_any": 0}) == []
    (found,) = registration(identity(), [ANON], {"ksm_merge_any": 1})
    assert "opted in by prctl" in found.evidence


def test_every_flag_that_bars_is_a_cause_with_words() -> None:
    assert {bar.cause for bar in BARS} <= set(CAUSES)
    for cause in CAUSES.values():
        assert cause.what
        assert cause.meaning
        assert cause.remedy or cause.name == "unregistered"
    assert set(HARMLESS) <= set(CAUSES)


_WORDS = st.text(max_size=60)
_ANSWERS = st.builds(
    Answer,
    identity=st.none() | st.builds(
        identity, comm=_WORDS, cgroup=st.none() | _WORDS, vm=st.none() | _WORDS
    ),
    tgid=st.integers(1, 1 << 22),
    host=st.lists(st.builds(Found, st.sampled_from(sorted(CAUSES)), _WORDS, _WORDS), max_size=2),
    process=st.lists(st.builds(Found, st.sampled_from(sorted(CAUSES)), _WORDS, _WORDS), max_size=2),
    regions=st.lists(
        st.builds(
            RegionAnswer,
            st.builds(Region, st.integers(0, 1 << 47), st.integers(0, 1 << 47), st.just("rw-p"),
                      _WORDS, st.booleans(), st.none()),
            st.dictionaries(st.sampled_from([*CAUSES, UNMERGED]), st.integers(1, 1 << 40)).map(
                Counter
            ),
        ),
        max_size=20,
    ),
    facts=st.lists(st.tuples(_WORDS, _WORDS), max_size=3),
    page_bytes=st.just(4096),
    page=st.none() | st.builds(
        PageAnswer, st.integers(0, 1 << 47), st.sampled_from([*CAUSES, UNMERGED]), _WORDS, _WORDS,
        st.lists(st.tuples(st.sampled_from(["region", "frame"]), _WORDS), max_size=3),
        st.lists(st.tuples(st.integers(1, 1 << 22), st.integers(0, 1 << 47), st.booleans())),
        st.none() | st.integers(0, 1 << 40),
    ),
    wait_s=st.none() | st.floats(0, 1e9),
    notes=st.lists(_WORDS, max_size=2),
)  # fmt: skip


@given(_ANSWERS)
def test_every_answer_fits_a_terminal_and_json(answer: Answer) -> None:
    causes = found_in_pages(answer)
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(render_why(answer, causes))
    assert max((cell_len(line.rstrip()) for line in out.getvalue().split("\n")), default=0) <= 80
    told = json.loads(json.dumps(why_as_dict(answer, causes)))
    assert sum(cause["pages"] for cause in told["causes"]) == answer.pages.total()
    assert list(told["pages"]) == list(answer.pages)


def test_a_thread_is_not_taken_for_a_process() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.raises(KsmtraceError, match="is a thread of process"):
            ask(Question(thread.native_id or 0))
    finally:
        over.set()
        thread.join()


def test_a_region_that_grew_is_told_by_its_start_and_one_that_went_is_noted() -> None:
    grown = RegionAnswer(HEAP, Counter({UNMERGED: 7, "merged": 5, "absent": 4}))
    gone = RegionAnswer(ANON, Counter({UNMERGED: 3}))
    answer = Answer(identity(), 11, [], [], [grown, gone], [], 4096)
    sample = MemorySample(
        processes=[SampledProcess(identity())],
        regions=[SampledRegion(0, HEAP.start, HEAP.end + (1 << 20), "[heap]", mergeable=True)],
        digests=np.array([1, 2], np.uint64), frames=np.array([5, 6], np.uint32),
        kinds=np.zeros(2, np.uint8), numbers=np.array([HEAP.start // 4096, 9 + HEAP.start // 4096]),
        bounds=np.array([0, 2]),
    )  # fmt: skip
    merged = np.array([True, False])
    codes = np.array([0, 1], np.int8)
    registered = Registered(sample, merged, np.ones(2, np.uint64), codes, "held")
    _tell(answer, registered, HostFacts({"run": "1"}, {"full_scans": 7}), 2)
    # Five were merged: one is in the sample, and four that could not be read still are.
    assert grown.pages == {"merged": 5, "unique": 1, "unread": 6, "absent": 4}
    assert gone.pages == {UNMERGED: 3}
    assert any(f"{ANON.start:x}" in note for note in answer.notes)
