"""Pages made of recordings, and what is in their files, read by a parser that is not ours."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from support.exported import busy_recording
from support.recordings import BEGIN, SECOND, make_recording

from ksmtrace.cli.report_html import gathered
from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import INTO_EXISTING, KSM_MERGE_WITH_KSM_PAGE, KSM_REMOVE_RMAP_ITEM
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.views.html.report import render_html_report

HOSTILE = {
    "sekrit-db": "<img src=x onerror=\"document.title='owned'\">",
    "sekrit-guest": "</script><script>document.title='owned'</script>",
    "sekrit vm": "\"'><svg onload=document.title='owned'>",
    "[anon:sekrit cache]": "[anon:\u202egnp.exe\u2066<b>]",
    "/home/sekrit/heap file.bin": "/tmp/\x1b[2J<!--\u2028",
    "/machine.slice/sekrit.scope": "/a&lt;b<style>*{display:none}</style>",
    "/opt/sekrit/lib.so": "/opt/<iframe src=//example.invalid>.so",
}
"""What a process, its mappings and its cgroup may be called."""
_KINDS = {"Uint8Array": "<u1", "Uint16Array": "<u2", "Uint32Array": "<u4", "Int8Array": "<i1",
          "Int16Array": "<i2", "Int32Array": "<i4", "Float32Array": "<f4"}  # fmt: skip


def page_of(recording: Path) -> str:
    """What `report --html` writes."""
    with gathered(StoredRecording(recording), str(recording), lambda _: None) as material:
        return render_html_report(material).text


def hostile_recording(path: Path) -> Path:
    """A recording whose every name tries to run something."""
    return busy_recording(
        path, names=HOSTILE, command="</title><script>document.title='owned'</script>"
    )


def million_events(path: Path) -> Path:
    """Seven processes' pages merge, go and merge again, in an order without order."""
    chosen = np.random.default_rng(11)
    processes, pages, rounds = 7, 50_021, 2
    batches: list[EventBatch] = []
    for turn in range(rounds):
        for kind in (KSM_MERGE_WITH_KSM_PAGE, KSM_REMOVE_RMAP_ITEM):
            batch = np.zeros(processes * pages, EVENT)
            which = chosen.permutation(len(batch))
            batch["kind"] = kind.id
            batch["tgid"] = 1009 + which % processes
            batch["mm"] = (1 << 58) + (which % processes) * 4096
            batch["addr"] = 0x7F00_0000_0000 + which // processes * 4096
            batch["item"] = (1 << 60) + which * 64
            batch["pfn"] = 1 + which // processes % 5003
            if kind is KSM_MERGE_WITH_KSM_PAGE:
                batch["arg"] = INTO_EXISTING
            batch["ts"] = BEGIN + (2 * turn + (kind.id == KSM_REMOVE_RMAP_ITEM.id)) * SECOND
            batch["ts"] += 2003 * np.arange(len(batch)).astype(np.uint64)
            batches.append(batch)
    regions = [
        {"ts": BEGIN + 1, "tgid": 1009 + n, "start": 0x7F00_0000_0000, "permissions": "rw-p",
         "end": 0x7F00_0000_0000 + pages * 4096, "name": "[anon:work]", "mergeable": True,
         "ksm_bytes": 0}
        for n in range(processes)
    ]  # fmt: skip
    return make_recording(
        path, batches, tables={"regions": regions}, final={"duration_s": 2.0 * rounds}
    )


class Elements(html.parser.HTMLParser):
    """The elements of a page: tag, attributes and the text right in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._open: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.found[self._open[-1]][0] != tag:
            self._open.pop()
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, text = self.found[self._open[-1]]
            self.found[self._open[-1]] = (tag, attributes, text + data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        """The attributes and text of every element of a kind."""
        return [(attributes, text) for name, attributes, text in self.found if name == tag]

    def data(self, name: str) -> Any:
        """A JSON value that the page embeds."""
        texts = [
            text for attributes, text in self.of("script") if attributes.get("id") == f"data-{name}"
        ]
        return json.loads(texts[0])


def unpacked(column: dict[str, str]) -> npt.NDArray[Any]:
    """A column as assets/packing.js reads it."""
    kind = np.dtype(_KINDS[column["type"]])
    planes = np.frombuffer(gzip.decompress(base64.b64decode(column["gzip"])), np.uint8)
    rows = planes.reshape(kind.itemsize, -1).T
    return np.ascontiguousarray(rows).view(kind).ravel()
