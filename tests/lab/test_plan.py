from __future__ import annotations

import string
import tomllib
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit
from ksmtrace.kernel.sysfs import COUNTERS_BY_NAME, KNOBS_BY_NAME
from ksmtrace.lab import planner
from ksmtrace.lab.operations import (
    Advise,
    Batch,
    Exec,
    Fork,
    Map,
    MergeAny,
    Migrate,
    Operation,
    Pin,
    Place,
    Protect,
    Read,
    Remap,
    Scan,
    SetKnob,
    Start,
    SwapOut,
    Unmap,
    Unpin,
    Wait,
    Write,
    WritePart,
)
from ksmtrace.lab.operations import Exit as ProcessExit
from ksmtrace.lab.plan import ARENA, ARENA_PAGES, BESIDE, Plan, address_of
from ksmtrace.lab.planner import MOST_PAGES, MOST_PROCESSES
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, random_scenario
from ksmtrace.lab.scenario import ScenarioError, parse_scenario, scenario_of
from ksmtrace.lab.verbs import MOST_SCANS, VERBS
from ksmtrace.model.content import page_of

PAGE = 4096
BEGINNING = """\
title = "a process with four pages"
[[step]]
map = "a.p"
pages = 4
"""


def planned(text: str) -> Plan:
    return plan_scenario(parse_scenario(text, "x.toml"))


def operations(text: str, beginning: str = BEGINNING) -> list[Operation]:
    """Those of a step after a process `a` with four pages `a.p` was made."""
    return list(planned(f"{beginning}[[step]]\n{text}").steps[-1].operations)


def pages(first: int, count: int = 1) -> tuple[int, int]:
    """Address and length."""
    return address_of(first), count * PAGE


# What each step comes down to.


def test_the_first_map_starts_its_process_and_opts_it_in() -> None:
    [first] = planned(BEGINNING).steps
    start, length = pages(0, 4)
    assert first.operations == (
        Start("a"), Map("a", start, length, huge=False), Advise("a", start, length, "mergeable"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('process = "b"', [Start("b")]),
        ('fork = "a"\nas = "b"', [Fork("a", "b")]),
        ('exec = "a"', [Exec("a")]),
        ('exit = "a"', [ProcessExit("a")]),
        ('merge_any = "a"', [MergeAny("a", on=True)]),
        ('merge_any = "a"\non = false', [MergeAny("a", on=False)]),
        ('map = "a.q"\npages = 2\nat = 9\nksm = false', [Map("a", *pages(9, 2), huge=False)]),
        ('write = "a.p[1]"\ncontent = "x"', [Write("a", ((pages(1)[0], b"x"),))]),
        ('write = "a.p[3:]"\ncontent = "zero"', [Write("a", ((pages(3)[0], b""),))]),
        ('write = "a.p[0:2]"\nbytes = "ab"\noffset = 7',
         [WritePart("a", (pages(0)[0], pages(1)[0]), 7, b"ab")]),
        ('read = "a.p[2:4]"', [Read("a", (pages(2)[0], pages(3)[0]))]),
        ('unmap = "a.p[1:3]"', [Unmap("a", *pages(1, 2))]),
        ('discard = "a.p"', [Advise("a", *pages(0, 4), "discard")]),
        ('mergeable = "a.p[0]"', [Advise("a", *pages(0), "mergeable")]),
        ('unmergeable = "a.p[:]"', None),
        ('protect = "a.p"\naccess = "none"', [Protect("a", *pages(0, 4), "none")]),
        ('move = "a.p"\nto = "q"', [Remap("a", *pages(0, 4), pages(5)[0])]),
        ('move = "a.p"\nto = "q"\nat = 100', [Remap("a", *pages(0, 4), pages(100)[0])]),
        ('map = "a.q"\npages = 1\nat = 9\nnode = 1\nksm = false',
         [Map("a", *pages(9), huge=False, node=1)]),
        ('place = "a.p[1:3]"\nnode = 1', [Place("a", *pages(1, 2), 1)]),
        ('migrate = "a.p[3]"\nnode = 0', [Migrate("a", *pages(3), 0)]),
        ('swap_out = "a.p"', [SwapOut("a", *pages(0, 4))]),
        ('pin = "a.p[2]"', [Pin("a", pages(2)[0], "a.p[2]")]),
        ("set = { smart_scan = 0, run = 2 }", [SetKnob("smart_scan", "0"), SetKnob("run", "2")]),
        ("set = { use_zero_pages = true }", [SetKnob("use_zero_pages", "1")]),
        ("scan = 3", [Scan(), Scan(), Scan()]),
        ("batch = 5", [Batch(5)]),
        ("wait = 0", [Wait(0)]),
        ('say = "nothing happens"', []),
    ],
)  # fmt: skip
def test_a_step_is_these_operations(text: str, expected: list[Operation] | None) -> None:
    if expected is None:
        with pytest.raises(ScenarioError, match="no place in memory"):
            operations(text)
        return
    assert operations(text) == expected


def test_a_pin_is_given_back_by_its_name() -> None:
    beginning = BEGINNING + '[[step]]\npin = "a.p[2]"\n'
    assert operations('unpin = "a.p[2]"', beginning) == [Unpin("a.p[2]")]


def test_every_step_has_an_example_that_works() -> None:
    beginning = """
[[step]]
map = "a.heap"
pages = 4
[[step]]
pin = "a.heap[0]"
"""
    for verb in VERBS.values():
        before = beginning
        if verb.name in ("process", "map"):
            before = ""
        elif verb.name == "pin":
            before = beginning.replace("pin =", "read =")
        assert planned(f"{before}[[step]]\n{verb.example}"), verb.name
        assert verb.meaning
        assert all(verb.options.values())


def test_regions_go_above_one_another_with_a_page_between() -> None:
    made = planned(
        BEGINNING
        + '[[step]]\nmap = "a.q"\npages = 3\n[[step]]\nmap = "a.low"\nat = 50\npages = 1\n'
        '[[step]]\nmap = "a.r"\npages = 1\n[[step]]\nmap = "b.p"\npages = 1\n'
    )
    starts = {name: region.start for name, region in made.places["a"].items()}
    assert starts == {"p": 0, "q": 5, "low": 50, "r": 52}
    assert made.places["b"]["p"].start == 0
    assert made.processes == ("a", "b")


def test_a_region_mapped_again_goes_where_it_was() -> None:
    beginning = BEGINNING + '[[step]]\nmap = "a.q"\npages = 1\n[[step]]\nunmap = "a.p"\n'
    again = operations('map = "a.p"', beginning)
    assert again[0] == Map("a", *pages(0, 4), huge=False)
    assert operations('map = "a.p"\npages = 2\nat = 77', beginning)[0] == Map(
        "a", *pages(77, 2), huge=False
    )


def test_a_huge_region_begins_at_a_huge_page() -> None:
    [mapped, _] = operations('map = "a.big"\npages = 1024\nhuge = true')
    assert mapped == Map("a", *pages(512, 1024), huge=True)


def test_a_child_has_its_parent_s_regions_and_protections() -> None:
    beginning = (
        BEGINNING + '[[step]]\nprotect = "a.p"\naccess = "read"\n[[step]]\nfork = "a"\nas = "c"\n'
    )
    assert operations('read = "c.p[0]"', beginning) == [Read("c", (pages(0)[0],))]
    with pytest.raises(ScenarioError, match="protected"):
        operations('write = "c.p[0]"\ncontent = "x"', beginning)
    assert operations('unmap = "c.p"\n[[step]]\nread = "a.p"', beginning)


def test_a_moved_region_has_a_new_name_and_both_places_keep_theirs() -> None:
    made = planned(BEGINNING + '[[step]]\nmove = "a.p"\nto = "q"\n')
    assert made.name_of("a", address_of(1)) == "a.p[1]"
    assert made.name_of("a", address_of(6)) == "a.q[1]"


def test_a_page_is_called_as_the_scenario_calls_it() -> None:
    made = planned(BEGINNING + '[[step]]\nmap = "a.one"\npages = 1\n')
    assert made.name_of("a", address_of(3)) == "a.p[3]"
    assert made.name_of("a", address_of(5)) == "a.one"
    assert made.name_of("a", address_of(3) + 5) == "a.p[3]"
    assert made.name_of("a", address_of(77)) == f"a:{address_of(77):#x}"
    assert made.name_of("b", address_of(0)) == f"b:{ARENA:#x}"


def written(text: str) -> list[bytes]:
    [write] = operations(f'write = "a.p"\n{text}')
    assert isinstance(write, Write)
    return [content for _, content in write.pages]


def test_contents_by_name_are_ordered_as_their_pages_are() -> None:
    names = ["5", "7", "a", "aa", "b", "unequal"]
    contents = [written(f'content = "{name}"')[0] for name in names]
    assert [page_of(content) for content in contents] == sorted(map(page_of, contents))
    assert len(set(contents)) == len(names)
    assert len(set(written('content = "a"'))) == 1


def test_special_contents() -> None:
    assert written('content = "zero"') == [b""] * 4
    assert len(set(written('content = "unique"'))) == 4
    first = written('content = "sequence"')
    assert first == sorted(set(first))
    assert written('content = "sequence"\nfirst = 2')[:2] == first[2:]
    dice = written('content = "random"\nof = 2\nseed = 3')
    assert dice == written('content = "random"\nof = 2\nseed = 3')
    assert dice != written('content = "random"\nof = 2\nseed = 4')
    assert len(set(written('content = "random"\nof = 1'))) == 1


def test_unique_is_unique_in_the_whole_scenario() -> None:
    step = '[[step]]\nwrite = "a.p"\ncontent = "unique"\n'
    made = planned(BEGINNING + step * 3)
    contents = [
        c for s in made.steps for o in s.operations if isinstance(o, Write) for _, c in o.pages
    ]
    assert len(set(contents)) == 12


def test_knobs_are_texts_as_they_are_written_to_files() -> None:
    made = planned('[knobs]\nsmart_scan = false\npages_to_scan = 7\nadvisor_mode = "scan-time"\n')
    assert made.knobs == {"smart_scan": "0", "pages_to_scan": "7", "advisor_mode": "scan-time"}


# Mistakes, each with the line of the step that makes it.

PINNED = BEGINNING + '[[step]]\npin = "a.p[0]"\n'
GONE = BEGINNING + '[[step]]\nexit = "a"\n'
HOLED = BEGINNING + '[[step]]\nunmap = "a.p[1]"\n'
READ_ONLY = BEGINNING + '[[step]]\nprotect = "a.p[3]"\naccess = "read"\n'

MISTAKES = [
    # Typos and what does not go together.
    (BEGINNING, "scna = 1", "'scna' is no step"),
    (BEGINNING, 'scan = 1\nmap = "b.p"', "a step does one thing"),
    (BEGINNING, "scan = 1\npages = 4", "scan has no option 'pages'"),
    (BEGINNING, "pages = 4", "'pages' is no step"),
    (BEGINNING, 'map = "b.p"\npage = 4', "map has no option 'page'"),
    (BEGINNING, "scan = 1\nsay = 1", "say must be a text"),
    # Processes.
    (BEGINNING, 'exit = "b"', "there is no process 'b'"),
    (BEGINNING, 'exit = "A"', "no process name"),
    (BEGINNING, "exit = 1", "no process name"),
    (BEGINNING, 'exit = ["a"]', "no process name"),
    (BEGINNING, 'process = "a"', "there is a process 'a' already"),
    (BEGINNING, 'process = ""', "no process name"),
    (BEGINNING, 'fork = "a"', "fork needs the child's name"),
    (BEGINNING, 'fork = "a"\nas = "a"', "there is a process 'a' already"),
    (BEGINNING, 'fork = "a"\nas = 7', "no process name"),
    (GONE, 'exit = "a"', "process 'a' has ended before"),
    (GONE, 'fork = "a"\nas = "b"', "process 'a' has ended before"),
    (GONE, 'map = "a.q"\npages = 1', "process 'a' has ended before"),
    (GONE, 'write = "a.p"\ncontent = "x"', "process 'a' has ended before"),
    (GONE, 'merge_any = "a"', "process 'a' has ended before"),
    (GONE, 'process = "a"', "there is a process 'a' already"),
    (BEGINNING, 'merge_any = "a"\non = 1', "on must be true or false"),
    # Regions.
    (BEGINNING, 'map = "a"\npages = 1', "'a' is no place in memory"),
    (BEGINNING, "map = 4", "4 is no place in memory"),
    (BEGINNING, 'map = "a.p[0]"\npages = 1', "a whole region is mapped"),
    (BEGINNING, 'map = "a.q"', "map needs pages"),
    (BEGINNING, 'map = "a.q"\npages = 0', "pages must be from 1"),
    (BEGINNING, 'map = "a.q"\npages = -3', "pages must be from 1"),
    (BEGINNING, 'map = "a.q"\npages = "4"', "pages must be a whole number"),
    (BEGINNING, 'map = "a.q"\npages = 4.0', "pages must be a whole number"),
    (BEGINNING, 'map = "a.q"\npages = true', "pages must be a whole number"),
    (BEGINNING, 'map = "a.q"\npages = 1\nat = -1', "at must be from 0"),
    (BEGINNING, 'map = "a.q"\npages = 1\nksm = 0', "ksm must be true or false"),
    (BEGINNING, 'map = "a.q"\npages = 512\nhuge = 1', "huge must be true or false"),
    (BEGINNING, 'map = "a.q"\npages = 513\nhuge = true', "multiple of 512"),
    (BEGINNING, 'map = "a.q"\npages = 2\nat = 3', "overlaps what is mapped already at page 3"),
    (BEGINNING, 'map = "a.q"\npages = 9\nat = 0', "overlaps"),
    (BEGINNING, 'map = "a.p"', "overlaps"),
    (BEGINNING, f'map = "a.q"\npages = 2\nat = {ARENA_PAGES - 1}', "would end beyond"),
    (BEGINNING, f'map = "a.q"\npages = {MOST_PAGES}', f"{MOST_PAGES} pages at most"),
    (BEGINNING, 'unmap = "a.q"', "has no region 'q'"),
    (BEGINNING, 'discard = "a.p[4]"', "outside the region"),
    (BEGINNING, 'discard = "a.p[2:5]"', "outside the region"),
    (BEGINNING, 'discard = "a.p[2:2]"', "outside the region"),
    (BEGINNING, 'discard = "a.p[3:1]"', "outside the region"),
    (BEGINNING, 'discard = "a.p[4:]"', "outside the region"),
    (BEGINNING, 'discard = "a.p[-1]"', "no place in memory"),
    (BEGINNING, 'discard = "a.p[0,1]"', "no place in memory"),
    (BEGINNING, f'discard = "a.p[{"9" * 5000}]"', "outside the region|no place in memory"),
    (HOLED, 'discard = "a.p"', "page 1 of a.p is not mapped now"),
    (HOLED, 'unmap = "a.p[1]"', "is not mapped now"),
    (HOLED, 'move = "a.p"\nto = "q"', "is not mapped now"),
    (BEGINNING, 'protect = "a.p"', "access must be"),
    (BEGINNING, 'protect = "a.p"\naccess = "execute"', "access must be"),
    (BEGINNING, 'protect = "a.p"\naccess = ["none"]', "access must be"),
    (BEGINNING, 'move = "a.p[0:2]"\nto = "q"', "a whole region is moved"),
    (BEGINNING, 'move = "a.p"', "no place in memory|name of a new region"),
    (BEGINNING, 'move = "a.p"\nto = "p"', "the name of a new region"),
    (BEGINNING, 'move = "a.p"\nto = "q[0]"', "the name of a new region"),
    (BEGINNING, 'move = "a.p"\nto = "q"\nat = 2', "onto itself"),
    (BEGINNING, 'move = "a.p"\nto = "q"\nat = "here"', "at must be a whole number"),
    # Pages.
    (BEGINNING, 'write = "a.p[4]"\ncontent = "x"', "outside the region"),
    (BEGINNING, 'write = "a.p"', "either content or bytes"),
    (BEGINNING, 'write = "a.p"\ncontent = "x"\nbytes = "y"', "either content or bytes"),
    (BEGINNING, 'write = "a.p"\ncontent = ""', "content must be a name"),
    (BEGINNING, 'write = "a.p"\ncontent = 5', "content must be a name"),
    (BEGINNING, f'write = "a.p"\ncontent = "{"x" * 65}"', "64 characters"),
    (BEGINNING, 'write = "a.p"\ncontent = "x"\nfirst = 1', "first does not go with"),
    (BEGINNING, 'write = "a.p"\ncontent = "x"\noffset = 1', "offset does not go with"),
    (BEGINNING, 'write = "a.p"\ncontent = "sequence"\nfirst = -1', "first must be a whole number"),
    (BEGINNING, 'write = "a.p"\ncontent = "sequence"\nseed = 1', "seed does not go with"),
    (BEGINNING, 'write = "a.p"\ncontent = "random"', "of must be a whole number"),
    (BEGINNING, 'write = "a.p"\ncontent = "random"\nof = 0', "of must be a whole number"),
    (BEGINNING, 'write = "a.p"\nbytes = 1', "bytes must be a text"),
    (BEGINNING, 'write = "a.p"\nbytes = ""', "bytes must be a text"),
    (BEGINNING, 'write = "a.p"\nbytes = "xy"\noffset = 4095', "offset must be from 0 to 4094"),
    (BEGINNING, f'write = "a.p"\nbytes = "{"x" * 4097}"', "offset|bytes"),
    (READ_ONLY, 'write = "a.p"\ncontent = "x"', "the pages are protected"),
    (BEGINNING, 'pin = "a.p"', "one page is pinned at a time"),
    (PINNED, 'pin = "a.p[0]"', r"a\.p\[0\] is pinned already"),
    (BEGINNING, 'unpin = "a.p[0]"', "is not pinned"),
    (BEGINNING, 'unpin = ["a.p[0]"]', "is not pinned"),
    (BEGINNING, "unpin = {}", "is not pinned"),
    # ksmd.
    (BEGINNING, "scan = -1", "scan must be from 1"),
    (BEGINNING, "scan = 0", "scan must be from 1"),
    (BEGINNING, f"scan = {MOST_SCANS + 1}", f"scan must be from 1 to {MOST_SCANS}"),
    (BEGINNING, 'scan = "all"', "scan must be a whole number"),
    (BEGINNING, "scan = true", "scan must be a whole number"),
    (BEGINNING, "batch = 0", "batch must be from 1"),
    (BEGINNING, "wait = -5", "wait must be from 0"),
    (BEGINNING, "wait = 1e9", "wait must be a whole number"),
    (BEGINNING, "set = {}", "set needs a table"),
    (BEGINNING, "set = 1", "set needs a table"),
    (BEGINNING, "set = { smart_scam = 1 }", "no knob called 'smart_scam'"),
    (BEGINNING, "set = { pages_shared = 1 }", "no knob called 'pages_shared'"),
    (BEGINNING, 'set = { smart_scan = "" }', "is no value for smart_scan"),
    (BEGINNING, 'set = { smart_scan = "1 " }', "is no value for smart_scan"),
    (BEGINNING, "set = { smart_scan = [] }", "is no value for smart_scan"),
    (BEGINNING, "set = { smart_scan = 1.5 }", "is no value for smart_scan"),
    (BEGINNING, 'scan = 1\nrefused = "EBUSY"', "beside set"),
    (BEGINNING, 'set = { run = 3 }\nrefused = "EPERM"', "EBUSY.*EINVAL"),
    (BEGINNING, "set = { run = 3 }\nrefused = [1]", "EBUSY.*EINVAL"),
    # Nodes and swap.
    (BEGINNING, 'map = "a.q"\npages = 1\nnode = 2', "node must be from 0 to 1"),
    (BEGINNING, 'map = "a.q"\npages = 1\nnode = "1"', "node must be a whole number"),
    (BEGINNING, 'place = "a.p"', "needs a node"),
    (BEGINNING, 'migrate = "a.p[0]"', "needs a node"),
    (BEGINNING, 'migrate = "a.p[0]"\nnode = -1', "node must be from 0 to 1"),
    (HOLED, 'migrate = "a.p"\nnode = 1', "is not mapped now"),
    (HOLED, 'swap_out = "a.p"', "is not mapped now"),
    (GONE, 'swap_out = "a.p"', "has ended"),
    (BEGINNING, 'swap_out = "a.p"\nnode = 1', "swap_out has no option 'node'"),
    # Expectations.
    (BEGINNING, "scan = 1\nexpect = 1", "expect must be a table"),
    (BEGINNING, "scan = 1\nexpect = [1]", "expect must be a table"),
    (BEGINNING, "scan = 1\nexpect = { page_shared = 1 }", "no counter or process 'page_shared'"),
    (BEGINNING, "scan = 1\nexpect = { b = { ksm_rmap_items = 1 } }", "no counter or process 'b'"),
    (BEGINNING, "scan = 1\nexpect = { a = { pages = 1 } }", "no counter or process 'pages'"),
    (BEGINNING, 'scan = 1\nexpect = { pages_shared = "one" }', "must be a whole number"),
    (BEGINNING, "scan = 1\nexpect = { pages_shared = 1.0 }", "must be a whole number"),
    (BEGINNING, "scan = 1\nexpect = { pages_shared = true }", "must be a whole number"),
    (BEGINNING, 'scan = 1\nexpect = { since = "new" }', "since must be a release"),
    (BEGINNING, "scan = 1\nexpect = { until = 6.6 }", "until must be a release"),
    (BEGINNING, 'scan = 1\nexpect = { with = "smart_scan" }', "with must be one of"),
    (BEGINNING, "scan = 1\nexpect = { without = {} }", "without must be one of"),
    (BEGINNING, "scan = 1\nexpect = { without = [] }", "without must be one of"),
    (BEGINNING, f'scan = 1\nexpect = {{ since = "{"9" * 5000}.1" }}', "since must be a release"),
    # A process's counter beside the host's, and the other way round, would never be checked.
    (BEGINNING, "scan = 1\nexpect = { ksm_rmap_items = 1 }", "ksm_rmap_items"),
    (BEGINNING, "scan = 1\nexpect = { a = { pages_shared = 1 } }", "pages_shared"),
    (GONE, "scan = 1\nexpect = { a = { ksm_rmap_items = 0 } }", "has ended"),
    (BEGINNING, 'scan = 1\nexpect = { events = "NEW a.p" }', "events must be a list"),
    (BEGINNING, "scan = 1\nexpect = { events = [1] }", "events must be a list"),
]


@pytest.mark.parametrize(
    ("beginning", "text", "message"),
    MISTAKES,
    ids=[text.replace("\n", ", ").replace('"', "")[:40] for _, text, _ in MISTAKES],
)
def test_a_mistake_is_refused_with_its_line(beginning: str, text: str, message: str) -> None:
    line = beginning.count("\n") + 1
    with pytest.raises(ScenarioError, match=message) as error:
        planned(f"{beginning}[[step]]\n{text}\n[[step]]\nscan = 1\n")
    assert error.value.message.startswith(f"x.toml:{line}: ")
    assert "\n" not in error.value.message
    assert error.value.exit_code == Exit.USAGE


def test_a_typo_comes_with_what_there_is() -> None:
    for text, known in (
        ("scna = 1", "scan"),
        ("set = { smart_scam = 1 }", "smart_scan"),
        ('map = "b.p"\npage = 1', "pages"),
        ('unmap = "a.q"', "p"),
        ('exit = "b"', "a"),
        ("scan = 1\nexpect = { page_shared = 1 }", "pages_shared"),
    ):
        with pytest.raises(ScenarioError) as error:
            operations(text)
        assert known in str(error.value.hint)


@pytest.mark.parametrize("knob", ["smart_scam = 1", "run = []", 'run = ""', "run = 0.5"])
def test_a_wrong_knob_is_refused_with_the_file(knob: str) -> None:
    with pytest.raises(ScenarioError, match=r"^x\.toml"):
        planned(f"[knobs]\n{knob}\n{BEGINNING.partition(chr(10))[2]}")


def test_there_are_only_so_many_processes() -> None:
    steps: list[dict[str, Any]] = [{"process": f"p{n}"} for n in range(MOST_PROCESSES)]
    assert len(plan_scenario(scenario_of({"step": steps}, "x")).processes) == MOST_PROCESSES
    steps.append({"process": "last"})
    with pytest.raises(ScenarioError, match=f"step {MOST_PROCESSES + 1}.*{MOST_PROCESSES} proc"):
        plan_scenario(scenario_of({"step": steps}, "x"))


@pytest.fixture
def few_pages(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(planner, "MOST_PAGES", 1009)
    return 1009


def test_pages_that_are_gone_make_room_for_others(few_pages: int) -> None:
    most = f'[[step]]\nmap = "a.p"\npages = {few_pages}\n'
    for leave in ('unmap = "a.p"', 'exit = "a"', 'exec = "a"'):
        assert planned(f'{most}[[step]]\n{leave}\n[[step]]\nmap = "b.p"\npages = {few_pages}\n')
    with pytest.raises(ScenarioError, match="pages at most"):
        planned(f'{most}[[step]]\nmap = "b.p"\npages = 1\n')


def test_forking_counts_as_mapping(few_pages: int) -> None:
    half = few_pages // 2 + 1
    with pytest.raises(ScenarioError, match="pages at most"):
        planned(f'[[step]]\nmap = "a.p"\npages = {half}\n[[step]]\nfork = "a"\nas = "b"\n')


# No scenario at all crashes the planner.

NAMES = st.sampled_from(
    ["a", "b", "a.p", "a.p[0]", "a.p[1:3]", "a.q", "b.p", "a.p[9]", "", "A", "p"]
)
ANY = st.one_of(
    NAMES, st.integers(-2, 5), st.integers(), st.booleans(), st.floats(), st.text(max_size=5),
    st.just(date(2026, 1, 2)), st.just([]), st.just({}), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from([*KNOBS_BY_NAME, *COUNTERS_BY_NAME, "events", "since", "a"]),
                    st.one_of(st.integers(-1, 3), NAMES, st.booleans(), st.just([])), max_size=2),
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(sorted({*VERBS, *BESIDE, *(o for v in VERBS.values() for o in v.options)})),
    st.text(string.ascii_lowercase, max_size=5),
)
STEPS = st.one_of(
    st.dictionaries(WORDS, ANY, max_size=4),
    # Nearly right ones get further.
    st.sampled_from([tomllib.loads(verb.example.replace("heap", "p")) for verb in VERBS.values()]),
    st.builds(
        lambda example, word, value: {**tomllib.loads(example), word: value},
        st.sampled_from([verb.example.replace("heap", "p") for verb in VERBS.values()]), WORDS, ANY,
    ),
)  # fmt: skip


@given(
    st.lists(STEPS, max_size=9),
    st.dictionaries(st.one_of(st.sampled_from(sorted(KNOBS_BY_NAME)), WORDS), ANY, max_size=2),
)
def test_any_tables_are_a_plan_or_refused_as_a_scenario(
    steps: list[dict[str, Any]], knobs: dict[str, Any]
) -> None:
    message = refusal({"knobs": knobs, "step": [{"map": "a.p", "pages": 4}, *steps]})
    assert message is None or message.startswith("x.toml")


def refusal(document: dict[str, Any]) -> str | None:
    """Why tables are no plan, or None; any other exception is a failure."""
    try:
        plan_scenario(scenario_of(document, "x.toml"))
    except ScenarioError as error:
        return error.message
    return None


@given(st.lists(STEPS, max_size=5), st.integers(0, 5))
def test_a_wrong_step_among_right_ones_is_the_one_that_is_named(
    steps: list[dict[str, Any]], before: int
) -> None:
    right: list[dict[str, Any]] = [{"map": "a.p", "pages": 4}, *[{"scan": 1}] * before]
    wrong = {"scan": -1}
    # What comes after the first mistake does not matter.
    message = refusal({"step": [*right, wrong, *steps]})
    assert message is not None
    assert message.startswith(f"x.toml, step {before + 2}: ")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_random_scenarios_are_always_possible(family: Any) -> None:
    for seed in range(31):
        made = plan_scenario(random_scenario(family, seed))
        assert sum(isinstance(o, Scan) for step in made.steps for o in step.operations) >= 2
