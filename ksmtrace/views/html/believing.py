"""What the report rests on: the accounts of events against counters, the host, the recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.views.html.markup import Column, Html, Part, element, joined, paragraph, table
from ksmtrace.views.html.material import Material
from ksmtrace.views.report import ended_words, host_words, what_ran
from ksmtrace.views.timeline_accounts import CLASSES, accounts_in_words, shown_samples
from ksmtrace.views.timeline_parts import known


def accounts_part(material: Material) -> Part:
    """The section of the accounts."""
    run, accounts = material.run, material.run.tables.accounts
    words = accounts_in_words(run)
    intro = [
        paragraph(
            "At each sample the pages that the events say are merged are held against what the"
            " kernel counts. The residual is what nothing explains: 0 is right."
        ),
        paragraph(f"{words[0].upper()}{words[1:]}."),
    ]
    if not len(accounts):
        return Part("accounts", "Accounts", joined(intro))
    classes = [name for name in CLASSES if accounts[name].max()]
    columns = [
        Column("at"),
        Column("taken", "text"),
        Column("kernel", meaning="pages_shared + pages_sharing"),
        Column("by events", meaning="pages that must and that may be merged"),
        *(Column(name, meaning=CLASSES[name]) for name in classes),
        Column("residual", meaning="pages that none of this explains"),
        Column("zero", meaning="ksm_zero_pages"),
        Column("zero residual", meaning="zero pages that the events don't explain"),
    ]
    shown = shown_samples(accounts)
    rows = []
    for row in shown.to_dict("records"):
        least, most = known(row["merged_least"]), known(row["merged_most"])
        rows.append(
            [
                run.moment(row["ts_ns"]),
                _text(row["reason"]),
                count(known(row["merged_kernel"])),
                count(least) if least == most else f"{count(least)} to {count(most)}",
                *(count(known(row[name])) for name in classes),
                count(known(row["residual"])),
                count(known(row["zero_kernel"])),
                count(known(row["zero_residual"])),
            ]
        )
    few = f", {count(len(shown))} of them" if len(shown) < len(accounts) else ""
    title = f"Samples ({count(len(accounts))}{few})"
    return Part("accounts", "Accounts", joined([*intro, table(title, columns, rows)]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else UNKNOWN


def host_part(material: Material) -> Part:
    """The section of the host's and the recording's facts."""
    manifest = material.run.manifest
    facts = table("The host and the recording", [Column("", "text"), Column("", "name")],
                  list(_facts(material)))  # fmt: skip
    return Part(
        "host", "Host",
        joined([element("div", facts, *_knobs(manifest), cls="columns"), *_counters(material)]),
    )  # fmt: skip


def _facts(material: Material) -> Iterator[tuple[str, str]]:
    summary, manifest = material.summary, material.run.manifest
    yield "recording", material.run.name
    yield "host", host_words(manifest)
    if build := manifest.get("kernel_build"):
        yield "kernel build", str(build)
    yield "backend", f"{manifest.get('backend')}: {manifest.get('backend_why')}"
    yield from what_ran(manifest)
    yield "started", str(manifest.get("started") or UNKNOWN)
    ended = ended_words(summary.ended, manifest)
    yield (
        "lasted",
        f"{seconds(summary.duration_s)}, {ended if isinstance(ended, str) else ended[0]}",
    )
    lost = f"{count(summary.lost)} lost" if summary.lost else "none lost"
    known_ = lost if summary.loss_known or summary.lost else "losses not known"
    yield "events", f"{count(summary.events)}, {known_}"
    yield "of kinds", ", ".join(f"{count(n)} {kind}" for kind, n in summary.events_by_kind.items())
    if unknown := manifest.get("fields_unknown"):
        yield "not known", ", ".join(map(str, unknown))
    yield "page size", size(material.run.page_bytes)


def _knobs(manifest: Mapping[str, Any]) -> Iterator[Html]:
    stored, set_ = manifest.get("knobs"), manifest.get("knobs_set")
    knobs = stored if isinstance(stored, dict) else {}
    changed = set_ if isinstance(set_, dict) else {}
    if not knobs and not changed:
        return
    rows = [
        [name, knobs.get(name, UNKNOWN), changed.get(name, "")] for name in {**knobs, **changed}
    ]
    columns = [
        Column("knob", "text"),
        Column("before"),
        Column("set", meaning="what the recorder set it to for the recording"),
    ]
    yield table("ksmd's settings", columns, rows)


def _counters(material: Material) -> Iterator[Html]:
    first, last = material.summary.counters_first, material.summary.counters_last
    rows = []
    for name, after in last.items():
        before = first.get(name)
        if before is None and after is None:
            continue
        change = UNKNOWN if before is None or after is None else f"{after - before:+,}"
        rows.append([name, count(before), count(after), change])
    if rows:
        columns = [Column("counter", "text"), Column("first"), Column("last"), Column("change")]
        yield table("The kernel's counters", columns, rows)
    else:
        yield paragraph("No counters were sampled.")
