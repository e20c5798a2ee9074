from __future__ import annotations

from ksmtrace.views.lab_step import render_step


def test_a_step_tells_what_it_does_its_events_and_what_changed() -> None:
    text = render_step(
        4, {"scan": 1, "set": {"run": 2}}, "word " * 30, ["NEW a.heap"],
        {"pages_shared": (0, 1), "cow_ksm": (None, 3)},
    )  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "  4  scan = 1, set = run = 2"
    assert "     NEW a.heap" in lines
    assert lines[-2:] == [
        "       pages_shared                  0 → 1",
        "       cow_ksm                       – → 3",
    ]
    assert max(map(len, lines)) <= 80
    assert text.count("word") == 30


def test_control_characters_in_a_scenario_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in render_step(1, {"map": "\x1b[2J"}, "\x1b[31m", [], {})
