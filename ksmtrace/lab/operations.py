"""What a scenario comes down to: operations with absolute addresses.

`lab.plan` makes them from a scenario's steps; `lab.on_model` and `lab.on_kernel` perform them.
Addresses and lengths are in bytes. A page's content is its bytes without trailing zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Advice = Literal["mergeable", "unmergeable", "discard"]
Access = Literal["write", "read", "none"]


class Order:
    """An operation that a process performs itself. word: what it is told."""

    word: ClassVar[str]
    process: str

    def arguments(self) -> tuple[Any, ...]:
        """Everything but the process."""
        return tuple(vars(self).values())[1:]


@dataclass(frozen=True)
class Start:
    """A process begins."""

    process: str


@dataclass(frozen=True)
class Map(Order):
    """Private anonymous memory, of huge pages if possible or never, on a NUMA node."""

    word = "map"
    process: str
    start: int
    length: int
    huge: bool
    node: int = 0


@dataclass(frozen=True)
class Advise(Order):
    """Madvise."""

    word = "advise"
    process: str
    start: int
    length: int
    advice: Advice


@dataclass(frozen=True)
class Protect(Order):
    """Mprotect."""

    word = "protect"
    process: str
    start: int
    length: int
    access: Access


@dataclass(frozen=True)
class Unmap(Order):
    """Munmap."""

    word = "unmap"
    process: str
    start: int
    length: int


@dataclass(frozen=True)
class Write(Order):
    """Whole pages are overwritten: (address, content) in this order."""

    word = "write"
    process: str
    pages: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class WritePart(Order):
    """Some bytes of each page are overwritten."""

    word = "write_part"
    process: str
    addresses: tuple[int, ...]
    offset: int
    data: bytes


@dataclass(frozen=True)
class Read(Order):
    """Pages are read."""

    word = "read"
    process: str
    addresses: tuple[int, ...]


@dataclass(frozen=True)
class Remap(Order):
    """Mremap to a given place."""

    word = "remap"
    process: str
    start: int
    length: int
    target: int


@dataclass(frozen=True)
class Place(Order):
    """Pages made in a range from now on come from a NUMA node."""

    word = "place"
    process: str
    start: int
    length: int
    node: int


@dataclass(frozen=True)
class Migrate(Order):
    """What is mapped in a range moves to a NUMA node, with all its other mappings."""

    word = "migrate"
    process: str
    start: int
    length: int
    node: int


@dataclass(frozen=True)
class SwapOut:
    """What is mapped in a range goes to the swap disk, wherever else it is mapped."""

    process: str
    start: int
    length: int


@dataclass(frozen=True)
class Fork:
    """A process forks."""

    process: str
    child: str


@dataclass(frozen=True)
class Exec:
    """A process begins anew, with nothing mapped."""

    process: str


@dataclass(frozen=True)
class Exit:
    """A process ends."""

    process: str


@dataclass(frozen=True)
class MergeAny(Order):
    """PR_SET_MEMORY_MERGE."""

    word = "merge_any"
    process: str
    on: bool


@dataclass(frozen=True)
class Pin:
    """Hold a reference to a page, under a name."""

    process: str
    address: int
    label: str


@dataclass(frozen=True)
class Unpin:
    """Give it back."""

    label: str


@dataclass(frozen=True)
class SetKnob:
    """Write one of KSM's knobs."""

    name: str
    value: str


@dataclass(frozen=True)
class Scan:
    """Ksmd finishes one full scan."""


@dataclass(frozen=True)
class Batch:
    """Ksmd visits up to so many pages."""

    pages: int


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    milliseconds: int


@dataclass(frozen=True)
class Run:
    """The scanner works at its own pace for a time, and pages are written meanwhile.

    pages: (process, address) of those that are. every_ms: how often; at_once: how many each time,
    going round. fresh: what they then hold nobody else has; else what they held before.
    """

    milliseconds: int
    pages: tuple[tuple[str, int], ...] = ()
    every_ms: int = 0
    at_once: int = 0
    fresh: bool = True


Operation = (
    Start | Map | Advise | Protect | Unmap | Write | WritePart | Read | Remap | Place | Migrate
    | SwapOut | Fork | Exec | Exit | MergeAny | Pin | Unpin | SetKnob | Scan | Batch | Wait | Run
)  # fmt: skip
