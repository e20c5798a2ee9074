"""The page of a lesson as a browser shows it: a headless Chromium, pages from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import browser, browser_obstacle, complaints, opened, requests, resized
from support.lesson_pages import HOSTILE, hostile_lesson

from ksmtrace.lessons.lesson import find_lesson, read_lesson
from ksmtrace.lessons.play import play
from ksmtrace.processes.identity import clean
from ksmtrace.views.html.lesson import lesson_page
from ksmtrace.views.lesson_data import frames_as_dicts
from ksmtrace.views.lesson_words import MARKS

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_OBSTACLE = browser_obstacle()
pytestmark = pytest.mark.skipif(_OBSTACLE is not None, reason=str(_OBSTACLE))

Stop = dict[str, Any]

SHOWN = """
const text = (element) => element.textContent;
const all = (where, selector) => [...where.querySelectorAll(selector)];
const place = document.getElementById("stop");
return {
  position: text(document.getElementById("position")),
  address: location.hash,
  scan: document.getElementById("scan").selectedOptions[0].textContent,
  slider: Number(document.getElementById("slider").value),
  words: all(place, ".words").map(text),
  decisions: all(place, ".decision").map((one) => text(one.firstChild)),
  rules: all(place, ".rule").map(text),
  counters: Object.fromEntries(all(place, "[data-counter]").map(
    (one) => [one.dataset.counter, text(one.querySelector(".now"))])),
  changed: all(place, ".changed").map((one) => one.dataset.counter),
  trees: Object.fromEntries(all(place, ".a-tree").map((tree) => [tree.classList[1],
    all(tree, ".place").map((one) => [text(one.querySelector(".label")).replace("▸ ", ""),
      one.classList.contains("red"), one.querySelector(".step-number")?.textContent ?? null,
      one.classList.contains("mine")])])),
  pages: all(place, ".pages tbody tr").map((row) => all(row, "td").slice(0, 3).map(text)),
  cursor: all(place, ".pages tr.looked-at bdi").map(text),
};
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as one:
        yield one


class Page:
    """A lesson's page on disk, and what its data says of each stop."""

    def __init__(self, folder: Path, name: str, on: list[str] | None = None) -> None:
        lesson = read_lesson(find_lesson(name), on)
        frames = play(lesson).all()
        self.stops: list[Stop] = frames_as_dicts(frames)
        self.path = folder / f"{name}.html"
        self.path.write_text(lesson_page(lesson, frames))

    def first(self, **wanted: object) -> int:
        """The number of the first stop, from 0, that has these."""
        return next(
            number
            for number, stop in enumerate(self.stops)
            if all(stop[key] == value for key, value in wanted.items())
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("lesson"), "the-unstable-tree")


@pytest.fixture
def shown(driver: Chrome, page: Page) -> Chrome:
    resized(driver, 1280, 1000)
    driver.get("about:blank")
    requests(driver)
    complaints(driver)
    opened(driver, page.path)
    return driver


def js(driver: Chrome, script: str, *arguments: Any) -> Any:
    return driver.execute_script(script, *arguments)


def press(driver: Chrome, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def click(driver: Chrome, selector: str) -> None:
    from selenium.webdriver.common.by import By

    driver.find_element(By.CSS_SELECTOR, selector).click()


def places(node: Stop | None) -> list[Stop]:
    if node is None:
        return []
    return [*places(node["left"]), node, *places(node["right"])]


def check(driver: Chrome, page: Page, number: int) -> None:
    """What is shown is what the data says of that stop, from 0."""
    stop, told = page.stops[number], js(driver, SHOWN)
    [view] = stop["views"]
    assert told["position"] == f"stop {number + 1} of {len(page.stops)}: {stop['where']}"
    assert told["slider"] == number
    if stop["kind"] == "opening":
        return
    assert told["words"] == [
        " ".join(part.replace("`", "").split()) for part in stop["text"].split("\n\n") if part
    ]
    assert told["decisions"] == [step["words"] for step in view["decisions"]]
    for rule, step in zip(told["rules"], view["decisions"], strict=True):
        assert rule == f"{step['says']} {step['source']}"
    for name, value in told["counters"].items():
        assert value == f"{view['counters'][name]:,}"
    assert set(told["changed"]) == {name for name, _, _ in view["changed"]}
    ways = {step["tree"]: step["path"] for step in view["decisions"] if step["tree"]}
    for tree in view["trees"]:
        way = ways.get(tree["kind"], [])
        assert told["trees"][tree["kind"]] == [
            [
                node["label"],
                node["red"],
                str(way.index(node["key"]) + 1) if node["key"] in way else None,
                view["page"] is not None and view["page"] in node["pages"],
            ]
            for node in places(tree["root"])
        ]
    marks = {standing.name.lower(): mark for standing, mark in MARKS.items()}
    assert told["pages"] == [
        [("▸" if row["looked_at"] else "") + row["page"], row["holds"],
         marks[row["standing"]] + row["stands"]]
        for row in view["pages"]
    ]  # fmt: skip
    assert told["cursor"] == [row["page"] for row in view["pages"] if row["looked_at"]]


def test_it_loads_from_disk_without_a_complaint_and_asks_for_nothing(shown: Chrome) -> None:
    assert complaints(shown) == []
    asked = [address for address in requests(shown) if not address.startswith("data:")]
    assert len(asked) == 1
    assert asked[0].startswith("file:///")
    assert not js(shown, "return document.getElementById('transcript').open")


def test_next_goes_through_every_stop_as_the_data_has_it(shown: Chrome, page: Page) -> None:
    seen = set()
    for number in range(len(page.stops)):
        check(shown, page, number)
        seen.add(js(shown, "return document.getElementById('stop').innerText"))
        if number + 1 < len(page.stops):
            click(shown, "#next")
    assert js(shown, "return document.getElementById('next').disabled")
    assert len(seen) > len(page.stops) * 3 / 4
    drawn = [tree for stop in page.stops for view in stop["views"] for tree in view["trees"]]
    assert max(tree["places"] for tree in drawn) >= 3


def test_every_key_moves_as_the_list_of_keys_says(shown: Chrome, page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    last = len(page.stops) - 1
    visits = page.first(kind="visit")
    done = next(n for n in range(visits, last) if page.stops[n]["kind"] != "visit")
    press(shown, Keys.ARROW_RIGHT)
    check(shown, page, 1)
    press(shown, " ", "n", Keys.ARROW_LEFT)
    check(shown, page, 2)
    press(shown, "b", "p")
    check(shown, page, 0)
    press(shown, "b")
    check(shown, page, 0)
    press(shown, Keys.END)
    check(shown, page, last)
    press(shown, Keys.HOME)
    check(shown, page, 0)
    js(shown, "location.hash = arguments[0]", f"#stop-{visits + 1}")
    press(shown, "s")
    check(shown, page, done)
    press(shown, "S")
    assert page.stops[visits - 1]["kind"] != "visit"
    check(shown, page, visits - 1)
    press(shown, "?")
    assert js(shown, "return document.querySelector('dialog').open")
    press(shown, Keys.ARROW_RIGHT, Keys.ESCAPE)
    assert not js(shown, "return document.querySelector('dialog').open")
    check(shown, page, visits - 1)
    press(shown, "g")
    assert js(shown, "return document.activeElement.id") == "scan"


def test_back_slider_scan_and_address_move_the_stop(shown: Chrome, page: Page) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    second = next(n for n, s in enumerate(page.stops) if s["scan"] == 2 and s["kind"] == "visit")
    Select(shown.find_element(By.ID, "scan")).select_by_visible_text("scan 2")
    check(shown, page, second)
    assert js(shown, SHOWN)["address"] == f"#stop-{second + 1}"
    click(shown, "#back")
    check(shown, page, second - 1)
    assert js(shown, SHOWN)["scan"] == "scan 1"
    slider = shown.find_element(By.ID, "slider")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 7)
    check(shown, page, 7)
    js(
        shown,
        "const s = document.getElementById('slider'); s.value = 23;"
        " s.dispatchEvent(new Event('input'))",
    )
    check(shown, page, 23)
    shown.get("about:blank")
    shown.get(f"{page.path.resolve().as_uri()}#stop-12")
    while not js(shown, "return document.documentElement.dataset.ready === 'yes'"):
        pass
    check(shown, page, 11)
    js(shown, "location.hash = '#stop-999999'")
    press(shown, Keys.SHIFT)
    check(shown, page, len(page.stops) - 1)


def test_a_wrong_and_a_right_answer(shown: Chrome, page: Page) -> None:
    asked = [n for n, stop in enumerate(page.stops) if stop["question"]]
    for number, rightly in zip(asked, (False, True), strict=False):
        question = page.stops[number]["question"]
        right = question["right"]
        choice = right if rightly else (right + 1) % len(question["answers"])
        js(shown, "location.hash = arguments[0]", f"#stop-{number + 1}")
        press(shown, "?", "\ue00c")
        buttons = "return [...document.querySelectorAll('.answer')].map(b => b.innerText)"
        before = js(shown, buttons)
        assert not {"✓", "✗"} & set("".join(before))
        assert question["because"] not in js(shown, "return document.body.innerText")
        if rightly:
            press(shown, str(choice + 1))
        else:
            click(shown, f".answers li:nth-child({choice + 1}) button")
        after = [" ".join(text.split()) for text in js(shown, buttons)]
        assert after[right].startswith("✓")
        assert after[right].endswith("right")
        assert [text.startswith("✗") for text in after] == [
            not rightly and n == choice for n in range(len(after))
        ]
        because = js(shown, "return document.querySelector('.because').textContent")
        assert because == " ".join(question["because"].replace("`", "").split())
        # The first answer counts; going on works, and back it is still answered.
        press(shown, str(right + 1), "n", "\ue012")
        assert js(shown, buttons)[right].startswith("✓")
    press(shown, "\ue010")
    score = js(shown, "return document.querySelector('.score').textContent")
    assert score.startswith(f"1 of {len(asked)} questions answered rightly.")
    assert f"Look again at stop {asked[0] + 1}." in score


def grown(low: int, high: int) -> Stop | None:
    """A tree of the numbers from low to below high."""
    if low >= high:
        return None
    middle = (low + high) // 2
    node = {"key": f"r{middle}", "label": str(middle), "pages": [str(middle)], "dups": []}
    ends = {"left": grown(low, middle), "right": grown(middle + 1, high)}
    return {**node, "red": False, "dead": False, "hidden": False, **ends}


def test_a_large_tree_is_folded_to_the_surroundings_of_the_way_down(shown: Chrome) -> None:
    whole = grown(0, 61)
    by_key = {node["key"]: node for node in places(whole)}
    way: list[str] = []
    node = whole
    while node is not None:
        way.append(node["key"])
        node = node["right"]
    folded = js(shown, "return folded(arguments[0], arguments[1], null)", whole, way)
    kept = {node["key"] for node in places(folded)}
    assert set(way) <= kept
    near = dict.fromkeys(way, 0)
    for key, distance in ((key, distance) for distance in (0, 1) for key in [*near]):
        if near[key] == distance:
            for child in (by_key[key]["left"], by_key[key]["right"]):
                if child is not None:
                    near.setdefault(child["key"], distance + 1)
    assert kept == set(near)
    for node in places(folded):
        original = by_key[node["key"]]
        dropped = any(original[s] is not None and node[s] is None for s in ("left", "right"))
        assert node["hidden"] == dropped
    assert js(shown, "return folded(arguments[0], [], null)", whole) == whole
    small = grown(0, 31)
    assert js(shown, "return folded(arguments[0], ['r15'], null)", small) == small
    drawn = js(
        shown,
        "const tree = {kind: 'unstable', words: '', root: arguments[0], listed: []};"
        "return [...drawTree(tree, [], '30').querySelectorAll('.place')].map((place) => ["
        " place.querySelector('.label').textContent, ...place.getAttribute('transform')"
        ".match(/[\\d.]+/g).map(Number),"
        " Number(place.querySelector('.box').getAttribute('width'))])",
        whole,
    )
    assert [label.removeprefix("▸ ") for label, *_ in drawn] == [str(n) for n in range(61)]
    levels: dict[float, float] = {}
    for _, left, top, wide in drawn:
        assert left > levels.get(top, 0)
        levels[top] = left + wide


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_screen_does_not_scroll_sideways(
    driver: Chrome, page: Page, tmp_path: Path, width: int
) -> None:
    several = Page(tmp_path, "why-two-scans", ["ksm:2011", "uksm:full", "ksm:6.18"])
    for one in (page, several):
        resized(driver, width, 800)
        opened(driver, one.path)
        for number in range(0, len(one.stops), 5):
            js(driver, "ksmtrace.stepper.go(arguments[0])", number)
            assert js(driver, "return document.documentElement.scrollWidth") <= width, number
        js(driver, "document.getElementById('transcript').open = true")
        assert js(driver, "return document.documentElement.scrollWidth") <= width


def test_several_scanners_are_side_by_side_and_differences_marked(
    driver: Chrome, tmp_path: Path
) -> None:
    page = Page(tmp_path, "why-two-scans", ["ksm:2011", "uksm:full"])
    number = max(
        n
        for n, stop in enumerate(page.stops)
        if stop["kind"] == "visit" and all(view["page"] for view in stop["views"])
    )
    resized(driver, 1280, 1000)
    opened(driver, page.path)
    js(driver, "ksmtrace.stepper.go(arguments[0])", number)
    cards = js(
        driver,
        "return [...document.querySelectorAll('.scanner')].map(card => [card.firstChild.innerText,"
        " card.getBoundingClientRect().top, Object.fromEntries([...card.querySelectorAll("
        "'[data-counter]')].map(c => [c.dataset.counter, [c.querySelector('.now').innerText,"
        " c.classList.contains('differs')]]))])",
    )
    assert [card[0] for card in cards] == ["ksm:2011", "uksm:full"] * 2
    assert cards[0][1] == cards[1][1]
    assert cards[2][1] == cards[3][1] > cards[0][1]
    views = page.stops[number]["views"]
    marked = 0
    for name in cards[0][2]:
        values = [view["counters"].get(name) for view in views]
        assert [card[2][name][0] for card in cards[:2]] == [
            "–" if value is None else f"{value:,}" for value in values
        ]
        differs = None not in values and values[0] != values[1]
        assert [card[2][name][1] for card in cards[:2]] == [differs, differs]
        marked += differs
    assert marked
    assert complaints(driver) == []


def test_hostile_words_stay_text_at_every_stop(driver: Chrome, tmp_path: Path) -> None:
    lesson = hostile_lesson()
    frames = play(lesson).all()
    path = tmp_path / "hostile.html"
    path.write_text(lesson_page(lesson, frames))
    driver.get("about:blank")
    complaints(driver)
    requests(driver)
    opened(driver, path)
    told, struck = "", 0
    for number in range(len(frames)):
        js(driver, "ksmtrace.stepper.go(arguments[0])", number)
        if frames[number].question is not None:
            click(driver, ".answers li:nth-child(1) button")
        told += js(driver, "return document.body.innerText")
        assert js(driver, "return document.querySelectorAll('img, iframe, b9').length") == 0
        struck += js(driver, "return document.querySelectorAll('.place.dead').length")
    for name in ("about", "question", "answer", "because", "content"):
        assert clean(HOSTILE[name]) in told, name
    assert not {"\u202e", "\u2066", "\x1b"} & set(told)
    assert struck
    assert driver.title == clean(HOSTILE["title"])
    assert complaints(driver) == []
    assert [a for a in requests(driver) if not a.startswith(("file:", "data:"))] == []


def test_paper_has_this_stop_and_all_words_but_no_buttons(shown: Chrome, page: Page) -> None:
    number = page.first(kind="visit")
    js(shown, "ksmtrace.stepper.go(arguments[0])", number)
    js(shown, "dispatchEvent(new Event('beforeprint'))")
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    text = " ".join(js(shown, "return document.body.innerText").split())
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    js(shown, "dispatchEvent(new Event('afterprint'))")
    assert "Next step" not in text
    assert page.stops[number]["where"] in text
    assert page.stops[number]["views"][0]["decisions"][0]["says"] in text
    for stop in page.stops:
        assert " ".join(stop["text"].replace("`", "").split()) in text
        if stop["question"]:
            assert stop["question"]["because"].replace("`", "") in text
    assert not js(shown, "return document.getElementById('transcript').open")


def test_with_scripts_off_the_lesson_is_there_in_words(driver: Chrome, page: Page) -> None:
    from selenium.webdriver.common.by import By

    driver.get("about:blank")
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(page.path.resolve().as_uri())
        text = " ".join(driver.find_element(By.TAG_NAME, "main").text.split())
        assert complaints(driver) == []
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "with scripts off" in text
    for stop in page.stops:
        assert " ".join(stop["text"].replace("`", "").split()) in text
        if stop["question"]:
            assert stop["question"]["answers"][0] in text
    assert "Counters at the end" in text
