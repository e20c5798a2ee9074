"""Types of arguments: what argparse calls, and how it tells what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(what: str, least: int, most: int) -> Callable[[str], int]:
    """A whole number from least to most. what: "a process id"."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return number

    return parse


def seconds(text: str) -> float:
    """A number of seconds, from 0 up."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds below a million")
    return number


def duration(text: str) -> float:
    """Seconds: 90, 90s, 10m, 2h."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        value = seconds(number) * units[unit]
    except argparse.ArgumentTypeError:
        value = 0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90s, 10m or 2h")
    return value


def percent(text: str) -> float:
    """A share of a core: 5%, 5 or 0.5%."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = 0
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of a core: write 5%")
    return number


process_id = whole("a process id", 1, (1 << 31) - 1)
