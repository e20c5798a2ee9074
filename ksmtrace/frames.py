"""A recording as pandas DataFrames: what `ksmtrace.open` returns."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ksmtrace.recording.reader import StoredRecording


class Recording:
    """A recording's tables, each read when first asked for.

    Columns and units: docs/recording.md. Integer columns are pandas' nullable ones: what is not
    known is NA, never 0. Raises KsmtraceError for anything that is not a whole recording.
    """

    def __init__(self, path: Path | str) -> None:
        self._stored = StoredRecording(path)
        self.manifest: dict[str, Any] = self._stored.manifest
        """How it was made, see docs/recording.md."""

    def __repr__(self) -> str:
        made = f"Linux {self.manifest.get('kernel')}, {self.manifest.get('backend')}"
        return f"<Recording {self._stored.path}: {made}{', cut' if self._stored.cut else ''}>"

    def _frame(self, name: str) -> pd.DataFrame:
        frame: pd.DataFrame = self._stored.table(name).to_pandas(
            types_mapper=_nullable, integer_object_nulls=True
        )
        return frame

    @cached_property
    def events(self) -> pd.DataFrame:
        """The stream: one row an event, in the order of arrival."""
        return self._frame("events")

    @cached_property
    def counters(self) -> pd.DataFrame:
        """Samples: of the host where tgid is NA, else of that process."""
        return self._frame("counters")

    @cached_property
    def identities(self) -> pd.DataFrame:
        """Processes as they came, changed and went."""
        return self._frame("identities")

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Mappings that ksmd scans or that hold KSM pages."""
        return self._frame("regions")

    @cached_property
    def census(self) -> pd.DataFrame:
        """Who mapped which KSM page where, at the census's moments."""
        return self._frame("census")

    @cached_property
    def contents(self) -> pd.DataFrame:
        """What mergeable pages held before and after each scan; empty if that was not recorded."""
        return self._frame("contents")

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """The order of the contents."""
        return self._frame("ranks")

    @cached_property
    def lost(self) -> int:
        """How many events were lost."""
        events = self.events
        return int(events.loc[events["kind"] == "lost", "addr"].sum())


def _nullable(arrow_type: Any) -> Any:
    """The pandas type that keeps integers whole beside missing values."""
    by_name = {
        f"{sign}int{bits}": f"{sign.upper()}Int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    name = by_name.get(str(arrow_type))
    return pd.api.types.pandas_dtype(name) if name else None
