"""Recordings of scenarios, made by the model instead of a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ksmtrace.kernel.releases import Profile
from ksmtrace.lab import operations as op
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import Scenario, to_toml
from ksmtrace.model.content import page_of
from ksmtrace.processes.contents import Page
from ksmtrace.recording.contents import ContentBook
from ksmtrace.recording.pseudonyms import RawPointers
from tests.support.recordings import BEGIN, FACTS, FINAL, open_writer

_STEP_NS = 1_000_000


class _RecordedStage(ModelStage):
    """A model that notes what pages hold before and after ksmd works."""

    book: ContentBook
    tables: dict[str, list[dict[str, Any]]]
    now: int = BEGIN

    def _do(self, operation: op.Operation) -> None:
        works = isinstance(operation, op.Scan | op.Batch)
        seq = self.scanner.counters["full_scans"]
        if works:
            self._note(seq, "before")
        super()._do(operation)
        if works:
            self._note(seq, "after")

    def _note(self, seq: int, phase: str) -> None:
        for mm in self.memory.mms:
            if not mm.users or not any(vma.mergeable for vma in mm.vmas):
                continue
            pages = []
            for vma in mm.vmas:
                if vma.mergeable:
                    for address in mm.mapped_in(vma.start, vma.end):
                        frame = mm.pages[address]
                        if frame is not self.memory.zero_frame:
                            data = page_of(frame.content)
                            pages.append(Page(address, frame.pfn, frame.ksm, data))
            self.now += 1
            self.tables["contents"] += self.book.rows(self.now, seq, phase, mm.tgid, pages)
            if phase == "before":
                self.tables["regions"] += [
                    {"ts": self.now, "tgid": mm.tgid, "start": vma.start, "end": vma.end,
                     "mergeable": vma.mergeable}
                    for vma in mm.vmas
                ]  # fmt: skip


def lab_recording(
    path: Path, scenario: Scenario, profile: Profile, *, with_scenario: bool = True
) -> Path:
    """A sealed recording as `lab run --record` makes it; without the scenario: only contents."""
    stage = _RecordedStage(plan_scenario(scenario), profile, on="model")
    stage.tables = {"contents": [], "regions": [], "counters": []}
    stage.book = ContentBook(RawPointers(), path.parent)
    knobs: dict[str, Any] = {}
    batches = []
    counters = stage.tables["counters"]
    first: dict[str, Any] = {"ts": BEGIN, "reason": "start", **stage.scanner.counters}
    counters.append(first)

    def watch(seen: Any) -> None:
        if not knobs:
            knobs.update({f"knob_{n}": v for n, v in stage.scanner.knobs.items()})
        stage.now += _STEP_NS
        batch = seen.events.copy()
        batch["ts"] = stage.now + np.arange(len(batch))
        batches.append(batch)
        stage.now += len(batch) + 1
        for name, values in seen.processes.items():
            tgid = next(t for t, n in stage.performance.tgids.items() if n == name)
            counters.append({"ts": stage.now, "reason": "step", "tgid": tgid, **values})
        stage.now += 1
        if seen.scan:
            sample = {"reason": "scan", "seq": seen.scan - 1, **seen.counters}
            counters.append({"ts": stage.now, **sample})
            stage.now += 1
        counters.append({"ts": stage.now, "reason": "step", **seen.counters})

    stage.perform(watch=watch)
    first |= knobs
    kernel = ".".join(map(str, profile.version))
    writer = open_writer(path, facts={**FACTS, "kernel": kernel})
    for batch in batches:
        writer.events(batch)
    stage.tables["ranks"] = [row for rows in stage.book.ranks() for row in rows]
    stage.book.close()
    for name, rows in stage.tables.items():
        writer.table(name, rows)
    lab = {
        "scenario": to_toml(scenario),
        "processes": {str(tgid): name for tgid, name in stage.performance.tgids.items()},
    }
    writer.finish("scenario", {**FINAL, **({"lab": lab} if with_scenario else {})})
    return path
