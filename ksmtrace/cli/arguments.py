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


process_id = whole("a process id", 1, (1 << 31) - 1)
