"""Where an export goes: private, whole or not at all, in place of something only with --force."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ksmtrace.errors import KsmtraceError
from ksmtrace.recording.disk import disk_errors
from ksmtrace.recording.target import give_to_user, private_files


def _check(path: Path, *, force: bool, option: str = "-o") -> None:
    if os.path.lexists(path) and not force:
        raise KsmtraceError(
            f"{path} exists", f"add --force to replace it, or choose another name with {option}"
        )
    if not path.parent.is_dir():
        raise KsmtraceError(f"the folder {path.parent} does not exist", f"mkdir -p {path.parent}")


def check_new_file(path: Path, *, force: bool = False, option: str = "-o") -> None:
    """Whether `new_file` may write there; to be asked before long work. Raises KsmtraceError."""
    _check(path, force=force, option=option)
    if path.is_dir():
        raise KsmtraceError(f"{path} is a folder", f"choose another name with {option}")


@contextlib.contextmanager
def new_file(path: Path, *, force: bool = False, option: str = "-o") -> Iterator[BinaryIO]:
    """A file to write, which gets its name once it is whole. option: what chose the name.

    Raises KsmtraceError if it exists.
    """
    check_new_file(path, force=force, option=option)
    with disk_errors(path):
        number, hidden = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                yield file
            give_to_user(Path(hidden))
            Path(hidden).replace(path)
        except BaseException:
            Path(hidden).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(
    path: Path, *, force: bool = False, ours: Callable[[str], bool] = lambda _name: False
) -> Iterator[Path]:
    """A folder to fill, which gets its name once it is whole. ours: which files may be replaced.

    Raises KsmtraceError if it exists and `force` isn't set, or if it holds what isn't ours.
    """
    _check(path, force=force)
    if os.path.lexists(path) and not (
        path.is_dir() and not path.is_symlink() and all(ours(p.name) for p in path.iterdir())
    ):
        raise KsmtraceError(
            f"{path} is no folder of such tables alone", "choose another name with -o"
        )
    with disk_errors(path):
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            with private_files():
                yield hidden
            for each in (hidden, *hidden.iterdir()):
                give_to_user(each)
            if path.is_dir():
                shutil.rmtree(path)
            hidden.rename(path)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
