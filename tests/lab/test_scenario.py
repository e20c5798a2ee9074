from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit
from ksmtrace.lab.random_scenarios import FAMILIES, random_scenario
from ksmtrace.lab.scenario import (
    Scenario,
    ScenarioError,
    parse_scenario,
    read_scenario,
    scenario_of,
    to_toml,
)

WRITTEN = sorted((Path(__file__).parents[1] / "scenarios").glob("T*.toml"))
TEXT = """\
title = "Two pages"
about = "what it shows"

[knobs]
smart_scan = 0

[[step]]
map = "a.p"
pages = 2

  [[ step ]]   # also a header
scan = 1
expect = { pages_shared = 1 }
"""


def test_a_file_is_a_title_knobs_and_steps_that_know_their_lines() -> None:
    scenario = parse_scenario(TEXT, "two.toml")
    assert (scenario.title, scenario.about) == ("Two pages", "what it shows")
    assert scenario.knobs == {"smart_scan": 0}
    assert [step.where for step in scenario.steps] == ["two.toml:7", "two.toml:11"]
    assert scenario.steps[1].values == {"scan": 1, "expect": {"pages_shared": 1}}


def test_an_empty_file_is_a_scenario_without_steps() -> None:
    assert parse_scenario("", "empty.toml") == Scenario("empty.toml", "empty.toml")


def test_steps_without_headers_are_counted_instead() -> None:
    for text in (
        "step = [{ scan = 1 }, { scan = 2 }]",
        '[[ "step" ]]\nscan = 1\n[[step]]\nscan = 2',
    ):
        scenario = parse_scenario(text, "x.toml")
        assert [step.where for step in scenario.steps] == ["x.toml, step 1", "x.toml, step 2"]


def test_a_header_inside_a_text_does_not_shift_the_lines() -> None:
    text = 'about = """\n[[step]]\n"""\n[[step]]\nscan = 1\n'
    [step] = parse_scenario(text, "x.toml").steps
    assert step.where == "x.toml, step 1"


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "ß.toml"
    path.write_text('title = "größer"', encoding="utf-8")
    assert read_scenario(path).title == "größer"
    path.write_bytes(b'title = "gr\xf6\xdfer"')
    with pytest.raises(ScenarioError, match="not a text file"):
        read_scenario(path)
    with pytest.raises(FileNotFoundError):
        read_scenario(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "a"\nmap = \nscan', r"^x\.toml:2: this is not TOML: "),
        ("[[step]]\nscan = 1\nscan = 2\n", r"^x\.toml:3: this is not TOML: "),
        ('title = "a', r"^x\.toml(:1)?: this is not TOML: "),
        ("a = " + "[" * 5000, r"^x\.toml: .*too deep"),
        (f"[[step]]\nscan = {'9' * 5000}", r"^x\.toml(:2)?: this is not TOML"),
        ("titel = 1", r"^x\.toml: unknown key 'titel'"),
        ("[steps]", r"^x\.toml: unknown key 'steps'"),
        ("title = 1", r"^x\.toml: title and about must be texts"),
        ("about = []", r"^x\.toml: title and about must be texts"),
        ("knobs = 1", r"^x\.toml: knobs must be a table"),
        ("[[knobs]]", r"^x\.toml: knobs must be a table"),
        ("step = 1", r"^x\.toml: the steps must be \[\[step\]\] tables"),
        ("step = [1]", r"^x\.toml: the steps must be \[\[step\]\] tables"),
        ("[step]", r"^x\.toml: the steps must be \[\[step\]\] tables"),
    ],
)
def test_what_is_no_scenario_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as error:
        parse_scenario(text, "x.toml")
    assert error.value.exit_code == Exit.USAGE


def test_an_unknown_key_comes_with_those_that_there_are() -> None:
    with pytest.raises(ScenarioError) as error:
        parse_scenario("titel = 1", "x.toml")
    assert "title" in str(error.value.hint)


def refusal(read: Callable[[], Scenario]) -> str | None:
    """Why a scenario can't be read, or None; any other exception is a failure."""
    try:
        read()
    except ScenarioError as error:
        return error.message
    return None


# Texts that are nearly TOML get further into the parser than any text does.
NEARLY = st.lists(
    st.sampled_from(
        ["[[step]]", "[[step]", "[knobs]", "title", "about", "step", "knobs", "scan", " = ", "\n",
         '"', "'", '"""', "1", "-1", "1.5", "nan", "true", "[", "]", "{", "}", ",", "a.p", "#",
         "\\", "\\u0000", "2026-01-02", "\t", "é"]
    )
).map("".join)  # fmt: skip


@given(st.one_of(st.text(), NEARLY))
def test_any_text_is_a_scenario_or_refused_as_one(text: str) -> None:
    message = refusal(lambda: parse_scenario(text, "x.toml"))
    assert message is None or message.startswith("x.toml")


@given(st.binary())
def test_any_file_is_a_scenario_or_refused_as_one(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    message = refusal(lambda: read_scenario(path))
    assert message is None or message.startswith(str(path))


# Writing a scenario down.

WORDS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=9)
KEYS = st.one_of(WORDS, st.text(max_size=5))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.booleans(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.text(), st.text(), st.dictionaries(WORDS, VALUES, max_size=3),
    st.lists(st.dictionaries(WORDS, VALUES, max_size=3), max_size=3),
)  # fmt: skip
def test_what_is_written_down_is_read_again(
    title: str, about: str, knobs: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    written = scenario_of({"title": title, "about": about, "knobs": knobs, "step": steps}, "x.toml")
    assert_same(parse_scenario(to_toml(written), "x.toml"), written)


def assert_same(one: Scenario, other: Scenario) -> None:
    assert (one.title, one.about, one.knobs) == (other.title, other.about, other.knobs)
    assert [step.values for step in one.steps] == [step.values for step in other.steps]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_each_written_scenario_survives_being_written_again(path: Path) -> None:
    scenario = read_scenario(path)
    again = parse_scenario(to_toml(scenario), "again.toml")
    assert_same(again, scenario)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_random_scenario_survives_being_written_down(family: Any) -> None:
    for seed in range(3):
        scenario = random_scenario(family, seed)
        assert_same(parse_scenario(to_toml(scenario), "again.toml"), scenario)
