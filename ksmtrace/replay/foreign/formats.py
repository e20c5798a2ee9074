"""Every text that can be imported: one line a format."""

from __future__ import annotations

from ksmtrace.replay.foreign import perf, trace_cmd, tracefs
from ksmtrace.replay.foreign.textformat import TextFormat

FORMATS: dict[str, TextFormat] = {
    one.name: one for one in (perf.FORMAT, trace_cmd.FORMAT, tracefs.FORMAT)
}
