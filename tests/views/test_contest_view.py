from __future__ import annotations

import copy
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from ksmtrace.views.contest import render_contest


def outcome(on: str, **other: Any) -> dict[str, Any]:
    settings = (
        {"seed": 0} if on.startswith("uksm") else {"pages_to_scan": 137, "sleep_millisecs": 20}
    )
    return {
        "on": on,
        "settings": settings,
        "partial": False,
        "seconds": 10.0,
        "saved_pages": 1009,
        "saved_pages_mean": 503.4,
        "time_to_50_s": 2.5,
        "time_to_90_s": 7.25,
        "time_to_99_s": None,
        "page_visits": 54321,
        "hashed_bytes": 3 << 20,
        "compared_bytes": 1 << 20,
        "merges": 1013,
        "breaks": 17,
        "cpu_s": 0.5,
        "cpu_share": 0.05,
        "cpu_us_per_saved_page": 495.5,
        "off_target": None,
        "curve": {
            "time_s": [0.0, 2.5, 7.25, 10.0],
            "cpu_s": [0.0, 0.1, 0.4, 0.5],
            "saved_pages": [0.0, 600.0, 1009.0, 1009.0],
        },
        **other,
    }


def report(*on: str, protocols: tuple[str, ...] = ("cpu", "defaults")) -> dict[str, Any]:
    return {
        "title": "Two machines",
        "about": "A line\nand another.",
        "on": list(on),
        "seconds": 10.0,
        "optimum_pages": 1109,
        "page_bytes": 4096,
        "seed": 5,
        "partial": False,
        "costs": {"origin": "measured here", "ns": {}},
        "ground": [f"{name}: as it is" for name in on],
        "protocols": [
            {
                "protocol": name,
                "title": f"title of {name}",
                "meaning": "",
                "outcomes": [outcome(o) for o in on],
            }
            for name in protocols
        ],
        "notes": ["a note"],
    }


def text(told: dict[str, Any], width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, highlight=False).print(render_contest(told, width))
    return out.getvalue()


def row(printed: str, label: str) -> list[str]:
    """The cells of a table's first row with that label."""
    lines = printed.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("pages "))
    line = next(line for line in lines[begin:] if line.strip().startswith(label))
    return line.strip().removeprefix(label).split("  ")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("scanners", [1, 3, 5, 9])
def test_it_fits_however_many_scanners_there_are(scanners: int, width: int) -> None:
    on = [f"ksm:6.{number}" for number in range(scanners)]
    on[-1] = "uksm:full-ghost-dense_entry-credit-freeze"
    printed = text(report(*on), width)
    assert max(map(len, printed.splitlines())) <= width
    for name in on[:-1]:
        assert f" {name}" in printed


def test_the_figures_stand_in_their_units() -> None:
    printed = text(report("ksm:6.12", "uksm:full"))
    for label, words in {
        "pages_to_scan": "137",
        "saved at the end": "1,009",
        "saved on average": "503",
        "time to 50 %": "2.50 s",
        "time to 99 %": "",
        "page visits": "54,321",
        "hashed": "3.0 MiB",
        "CPU time": "500 ms",
        "CPU share": "5.00%",
        "CPU a page saved": "495.5 µs",
    }.items():
        assert words in "  ".join(row(printed, label)), label
    for said in (
        "1,109 pages (4.3 MiB)",
        "measured here",
        "seed 5",
        "A line and another.",
        "note: a note",
        "title of cpu",
        "title of defaults",
        "ksm:6.12: as it is",
    ):
        assert said in printed


def test_what_is_not_known_is_a_dash() -> None:
    printed = text(report("ksm:6.12", "uksm:full"))
    assert [cell.strip() for cell in row(printed, "pages_to_scan") if cell.strip()] == ["137", "–"]
    told = report("ksm:6.12", "uksm:full")
    for protocol in told["protocols"]:
        protocol["outcomes"][1]["time_to_99_s"] = 9.9
    cells = [cell.strip() for cell in row(text(told), "time to 99 %") if cell.strip()]
    assert cells == ["–", "9.90 s"]


def test_the_chart_shows_each_scanner_under_each_protocol_and_a_uksm_once() -> None:
    lines = text(report("ksm:6.12", "uksm:full")).splitlines()
    drawn = [line.split("  ")[0].split(" ▁")[0].strip() for line in lines if "█" in line]
    assert drawn == ["ksm:6.12 cpu", "ksm:6.12 defaults", "uksm:full"] * 2


def test_the_height_is_what_was_saved_at_the_time() -> None:
    told = report("ksm:6.12", protocols=("defaults",))
    printed = text(told)
    line = next(line for line in printed.splitlines() if "█" in line)
    cells = line.removeprefix("ksm:6.12 ").split(" ")[0]
    # A quarter of the time nothing, then 600 of 1,109 pages up to 7.25 s, then nearly all.
    heights = {"▁": 0, "▅": 0, "█": 0}
    for cell in cells:
        heights[cell] += 1
    assert heights["▁"] == pytest.approx(len(cells) * 0.25, abs=1)
    assert heights["▅"] == pytest.approx(len(cells) * 0.475, abs=2)
    assert cells == "".join(sorted(cells))


def test_a_scanner_that_took_less_cpu_time_ends_sooner_on_that_axis() -> None:
    told = report("ksm:6.12", "uksm:full", protocols=("defaults",))
    short = copy.deepcopy(told["protocols"][0]["outcomes"][1])
    short["curve"]["cpu_s"] = [0.0, 0.05, 0.2, 0.25]
    told["protocols"][0]["outcomes"][1] = short
    lines = [line for line in text(told).splitlines() if "█" in line]
    lengths = [len(line.split("1,009")[0].rstrip()) for line in lines]
    assert lengths[0] == lengths[1]
    label = len("uksm:full ")
    assert lengths[3] - label == pytest.approx((lengths[2] - label) / 2, abs=1)


def test_what_was_interrupted_says_so() -> None:
    told = report("uksm:full", "ksm:6.12", protocols=("defaults",))
    told["partial"] = True
    told["protocols"][0]["outcomes"] = [outcome("uksm:full", partial=True)]
    printed = text(told)
    assert "PARTIAL" in printed
    assert "partial" in "  ".join(row(printed, "title of defaults"))


def test_nothing_that_could_be_saved_is_drawn_all_the_same() -> None:
    told = report("ksm:6.12")
    told["optimum_pages"] = 0
    for protocol in told["protocols"]:
        protocol["outcomes"] = [
            outcome("ksm:6.12", saved_pages=0, time_to_50_s=None, cpu_us_per_saved_page=None,
                    curve={"time_s": [0.0], "cpu_s": [0.0], "saved_pages": [0.0]})
        ]  # fmt: skip
    assert "0 pages" in text(told)


def test_a_foreign_title_is_shown_and_not_interpreted() -> None:
    told = report("ksm:6.12")
    told["title"] = "[bold]x\x1b[31m"
    assert "[bold]x" in text(told)
    assert "\x1b" not in text(told)
