"""What the person at the screen has chosen, and what each key does to it: a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from ksmtrace.top.state import GROUPS, Group

if TYPE_CHECKING:
    from ksmtrace.top.table import ColumnName

SORTS: tuple[ColumnName, ...] = (
    "saved_bytes", "merged_pages", "profit_bytes", "merges_per_s", "net_per_s", "breaks_per_s",
)  # fmt: skip
"""What `s` steps through."""

_T = TypeVar("_T")
_SLOWEST, _FASTEST = 1 / 64, 1024.0


@dataclass(frozen=True)
class Jump:
    """Where to go in a recording: some seconds or some scans on or back; or an end of it."""

    seconds: float = 0.0
    scans: int = 0
    to_begin: bool = False
    to_end: bool = False


@dataclass(frozen=True)
class Ui:
    """Choices. speed: None live. jumps: to be carried out, in order. quitting: to be left."""

    by: Group = "process"
    sort: ColumnName = "saved_bytes"
    reverse: bool = False
    paused: bool = False
    help: bool = False
    speed: float | None = None
    jumps: tuple[Jump, ...] = ()
    quitting: bool = False


@dataclass(frozen=True)
class Key:
    """A key. names: as `terminal.keys_of` gives them. shown: as help has it."""

    names: tuple[str, ...]
    shown: str
    words: str
    recording: bool = False


KEYS: tuple[Key, ...] = (
    Key(("q", "escape"), "q", "quit"),
    Key(("?", "h"), "?", "this help, and back"),
    Key((" ", "p"), "space", "stop the screen, and go on"),
    Key(("s",), "s", "sort by the next column"),
    Key(("r",), "r", "the smallest first, and back"),
    Key(("g",), "g", "by process, cgroup or VM"),
    Key(("right",), "→", "5 seconds on", recording=True),
    Key(("left",), "←", "5 seconds back", recording=True),
    Key(("up",), "↑", "a minute on", recording=True),
    Key(("down",), "↓", "a minute back", recording=True),
    Key((".",), ".", "on to where the next scan ends", recording=True),
    Key((",",), ",", "back to where a scan ended before", recording=True),
    Key(("+", "="), "+", "twice as fast", recording=True),
    Key(("-",), "-", "half as fast", recording=True),
    Key(("home", "0"), "0", "to the beginning", recording=True),
    Key(("end", "$"), "$", "to the end", recording=True),
)
"""Every key, each with what `pressed` does for it."""

_JUMPS = {
    "→": Jump(seconds=5), "←": Jump(seconds=-5), "↑": Jump(seconds=60), "↓": Jump(seconds=-60),
    ".": Jump(scans=1), ",": Jump(scans=-1), "0": Jump(to_begin=True), "$": Jump(to_end=True),
}  # fmt: skip


def pressed(ui: Ui, name: str) -> Ui:
    """The choices after a key. name: as `terminal.keys_of` gives it; an unknown one does nothing.

    Help is left by any key but q. To step from scan to scan pauses.
    """
    key = next((key for key in KEYS if name in key.names), None)
    if ui.help and (key is None or key.shown != "q" or name == "escape"):
        return replace(ui, help=False)
    if key is None or (key.recording and ui.speed is None):
        return ui
    if key.recording and key.shown in _JUMPS:
        stepping = key.shown in ".,"
        return replace(ui, jumps=(*ui.jumps, _JUMPS[key.shown]), paused=ui.paused or stepping)
    return _CHANGES[key.shown](ui)


def _next(choices: tuple[_T, ...], now: _T) -> _T:
    return choices[(choices.index(now) + 1) % len(choices)] if now in choices else choices[0]


_CHANGES: Mapping[str, Callable[[Ui], Ui]] = MappingProxyType({
    "q": lambda ui: replace(ui, quitting=True),
    "?": lambda ui: replace(ui, help=True),
    "space": lambda ui: replace(ui, paused=not ui.paused),
    "s": lambda ui: replace(ui, sort=_next(SORTS, ui.sort)),
    "r": lambda ui: replace(ui, reverse=not ui.reverse),
    "g": lambda ui: replace(ui, by=_next(GROUPS, ui.by)),
    "+": lambda ui: replace(ui, speed=min((ui.speed or 1.0) * 2, _FASTEST)),
    "-": lambda ui: replace(ui, speed=max((ui.speed or 1.0) / 2, _SLOWEST)),
})  # fmt: skip
