"""The documentation's table of metrics."""

from __future__ import annotations

from ksmtrace.exporter.metrics import METRICS, Metric


def metrics_table() -> str:
    """Every declared metric as a Markdown table."""
    lines = ["| metric | labels | what it says | from |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        lines.append(f"| `{metric.name}` | {labels} | {metric.meaning} | {_from(metric)} |")
    return "\n".join(lines) + "\n"


def _from(metric: Metric) -> str:
    if metric.only:
        return f"`{metric.only}`"
    return f"`{metric.source}`, Linux {metric.since}" if metric.source else "always"
