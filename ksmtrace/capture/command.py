"""The command behind `--` that is run and traced."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
from collections.abc import Sequence

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import kernel_release
from ksmtrace.kernel.releases import MergeFate, merge_any_at_exec

_PR_SET_MEMORY_MERGE = 67


def merge_fate_words() -> tuple[MergeFate, str]:
    """What --merge can do on this kernel, and that in words."""
    release = kernel_release()
    fate = merge_any_at_exec(release)
    words = {
        "absent": f"PR_SET_MEMORY_MERGE is missing in this kernel ({release}); it came with 6.4",
        "lost": f"this kernel ({release}) forgets --merge at exec (fixed in 6.10)",
        "unscanned": f"this kernel ({release}) keeps --merge at exec but never scans it"
        " (fixed in 6.10)",
        "kept": "any unmodified program can be opted in",
    }
    return fate, words[fate]


def merge_warning() -> str | None:
    """What a user of --merge must know about this kernel before the command runs, or None.

    Raises KsmtraceError where the kernel has no PR_SET_MEMORY_MERGE at all.
    """
    fate, words = merge_fate_words()
    if fate == "absent":
        raise KsmtraceError(
            words, "the program itself can call madvise(MADV_MERGEABLE)", Exit.HOST_CANNOT
        )
    return None if fate == "kept" else words


class Command:
    """A running command. merge: opt its whole memory in before it starts.

    stdout: descriptor that its output goes to; None: where ours does.
    Raises KsmtraceError where it can't be started.
    """

    def __init__(
        self, arguments: Sequence[str], *, merge: bool = False, stdout: int | None = None
    ) -> None:
        libc = ctypes.CDLL(None, use_errno=True)

        def opt_in() -> None:
            if libc.prctl(_PR_SET_MEMORY_MERGE, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "PR_SET_MEMORY_MERGE")

        try:
            # Unsafe only where there are threads; we have none.
            self._process = subprocess.Popen(
                arguments,
                stdout=stdout,
                preexec_fn=opt_in if merge else None,  # noqa: PLW1509
            )
        except FileNotFoundError:
            raise KsmtraceError(
                f"there is no command {arguments[0]!r}", "check its name or give its path"
            ) from None
        except PermissionError:
            raise KsmtraceError(f"{arguments[0]!r} may not be run", "is it executable?") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise KsmtraceError(f"{arguments[0]!r} did not start: {error}") from None
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """Readable once the command has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), if it has not."""
        self._process.terminate()

    def end(self, patience: float = 1.0) -> int | None:
        """Its status, as a shell counts: 128 + n for signal n. None if it is still running.

        It has `patience` seconds to end, as a Ctrl-C reaches it too; then it is left alone.
        """
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        ended.poll(1000 * patience)
        status = self._process.poll()
        os.close(self._pidfd)
        if status is None:
            # Otherwise Python would complain about a process that nobody waited for.
            self._process.returncode = 0
            return None
        return 128 - status if status < 0 else status
