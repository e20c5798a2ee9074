"""The line that ftrace and trace-cmd have in common: `comm-pid [cpu] flags time: name: fields`."""

from __future__ import annotations

from ksmtrace.replay.foreign.textformat import TIME

EVENT_LINE = (
    rb" *[^\n]{1,24}?-\d+ +"
    rb"(?:\( *[-\d]+\) +)?"  # the process, with the option record-tgid
    # The CPU, and the flags beside it; `trace-cmd report -l` has both in one word.
    rb"\[?(?P<cpu>\d{1,5})(?:\] +(?:[^\s:]{4,8} +)?|[^\s\d:\]][^\s:]{3,7} +)"
    + TIME
    + rb": +(?:\(\+\d+\) +)?(?P<name>\w+): *(?P<body>[^\n]*)"
)
"""A command name has at most 15 bytes of any kind, so it is matched as short as possible."""
