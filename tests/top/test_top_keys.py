from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.terminal import keys_of
from ksmtrace.top.ui import KEYS, SORTS, Jump, Ui, pressed

LIVE, PLAYING = Ui(), Ui(speed=4.0)


@given(st.binary(max_size=41))
def test_whatever_a_terminal_sends_is_keys_or_nothing(data: bytes) -> None:
    ui = PLAYING
    for key in keys_of(data):
        ui = pressed(ui, key)
    assert ui.sort in SORTS


def test_q_quits_from_everywhere() -> None:
    assert pressed(LIVE, "q").quitting
    assert pressed(Ui(help=True), "q").quitting


def test_any_other_key_leaves_help_and_does_nothing_else() -> None:
    for key in ("?", "s", "escape", "x", " "):
        assert pressed(pressed(PLAYING, "?"), key) == PLAYING


def test_s_comes_round_through_every_column() -> None:
    ui, seen = LIVE, []
    for _ in SORTS:
        seen.append(ui.sort)
        ui = pressed(ui, "s")
    assert tuple(seen) == SORTS
    assert ui == LIVE


def test_g_comes_round_through_process_cgroup_and_vm() -> None:
    ui, seen = LIVE, []
    for _ in range(3):
        ui = pressed(ui, "g")
        seen.append(ui.by)
    assert seen == ["cgroup", "vm", "process"]


def test_space_and_r_undo_themselves() -> None:
    for key, changed in ((" ", Ui(paused=True)), ("r", Ui(reverse=True))):
        assert pressed(LIVE, key) == changed
        assert pressed(changed, key) == LIVE


def test_keys_of_a_recording_do_nothing_live() -> None:
    for key in KEYS:
        if key.recording:
            assert [pressed(LIVE, name) for name in key.names] == [LIVE] * len(key.names)


def test_to_step_a_scan_pauses_and_to_seek_does_not() -> None:
    assert pressed(PLAYING, ".") == Ui(speed=4.0, paused=True, jumps=(Jump(scans=1),))
    assert pressed(PLAYING, ",") == Ui(speed=4.0, paused=True, jumps=(Jump(scans=-1),))
    assert pressed(PLAYING, "left") == Ui(speed=4.0, jumps=(Jump(seconds=-5),))
    assert pressed(PLAYING, "$") == Ui(speed=4.0, jumps=(Jump(to_end=True),))


def test_keys_pressed_at_once_are_all_carried_out() -> None:
    ui = PLAYING
    for key in ("right", "right", "."):
        ui = pressed(ui, key)
    assert ui.jumps == (Jump(seconds=5), Jump(seconds=5), Jump(scans=1))


def test_plus_and_minus_double_and_halve_within_bounds() -> None:
    assert pressed(PLAYING, "+").speed == 8
    assert pressed(PLAYING, "-").speed == 2
    ui = PLAYING
    for _ in range(31):
        ui = pressed(ui, "-")
    assert ui.speed == 1 / 64


def test_every_key_that_help_names_does_something() -> None:
    for key in KEYS:
        for name in key.names:
            assert pressed(PLAYING, name) != PLAYING
