"""Make the recordings of the library (recordings/) anew, each on a real kernel.

  make recordings                        all but those that pages of docs quote
  make recordings ONLY="advisor python"  these
  .venv/bin/python scripts/recordings.py --list
  .venv/bin/python scripts/recordings.py --compare first-merges

--compare makes one into a temporary folder and says where its timeline differs from that of the
one that is there, times and pseudonyms aside; exit code 6 if it does. Needs root, and ksmd for
itself; recordings of other kernels need QEMU and the network.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from library.declared import LIBRARY, Declared
from library.makers import recorded_facts
from library.readme import RECORDINGS, path_of, readme

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.stepper import parked
from ksmtrace.processes.registered import registered_tgids
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.check import check
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.same import same_timeline

MOST_BYTES = 1 << 20
"""What a recording of the library may take on disk."""
_LOCK = Path("/run/ksmtrace-tests.lock")


@contextmanager
def ksmd_alone() -> Iterator[None]:
    """KSM's state is one per machine: nobody else who heeds the lock touches it meanwhile.

    Nothing is merged and nothing on ksmd's list when it begins. Raises KsmtraceError (host cannot)
    without root, or if other processes are registered.
    """
    try:
        lock = _LOCK.open("w")
    except PermissionError:
        raise KsmtraceError("only root can trace ksmd", "use sudo", Exit.HOST_CANNOT) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if strangers := registered_tgids():
            raise KsmtraceError(
                f"other processes are registered with KSM: {strangers[:5]}",
                "they would be in the recording; stop them first",
                Exit.HOST_CANNOT,
            )
        with parked() as stepper:
            # What has exited stays on the list until ksmd comes by.
            stepper.batch()
            stepper.unmerge()
        yield


def made(declared: Declared, folder: Path) -> Path:
    """Make a recording in a folder. Raises KsmtraceError, also if it is not fit for the library."""
    path = folder / f"{declared.name}.ksm"
    with ksmd_alone() if declared.made.here else nullcontext():
        declared.made.make(path)
    size = recorded_facts(path)["size"]
    assert isinstance(size, int)
    if size > MOST_BYTES:
        raise KsmtraceError(f"{declared.name} is too large: {size:,} bytes")
    verdict = check(path)
    for question in ("legal", "predicted"):
        if verdict[question]["answer"] == "no":
            raise KsmtraceError(f"{declared.name} is not {question}: {verdict[question]}")
    return path


def remake(declared: Declared) -> None:
    """Make one and put it where the present one is."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ksmtrace-library-") as name:
        path = made(declared, Path(name))
        aside = Path(name) / "replaced"
        if path_of(declared).exists():
            shutil.move(path_of(declared), aside)
        shutil.move(path, path_of(declared))
    facts = recorded_facts(path_of(declared))
    print(
        f"{declared.name}: {facts['events']:,} events, {facts['size']:,} bytes,"
        f" made in {time.monotonic() - begin:.0f} s"
    )
    if declared.quoted:
        print(f"  now see to what is said of it in {', '.join(declared.quoted)}, and run make bpf")


def compared(declared: Declared) -> list[str]:
    """What is different in one made now, times and pseudonyms aside. Raises KsmtraceError."""
    with tempfile.TemporaryDirectory(prefix="ksmtrace-library-") as name:
        paths = path_of(declared), made(declared, Path(name))
        return same_timeline(*(timeline_of(StoredRecording(path)) for path in paths))


def chosen(names: Sequence[str]) -> list[Declared]:
    """The recordings of these names. Raises KsmtraceError for one that is not declared."""
    by_name = {declared.name: declared for declared in LIBRARY}
    for name in names:
        if name not in by_name:
            raise KsmtraceError(
                f"no recording is called {name!r}", f"there are {', '.join(by_name)}", Exit.USAGE
            )
    return [by_name[name] for name in names]


def main(arguments: Sequence[str]) -> int:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="make these")
    parser.add_argument("--compare", metavar="NAME", help="make one beside the present one")
    parser.add_argument("--list", action="store_true", help="say which there are")
    args = parser.parse_args(arguments)
    if args.list:
        for declared in LIBRARY:
            print(f"{declared.name:<16} {declared.made.words}")
        return Exit.OK
    if args.compare:
        differences = compared(chosen([args.compare])[0])
        print("\n".join(differences) or "the same timeline, up to times and pseudonyms")
        return Exit.DIFFERENCES if differences else Exit.OK
    names = args.names or [declared.name for declared in LIBRARY if not declared.quoted]
    failed = 0
    try:
        for declared in chosen(names):
            try:
                remake(declared)
            except KsmtraceError as error:
                if args.names or error.exit_code != Exit.HOST_CANNOT:
                    raise
                failed += 1
                print(f"{declared.name}: not made: {error.message}", file=sys.stderr)
    finally:
        (RECORDINGS / "README.md").write_text(readme())
    return Exit.HOST_CANNOT if failed else Exit.OK


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KsmtraceError as error:
        print(f"recordings: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"            {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
