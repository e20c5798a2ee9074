"""Where a recording goes: checked before anything is attached, replaced only with --force."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ksmtrace.errors import KsmtraceError
from ksmtrace.recording.schema import MANIFEST

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def _invoking_user() -> tuple[int, int] | None:
    """The user who called sudo: recordings are theirs, not root's."""
    if os.geteuid() != 0:
        return None
    try:
        return int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None


def give_to_user(path: Path) -> None:
    """Under sudo, make a file the property of the user who called it."""
    user = _invoking_user()
    if user is not None:
        with contextlib.suppress(OSError):
            os.chown(path, *user, follow_symlinks=False)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Files made inside are for their owner alone, whatever the process's umask is."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class Target:
    """A folder to be. force: an existing recording there is replaced, once the new one is sealed.

    option: what names it on the command line.

    Raises KsmtraceError where it exists, is no recording, or can't be made.
    """

    def __init__(self, path: Path, *, force: bool = False, option: str = "-o") -> None:
        self.path = path.absolute()
        self._named = path
        self._force = force
        self._option = option
        self._published = False
        self._hidden: Path | None = None
        self._replaced: Path | None = None
        try:
            present = self.path.exists() or self.path.is_symlink()
        except OSError as error:
            raise KsmtraceError(
                f"{path} can't be a recording's name: {error.strerror}",
                f"choose another with {option}",
            ) from None
        if present:
            if self.path.is_symlink():
                raise KsmtraceError(
                    f"{path} is a link, and no link is replaced",
                    f"give the name of what it points to, or choose another with {option}",
                )
            if not os.access(self.path / MANIFEST, os.F_OK):
                raise KsmtraceError(
                    f"{path} exists and is not a recording", f"choose another name with {option}"
                )
            if not force:
                raise self._exists()
        if not self.path.parent.is_dir():
            raise KsmtraceError(
                f"the folder {self.path.parent} does not exist", f"mkdir -p {self.path.parent}"
            )
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise KsmtraceError(
                f"the folder {self.path.parent} can't be written",
                f"choose another one with {option}",
            )

    def _exists(self) -> KsmtraceError:
        return KsmtraceError(
            f"{self._named} exists",
            f"add --force to replace it, or choose another name with {self._option}",
        )

    def begin(self) -> Path:
        """Make the hidden folder in which the recording is built."""
        self._hidden = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        return self._hidden

    def publish(self) -> None:
        """Give the hidden folder its name; what it replaces steps aside.

        Raises KsmtraceError where another has taken the name since, unless it may be replaced.
        """
        assert self._hidden is not None
        if self._force and self.path.exists():
            self._replaced = Path(
                tempfile.mkdtemp(prefix=f".{self.path.name}.replaced-", dir=self.path.parent)
            )
            self.path.rename(self._replaced)
        try:
            # A folder takes no name that a file, a link or a folder with something in it has.
            self._hidden.rename(self.path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise self._exists() from None
        self._hidden = None
        self._published = True
        self._give_to_user()

    def done(self) -> None:
        """The recording is sealed: what it replaced goes."""
        self._give_to_user()
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)

    def leave(self) -> Path | None:
        """The recording ended early; returns where that is which it was to replace, if it was."""
        self._give_to_user()
        if self._hidden is not None:
            shutil.rmtree(self._hidden, ignore_errors=True)
        return self._replaced

    def discard(self) -> None:
        """The recording ended early and is worth nothing: all is as it was before `begin`."""
        if self._published:
            shutil.rmtree(self.path, ignore_errors=True)
            if self._replaced is not None:
                self._replaced.rename(self.path)
        self.leave()

    def _give_to_user(self) -> None:
        if not self._published:
            return
        for path in (self.path, *self.path.glob("*")):
            give_to_user(path)
