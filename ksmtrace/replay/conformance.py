"""Check (a) of `ksmtrace replay --check`: is this a legal execution of ksmd on that kernel?

Each event must be possible in the state that the ones before it have led to, and the sampled
counters must lie within what the events allow. What was there before the first event is unknown,
but for a stream that says it is complete. No alarm is ever raised on what a kernel can do; what
that takes is said where a rule is kept:

  conformance_stream     times, losses, which finding comes first
  conformance_scan       the order of scans and of visits, the advisor's formula
  conformance_processes  who is on ksmd's list
  conformance_pages      merges: rmap_items and KSM pages
  conformance_removals   dead KSM pages
  conformance_counters   samples
  conformance_recording  what is fed in which order

Taken for granted, though a kernel does not promise it: a knob that two neighbouring samples show
with one value was not changed and changed back in between; a task is not held up for two full scans
between being put on ksmd's list and telling of it (ksm_enter); the kernel can allocate a stable
node; no process owns an address space that it has lost before; a KSM page that the kernel moves
goes to a frame that no KSM page of the stream was on, and doesn't come back; no page's checksum
is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ksmtrace.kernel.releases import Profile, profile_of_host
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.conformance_recording import Reading, judge, readings, trusted_time
from ksmtrace.replay.conformance_state import Finding
from ksmtrace.replay.conformance_stream import Conformance

RULES: Mapping[str, str] = {
    "time": "ksmd is one thread: its events come one after the other",
    "kind": "the kernel has that event",
    "value": "a field has a value that the kernel can give it",
    "scan order": "what ksmd does it does within a scan",
    "scan number": "scans are numbered one after the other; run=2 starts again at 0",
    "rmap_entries": "rmap_items come and go in scans, and those visited in a scan are there",
    "visit order": "ksmd goes through its list once a scan, and each mm in ascending order",
    "once a scan": "each page is visited once a scan, and ends up in one place",
    "two halves": "a new KSM page gets a second mapping next",
    "unstable tree": "a page in the unstable tree has been visited in this scan",
    "first sight": "two equal pages have equal checksums, and none before they are visited",
    "identity": "a rmap_item is one address of one mm until ksmd passes there again",
    "owner": "a process does not own again what it has lost",
    "registration": "who is merged is on ksmd's list, from ksm_enter to ksm_exit",
    "ksm page": "a KSM page was made before it is merged into, and dies once",
    "removal": "from a dead KSM page all leave who are on it, newest first, but the oldest",
    "limit": "a KSM page has max_page_sharing mappings at most, but for those of forks",
    "zero page": "there is one zero page, used if use_zero_pages says so",
    "advisor": "the advisor decides once at the end of a scan, by its formula",
    "counters": "sampled counters lie within what the events allow",
}
"""What each rule says; a finding names the one that is broken."""

_COLOURED_ZERO_PAGES = ("s390", "mips")
"""Machines with several zero pages."""


@dataclass(frozen=True)
class Verdict:
    """Whether a recording is a legal execution. events, samples: how many were judged.

    notes: what keeps the check from seeing more.
    """

    finding: Finding | None
    events: int
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def legal(self) -> bool:
        """Whether nothing impossible was found."""
        return self.finding is None


def conformance_of(recording: StoredRecording, release: Profile | None = None) -> Conformance:
    """What a recording's events and samples are to be fed to; release: as `check_recording`."""
    manifest = recording.manifest
    rows = recording.table("identities").select(["tgid", "comm"]).to_pylist()
    return Conformance(
        release or profile_of_host(manifest["kernel"], str(manifest.get("kernel_build") or "")),
        None,
        complete=False,
        fields_unknown=manifest["fields_unknown"],
        filtered=manifest.get("only_pids") is not None,
        names={row["tgid"]: row["comm"] for row in rows if row["tgid"] and row["comm"]},
        page_bytes=manifest["page_bytes"],
        item_bytes=manifest.get("rmap_item_bytes"),
        one_zero_page=not str(manifest.get("machine") or "").startswith(_COLOURED_ZERO_PAGES),
    )


def check_recording(recording: StoredRecording, release: Profile | None = None) -> Verdict:
    """Judge a recording. release: the kernel to judge it as, None for the recorded one.

    Raises KsmtraceError for a recording that can't be read or a kernel that is not known.
    """
    conformance = conformance_of(recording, release)
    samples = readings(recording)
    time = trusted_time(recording, samples)
    events = judge(conformance, recording.event_batches(), samples, time)
    notes = []
    if recording.manifest.get("only_pids") is not None:
        notes.append("only some processes were recorded: what happened to pages is not judged")
    if recording.cut:
        notes.append("it was cut short: its end is not there")
    return Verdict(conformance.finding, events, len(samples), tuple(notes))


__all__ = [
    "RULES",
    "Conformance",
    "Finding",
    "Reading",
    "Verdict",
    "check_recording",
    "conformance_of",
]
