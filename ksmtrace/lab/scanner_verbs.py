"""The steps of the scenario language in which the scanner works, and what sets its knobs."""

from __future__ import annotations

from collections.abc import Iterable

from ksmtrace.lab.operations import Batch, Operation, Run, Scan, SetKnob, Wait
from ksmtrace.lab.planner import Planner, knob_text
from ksmtrace.lab.verb import Values, addresses, require, verb, whole

MOST_SCANS = 10_000
_MOST_MILLISECONDS = 600_000
_MOST_RUN_MILLISECONDS = 36_000_000
_MOST_WRITES = 50_000_000
"""Of pages, while a scanner works at its own pace."""


@verb("set", "set = { max_page_sharing = 3 }")
def _set(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Write knobs; `run = 2` unmerges everything. `refused = "EBUSY"` says that one is refused."""
    if not isinstance(subject, dict) or not subject:
        raise planner.error("set needs a table", "for example set = { smart_scan = 0 }")
    for name, value in subject.items():
        yield SetKnob(name, knob_text(planner.error, name, value))


@verb("scan", "scan = 2")
def _scan(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Let ksmd finish that many full scans; one under way counts as the first."""
    yield from [Scan()] * whole(planner, "scan", subject, 1, MOST_SCANS)


@verb("batch", "batch = 5")
def _batch(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Let ksmd visit that many pages and stop it there, inside the scan."""
    yield Batch(whole(planner, "batch", subject, 1, 1 << 31))


@verb("wait", "wait = 2100")
def _wait(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Let time pass, in milliseconds, for what depends on the clock."""
    yield Wait(whole(planner, "wait", subject, 0, _MOST_MILLISECONDS))


@verb(
    "run",
    'run = 60\nrewrite = "a.heap[0:2]"\nevery = 0.1',
    rewrite="pages that are written meanwhile, or a list of such places",
    every="how often, in seconds",
    pages="how many of them each time, going round; all if not said",
    content='"fresh": contents that nobody else has, if not said; "equal": what they hold already',
)
def _run(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Let the scanner work at its own pace for so many seconds of simulated time. Models only.

    A batch takes the CPU time that its work costs, then the scanner sleeps, as its knobs or its
    governor say; see `ksmtrace simulate`.
    """
    milliseconds = _milliseconds(planner, "run", subject, _MOST_RUN_MILLISECONDS)
    beside = [name for name in ("every", "pages", "content") if name in values]
    if "rewrite" not in values:
        if beside:
            raise planner.error(f"{beside[0]} goes with rewrite", 'as in rewrite = "a.heap"')
        yield Run(milliseconds)
        return
    pages = _rewritten(planner, values["rewrite"])
    if "every" not in values:
        raise planner.error("rewrite needs every", "for example every = 0.1, in seconds")
    every = _milliseconds(planner, "every", values["every"], _MOST_RUN_MILLISECONDS)
    at_once = whole(planner, "pages", values.get("pages", len(pages)), 1, len(pages))
    if milliseconds // every * at_once > _MOST_WRITES:
        raise planner.error(
            f"that would write more than {_MOST_WRITES:,} pages", "make every longer, or pages less"
        )
    content = values.get("content", "fresh")
    if content not in ("fresh", "equal"):
        raise planner.error('content must be "fresh" or "equal"')
    yield Run(milliseconds, pages, every, at_once, content == "fresh")


def _rewritten(planner: Planner, value: object) -> tuple[tuple[str, int], ...]:
    places = value if isinstance(value, list) else [value]
    if not places:
        raise planner.error("rewrite needs a place", 'as in rewrite = "a.heap"')
    found: dict[tuple[str, int], None] = {}
    for place in places:
        name, process, _region, pages = planner.mapped(place)
        require(planner, process, pages, ("write",))
        found |= {(name, address): None for address in addresses(pages)}
    return tuple(found)


def _milliseconds(planner: Planner, what: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise planner.error(f"{what} must be a number of seconds, not {value!r}")
    if not 1 <= value * 1000 <= most:
        raise planner.error(f"{what} must be from 0.001 to {most // 1000} seconds, not {value}")
    return round(value * 1000)
