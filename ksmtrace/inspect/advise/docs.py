"""The generated parts of docs/advise.md."""

from __future__ import annotations

from ksmtrace.inspect.advise.caveats import BEHAVIOURS
from ksmtrace.inspect.advise.rules.table import RULES


def rules_table() -> str:
    """Every rule of `ksmtrace advise`."""
    lines = ["| `id` | when | what is advised |", "|---|---|---|"]
    lines += [f"| `{rule.id}` | {rule.when} | {rule.advises} |" for rule in RULES]
    return "\n".join(lines) + "\n"


def behaviours_table() -> str:
    """Every behaviour of a kernel that `ksmtrace advise` tells of where it matters."""
    lines = ["| `id` | Linux | what is said |", "|---|---|---|"]
    lines += [f"| `{one.id}` | {one.kernels} | {one.sentence} |" for one in BEHAVIOURS]
    return "\n".join(lines) + "\n"
