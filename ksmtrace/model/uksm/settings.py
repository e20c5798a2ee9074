"""The files of /sys/kernel/mm/uksm that can be written: how values are read and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.uksm import RATIO_SCALE
from ksmtrace.model.ksm import KnobRefused
from ksmtrace.model.uksm.governors import (
    ABUNDANT,
    DEFAULT_SLEEP_MS,
    GOVERNORS,
    THRASH,
    TICK_MS,
    governor_named,
)
from ksmtrace.model.uksm.planning import real_ratio

_LEAST_MAX_CPU, _MOST_MAX_CPU = 10, 99
_PER_CENT = 99
_U32 = (1 << 32) - 1
_SHARE = re.compile(r"MAX/([1-9]\d{0,4})")


@dataclass
class Settings:
    """What is set. sleep: milliseconds, perhaps made longer; sleep_saved: as it was set."""

    governor: str
    cpu_ratios: tuple[int, ...] = ()
    cover_ms: tuple[int, ...] = ()
    max_cpu_percentage: int = 0
    run: int = 1
    sleep: int = DEFAULT_SLEEP_MS
    sleep_saved: int = DEFAULT_SLEEP_MS
    abundant_threshold: int = ABUNDANT
    thrash_threshold: int = THRASH

    def __post_init__(self) -> None:
        self.load(self.governor)

    def load(self, governor: str) -> None:
        """Take a governor's preset. Raises KsmtraceError (usage)."""
        preset = governor_named(governor)
        self.governor = governor
        self.cpu_ratios = preset.cpu_ratios
        self.cover_ms = preset.cover_ms
        self.max_cpu_percentage = preset.max_cpu_percentage

    def real_ratio(self, rung: int) -> int:
        """A rung's CPU share, in 1/10000 of a CPU."""
        return real_ratio(self.cpu_ratios[rung], self.max_cpu_percentage)

    def shown(self) -> dict[str, str]:
        """Each file's text."""
        return {
            "run": str(self.run),
            "sleep_millisecs": str(self.sleep),
            "cpu_governor": " ".join(
                f"[{name}]" if name == self.governor else name for name in GOVERNORS
            ),
            "max_cpu_percentage": str(self.max_cpu_percentage),
            "cpu_ratios": " ".join(
                str(ratio) if ratio > 0 else f"MAX/{RATIO_SCALE // -ratio}"
                for ratio in self.cpu_ratios
            ),
            "eval_intervals": " ".join(map(str, self.cover_ms)),
            "abundant_threshold": str(self.abundant_threshold),
            "thrash_threshold": str(self.thrash_threshold),
        }

    def set(self, name: str, text: str) -> None:
        """Write a file. Raises KsmtraceError (usage) for an unknown one, KnobRefused."""
        write = _WRITERS.get(name)
        if write is None:
            raise KsmtraceError(
                f"UKSM has no knob {name!r}", f"there are {', '.join(_WRITERS)}", Exit.USAGE
            )
        write(self, text.strip())


def _number(text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise KnobRefused("EINVAL")
    return int(text)


def _set_sleep(settings: Settings, text: str) -> None:
    milliseconds = _number(text, 1000)
    # Kept in ticks.
    settings.sleep = settings.sleep_saved = -(-milliseconds // TICK_MS) * TICK_MS


def _set_governor(settings: Settings, text: str) -> None:
    for name in GOVERNORS:
        if text.startswith(name):
            settings.load(name)
            return
    raise KnobRefused("EINVAL")


def _set_ratios(settings: Settings, text: str) -> None:
    settings.cpu_ratios = tuple(_ratio(word) for word in _four(text))


def _ratio(word: str) -> int:
    share = _SHARE.fullmatch(word)
    if share is not None:
        ratio = -(RATIO_SCALE // int(share[1]))
    else:
        ratio = _number(word, RATIO_SCALE)
        if ratio == RATIO_SCALE:
            raise KsmtraceError(
                "a ratio of 10000 makes UKSM divide by zero", "give 9999 or less", Exit.USAGE
            )
    if ratio == 0:
        raise KnobRefused("EINVAL")
    return ratio


def _set_cover(settings: Settings, text: str) -> None:
    settings.cover_ms = tuple(_number(word, _U32) for word in _four(text))


def _four(text: str) -> list[str]:
    words = text.split()
    if len(words) != 4:
        raise KnobRefused("EINVAL")
    return words


def _set_max_cpu(settings: Settings, text: str) -> None:
    settings.max_cpu_percentage = min(_MOST_MAX_CPU, max(_LEAST_MAX_CPU, _number(text, 100)))


def _plain(name: str, most: int) -> Callable[[Settings, str], None]:
    def write(settings: Settings, text: str) -> None:
        setattr(settings, name, _number(text, most))

    return write


_WRITERS: Mapping[str, Callable[[Settings, str], None]] = MappingProxyType(
    {
        "run": _plain("run", 1),
        "sleep_millisecs": _set_sleep,
        "cpu_governor": _set_governor,
        "max_cpu_percentage": _set_max_cpu,
        "cpu_ratios": _set_ratios,
        "eval_intervals": _set_cover,
        "abundant_threshold": _plain("abundant_threshold", _PER_CENT),
        "thrash_threshold": _plain("thrash_threshold", _PER_CENT),
    }
)
"""In the order in which they are shown."""
