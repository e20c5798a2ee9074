"""The steps of the scenario language: each declared once, with its options and meaning.

docs/scenarios.md lists them from here. A new step is one function with the `verb` decorator.
"""

from __future__ import annotations

from ksmtrace.lab import memory_verbs, scanner_verbs
from ksmtrace.lab.scanner_verbs import MOST_SCANS
from ksmtrace.lab.verb import NODES, VERBS, Verb

__all__ = ["MOST_SCANS", "NODES", "VERBS", "Verb", "memory_verbs", "scanner_verbs"]
