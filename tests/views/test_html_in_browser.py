"""The report as a browser shows it: a headless Chromium, pages from disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import browser, browser_obstacle, complaints, opened, requests, resized
from support.exported import busy_recording
from support.html_pages import hostile_recording, million_events, page_of

from ksmtrace.processes.identity import clean
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of

if TYPE_CHECKING:
    import pandas as pd
    from selenium.webdriver import Chrome

_OBSTACLE = browser_obstacle()
pytestmark = pytest.mark.skipif(_OBSTACLE is not None, reason=str(_OBSTACLE))

RECORDING = Path(__file__).parents[2] / "recordings" / "analysis.ksm"
MERGED = ("merged", "inherited", "zero", "doubtful")


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "analysis.html"
    path.write_text(page_of(RECORDING))
    return path


@pytest.fixture
def shown(driver: Chrome, page: Path) -> Chrome:
    resized(driver, 1280, 1000)
    requests(driver)
    complaints(driver)
    opened(driver, page)
    return driver


def js(driver: Chrome, script: str, *arguments: Any) -> Any:
    return driver.execute_script(script, *arguments)


def press(driver: Chrome, selector: str, *keys: str) -> None:
    from selenium.webdriver.common.by import By

    driver.find_element(By.CSS_SELECTOR, selector).send_keys(*keys)


def maps_of(driver: Chrome) -> dict[str, dict[str, int]]:
    """What each map's words say, by process and mapping."""
    found = js(
        driver,
        "return [...document.querySelectorAll('.map')].map(map =>"
        " [map.dataset.map, map.querySelector('.counts').dataset.sums])",
    )
    return {name: json.loads(sums) for name, sums in found}


def merged_pages(lives: pd.DataFrame, tgid: int, region: int, at_ns: int) -> int:
    mine = lives[(lives["tgid"] == tgid) & (lives["region"] == region)]
    there = mine["merged_ns"].fillna(0) <= at_ns
    there &= mine["ended_before_ns"].isna() | (mine["ended_before_ns"] > at_ns)
    return int(mine[there]["addr"].nunique())


def test_it_loads_from_disk_without_a_complaint_and_asks_for_nothing(shown: Chrome) -> None:
    assert complaints(shown) == []
    asked = [address for address in requests(shown) if not address.startswith("data:")]
    assert len(asked) == 1
    assert asked[0].startswith("file:///")
    assert js(shown, "return document.querySelectorAll('.chart').length") == 7
    assert js(shown, "return document.querySelectorAll('.map canvas').length") == 6


def test_the_slider_moves_the_maps_as_the_timeline_says(shown: Chrome) -> None:
    timeline = timeline_of(StoredRecording(RECORDING))
    begin, ledger = timeline.context.begin_ns, timeline.region_ledger
    end = begin + round(js(shown, "return pageData('maps').duration_s") * 1e9)
    regions = {(row.tgid, f"at {int(row.start):x}"): n for n, row in enumerate(ledger.itertuples())}
    seen = set()
    for moment in (0, 137, 401, 700, 1000):
        js(
            shown,
            "const slider = document.getElementById('moment'); slider.value = arguments[0];"
            " slider.dispatchEvent(new Event('input'))",
            moment,
        )
        at_ns = begin + moment * (end - begin) // 1000
        for name, told in maps_of(shown).items():
            _, tgid, place = name.split(" ", 2)
            expected = merged_pages(timeline.pages, int(tgid), regions[int(tgid), place], at_ns)
            assert sum(told[state] for state in MERGED) == expected, (name, moment)
            seen.add((name, expected))
    assert len(seen) > len(regions) + 3


PIXEL = """
const drawing = ksmtrace.maps.shown[0];
const scale = drawing.scale;
const at = drawing.canvas.getContext("2d").getImageData(2 * scale, 2 * scale, 1, 1).data;
return `rgb(${at[0]}, ${at[1]}, ${at[2]})`;
"""


def test_a_cell_has_the_colour_of_its_state(shown: Chrome) -> None:
    js(shown, "ksmtrace.maps.go(1000, true)")
    assert js(shown, PIXEL) == js(shown, "return themeColour('--state-merged')")
    js(shown, "ksmtrace.maps.go(0, true)")
    assert js(shown, PIXEL) == js(shown, "return themeColour('--state-waiting')")


def test_the_slider_obeys_the_keyboard_and_the_charts_follow(shown: Chrome) -> None:
    from selenium.webdriver.common.keys import Keys

    press(shown, "#moment", Keys.HOME)
    assert js(shown, "return ksmtrace.moment.seconds") == 0
    press(shown, "#moment", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert js(shown, "return document.getElementById('moment').value") == "3"
    seconds = js(shown, "return ksmtrace.moment.seconds")
    assert seconds == pytest.approx(3 / 1000 * js(shown, "return pageData('maps').duration_s"))
    assert js(shown, "return document.querySelector('.timebar output').textContent") != ""


RANGES = """
return ksmtrace.charts.plots.map(({u}) => [u.scales.x.min, u.scales.x.max]);
"""


def test_zoom_links_all_charts_and_escape_shows_all(shown: Chrome) -> None:
    from selenium.webdriver.common.keys import Keys

    whole = js(shown, RANGES)
    assert len({tuple(one) for one in whole}) == 1
    press(shown, ".chart:nth-child(3) .plot", "+", "+", Keys.ARROW_RIGHT)
    closer = js(shown, RANGES)
    assert len({tuple(one) for one in closer}) == 1
    (low, high), (least, most) = closer[0], whole[0]
    assert high - low == pytest.approx((most - least) / 4)
    assert low > least + (most - least) * 0.375
    press(shown, ".chart:nth-child(1) .plot", Keys.ESCAPE)
    assert js(shown, RANGES) == whole


def test_dragging_across_a_chart_zooms_and_a_click_moves_the_maps(shown: Chrome) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    over = shown.find_element(By.CSS_SELECTOR, ".chart:nth-child(3) .u-over")
    js(shown, "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", over)
    ActionChains(shown).move_to_element_with_offset(over, -200, 0).click_and_hold().move_by_offset(
        100, 0
    ).release().perform()
    ranges = {tuple(one) for one in js(shown, RANGES)}
    assert len(ranges) == 1
    length = js(shown, "return ksmtrace.charts.length")
    low, high = next(iter(ranges))
    width = js(shown, "return arguments[0].clientWidth", over)
    assert (high - low) / length == pytest.approx(100 / width, rel=0.05)
    ActionChains(shown).move_to_element(over).click().perform()
    assert js(shown, "return ksmtrace.moment.seconds") == pytest.approx(
        (low + high) / 2, abs=(high - low) / 50
    )
    ActionChains(shown).double_click(over).perform()
    assert {tuple(one) for one in js(shown, RANGES)} == {(0, length)}


def test_pointing_at_one_chart_reads_all_of_them(shown: Chrome) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    over = shown.find_element(By.CSS_SELECTOR, ".chart:nth-child(1) .u-over")
    js(shown, "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", over)
    ActionChains(shown).move_to_element(over).perform()
    told = js(
        shown,
        "return [...document.querySelectorAll('.chart')].map(c =>"
        " c.querySelector('.values b').textContent)",
    )
    assert told[0].endswith("MiB")
    assert all(told), told


def test_a_map_is_read_cell_by_cell_with_the_keyboard(shown: Chrome) -> None:
    from selenium.webdriver.common.keys import Keys

    js(shown, "ksmtrace.maps.go(1000, true)")
    press(shown, ".map canvas", Keys.HOME, Keys.ARROW_RIGHT)
    told = js(shown, "return document.querySelector('.map .told').textContent")
    assert re.match(r"7fdcc6ec1000: merged \(.*\); \w+; KSM page \d+, mapped \d+ times", told), told


BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


def test_the_theme_follows_the_system_and_the_button(shown: Chrome) -> None:
    light = js(shown, BACKGROUND)
    button = "document.getElementById('theme').click()"
    assert js(shown, "return document.getElementById('theme').textContent") == "Theme: system"
    js(shown, button)
    assert js(shown, BACKGROUND) == light
    js(shown, button)
    assert js(shown, "return document.getElementById('theme').textContent") == "Theme: dark"
    dark = js(shown, BACKGROUND)
    assert dark != light
    assert js(shown, PIXEL) == js(shown, "return themeColour('--state-merged')")
    js(shown, button)
    assert js(shown, BACKGROUND) == light
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert js(shown, BACKGROUND) == dark
    features[0]["value"] = "light"
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_paper_is_light_and_has_no_buttons(shown: Chrome) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    told = {"media": "print", "features": features}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", told)
    assert js(shown, BACKGROUND) == "rgb(255, 255, 255)"
    assert js(shown, "return getComputedStyle(document.querySelector('nav')).display") == "none"
    features[0]["value"] = "light"
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_screen_does_not_scroll_sideways(shown: Chrome, page: Path, width: int) -> None:
    resized(shown, width, 800)
    opened(shown, page)
    assert js(shown, "return document.documentElement.scrollWidth") <= width
    assert (
        js(
            shown,
            "return Math.max(...[...document.querySelectorAll('.card, .plot, .map canvas')]"
            ".map(e => e.getBoundingClientRect().right))",
        )
        <= width
    )


def test_everything_that_can_be_used_is_reached_by_tab_and_shows_it(shown: Chrome) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    js(shown, "document.activeElement.blur(); scrollTo(0, 0)")
    body = shown.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert js(shown, "return document.activeElement.className") == "skip"
    reached, unmarked = set(), []
    for _ in range(75):
        shown.switch_to.active_element.send_keys(Keys.TAB)
        told = js(
            shown,
            "const e = document.activeElement; const s = getComputedStyle(e);"
            "return [e.id || e.className || e.tagName, s.outlineStyle]",
        )
        reached.add(told[0])
        if told[1] == "none" and told[0] != "BODY":
            unmarked.append(told[0])
    assert {"theme", "moment", "process", "plot", "scroll", "CANVAS"} <= reached
    assert unmarked == []


def test_hostile_names_stay_text(driver: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page_of(hostile_recording(tmp_path / "h.ksm")))
    complaints(driver)
    requests(driver)
    opened(driver, path)
    assert complaints(driver) == []
    assert [a for a in requests(driver) if not a.startswith(("file:", "data:"))] == []
    assert driver.title.startswith("KSM report")
    assert js(driver, "return document.querySelectorAll('img, iframe, svg').length") == 0
    told = js(driver, "return document.body.innerText")
    assert "<img src=x onerror=\"document.title='owned'\">" in told
    assert "</title><script>document.title='owned'</script>" in told
    assert clean("\u202e") not in js(driver, "return document.querySelector('.map h3').textContent")
    assert not {"\u202e", "\u2066"} & set(told)


def test_a_script_that_got_in_does_not_run(driver: Chrome, tmp_path: Path) -> None:
    """The second wall: the page's policy, should the first one ever fall."""
    path = tmp_path / "pierced.html"
    text = page_of(busy_recording(tmp_path / "b.ksm"))
    bad = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    path.write_text(text.replace("<footer>", f"<footer>{bad}"))
    complaints(driver)
    opened(driver, path)
    assert driver.title.startswith("KSM report")
    told = " ".join(complaints(driver))
    assert "Content Security Policy" in told


def test_with_scripts_off_the_summary_shows_and_says_what_is_missing(page: Path) -> None:
    from selenium.webdriver.common.by import By

    with browser(scripts=False) as driver:
        driver.get(page.resolve().as_uri())
        text = driver.find_element(By.TAG_NAME, "main").text
        assert complaints(driver) == []
    assert "Yes, it pays" in text
    assert "with scripts off they are missing" in text
    assert "web-1 31847" in text
    assert "55 of 55 decisions" in text


def test_a_million_events_open_at_once(driver: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "million.html"
    path.write_text(page_of(million_events(tmp_path / "m.ksm")))
    complaints(driver)
    # Some tenths of a second; a machine that does much else may take a while.
    assert opened(driver, path) < 5
    assert complaints(driver) == []
    js(driver, "ksmtrace.maps.go(0, true)")
    before = maps_of(driver)
    js(driver, "ksmtrace.maps.go(700, true)")
    assert maps_of(driver) != before
