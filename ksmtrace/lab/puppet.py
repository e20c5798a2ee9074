"""A process of a scenario on the real kernel: does what it is told, one message at a time.

Run by path, without the package, so that it starts quickly and owns little memory. Messages are
marshalled tuples, each with a length before it, over a socket; each is answered with an error's
text, an empty one if there was none. None of a puppet's memory is mergeable but what the scenario
maps: where PR_SET_MEMORY_MERGE makes it so, it is opted out again before ksmd, which is parked,
could look.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import marshal
import os
import signal
import socket
import sys
from typing import Any

PAGE = 4096
ARENA, ARENA_END = 0x1000_0000_0000, 0x1000_0000_0000 + (1 << 38)
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE = 2, 0x20, 0x100000
MADV_DONTNEED, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 12, 13, 14, 15
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
PR_SET_NAME, PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE = 15, 67, 68
ADVICE = {"mergeable": MADV_MERGEABLE, "unmergeable": MADV_UNMERGEABLE, "discard": MADV_DONTNEED}
ACCESS = {"write": PROT_READ | PROT_WRITE, "read": PROT_READ, "none": PROT_NONE}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
_long, _pointer, _int = ctypes.c_long, ctypes.c_void_p, ctypes.c_int
libc.mmap.argtypes = [_pointer, _long, _int, _int, _int, _long]
libc.mremap.argtypes = [_pointer, _long, _long, _int, _pointer]
libc.munmap.argtypes = libc.munlock.argtypes = [_pointer, _long]
libc.madvise.argtypes = [_pointer, _long, _int]
libc.mprotect.argtypes = [_pointer, _long, _int]
libc.vmsplice.argtypes = [_int, _pointer, _long, _int]
libc.syscall.restype = _long
SYS_MBIND, SYS_MOVE_PAGES, SYS_MLOCK2 = {
    "x86_64": (237, 279, 325),
    "aarch64": (235, 239, 284),
}.get(os.uname().machine, (-1, -1, -1))
MPOL_BIND, MPOL_MF_MOVE_ALL, MLOCK_ONFAULT = 2, 4, 1
MOVE_AT_ONCE = 4096
libc.prctl.argtypes = [_int, _long, _long, _long, _long]


class IoVec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def check(result: int | None, what: str) -> None:
    """Raise OSError for a C function's -1."""
    if result in (-1, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Puppet:
    """The process: `channel` is where its orders come from."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def obey(self) -> None:
        """Until the other end is closed, or gone with an answer unread."""
        with contextlib.suppress(ConnectionError):
            while True:
                order, fds = receive(self.channel)
                if order is None:
                    break
                try:
                    getattr(self, f"do_{order[0]}")(*order[1:], *fds)
                    if libc.prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1:
                        keep_to_the_arena()
                    send(self.channel, "")
                except OSError as error:
                    send(self.channel, f"{order[0]}: {error}")
        os._exit(0)

    def do_map(self, start: int, length: int, huge: bool, node: int) -> None:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        check(libc.mmap(start, length, PROT_READ | PROT_WRITE, flags, -1, 0), "mmap")
        # A kernel without huge pages refuses the word itself.
        libc.madvise(start, length, MADV_HUGEPAGE if huge else MADV_NOHUGEPAGE)
        if several_nodes():
            self.do_place(start, length, node)

    def do_place(self, start: int, length: int, node: int) -> None:
        nodes = ctypes.c_ulong(1 << node)
        call(SYS_MBIND, "mbind", start, length, MPOL_BIND, ctypes.byref(nodes), 64, 0)

    def do_migrate(self, start: int, length: int, node: int) -> None:
        """What can't be moved, or isn't there, stays."""
        addresses = range(start, start + length, PAGE)
        for first in range(0, len(addresses), MOVE_AT_ONCE):
            some = addresses[first : first + MOVE_AT_ONCE]
            pages = (ctypes.c_void_p * len(some))(*some)
            nodes = (ctypes.c_int * len(some))(*[node] * len(some))
            status = (ctypes.c_int * len(some))()
            call(SYS_MOVE_PAGES, "move_pages", 0, len(some), pages, nodes, status, MPOL_MF_MOVE_ALL)

    def do_keep(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Lock what is in memory in those ranges, and outside of the arena, so that it stays."""
        for start, length in ranges:
            call(SYS_MLOCK2, "mlock2", start, length, MLOCK_ONFAULT)
        for start, end in outside_of_the_arena():
            # What can't be locked (vsyscall) can't be swapped out either.
            libc.syscall(_long(SYS_MLOCK2), _long(start), _long(end - start), _long(MLOCK_ONFAULT))

    def do_release(self, ranges: tuple[tuple[int, int], ...]) -> None:
        for start, length in ranges:
            check(libc.munlock(start, length), "munlock")

    def do_advise(self, start: int, length: int, advice: str) -> None:
        check(libc.madvise(start, length, ADVICE[advice]), "madvise")

    def do_protect(self, start: int, length: int, access: str) -> None:
        check(libc.mprotect(start, length, ACCESS[access]), "mprotect")

    def do_unmap(self, start: int, length: int) -> None:
        check(libc.munmap(start, length), "munmap")

    def do_write(self, pages: tuple[tuple[int, bytes], ...]) -> None:
        for address, content in pages:
            ctypes.memmove(address, content.ljust(PAGE, b"\0"), PAGE)

    def do_write_part(self, addresses: tuple[int, ...], offset: int, data: bytes) -> None:
        for address in addresses:
            ctypes.memmove(address + offset, data, len(data))

    def do_read(self, addresses: tuple[int, ...]) -> None:
        for address in addresses:
            ctypes.string_at(address, 1)

    def do_remap(self, start: int, length: int, target: int) -> None:
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        check(libc.mremap(start, length, length, flags, target), "mremap")

    def do_merge_any(self, on: bool) -> None:
        check(libc.prctl(PR_SET_MEMORY_MERGE, int(on), 0, 0, 0), "prctl")

    def do_pin(self, address: int, pipe: int) -> None:
        """Put a page into a pipe that the other end holds, by reference."""
        vector = IoVec(address, PAGE)
        try:
            check(libc.vmsplice(pipe, ctypes.byref(vector), 1, 0), "vmsplice")
        finally:
            os.close(pipe)

    def do_fork(self, name: str, channel: int) -> None:
        if os.fork() == 0:
            comm = ctypes.create_string_buffer(name.encode())
            libc.prctl(PR_SET_NAME, ctypes.addressof(comm), 0, 0, 0)
            # An exit is seen by the end of the channel, so nobody else may hold it open.
            self.channel.close()
            self.channel = socket.socket(fileno=channel)
            send(self.channel, os.getpid())
            self.obey()
        os.close(channel)

    def do_exec(self) -> None:
        fd = self.channel.fileno()
        os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(fd)])

    def do_exit(self) -> None:
        os._exit(0)


def keep_to_the_arena() -> None:
    """Opt everything out of KSM that no scenario mapped."""
    for _ in range(3):
        for start, end in outside_of_the_arena():
            libc.madvise(start, end - start, MADV_UNMERGEABLE)


def outside_of_the_arena() -> list[tuple[int, int]]:
    """Where this program itself has memory."""
    with open("/proc/self/maps", "rb") as file:
        lines = file.read().split(b"\n")
    places = []
    for line in lines:
        if line:
            start, end = (int(word, 16) for word in line.split(b" ", 1)[0].split(b"-"))
            if not ARENA <= start < ARENA_END:
                places.append((start, end))
    return places


def several_nodes() -> bool:
    """Whether there is a choice where memory comes from."""
    return os.access("/sys/devices/system/node/node1", os.F_OK)


def call(number: int, what: str, *arguments: Any) -> None:
    """A system call that the C library has no function for. Raises OSError."""
    whole = [_long(a) if isinstance(a, int) else a for a in arguments]
    check(libc.syscall(_long(number), *whole), what)


def send(channel: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send a message, and file descriptors with it."""
    body = marshal.dumps(message)
    data = len(body).to_bytes(8, "little") + body
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = channel.sendmsg([data], rights)
        data = data[sent:]
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """The next message and the descriptors that came with it; None at the channel's end."""
    data = bytearray()
    fds = array.array("i")
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "little"):
        wanted = 8 if len(data) < 8 else 8 + int.from_bytes(data[:8], "little")
        part, rights, _flags, _address = channel.recvmsg(wanted - len(data), socket.CMSG_LEN(16))
        for level, kind, content in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
        if not part:
            return None, list(fds)
        data += part
    return marshal.loads(data[8:]), list(fds)


def main() -> None:
    """Obey on the descriptor given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody waits for a puppet's children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if libc.prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1:
        keep_to_the_arena()
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    send(channel, os.getpid())
    Puppet(channel).obey()


if __name__ == "__main__":
    main()
