"""How amounts are told, everywhere the same. An unknown one is a dash, never a zero."""

from __future__ import annotations

UNKNOWN = "–"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(number: float | None) -> str:
    """A number of things: 12,345."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def size(number: float | None) -> str:
    """Bytes, of either sign: 1.5 MiB."""
    if number is None:
        return UNKNOWN
    unit = 0
    while abs(number) >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:,.0f} {_UNITS[unit]}" if unit == 0 else f"{number:,.1f} {_UNITS[unit]}"


def seconds(number: float | None) -> str:
    """A duration: 12 ms, 3.45 s, 2 min 05 s."""
    if number is None:
        return UNKNOWN
    if number < 0.9995:
        return f"{number * 1000:,.{1 if number < 0.01 else 0}f} ms"
    if number < 120:
        return f"{number:.2f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes:,} min {rest:02d} s"
