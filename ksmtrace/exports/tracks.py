"""What KSM did, laid out on tracks: tables in, a `Trace` out.

One process is the host's KSM: its scans as slices, its counters, lost events. Each address space is
another: its merges, breaks, its entering and leaving ksmd's list as instants, its merged pages as
counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ksmtrace.exports.trace import Arg, Ints, Mask, Points, Process, Trace, Track, Unit
from ksmtrace.views.breaks import where

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 200_000
"""Instants that a viewer still handles with ease."""
TABLES = (
    "scans", "pages", "processes", "process_history", "region_ledger", "breaks", "advisor",
)  # fmt: skip
"""The derived tables that a trace is made of."""
_NO_REAL_PID = 1 << 22
"""Linux's largest process id is below (PID_MAX_LIMIT)."""
_HOST_COUNTERS = (
    "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages",
)  # fmt: skip
_SCAN_DETAILS = (
    "seq", "items_before", "items_after", "merges", "inherited", "zero_merges", "failed_merges",
    "ksm_pages_new", "ksm_pages_dead", "breaks", "lost", "pages_saved", "saved_bytes", "ksmd_cpu_s",
    "pages_scanned", "pages_skipped", "pages_to_scan",
)  # fmt: skip
_MOST_BINS, _FEWEST_BINS = 1000, 10
_HOST = 0


@dataclass(frozen=True)
class Run:
    """What of a recording the derived tables don't say.

    begin_ns, wall_ns: its start on the monotonic and the wall clock, the latter None if not known.
    end_ns: its end. samples: the stored counters. lost_ts, lost: the events that tell of losses.
    """

    begin_ns: int
    end_ns: int
    wall_ns: int | None
    page_bytes: int
    samples: pd.DataFrame
    lost_ts: Ints
    lost: Ints


def trace_of(tables: Mapping[str, pd.DataFrame], run: Run, limit: int = LIMIT) -> Trace:
    """The trace of a recording. tables: those in TABLES. limit: instants of merges and breaks.

    With more of them the first `limit` are instants, and all are counted in bins of time.
    """
    return _Layout(tables, run).trace(limit)


def _known(column: pd.Series[Any]) -> Mask:
    known: Mask = column.notna().to_numpy(bool)
    return known


def _whole(column: pd.Series[Any]) -> Ints:
    return column.fillna(0).to_numpy(np.int64) if column.hasnans else column.to_numpy(np.int64)


def _number(name: str, column: pd.Series[Any]) -> Arg:
    kind = np.float64 if str(column.dtype).lower().startswith("float") else np.int64
    known = _known(column)
    values = column.to_numpy(kind, na_value=0) if not known.all() else column.to_numpy(kind)
    return Arg(name, values, None if known.all() else known)


def _word(name: str, column: npt.NDArray[np.object_]) -> Arg:
    import pandas as pd

    codes, words = pd.factorize(column)
    return Arg(name, np.maximum(codes, 0), codes >= 0, tuple(map(str, words)))


def _address(column: pd.Series[Any]) -> Arg:
    values = column.to_numpy(np.uint64)
    return Arg("addr", values, values != 0, address=True)


@dataclass
class _Instants:
    """Instants to be: which process, when, and the rows of the table they are from."""

    name: str
    process: npt.NDArray[np.int64]
    ts: Ints
    source: str
    rows: Ints


class _Layout:
    """Builds one trace."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], run: Run) -> None:
        self._tables = tables
        self._run = run
        self._processes: list[Process] = []
        self._tracks: list[Track] = []
        self._numbers: dict[tuple[int, str], int] = {}
        self._points: list[Points] = []
        self._notes: list[str] = []
        self._earliest: list[int] = [run.begin_ns]

    def trace(self, limit: int) -> Trace:
        """See `trace_of`."""
        self._name_processes()
        self._scans()
        self._host_counters()
        self._losses()
        self._lives()
        self._histories()
        self._instants(limit)
        # A live recording's clock is read after its first events may have come.
        begin = min(self._earliest)
        wall = self._run.wall_ns
        if wall is not None:
            wall -= self._run.begin_ns - begin
        return Trace(begin, wall, self._processes, self._tracks, self._points, self._notes)

    def _name_processes(self) -> None:
        self._processes.append(Process(_NO_REAL_PID, "KSM"))
        table, taken = self._tables["processes"], {0}
        columns = zip(
            table["tgid"].tolist(), table["comm"], table["cgroup"], table["vm"], strict=True
        )
        for number, (tgid, comm, cgroup, vm) in enumerate(columns, 1):
            real = tgid < _NO_REAL_PID and tgid not in taken
            pid = tgid if real else _NO_REAL_PID + number
            taken.add(tgid)
            who = comm if isinstance(comm, str) else "process"
            # Viewers show the pid beside the name; only where it had to be another it is told.
            name = who if pid == tgid else f"{who} ({tgid or 'pid not known'})"
            said = (("cgroup", cgroup), ("vm", vm))
            labels = tuple(f"{what} {text}" for what, text in said if isinstance(text, str))
            self._processes.append(Process(pid, name, labels))

    def _of_process(self, column: pd.Series[Any]) -> npt.NDArray[np.int64]:
        """Positions among the trace's processes; one is made for what belongs to none."""
        numbers = column.to_numpy(np.int64, na_value=-1) + 1
        if (numbers == 0).any():
            stranger = next(
                (n for n, p in enumerate(self._processes) if n and p.name == "not known"), None
            )
            if stranger is None:
                stranger = len(self._processes)
                self._processes.append(Process(_NO_REAL_PID + stranger, "not known"))
            numbers[numbers == 0] = stranger
        return numbers

    def _track(self, process: int, name: str, kind: Any, unit: Unit = "count") -> int:
        key = (process, name)
        if key not in self._numbers:
            self._numbers[key] = len(self._tracks)
            self._tracks.append(Track(process, name, kind, unit))
        return self._numbers[key]

    def _tracks_of(
        self, processes: npt.NDArray[np.int64], name: str, kind: Any, unit: Unit = "count"
    ) -> npt.NDArray[np.int32]:
        """The track of this name in each of `processes`."""
        present, at = np.unique(processes, return_inverse=True)
        numbers = [self._track(int(process), name, kind, unit) for process in present]
        return np.array(numbers, np.int32)[at]

    def _add(self, points: Points) -> None:
        if len(points):
            told = tuple(arg for arg in points.args if arg.known is None or arg.known.any())
            self._points.append(replace(points, args=told))
            self._earliest.append(int(points.ts.min()))

    def _counter(self, process: int, name: str, ts: Ints, value: Any, unit: Unit = "count") -> None:
        if len(ts):
            track = np.full(len(ts), self._track(process, name, "counter", unit), np.int32)
            self._add(Points("counter", track, ts, value=value))

    def _scans(self) -> None:
        scans = self._tables["scans"]
        began, ended = _known(scans["start_ns"]), _known(scans["end_ns"])
        start = np.where(began, _whole(scans["start_ns"]), self._run.begin_ns)
        end = np.where(ended, _whole(scans["end_ns"]), self._run.end_ns)
        # One track holds one slice at a time, whatever clocks say.
        start = np.maximum.accumulate(start)
        end = np.maximum(end, start)
        end[:-1] = np.minimum(end[:-1], start[1:])
        names = tuple(f"scan {number}" for number in scans["scan"])
        details = [_number(name, scans[name]) for name in _SCAN_DETAILS]
        details += [Arg("began_before_the_recording", ~began, ~began)]
        details += [Arg("not_ended", ~ended, ~ended)]
        track = np.full(len(scans), self._track(_HOST, "scans", "slice"), np.int32)
        number = np.arange(len(scans), dtype=np.int32)
        self._add(Points("slice", track, start, names, number, end - start, args=tuple(details)))

    def _host_counters(self) -> None:
        samples = self._run.samples
        samples = samples[samples["tgid"].isna()].sort_values("ts", kind="stable")
        saved = samples["pages_sharing"] + samples["ksm_zero_pages"].fillna(0)
        self._column("saved_bytes", samples["ts"], saved * self._run.page_bytes, "bytes")
        for name in _HOST_COUNTERS:
            self._column(name, samples["ts"], samples[name])
        cpu = samples[samples["ksmd_cpu_ns"].notna()]
        ts, spent = _whole(cpu["ts"]), _whole(cpu["ksmd_cpu_ns"])
        apart = np.flatnonzero(np.diff(ts) > 0)
        # What was spent between two samples is shown from the first of them on.
        share = 100 * np.diff(spent)[apart] / np.diff(ts)[apart]
        self._counter(_HOST, "ksmd_cpu_percent", ts[:-1][apart], share, "percent")
        decisions = self._tables["advisor"]
        self._column("advisor_pages_to_scan", decisions["ts_ns"], decisions["pages_to_scan"])

    def _column(
        self, name: str, ts: pd.Series[Any], values: pd.Series[Any], unit: Unit = "count"
    ) -> None:
        known = _known(values)
        when, value = _whole(ts[known]), _whole(values[known])
        order = np.argsort(when, kind="stable")
        self._counter(_HOST, name, when[order], value[order], unit)

    def _losses(self) -> None:
        if not len(self._run.lost_ts):
            return
        order = np.argsort(self._run.lost_ts, kind="stable")
        track = np.full(len(order), self._track(_HOST, "lost events", "instant"), np.int32)
        count = Arg("events", self._run.lost[order])
        nothing = np.zeros(len(order), np.int32)
        self._add(
            Points("instant", track, self._run.lost_ts[order], ("lost",), nothing, args=(count,))
        )

    def _lives(self) -> None:
        table = self._tables["processes"]
        times, processes, names = [], [], []
        for name, column in enumerate((table["entered_ns"], table["exited_ns"])):
            known = _known(column)
            times.append(_whole(column[known]))
            processes.append(np.flatnonzero(known) + 1)
            names.append(np.full(int(known.sum()), name, np.int32))
        ts, process = np.concatenate(times), np.concatenate(processes)
        order = np.lexsort((ts, process))
        track = self._tracks_of(process[order], "life", "instant")
        words = ("enters ksmd's list", "exits")
        self._add(Points("instant", track, ts[order], words, np.concatenate(names)[order]))

    def _histories(self) -> None:
        history, scans = self._tables["process_history"], self._tables["scans"]
        # What comes after the last scan that is known is known at the end.
        end = np.append(_whole(scans["end_ns"].fillna(self._run.end_ns)), self._run.end_ns)
        at = np.searchsorted(scans["scan"].to_numpy(), history["scan"].to_numpy())
        process = self._of_process(history["process"])
        units: tuple[tuple[str, str, Unit], ...] = (
            ("merged", "merged_pages", "count"),
            ("profit_bytes", "profit_bytes", "bytes"),
        )
        for name, shown, unit in units:
            rows = np.flatnonzero(_known(history[name]))
            ts = end[at[rows]]
            order = np.lexsort((ts, process[rows]))
            rows, ts = rows[order], ts[order]
            track = self._tracks_of(process[rows], shown, "counter", unit)
            self._add(Points("counter", track, ts, value=_whole(history[name].iloc[rows])))

    def _instants(self, limit: int) -> None:
        everything = [self._merges(), self._seen_breaks(), self._noticed_breaks()]
        total = sum(len(instants.ts) for instants in everything)
        shown = everything
        if total > limit:
            first = np.zeros(total, bool)
            times = np.concatenate([instants.ts for instants in everything])
            first[np.argsort(times, kind="stable")[:limit]] = True
            ends = np.cumsum([len(instants.ts) for instants in everything])[:-1]
            parts = zip(everything, np.split(first, ends), strict=True)
            shown = [
                _Instants(i.name, i.process[keep], i.ts[keep], i.source, i.rows[keep])
                for i, keep in parts
            ]
            width = self._counted(everything, limit)
            self._notes.append(
                f"{total:,} merges and breaks are too many to show each: the first {limit:,} are,"
                f" and all are counted per {width}; show more with --limit"
            )
        for instants in shown:
            order = np.lexsort((instants.ts, instants.process))
            rows, ts = instants.rows[order], instants.ts[order]
            track = self._tracks_of(instants.process[order], instants.name, "instant")
            table = self._tables[instants.source].iloc[rows]
            self._add(self._described(instants, table, track, ts))

    def _merges(self) -> _Instants:
        pages = self._tables["pages"]
        rows = np.flatnonzero(_known(pages["merged_ns"]))
        process = self._of_process(pages["process"].iloc[rows])
        return _Instants("merges", process, _whole(pages["merged_ns"].iloc[rows]), "pages", rows)

    def _seen_breaks(self) -> _Instants:
        breaks = self._tables["breaks"]
        process = self._of_process(breaks["process"])
        ts = breaks["ts_ns"].to_numpy(np.int64)
        return _Instants("breaks", process, ts, "breaks", np.arange(len(breaks)))

    def _noticed_breaks(self) -> _Instants:
        """Breaks that only show in that ksmd met the page again, at the moment it did."""
        pages, seen = self._tables["pages"], self._tables["breaks"]["page"].dropna()
        broken = (pages["end"] == "cow_break").to_numpy(bool) & _known(pages["ended_before_ns"])
        broken[seen.to_numpy(np.int64)] = False
        rows = np.flatnonzero(broken)
        process = self._of_process(pages["process"].iloc[rows])
        ts = _whole(pages["ended_before_ns"].iloc[rows])
        return _Instants("breaks noticed", process, ts, "pages", rows)

    def _described(
        self, instants: _Instants, table: pd.DataFrame, track: npt.NDArray[np.int32], ts: Ints
    ) -> Points:
        if instants.source == "breaks":
            places = table[["file", "symbol", "offset"]]
            told = {row: where(dict(zip(places, row, strict=True))) for row in _distinct(places)}
            place = Arg("code", *_positions(places, told))
            flags = [Arg(n, table[n].to_numpy(bool)) for n in ("kernel_mode", "zero_page")]
            args = (_address(table["addr"]), place, *flags, _number("scan", table["scan"]))
            return Points("instant", track, ts, ("break",), np.zeros(len(ts), np.int32), args=args)
        ledger = self._tables["region_ledger"]
        # Of no region, at -1, is the last: that has no name.
        names = np.array([*ledger["name"], None], object)
        region = names[table["region"].to_numpy(np.int64, na_value=-1)]
        args = (_address(table["addr"]), _word("region", region))
        args += (_number("ksm_page", table["ksm_page"]), _number("scan", table["scan"]))
        if instants.name == "breaks noticed":
            args += (_number("ended_after_ns", table["ended_after_ns"]),)
            args += (Arg("proven", table["proven"].to_numpy(bool)),)
            return Points(
                "instant", track, ts, ("break noticed",), np.zeros(len(ts), np.int32), args=args
            )
        args += (_number("scans_waited", table["scans_waited"]),)
        how = table["how"].cat
        words = tuple(map(str, how.categories))
        return Points("instant", track, ts, words, how.codes.to_numpy().astype(np.int32), args=args)

    def _counted(self, everything: list[_Instants], limit: int) -> str:
        """Count all instants in bins of time, a track a process; returns the bins' width."""
        spaces = max(1, len(self._processes))
        bins = min(_MOST_BINS, max(_FEWEST_BINS, limit // spaces))
        begin = min(int(i.ts.min()) for i in everything if len(i.ts))
        end = max(int(i.ts.max()) for i in everything if len(i.ts))
        width = _round_up((end - begin) / bins)
        told = _duration(width)
        for instants in everything:
            keys = instants.process << 32 | (instants.ts - begin) // width
            full, counts = np.unique(keys, return_counts=True)
            after = np.setdiff1d(full + 1, full, assume_unique=True)
            keys = np.concatenate((full, after))
            order = np.argsort(keys)
            keys, value = keys[order], np.concatenate((counts, np.zeros_like(after)))[order]
            track = self._tracks_of(keys >> 32, f"{instants.name} per {told}", "counter")
            ts = begin + (keys & 0xFFFFFFFF) * width
            self._add(Points("counter", track, ts, value=value))
        return told


def _distinct(places: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(places.drop_duplicates().itertuples(index=False, name=None))


def _positions(
    places: pd.DataFrame, told: Mapping[tuple[Any, ...], str]
) -> tuple[npt.NDArray[np.int64], Mask, tuple[str, ...]]:
    """For each row: which word, whether there is one, and the words."""
    words = tuple(told.values())
    groups = places.groupby(list(places.columns), dropna=False, sort=False)
    return groups.ngroup().to_numpy().astype(np.int64), _known(places["file"]), words


def _round_up(nanoseconds: float) -> int:
    """The next 1, 2 or 5 times a power of ten, a microsecond at least."""
    step = 1000
    while True:
        for factor in (1, 2, 5):
            if step * factor >= nanoseconds:
                return step * factor
        step *= 10


def _duration(nanoseconds: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size} {unit}"
    return f"{nanoseconds} ns"
