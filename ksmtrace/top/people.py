"""The processes of a recording at any moment: who they are, what they have merged and broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.context import Context, Samples
from ksmtrace.top.lives import U64, Counts, Latest, Lives, labelled_rows
from ksmtrace.top.noted import CODES, Noted
from ksmtrace.top.state import MERGES, Burst, Labels, Rows, What
from ksmtrace.top.table import Floats, Numbers

_NAMES = ("comm", "cgroup", "vm")
_REGISTERED = ("ksm_rmap_items", "ksm_merging_pages", "ksm_merge_any", "ksm_mergeable")


class People:
    """Processes, by what was noted of them, sampled, and told. known: how many there are.

    forked: some were seen to be forked.
    """

    def __init__(self, recording: StoredRecording, context: Context, noted: Noted) -> None:
        manifest = recording.manifest
        self._tells = "tgid" not in manifest["fields_unknown"]
        self._sees = self._tells and bool(manifest.get("cow"))
        self._page_bytes = context.page_bytes
        samples = context.processes
        self._counters = samples.counters
        told = _Told(recording.table("identities").sort_by("ts"))
        self.forked = told.forked
        tgid, what = noted["tgid"].astype(np.uint64), noted["what"]
        gone = what == CODES["exited"]
        exits = (
            np.concatenate((tgid[gone], told.tgid[told.exits])),
            np.concatenate((noted["ts"][gone], told.ts[told.exits])),
        )
        mine = (tgid > 0) & ~gone
        events = tgid[mine], noted["ts"][mine]
        named = told.tgid[told.named], told.ts[told.named]
        sampled_at = samples.tgid, samples.ts
        idle = ~_registered(samples)
        self._lives = Lives(
            exits,
            [events, _rows_of(sampled_at, ~idle), named],
            _rows_of(sampled_at, idle),
        )
        self.known = len(self._lives)
        sampled = self._lives.of(*sampled_at)
        # Two of each: one for now, one for where rates begin; both move little from look to look.
        self._samples = [Latest(sampled, samples.ts, self.known) for _ in range(2)]
        self._labels = told.labels
        who = np.full(len(told.ts), -1, np.int64)
        who[told.named] = self._lives.of(*named)
        self._names = Latest(who, told.ts, self.known)
        # An end may be told with a name that was not known before.
        last = told.exits & (told.labels["comm"].codes >= 0)
        who[last] = self._lives.up_to(told.tgid[last], told.ts[last])
        self._first_name = np.full(self.known, -1, np.int64)
        rows = np.flatnonzero(who >= 0)[::-1]
        self._first_name[who[rows]] = rows
        owner = np.full(len(noted), -1, np.int64)
        owner[mine] = self._lives.of(*events)
        self._merges = self._counts(noted, owner, MERGES)
        self._breaks = self._counts(noted, owner, ("broke",))

    def _counts(self, noted: Noted, owner: Numbers, whats: Sequence[What]) -> list[Counts]:
        mine = np.isin(noted["what"], [CODES[what] for what in whats])
        return [Counts(owner[mine], noted["ts"][mine], self.known) for _ in range(2)]

    def named(self, bursts: Sequence[Burst], ns: int) -> list[Burst]:
        """The same, each with the name that its process had at a moment: a guest's, or comm."""
        tgids = np.array([burst.tgid for burst in bursts], np.uint64)
        who = self._lives.of(tgids, np.array([burst.ns for burst in bursts], np.uint64))
        rows = np.append(self._name_rows(ns), -1)[who]
        return [
            replace(burst, name=self._labels["vm"].at(row) or self._labels["comm"].at(row))
            for burst, row in zip(bursts, rows.tolist(), strict=True)
        ]

    def _name_rows(self, ns: int) -> Numbers:
        rows = self._names.at(ns)
        # A process is looked up a little after it was first named.
        named: Numbers = np.where(rows >= 0, rows, self._first_name)
        return named

    def rows(self, ns: int, since: int) -> Rows | None:
        """The processes at a moment, those too that have exited. since: where rates begin."""
        if not self.known:
            return None
        lives, counters = self._lives, self._counters
        there = np.flatnonzero(lives.first <= np.uint64(ns))
        exited = lives.gone[there] <= np.uint64(ns)
        now, before = (
            latest.at(when)[there] for latest, when in zip(self._samples, (ns, since), strict=True)
        )
        merged = np.where(exited, 0.0, _picked(counters["ksm_merging_pages"], now))
        zero = np.where(exited, 0.0, np.nan_to_num(_picked(counters["ksm_zero_pages"], now)))
        first = _picked(counters["ksm_merging_pages"], before)
        # Who began since then had none; of others that is not known before the first sample.
        first[np.isnan(first) & (lives.first[there] > np.uint64(max(since, 0)))] = 0.0
        seconds = (ns - since) / 1e9
        merges, merges_per_s = self._told(self._merges, ns, since, there)
        breaks, breaks_per_s = self._told(self._breaks, ns, since, there)
        unknown = np.full(len(there), np.nan)
        columns = {
            "saved_bytes": (merged + zero) * self._page_bytes,
            "merged_pages": merged,
            "profit_bytes": np.where(exited, np.nan, _picked(counters["ksm_process_profit"], now)),
            "items": np.where(exited, 0.0, _picked(counters["ksm_rmap_items"], now)),
            "merges": merges if self._tells else unknown,
            "merges_per_s": merges_per_s if self._tells else unknown,
            "breaks": breaks if self._sees else unknown,
            "breaks_per_s": breaks_per_s if self._sees else unknown,
            "net_per_s": (merged - first) / seconds if seconds else unknown,
            "exited": exited.astype(np.float64),
        }
        names = self._name_rows(ns)[there]
        labels = {name: _of_rows(self._labels[name], names) for name in _NAMES}
        return Rows(lives.tgid[there], columns, labels)

    @staticmethod
    def _told(
        counts: list[Counts], ns: int, since: int, there: Numbers
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """How many up to a moment, and how many a second since another."""
        now, before = (
            one.at(when)[there].astype(np.float64)
            for one, when in zip(counts, (ns, since), strict=True)
        )
        seconds = (ns - since) / 1e9
        return now, (now - before) / seconds if seconds else np.full(len(there), np.nan)


class _Told:
    """The table of identities. exits: rows that tell an end. named: rows that tell a name."""

    def __init__(self, table: Any) -> None:
        whats = table["what"].to_pylist()
        self.ts: U64 = np.array(table["ts"].to_pylist(), np.uint64)
        self.tgid: U64 = np.array([t or 0 for t in table["tgid"].to_pylist()], np.uint64)
        self.exits = np.array([what == "exit" for what in whats], bool) & (self.tgid > 0)
        self.forked = "fork" in whats
        self.labels = {name: labelled_rows(table[name]) for name in _NAMES}
        # What is told after an end may be of the one that ended, or of the next.
        self.named = ~self.exits & (self.tgid > 0) & (self.labels["comm"].codes >= 0)


def _registered(samples: Samples) -> npt.NDArray[np.bool_]:
    """Which samples tell that ksmd has something to do with the process then."""
    said = np.zeros(len(samples.ts), bool)
    for name in _REGISTERED:
        if name in samples.counters:
            said |= samples.counters[name] > 0
    return said


def _rows_of(columns: tuple[U64, U64], mask: npt.NDArray[np.bool_]) -> tuple[U64, U64]:
    return columns[0][mask], columns[1][mask]


def _of_rows(label: Labels, rows: Numbers) -> Labels:
    if not len(label.codes):
        return Labels(np.full(len(rows), -1, np.int64), [])
    return Labels(np.where(rows >= 0, label.codes[rows], -1), label.words)


def _picked(values: Floats, rows: Numbers) -> Floats:
    """The values of rows; NaN for -1."""
    if not len(values):
        return np.full(len(rows), np.nan)
    return np.where(rows >= 0, values[rows], np.nan)
