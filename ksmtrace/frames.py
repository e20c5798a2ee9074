"""A recording as pandas DataFrames: what `ksmtrace.open` returns."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ksmtrace.recording.reader import StoredRecording, is_uksm

if TYPE_CHECKING:
    from ksmtrace.timeline.build import Timeline


class Recording:
    """A recording's tables: stored ones read, derived ones computed, each when first asked for.

    Stored: `events counters identities regions census contents ranks code uksm`, columns and units
    in docs/recording.md. Derived: `scans pages stable_pages processes process_history region_ledger
    region_history breaks advisor accounts`, in docs/timeline-tables.md. What is not known is NA,
    never 0. Raises KsmtraceError (exit code 4) for anything that is not a whole recording.
    """

    def __init__(self, path: Path | str) -> None:
        self._stored = StoredRecording(path)
        self.manifest: dict[str, Any] = self._stored.manifest
        """How it was made, see docs/recording.md."""

    def __repr__(self) -> str:
        made = f"Linux {self.manifest.get('kernel')}, {self.manifest.get('backend')}"
        return f"<Recording {self._stored.path}: {made}{', cut' if self._stored.cut else ''}>"

    def _repr_html_(self) -> str:
        """For notebooks: a summary of what is at hand without reading the stream."""
        from ksmtrace.views.notebook import recording_as_html

        return recording_as_html(
            str(self._stored.path),
            self.manifest,
            self.counters,
            self.identities,
            cut=self._stored.cut,
        )

    def _frame(self, name: str) -> pd.DataFrame:
        frame: pd.DataFrame = self._stored.table(name).to_pandas(
            types_mapper=_nullable, integer_object_nulls=True
        )
        return frame

    @cached_property
    def events(self) -> pd.DataFrame:
        """The stream: one row an event, in the order of arrival. `ts` in ns."""
        return self._frame("events")

    @cached_property
    def counters(self) -> pd.DataFrame:
        """Samples: of the host where tgid is NA, else of that process. Pages, bytes, ns by name.

        Of a kernel with UKSM: the columns of `uksm` stand behind KSM's, each as `uksm_NAME`; KSM's
        are NA, for what is called alike there is not the same.
        """
        frame = self._frame("counters")
        if not is_uksm(self.manifest):
            return frame
        at = ["ts", "reason"]
        return self.uksm.rename(columns=lambda name: name if name in at else f"uksm_{name}").merge(
            frame, "left", on=at
        )[[*frame, *(f"uksm_{name}" for name in self.uksm if name not in at)]]

    @cached_property
    def identities(self) -> pd.DataFrame:
        """Processes as they came, changed and went."""
        return self._frame("identities")

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Mappings that ksmd scans or that hold KSM pages, as often as they were seen."""
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
    def code(self) -> pd.DataFrame:
        """Where the instructions lie that wrote to merged pages; empty without record --cow."""
        return self._frame("code")

    @cached_property
    def uksm(self) -> pd.DataFrame:
        """Samples of UKSM's counters and knobs; empty where there is KSM. Pages, words, ns."""
        return self._frame("uksm")

    @cached_property
    def lost(self) -> int:
        """How many events were lost."""
        events = self.events
        return int(events.loc[events["kind"] == "lost", "addr"].sum())

    @cached_property
    def _timeline(self) -> Timeline:
        from ksmtrace.timeline.build import timeline_of

        return timeline_of(self._stored)

    @property
    def scans(self) -> pd.DataFrame:
        """One row a full scan: duration in s, merges, what it saved in bytes, ksmd's CPU in s."""
        return self._timeline.scans

    @property
    def pages(self) -> pd.DataFrame:
        """One row a life of a merged page: how and when (ns) it was merged, how and when it ended.

        `proven` says whether the end is certain.
        """
        return self._timeline.pages

    @property
    def stable_pages(self) -> pd.DataFrame:
        """One row a KSM page; its row number is what `pages.ksm_page` names."""
        return self._timeline.stable_pages

    @property
    def processes(self) -> pd.DataFrame:
        """One row an address space: merges, profit in bytes, s until 50, 90, 99 % stood merged."""
        return self._timeline.processes

    @property
    def process_history(self) -> pd.DataFrame:
        """One row an address space and scan in which something of it changed. Pages and bytes."""
        return self._timeline.process_history

    @property
    def region_ledger(self) -> pd.DataFrame:
        """One row a mapping in which pages merged, with the same sums as `processes`."""
        return self._timeline.region_ledger

    @property
    def region_history(self) -> pd.DataFrame:
        """One row a mapping and scan in which something of it changed. Pages and bytes."""
        return self._timeline.region_history

    @property
    def breaks(self) -> pd.DataFrame:
        """One row a write to a merged page, with its code; empty without record --cow."""
        return self._timeline.breaks

    @property
    def advisor(self) -> pd.DataFrame:
        """One row a decision of the scan-time advisor, with its inputs and the formula's answer."""
        return self._timeline.advisor

    @property
    def accounts(self) -> pd.DataFrame:
        """One row a sample of the host's counters: pages by the events against the kernel's."""
        return self._timeline.accounts

    def sharing(
        self, by: Literal["process", "cgroup", "vm"] = "process", at_ns: int | None = None
    ) -> pd.DataFrame:
        """Who shares with whom: how many KSM pages each pair maps both, a square table.

        Rows and columns: rows of `processes`, or names of cgroups or VMs. On the diagonal: how many
        each maps at all. at_ns: at that moment of CLOCK_MONOTONIC; None: at the recording's end, or
        where nothing is merged then, when most was.
        """
        from ksmtrace.timeline.sharing import sharing

        return sharing(self._timeline, by=by, at_ns=at_ns)


def _nullable(arrow_type: Any) -> Any:
    """The pandas type that keeps integers whole beside missing values."""
    by_name = {
        f"{sign}int{bits}": f"{sign.upper()}Int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    name = by_name.get(str(arrow_type))
    return pd.api.types.pandas_dtype(name) if name else None
