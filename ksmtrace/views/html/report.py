"""The whole report as one page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ksmtrace import __version__
from ksmtrace.processes.identity import clean
from ksmtrace.views.html.believing import accounts_part, host_part
from ksmtrace.views.html.breaking import breaks_part
from ksmtrace.views.html.charts import charts_part
from ksmtrace.views.html.ksm_pages import ksm_pages_part
from ksmtrace.views.html.markup import Part, element, joined, lines, paragraph
from ksmtrace.views.html.material import Material
from ksmtrace.views.html.overview import overview_part, subtitle
from ksmtrace.views.html.page import asset, render_page
from ksmtrace.views.html.page_maps import page_maps_part
from ksmtrace.views.html.processes import processes_part
from ksmtrace.views.html.scanning import advisor_part, scans_part
from ksmtrace.views.html.sharing import sharing_part

_PARTS = (
    overview_part,
    charts_part,
    page_maps_part,
    processes_part,
    ksm_pages_part,
    sharing_part,
    scans_part,
    advisor_part,
    breaks_part,
    accounts_part,
    host_part,
)
_AT_ONCE = 4
UPLOT = "1.6.32"
"""The version of the charting library in assets/uplot, and of the licence beside it."""


@dataclass(frozen=True)
class Page:
    """A file's content, and what of the recording it leaves out, in words."""

    text: str
    cut: tuple[str, ...]


def render_html_report(material: Material) -> Page:
    """The report. The same material gives the same bytes."""
    # Large tables are made when a part first asks, mostly in numpy, which lets others work.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts = list(pool.map(lambda part: part(material), _PARTS))
    name = clean(material.run.name.rstrip("/").rpartition("/")[2])
    text = render_page(
        title=f"KSM report: {name}",
        subtitle=subtitle(material),
        sections=[(part.anchor, part.title) for part in parts],
        body=joined(_section(part) for part in parts),
        styles=[asset("uplot/uPlot.min.css"), asset("report.css")],
        scripts=[
            asset("uplot/uPlot.iife.min.js"),
            asset("packing.js"),
            asset("charts.js"),
            asset("page_maps.js"),
            asset("report.js"),
        ],
        data={name: value for part in parts for name, value in part.data.items()},
        footer=joined(
            [
                paragraph(
                    f"Made by ksmtrace {__version__}. This file is whole: it loads nothing and"
                    " sends nothing. Unknown is –, never 0."
                ),
                paragraph(
                    f"Charts: uPlot {UPLOT}, MIT licence. ",
                    element("details", element("summary", "Its licence"),
                            element("pre", lines(asset("uplot/LICENSE")))),
                ),
            ]
        ),
    )  # fmt: skip
    return Page(text, tuple(words for part in parts for words in part.cut))


def _section(part: Part) -> str:
    heading = element("h2", part.title, id=f"{part.anchor}-title")
    return element(
        "section",
        heading,
        part.body,
        cls="card",
        id=part.anchor,
        aria_labelledby=f"{part.anchor}-title",
    )
