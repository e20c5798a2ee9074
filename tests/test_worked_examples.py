from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "analysis.md"


def _worked() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worked", ROOT / "scripts" / "worked.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worked"] = module
    spec.loader.exec_module(module)
    return module


worked = _worked()


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_example_prints_what_the_page_says(at_home: None) -> None:
    examples = worked.examples(PAGE.read_text())
    for example, printed in zip(examples, worked.run(examples, PAGE.name), strict=True):
        assert example.output is not None, example.code
        assert worked.same(example.output, printed), f"{example.code}\nprints\n{printed}"


def test_there_are_ten_questions_each_with_an_example_and_a_trap() -> None:
    questions = re.split(r"^## |^# ", PAGE.read_text(), flags=re.MULTILINE)
    asked = [text for text in questions if text.partition("\n")[0].endswith("?")]
    assert len(asked) == 10
    for text in asked:
        assert "```python" in text, text
        assert "*Trap:*" in text, text


def test_no_example_is_long() -> None:
    for example in worked.examples(PAGE.read_text()):
        assert len(example.code.splitlines()) <= 12, example.code
        assert max(map(len, example.code.splitlines())) <= 100, example.code


def test_only_public_names_are_used() -> None:
    for example in worked.examples(PAGE.read_text()):
        assert not re.search(r"\brec\._|from ksmtrace|import ksmtrace\.", example.code)


def _page(tmp_path: Path, said: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(
        f"Before.\n\n```python\nx = 2\nprint(x / 3)\n```\n\n```text\n{said}\n```\n\nBetween.\n\n"
        "```python\nx += 1\n```\n\nOther words.\n\n```text\nno output of it\n```\n"
    )
    return page


@pytest.mark.parametrize("said", ["0.66667", "  0.666666667  "])
def test_an_output_that_says_the_same_stays(said: str, tmp_path: Path) -> None:
    page = _page(tmp_path, said)
    assert worked.refreshed(page) == page.read_text()


@pytest.mark.parametrize("said", ["0.67", "0.6666666 7", "nothing", ""])
def test_an_output_that_says_something_else_is_replaced_and_nothing_more(
    said: str, tmp_path: Path
) -> None:
    page = _page(tmp_path, said)
    old = page.read_text()
    assert worked.refreshed(page) == old.replace(f"text\n{said}\n", "text\n0.6666666666666666\n")


def test_a_failing_example_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nnot_there\n```\n")
    with pytest.raises(NameError):
        worked.refreshed(page)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("a  1.0001\nb", "a 1.0 b", True),
        ("97 97", "97 98", False),
        ("1 2", "1 2 3", False),
        ("-0.5", "0.5", False),
        ("6.18", "6.1", False),
    ],
)
def test_numbers_are_the_same_to_their_last_digits(a: str, b: str, same: bool) -> None:
    assert worked.same(a, b) is same
