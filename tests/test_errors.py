from __future__ import annotations

from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "HOST_CANNOT": 3,
        "BAD_RECORDING": 4,
        "EVENTS_LOST": 5,
        "DIFFERENCES": 6,
        "INTERRUPTED": 130,
    }


def test_an_error_fails_without_a_hint_unless_it_says_otherwise() -> None:
    error = KsmtraceError("no ink")
    assert (error.message, error.hint, error.exit_code) == ("no ink", None, Exit.FAILED)
    assert str(error) == "no ink"


def test_what_a_host_cannot_do_is_told_with_every_obstacle_and_remedy() -> None:
    obstacles = [Obstacle("no KSM", "boot another kernel"), Obstacle("no root", "run with sudo")]
    error = host_cannot(obstacles, "trace KSM")
    assert error.exit_code == Exit.HOST_CANNOT
    assert "can't trace KSM" in error.message
    for obstacle in obstacles:
        assert f"{obstacle.what}: {obstacle.remedy}" in error.message
