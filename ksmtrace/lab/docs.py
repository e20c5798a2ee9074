"""docs/scenarios.md, generated from the declared steps."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.lab import notation
from ksmtrace.lab.planner import MOST_PAGES, MOST_PROCESSES
from ksmtrace.lab.verbs import VERBS

_HEAD = f"""\
# Scenarios

<!-- Generated from ksmtrace/lab by `make bpf`. -->

A scenario is a TOML file of steps. It runs unchanged on the real ksmd and on the model of every
kernel: `ksmtrace lab run FILE`, `ksmtrace simulate FILE`. Those that come with ksmtrace are named
by `ksmtrace lab list`.

```toml
title = "Why two scans"
about = "Two equal pages, and a third that changes."   # may be left out

[knobs]                     # set before the first step; all others have the kernel's defaults
max_page_sharing = 4

[[step]]
map = "a.heap"              # process a begins; its region heap is opted in to KSM
pages = 3

[[step]]
write = "a.heap[0:2]"       # pages 0 and 1; a.heap[2] is page 2, a.heap is all
content = "same"

[[step]]
scan = 2
say = "A sentence for who watches."
expect = {{ pages_shared = 1, pages_sharing = 1, events = ["NEW a.heap[1]", "ADD a.heap[0]"] }}
```

Before anything starts the whole file is checked: a mistake is told with file and line, and nothing
has happened. A scenario may have {MOST_PROCESSES} processes and {MOST_PAGES} pages at a time.

## Memory

Each process has an arena of its own at a fixed address, far from its program's memory; a region
goes above all that the process mapped before, or to the page number that `at` says. So addresses
are the same on the real kernel and on every model. Nothing outside of the arena is ever mergeable,
whatever `merge_any` says.

A page's content is a name: the same name is the same page, and names order pages as their bytes
do, which decides what is left and right in ksmd's trees. `zero`, `unique`, `sequence` and `random`
are special.

On a machine with several NUMA nodes all pages come from node 0, unless `node` or `place` says
otherwise. A region keeps its node wherever the process runs, and so do its pages' copies.

## What a scenario needs

`node = 1` needs two NUMA nodes with memory, `swap_out` a swap disk, cgroup v2 with the memory
controller, and Linux 5.19. A host without them can't perform the scenario and says what is missing;
a model always can. Pages are swapped out in a cgroup of the lab's own, while everything that shall
stay is locked; if they don't all leave memory, the run ends with an error.

## What ksmd does in between

Nothing. It works in `scan` and `batch` steps only. On the real kernel it is parked otherwise, with
pages_to_scan so high that a batch is a whole scan, unless the scenario sets pages_to_scan itself
or turns the advisor on.

In a `run` step, which is for models only, it works at its own pace: batches of pages_to_scan that
take the CPU time that their work costs, and sleep_millisecs between them.

## On UKSM

`--on uksm:full` performs a scenario on the [model of UKSM](uksm.md): `uksm:` and a governor (full,
medium, low or quiet), as released; a `-` and the name of a quirk switches that off, as in
`uksm:full-ghost-freeze`, and `uksm:full-quirks` all of them. A scan is there: wake-ups until each
page was visited once, but for regions that UKSM passes over. KSM's knobs do nothing but `run`, and
a note says so; `batch`, `swap_out` and `migrate` are refused. What a scenario expects of KSM is not
held against UKSM; counters stand beside KSM's by their own names, and neither they nor events are
compared with KSM's.

## Steps
"""

_AFTER = """
Beside its verb any step may have:

- `say`: a text that is shown.
- `expect`: what must be seen after the step, see below.
- `intro`, `ask`, `shows`: for [lessons](lessons.md); elsewhere they are read over.
- `refused = "EBUSY"` (or `"EINVAL"`): beside `set`, the kernel must refuse.

A step may also have nothing but these.

## Expectations

`expect` is a table, or a list of tables. Its keys are counters of /sys/kernel/mm/ksm, `cow_ksm` and
`ksm_swpin_copy`;
`events`, the list of the step's events in the notation below, without START and STOP; and names of
processes, with a table of their ksm_stat lines: `a = { ksm_merging_pages = 3 }`. pages_scanned,
pages_skipped, cow_ksm and ksm_swpin_copy count from the scenario's beginning. A counter that a
kernel does not have is not checked there; `"absent"` demands that it is not there.

`since` and `until` (releases, both included), `with` and `without` (names of fixes, see
`ksmtrace kernels 6.12.117`) limit an expectation to some kernels; `scanner = "uksm"` makes it
one of UKSM, by UKSM's names of counters:

```toml
expect = [
  { until = "6.10", pages_sharing = 2 },
  { since = "6.11", pages_sharing = 1 },
]
```

A knob that a kernel does not have is left out there, with a note.
"""


def scenarios_page() -> str:
    """The text of docs/scenarios.md."""
    words = (notation.__doc__ or "").split("\n", 2)[2]
    return _HEAD + "\n".join(_verbs()) + "\n" + _AFTER + "\n## Events\n\n" + words.strip() + "\n"


def _verbs() -> Iterator[str]:
    for verb in VERBS.values():
        yield ""
        yield f"### {verb.name}"
        yield ""
        yield verb.meaning
        yield ""
        yield "```toml"
        yield verb.example
        yield "```"
        if verb.options:
            yield ""
            for name, meaning in verb.options.items():
                yield f"- `{name}`: {meaning}"
