"""What was recorded beside the events, as arrays: samples, identities, regions, the census."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.sysfs import COUNTERS, KNOBS

Floats = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]


class Tables(Protocol):
    """Stored tables, wherever they are: a recording, or a capture under way."""

    @property
    def manifest(self) -> dict[str, Any]:
        """How it was made."""
        ...

    def table(self, name: str) -> Any:
        """A stored table, as a pyarrow Table."""
        ...


def _numbers(table: Any, name: str) -> Floats:
    """A column of numbers; what is not known is NaN. Exact up to 2^53, rounded beyond."""
    numbers: Floats = table[name].cast("float64", safe=False).to_numpy()
    return numbers


def _whole(table: Any, name: str) -> U64:
    """A column of whole numbers that are always known."""
    numbers: U64 = table[name].fill_null(0).to_numpy()
    return numbers.astype(np.uint64, copy=False)


@dataclass(frozen=True)
class Samples:
    """Samples of counters, in time's order: of the host, or of processes (then tgid is set)."""

    ts: U64
    reason: npt.NDArray[np.object_]
    tgid: npt.NDArray[np.uint64]
    counters: Mapping[str, Floats]
    knobs: Mapping[str, npt.NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.ts)

    def knob(self, name: str) -> Floats:
        """A numeric knob at each sample; NaN where absent or no number."""
        return np.array([_number(value) for value in self.knobs[name]], np.float64)


def _number(text: str | None) -> float:
    try:
        return np.nan if text is None else float(text)
    except ValueError:
        return np.nan


@dataclass(frozen=True)
class Census:
    """Who mapped which KSM page: one moment's, rows as in the stored table."""

    ts: U64
    tgid: npt.NDArray[np.uint32]
    addr: U64
    pfn: U64

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True)
class CensusRead:
    """A census: when it was taken (ns), and of which processes, such without KSM pages too."""

    begin_ns: int
    end_ns: int
    tgids: frozenset[int]


class Context:
    """The tables beside the events, read when first needed."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.manifest = tables.manifest

    @property
    def page_bytes(self) -> int:
        """The host's page size."""
        return int(self.manifest.get("page_bytes") or 4096)

    @property
    def begin_ns(self) -> int:
        """When the recording began."""
        return int(self.manifest["clock"]["monotonic_ns"])

    @cached_property
    def _samples(self) -> Any:
        return self._tables.table("counters")

    @cached_property
    def host(self) -> Samples:
        """The host's samples."""
        import pyarrow.compute as pc

        return self._of(self._samples.filter(pc.is_null(self._samples["tgid"])))

    @cached_property
    def processes(self) -> Samples:
        """The samples of processes."""
        import pyarrow.compute as pc

        return self._of(self._samples.filter(pc.is_valid(self._samples["tgid"])))

    @staticmethod
    def _of(table: Any) -> Samples:
        table = table.sort_by("ts")
        texts = [column.name for column in table.schema if str(column.type) == "string"]
        return Samples(
            _whole(table, "ts"),
            table["reason"].to_numpy(),
            _whole(table, "tgid"),
            {c.name: _numbers(table, c.name) for c in COUNTERS if c.name not in texts},
            {k.name: table[f"knob_{k.name}"].to_numpy() for k in KNOBS},
        )

    @cached_property
    def identities(self) -> list[dict[str, Any]]:
        """Processes as they came, changed and went."""
        rows: list[dict[str, Any]] = self._tables.table("identities").to_pylist()
        return rows

    @cached_property
    def regions(self) -> list[dict[str, Any]]:
        """Mappings as they were seen."""
        rows: list[dict[str, Any]] = self._tables.table("regions").to_pylist()
        return rows

    def census(self, reason: str) -> Census:
        """The census taken for `reason`: start, interval or end."""
        import pyarrow.compute as pc

        table = self._tables.table("census")
        table = table.filter(pc.equal(table["reason"], reason)).sort_by("ts")
        return Census(
            _whole(table, "ts"),
            _whole(table, "tgid").astype(np.uint32),
            _whole(table, "addr"),
            _whole(table, "pfn"),
        )

    def census_of(self, reason: str) -> CensusRead | None:
        """When and of whom the last census for `reason` was taken; None: none was, or was told of.

        A recording that was cut does not tell: then it is those that have rows.
        """
        told = [row for row in self.manifest.get("censuses") or () if row["reason"] == reason]
        if told:
            row = told[-1]
            return CensusRead(row["begin_ns"], row["end_ns"], frozenset(row["tgids"]))
        census = self.census(reason)
        if not len(census):
            return None
        begin, end = int(census.ts.min()), int(census.ts.max())
        return CensusRead(begin, end, frozenset(np.unique(census.tgid).tolist()))

    @cached_property
    def code(self) -> list[dict[str, Any]]:
        """Where instructions that wrote to merged pages are, if that was recorded."""
        try:
            rows: list[dict[str, Any]] = self._tables.table("code").to_pylist()
        except KeyError:
            return []
        return rows
