"""The overview: is KSM paying here? And what to know before believing it."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.inspect.advise.advice import Advice, Answer
from ksmtrace.timeline.summary import Summary
from ksmtrace.views.html.markup import Html, Part, element, figures, joined, note, paragraph, term
from ksmtrace.views.html.material import Material
from ksmtrace.views.report import ended_words, host_words
from ksmtrace.views.timeline_accounts import accounts_in_words

_MOST_ADVICE = 4
_JUDGED = {
    "pays": ("good", "Yes, it pays"),
    "dear": ("warn", "It saves, but it is dear"),
    "loses": ("bad", "No, it costs more than it saves"),
    "idle": ("warn", "It saves nothing yet"),
    "off": ("warn", "It is off"),
    "unknown": ("warn", "It can't be told"),
}


def overview_part(material: Material) -> Part:
    """The first section."""
    answer, summary = material.answer, material.summary
    style, headline = _JUDGED[answer.verdict.state]
    body = joined(
        [
            *_warnings(summary),
            element(
                "div",
                element("p", "Is KSM paying here?", cls="question"),
                element("p", headline, cls=f"headline {style}"),
                element("p", answer.verdict.sentence, cls="sentence"),
                cls=f"verdict {style}",
            ),
            figures(_figures(material)),
            *_advice(answer),
            *_more(material),
        ]
    )
    return Part("overview", "Overview", body)


def _warnings(summary: Summary) -> Iterator[Html]:
    """What makes the rest incomplete, before anything else."""
    if summary.lost:
        yield note(
            element("strong", f"{count(summary.lost)} events were lost. "),
            "Merges, breaks, lives and who shares with whom are therefore incomplete in this"
            " report. The kernel's counters (saved, KSM pages, CPU) are whole. Losses are marked in"
            " the charts.",
            cls="bad",
        )
    elif not summary.loss_known:
        yield note("Whether events were lost is not known: the imported text does not tell.")
    ended = ended_words(summary.ended, summary.manifest)
    if not isinstance(ended, str):
        yield note(
            element("strong", f"The recording is {ended[0]}. "),
            "What came later is not in it.",
            cls="bad",
        )
    if summary.manifest.get("only_pids"):
        told = ", ".join(map(str, summary.manifest["only_pids"]))
        yield note(f"Only process {told} was recorded (--pid); the counters are the whole host's.")


def _figures(material: Material) -> Iterator[tuple[object, str, str]]:
    run, summary = material.run, material.summary
    found = material.answer.verdict.figures
    page = run.page_bytes
    last, peak = summary.saved_pages_last, summary.saved_pages_peak
    memory = run.manifest.get("memory_bytes")
    share = f", {_percent(100 * peak * page / memory)} of memory" if peak and memory else ""
    yield (
        term("saved", "pages_sharing + ksm_zero_pages, as the kernel counts, in bytes"),
        size(None if peak is None else peak * page),
        f"at most{share}; {size(None if last is None else last * page)} at the end",
    )
    profit = found["profit_bytes"]
    yield (
        term("profit", "what is saved, less what ksmd's own list of pages takes"),
        size(profit),
        "net of ksmd's own list, when judged",
    )
    core, host = summary.ksmd_percent_of_one_core, summary.ksmd_percent_of_host
    yield (
        term("ksmd's CPU", "the kernel thread that looks for equal pages"),
        UNKNOWN if core is None else f"{core:.1f} %",
        "of one core"
        + ("" if host is None else f", {host:.1f} % of the host; {seconds(summary.ksmd_cpu_s)}"),
    )
    totals = summary.totals
    zero = f", {count(totals.zero_merges)} onto the zero page" if totals.zero_merges else ""
    yield (
        term("merges", "pages that came to share a KSM page"),
        count(totals.merges),
        f"{count(totals.failed_merges)} failed{zero}",
    )
    if material.breaks is not None:
        yield (
            term("copied again", "writes to merged pages: each takes its page back"),
            count(len(run.tables.breaks)),
            "writes to merged pages seen",
        )
    scans = sum(scan.duration_s is not None for scan in summary.scans)
    yield (
        term("full scans", "ksmd went over every page that is offered to it once"),
        count(scans),
        f"in {seconds(summary.duration_s)}",
    )
    lost = f"{count(summary.lost)} lost" if summary.lost else "none lost"
    yield "events", count(summary.events), lost if summary.loss_known else "losses not known"


def _percent(share: float) -> str:
    return "below 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def _advice(answer: Answer) -> Iterator[Html]:
    yield element("h3", f"What to change ({count(len(answer.advice))})")
    if not answer.advice:
        yield paragraph("Nothing: no rule finds anything.")
        return
    yield element("ol", *map(_one, answer.advice[:_MOST_ADVICE]), cls="advice")
    if len(answer.advice) > _MOST_ADVICE:
        more = "; ".join(one.what for one in answer.advice[_MOST_ADVICE:])
        yield paragraph(f"Also: {more}. ksmtrace advise tells of each.", cls="muted")


def _one(advice: Advice) -> Html:
    sure = "sure" if advice.confidence == "sure" else f"{advice.confidence}, not sure"
    told = joined(
        [
            *(element("pre", element("code", command)) for command in advice.commands),
            element(
                "dl",
                *(
                    joined([element("dt", topic), element("dd", words)])
                    for topic, words in (
                        ("why", advice.why), ("brings", advice.brings), ("risks", advice.risks),
                    )
                ),
            ),
        ]
    )  # fmt: skip
    summary = element("summary", advice.what, " ", element("span", f"({sure})", cls="muted"))
    return element("li", element("details", summary, told))


def _more(material: Material) -> Iterator[Html]:
    answer = material.answer
    yield element("h3", "If all sharing broke")
    yield paragraph(answer.overcommit.sentence)
    yield element("h3", "Can this be believed?")
    yield paragraph(f"Accounts: {accounts_in_words(material.run)}.")
    told = [*(caveat.sentence for caveat in answer.caveats)]
    told += [f"Not known: {words}" for words in answer.not_known]
    told += material.summary.notes
    if told:
        yield element("ul", *(element("li", words) for words in told), cls="caveats")


def subtitle(material: Material) -> str:
    """Which machine, when, for how long."""
    summary, manifest = material.summary, material.run.manifest
    started = str(manifest.get("started") or "").partition(".")[0].replace("T", " ")
    when = f"{started} UTC, " if started else ""
    return f"{when}{seconds(summary.duration_s)} on {host_words(manifest)}"
