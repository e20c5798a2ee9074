"""A puppet whose director has gone."""

from __future__ import annotations

import socket
import subprocess
import sys

from ksmtrace.lab import puppet


def test_a_puppet_ends_quietly_when_nobody_reads_its_answers() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, puppet.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    # Its hello is there, unread: closing now resets the connection.
    ours.recv(1, socket.MSG_PEEK)
    ours.close()
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (0, "")
