"""Derived tables against the truth: every disagreement in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ksmtrace.events.registry import COW_BREAK, KSM_START_SCAN, LOST, MAPCOUNT_SHIFT, ZERO_PAGE
from tests.support.truth import CensusRow, Life, Node, Truth
from tests.support.truth_recordings import SAMPLED_LAST_NS, Variant

Line = Mapping[str, Any]

_CLASS = {
    "written": "cow_break",
    "unmapped": "unmapped",
    "moved": "unmapped",
    "exit": "exit",
    "unmerged": "unmerged",
}


class Timeline(Protocol):
    """The derived tables that are compared."""

    @property
    def pages(self) -> pd.DataFrame: ...
    @property
    def stable_pages(self) -> pd.DataFrame: ...
    @property
    def accounts(self) -> pd.DataFrame: ...


def lines_of(frame: pd.DataFrame) -> list[Line]:
    """A table's rows, NA as None."""
    columns = [
        [None if pd.isna(value) else value for value in frame[name].tolist()]
        for name in frame.columns
    ]
    return [dict(zip(frame.columns, values, strict=True)) for values in zip(*columns, strict=True)]


@dataclass
class Comparison:
    """What a recording's tables say against what happened.

    row_of: of each life that has one. nodes: rows of stable_pages by number of the KSM page.
    """

    truth: Truth
    variant: Variant
    timeline: Timeline
    wrong: list[str] = field(default_factory=list)
    row_of: dict[int, Line] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        truth, variant = self.truth, self.variant
        begin = variant.begin(truth)
        self.begin, self.mappings, self.zeros = begin.ns, begin.mappings, begin.zeros
        self.late = bool(variant.since)
        self.gap = variant.lost_ns(truth)
        self.events = variant.events(truth)
        self._seen_ts = set(self.events["ts"][self.events["kind"] != LOST.id].tolist())

    def run(self) -> list[str]:
        """All disagreements."""
        self.lives()
        self.processes_and_nodes()
        if self.gap is None:
            self.stable_pages()
        self.accounts()
        return self.wrong

    def _in_gap(self, ns: int) -> bool:
        if self.gap is None or ns in self._seen_ts:
            return False
        return self.gap[0] <= ns <= self.gap[1]

    # Lives.

    def lives(self) -> None:
        """Each life is one row, each row one life."""
        rows = lines_of(self.timeline.pages)
        born = {(row["addr"], row["merged_ns"]): row for row in rows if row["how"] != "before"}
        doubles = sum(row["how"] != "before" for row in rows) - len(born)
        if doubles:
            self.wrong.append(f"{doubles} rows of pages are there twice")
        for number, life in enumerate(self.truth.lives):
            if life.ns not in self._seen_ts:
                continue
            row = born.pop((life.addr, life.ns), None)
            if row is None:
                self.wrong.append(f"no row for {told(life)}")
                continue
            self.row_of[number] = row
            self._how(life, row)
            self._scan(life, row)
            self.end_of(life, row)
        for row in born.values():
            if not self._second_half_lost(row):
                self.wrong.append(f"no such life: {shown(row)}")
        before = [row for row in rows if row["how"] == "before"]
        if self.gap is not None:
            self._begun_in_gap(before)
        elif self.late:
            self._before(before)
        else:
            self.wrong.extend(f"nothing was there before: {shown(row)}" for row in before)

    def _how(self, life: Life, row: Line) -> None:
        allowed: set[str] = {life.how}
        untold = self.gap is not None or self.late or not self.truth.profile.has("6.11")
        untold = untold or self._may_be_shared(life)
        if untold and life.how in ("joined", "inherited"):
            allowed |= {"joined_or_inherited"}
        if self.gap is not None and life.how in ("partner", "joined", "inherited"):
            allowed |= {"partner", "joined", "inherited", "joined_or_inherited"}
        if row["how"] not in allowed:
            self.wrong.append(f"how={row['how']}: {told(life)}")
        if row["tgid"] != life.tgid:
            self.wrong.append(f"tgid={row['tgid']}: {told(life)}")
        if (row["ksm_page"] is None) != (life.node is None):
            self.wrong.append(f"ksm_page={row['ksm_page']}: {told(life)}")

    def _may_be_shared(self, life: Life) -> bool:
        """Whether a fork may have shared the KSM page's frame with its mm when it became one."""
        if life.node is None:
            return False
        lives = {x.how: x for x in self.truth.nodes[life.node].lives}
        maker, partner = lives["created"], lives["partner"]
        shared = int(self.truth.events["arg"][partner.event] >> MAPCOUNT_SHIFT) > 2
        return shared and life.mm != maker.mm

    def _scan(self, life: Life, row: Line) -> None:
        if self.gap is None:
            starts = self.events["ts"][self.events["kind"] == KSM_START_SCAN.id]
            scan = int((starts <= life.ns).sum())
            if row["scan"] != scan:
                self.wrong.append(f"scan={row['scan']}, not {scan}: {told(life)}")

    def _second_half_lost(self, row: Line) -> bool:
        """Whether it can't be told that a first half was undone."""
        events = self.truth.events["ts"]
        after = int(np.searchsorted(events, row["merged_ns"])) + 1
        lost = after < len(events) and self._in_gap(int(events[after]))
        return bool(row["how"] == "created" and lost)

    def _begun_in_gap(self, rows: list[Line]) -> None:
        missed: dict[tuple[int, int], list[Life]] = {}
        for life in self.truth.lives:
            if self._in_gap(life.ns):
                missed.setdefault((life.tgid, life.addr), []).append(life)
        for row in rows:
            lives = missed.get((row["tgid"], row["addr"]), [])
            if not (any(self._bounded(life, row) for life in lives) or self._was_broken(row)):
                self.wrong.append(f"invented: {shown(row)}")

    def _was_broken(self, row: Line) -> bool:
        """Whether a mapping without an rmap_item was seen broken there; who could tell?"""
        events = self.events[self.events["ts"] == (row["ended_before_ns"] or 0)]
        here = (events["kind"] == COW_BREAK.id) & (events["addr"] == row["addr"])
        return bool((here & (events["tgid"] == row["tgid"])).any())

    # Ends.

    def end_of(self, life: Life, row: Line) -> None:
        """Whether a row's end is the life's."""
        name = f"{told(life)}: {shown(row)}"
        if row["end"] == "still_merged":
            if row["ended_after_ns"] is not None or row["ended_before_ns"] is not None:
                self.wrong.append(f"still merged, with an end: {name}")
            if life.end is not None and self._must_be_ended(life):
                self.wrong.append(f"still merged: {name}")
        elif life.end is None:
            self.wrong.append(f"has not ended: {name}")
        elif not self._bounded(life, row):
            self.wrong.append(f"ended out of bounds: {name}")
        else:
            self._class_of(life, row, name)

    @staticmethod
    def _bounded(life: Life, row: Line) -> bool:
        after, before = row["ended_after_ns"], row["ended_before_ns"]
        if life.end is None or before is None:
            return life.end is None and before is None
        if after is None:
            return bool(row["how"] == "before" and life.end <= before)
        return bool(after <= life.end <= before)

    def _class_of(self, life: Life, row: Line, name: str) -> None:
        assert life.cause is not None
        right, end = _CLASS[life.cause], row["end"]
        if row["proven"] and end not in ("stale", "unknown"):
            if end != right:
                self.wrong.append(f"proven, but not so: {name}")
            if self._in_gap(life.end or 0):
                self.wrong.append(f"proven although it ended in a gap: {name}")
        if self.gap is not None or not self._must_be_classed(life):
            return
        if end != right:
            self.wrong.append(f"wrong class: {name}")
        else:
            self._moment_of(life, row, name)

    def _moment_of(self, life: Life, row: Line, name: str) -> None:
        if life.by == "prctl":
            # It unmerges nothing in a process that had not opted in by prctl: nobody can tell.
            if row["proven"]:
                self.wrong.append(f"proven by a prctl: {name}")
        elif self.variant.cow and (life.cause != "exit" or self._sees_all(row)):
            if not row["ended_after_ns"] == row["ended_before_ns"] == life.end:
                self.wrong.append(f"not exact: {name}")
            if not row["proven"]:
                self.wrong.append(f"not proven: {name}")

    def _must_be_ended(self, life: Life) -> bool:
        if self.gap is not None:
            return False
        if self._must_be_classed(life):
            return True
        return self.variant.census and life.node is not None

    def _must_be_classed(self, life: Life) -> bool:
        """Whether an event tells how it ended."""
        if life.end is not None and life.end <= self.begin:
            return False
        if life.cause == "exit":
            return life.end in self._seen_ts
        return self.variant.cow and life.by != "run=2"

    def _sees_all(self, row: Line) -> bool:
        """Whether vmstat proves that no break was missed; unsharing pages copies them too.

        What nobody saw merged may have been broken before, too.
        """
        if row["how"] == "before" and not self.variant.census:
            return False
        begin, last = self.variant.begin(self.truth), [*self.variant.steps(self.truth)][-1:]
        breaks = (self.events["kind"] == COW_BREAK.id) & ((self.events["arg"] & ZERO_PAGE) == 0)
        copies = last[0].counters["cow_ksm"] - begin.counters["cow_ksm"] if last else 0
        return copies == int(breaks.sum())

    # What was there before.

    def _before(self, rows: list[Line]) -> None:
        there = {
            (life.tgid, life.addr): number
            for number, life in enumerate(self.truth.lives)
            if life.ns <= self.begin
            and (life.mapped_at(self.begin) or life.attached_at(self.begin))
        }
        seen = set()
        for row in rows:
            key = row["tgid"], row["addr"]
            if key in seen:
                self.wrong.append(f"a second life before: {shown(row)}")
            seen.add(key)
            if row["merged_ns"] is not None or row["scan"] is not None:
                self.wrong.append(f"before, but with a time: {shown(row)}")
            self._one_before(row, there.get(key))
        for key, number in there.items():
            life = self.truth.lives[number]
            listed = life.node is not None and life.mapped_at(self.begin)
            if self.variant.census and key not in seen and listed:
                self.wrong.append(f"no row for what was there before: {told(life)}")

    def _one_before(self, row: Line, number: int | None) -> None:
        if number is not None:
            self.row_of[number] = row
            self.end_of(self.truth.lives[number], row)
            return
        for mapping in self.mappings:
            if (mapping.tgid, mapping.addr) == (row["tgid"], row["addr"]):
                self._unattached(mapping, row)
                return
        # A child's zero pages are none of a census, and no event was about them until they end.
        if row["ksm_page"] is None and (row["tgid"], row["addr"]) in self.zeros:
            if row["end"] != "cow_break" or not self._was_broken(row):
                self.wrong.append(f"zero page not so ended: {shown(row)}")
            return
        self.wrong.append(f"not there before: {shown(row)}")

    def _unattached(self, mapping: CensusRow, row: Line) -> None:
        """A mapping that fork made, and ksmd had not visited yet."""
        for life in self.truth.lives:
            same = (life.mm, life.addr) == (mapping.mm, mapping.addr)
            if not same or life.ns <= self.begin or life.node is None:
                continue
            goes_on = life.how == "inherited" and self.truth.nodes[life.node].pfn == mapping.pfn
            ended = row["end"] != "still_merged" and row["ended_before_ns"] <= life.ns
            if goes_on and ended:
                self.wrong.append(
                    f"ended, although it went on and was attached: {told(life)}: {shown(row)}"
                )
            return

    # Processes and KSM pages.

    def processes_and_nodes(self) -> None:
        """Rows of one mm have one process, those of one KSM page one ksm_page, and vice versa."""
        self._one_to_one("mm", "process")
        self.nodes = self._one_to_one("node", "ksm_page")

    def _one_to_one(self, what: str, column: str) -> dict[int, int]:
        there: dict[int, int] = {}
        back: dict[int, int] = {}
        for number, row in self.row_of.items():
            mine = getattr(self.truth.lives[number], what)
            its = row[column]
            if mine is None:
                continue
            if there.setdefault(mine, its) != its or back.setdefault(its, mine) != mine:
                life = told(self.truth.lives[number])
                self.wrong.append(f"{column}={its} should be {there[mine]}: {life}: {shown(row)}")
        return there

    def stable_pages(self) -> None:
        """Each KSM page is one row, each row one KSM page."""
        table = lines_of(self.timeline.stable_pages)
        unclaimed = set(range(len(table)))
        for node in self.truth.nodes:
            at = self.nodes.get(node.number)
            if at is not None:
                unclaimed.discard(at)
                self._node(node, table[at], f"KSM page {node.number}, row {at}: {table[at]}")
            elif not self.late:
                self.wrong.append(f"no row for KSM page {node.number}")
        for at in sorted(unclaimed):
            row = table[at]
            if not self.late or row["born_ns"] is not None:
                self.wrong.append(f"no such KSM page: {row}")

    def _node(self, node: Node, row: Line, name: str) -> None:
        late = node.born <= self.begin
        born = next(life.ns for life in node.lives if life.how == "created")
        end = "alive" if node.died is None else "stale"
        values = {"pfn": node.pfn, "born_ns": None if late else born, "died_ns": node.died}
        ends = {end, "frame_reused"} if self._frame_reused(node) else {end}
        if row["end"] not in (ends | {"unmerged"} if node.by_sweep else ends):
            self.wrong.append(f"end should be {end}: {name}")
        if not late:
            values["merges"] = len(node.lives)
            values["processes"] = len({life.mm for life in node.lives})
        for column, value in values.items():
            if row[column] != value:
                self.wrong.append(f"{column} should be {value}: {name}")
        if late:
            return
        if row["in_chain"] is not None and bool(row["in_chain"]) != node.chained:
            self.wrong.append(f"in_chain should be {node.chained}: {name}")
        peak = node.peak()
        exact = self.variant.cow and all(life.by != "run=2" for life in node.lives)
        if not peak <= row["sharers_peak"] <= (peak if exact else len(node.lives)):
            self.wrong.append(f"sharers_peak should be {peak}: {name}")

    def _frame_reused(self, node: Node) -> bool:
        """Whether another KSM page was made of its frame before its death was found."""
        died = node.died or self.truth.last_ns
        return any(
            other.pfn == node.pfn and node.born < other.born <= died for other in self.truth.nodes
        )

    # Accounts.

    def accounts(self) -> None:
        """The kernel's counters lie in the bounds, and nothing is left unexplained."""
        samples = list(self._samples())
        rows = lines_of(self.timeline.accounts)
        if len(rows) != len(samples):
            self.wrong.append(f"{len(rows)} accounts of {len(samples)} samples")
            return
        for row, (ns, counters) in zip(rows, samples, strict=True):
            self._account(row, ns, counters)

    def _account(self, row: Line, ns: int, counters: Mapping[str, int]) -> None:
        name = f"accounts at {ns}: {row}"
        values = {
            "ts_ns": ns,
            "merged_kernel": counters["pages_shared"] + counters["pages_sharing"],
            "shared_kernel": counters["pages_shared"],
            "zero_kernel": counters.get("ksm_zero_pages"),
        }
        for column, value in values.items():
            if row[column] != value:
                self.wrong.append(f"{column} should be {value}: {name}")
        if self.gap is not None and ns >= self.gap[0]:
            return
        if row["residual"] != 0 or row["zero_residual"] not in (0, None):
            self.wrong.append(f"a residual: {name}")
        for what in ("merged", "shared", "zero"):
            kernel = row[f"{what}_kernel"]
            if self.late or kernel is None:
                continue
            if not row[f"{what}_least"] <= kernel <= row[f"{what}_most"]:
                self.wrong.append(f"{what} out of bounds: {name}")

    def _samples(self) -> Iterator[tuple[int, Mapping[str, int]]]:
        last = self.variant.begin(self.truth)
        yield last.ns, last.counters
        for last in self.variant.steps(self.truth):
            if last.full_scans:
                yield last.ns, last.counters
            yield last.ns, last.counters
        yield last.ns + SAMPLED_LAST_NS, last.counters


def told(life: Life) -> str:
    """A life in words."""
    end = "" if life.end is None else f", {life.by} at {life.end}"
    node = "the zero page" if life.node is None else f"KSM page {life.node}"
    return f"{life.process}:{life.addr:#x} {life.how} on {node} at {life.ns}{end}"


def shown(row: Line) -> str:
    """A row of pages in words."""
    names = ("tgid", "how", "ksm_page", "merged_ns", "end", "proven")
    words = [f"{name}={row[name]}" for name in names]
    return f"{row['addr']:#x} {' '.join(words)} {row['ended_after_ns']}..{row['ended_before_ns']}"
