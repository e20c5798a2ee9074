"""libbpf.so.1 through ctypes: just what loading one object and attaching its programs needs."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot

_SONAME = "libbpf.so.1"
_POINTER_ERRORS = 4095
_WARN = 0
_BTF_KIND_STRUCT = 4
_LIBC = ctypes.CDLL(None)

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def load_library() -> ctypes.CDLL | None:
    """Libbpf with its prototypes set, or None where it is not installed."""
    try:
        lib = ctypes.CDLL(_SONAME, use_errno=True)
    except OSError:
        return None
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [text, pointer]),
        ("bpf_object__load", number, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__next_program", pointer, [pointer, pointer]),
        ("bpf_object__find_map_by_name", pointer, [pointer, text]),
        ("bpf_program__name", text, [pointer]),
        ("bpf_program__attach", pointer, [pointer]),
        ("bpf_program__fd", number, [pointer]),
        ("bpf_program__set_autoload", number, [pointer, ctypes.c_bool]),
        ("bpf_map__set_max_entries", number, [pointer, ctypes.c_uint32]),
        ("bpf_map__set_autocreate", number, [pointer, ctypes.c_bool]),
        ("bpf_map__fd", number, [pointer]),
        ("bpf_map_lookup_elem", number, [number, pointer, pointer]),
        ("bpf_link__destroy", number, [pointer]),
        ("bpf_prog_test_run_opts", number, [number, pointer]),
        ("bpf_obj_get_info_by_fd", number, [number, pointer, pointer]),
        ("btf__load_vmlinux_btf", pointer, []),
        ("btf__find_by_name_kind", number, [pointer, text, ctypes.c_uint32]),
        ("btf__resolve_size", ctypes.c_int64, [pointer, ctypes.c_uint32]),
        ("btf__free", None, [pointer]),
        ("libbpf_set_print", pointer, [pointer]),
        ("libbpf_num_possible_cpus", number, []),
    ):
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


def missing_library() -> Obstacle:
    """Why `load_library` returned None."""
    return Obstacle(
        f"{_SONAME} is not installed",
        "apt install libbpf1 (Debian, Ubuntu) or dnf install libbpf (Fedora)",
    )


def required_library() -> ctypes.CDLL:
    """Libbpf. Raises KsmtraceError (HOST_CANNOT) where it is not installed."""
    library = load_library()
    if library is None:
        raise host_cannot([missing_library()], "load BPF programs")
    return library


def object_obstacles(path: Path) -> list[Obstacle]:
    """What keeps the object at `path` from being loaded: no library, or no object."""
    obstacles = [missing_library()] if load_library() is None else []
    if not path.is_file():
        obstacles.append(Obstacle("the BPF object is not installed", "run `make bpf`"))
    return obstacles


def struct_size(name: str) -> int | None:
    """Sizeof a kernel struct; a fifth of what `kernel.btf` takes, which also knows the members.

    None without libbpf, without BTF, or for a struct that the kernel doesn't have.
    """
    lib = load_library()
    btf = lib.btf__load_vmlinux_btf() if lib else None
    if lib is None or not btf:
        return None
    try:
        number = lib.btf__find_by_name_kind(btf, name.encode(), _BTF_KIND_STRUCT)
        return int(lib.btf__resolve_size(btf, number)) if number > 0 else None
    finally:
        lib.btf__free(btf)


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 1.0, as far as it goes."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("context_in", ctypes.c_void_p),
        ("context_out", ctypes.c_void_p),
        ("context_size_in", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info of Linux 5.12 up to the one member wanted."""

    _fields_ = (("before", ctypes.c_uint64 * 26), ("recursion_misses", ctypes.c_uint64))


class BpfObject:
    """A compiled BPF object, loaded and attached.

    path: the object file. ring_bytes: size of the ring buffer map called `events`.
    programs: the names of the programs to load and attach, the tracepoints that this kernel has.
    further: those to load only. without_maps: maps that none of these need. otherwise: what to do
    where the kernel does not take them.
    Raises KsmtraceError: HOST_CANNOT where loading or attaching is refused, with libbpf's words.
    """

    def __init__(
        self,
        lib: ctypes.CDLL,
        path: Path,
        ring_bytes: int,
        programs: Collection[str],
        *,
        further: Collection[str] = (),
        without_maps: Collection[str] = (),
        otherwise: str = "try --backend tracefs, which needs no BPF",
    ) -> None:
        self._lib = lib
        self._links: list[int] = []
        self._messages: list[str] = []
        self._otherwise = otherwise
        self._programs: dict[str, int] = {}
        self._print = _PRINT(self._keep_message)
        lib.libbpf_set_print(self._print)
        self._object = lib.bpf_object__open_file(os.fsencode(path), None)
        try:
            self._load(ring_bytes, {*programs, *further}, without_maps)
            for name in programs:
                self.attach(name)
        except BaseException:
            self.close()
            raise

    def _load(
        self, ring_bytes: int, programs: Collection[str], without_maps: Collection[str]
    ) -> None:
        lib = self._lib
        if not self._object:
            raise self._refused("opened", ctypes.get_errno())
        program = lib.bpf_object__next_program(self._object, None)
        while program:
            name = lib.bpf_program__name(program).decode()
            lib.bpf_program__set_autoload(program, name in programs)
            if name in programs:
                self._programs[name] = program
            program = lib.bpf_object__next_program(self._object, program)
        lib.bpf_map__set_max_entries(self._map("events"), ring_bytes)
        for name in without_maps:
            lib.bpf_map__set_autocreate(self._map(name), False)
        if (code := lib.bpf_object__load(self._object)) < 0:
            raise self._refused("loaded", -code)

    def attach(self, name: str) -> None:
        """Attach a program that was loaded. Raises KsmtraceError (HOST_CANNOT)."""
        link = self._lib.bpf_program__attach(self._programs[name])
        if not link or ctypes.c_long(link).value in range(-_POINTER_ERRORS, 0):
            raise self._refused("attached", ctypes.get_errno())
        self._links.append(link)

    def run_raw(self, name: str, arguments: Sequence[int]) -> None:
        """Run a raw tracepoint's program once, in this process. Raises KsmtraceError."""
        words = (ctypes.c_uint64 * len(arguments))(*arguments)
        options = _TestRun(
            size=ctypes.sizeof(_TestRun),
            context_in=ctypes.addressof(words),
            context_size_in=ctypes.sizeof(words),
        )
        number = self._lib.bpf_program__fd(self._programs[name])
        code = self._lib.bpf_prog_test_run_opts(number, ctypes.byref(options))
        if code < 0:
            raise self._refused("run", -code)

    def misses(self, name: str) -> int:
        """How often a program was due and not run, since it was running on that CPU already."""
        info = _ProgramInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        number = self._lib.bpf_program__fd(self._programs[name])
        code = self._lib.bpf_obj_get_info_by_fd(number, ctypes.byref(info), ctypes.byref(size))
        return info.recursion_misses if code == 0 else 0

    def _keep_message(self, level: int, form: bytes, arguments: int) -> int:
        if level == _WARN:
            text = ctypes.create_string_buffer(1024)
            # A va_list is handed on as a pointer in the 64-bit ABIs of x86 and ARM.
            _LIBC.vsnprintf(text, ctypes.c_size_t(1024), form, ctypes.c_void_p(arguments))
            self._messages.append(text.value.decode(errors="replace").strip())
        return 0

    def _refused(self, step: str, code: int) -> KsmtraceError:
        if code == errno.ENOMEM:
            return KsmtraceError(
                "there is not enough memory for the ring buffer",
                "ask for a smaller one with --ring, in MiB",
                Exit.HOST_CANNOT,
            )
        if code == errno.EPERM:
            hint = "run as root, or give python CAP_BPF and CAP_PERFMON; lockdown may forbid it too"
        else:
            hint = self._otherwise
        reason = os.strerror(code) if code else "no reason given"
        if self._messages:
            reason += f" ({self._messages[-1]})"
        return KsmtraceError(
            f"the BPF programs could not be {step}: {reason}", hint, Exit.HOST_CANNOT
        )

    def _map(self, name: str) -> int:
        found: int | None = self._lib.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise KsmtraceError(f"the BPF object has no map called {name}", "reinstall ksmtrace")
        return found

    def map_fd(self, name: str) -> int:
        """The file descriptor of a map; it lives as long as the object."""
        return int(self._lib.bpf_map__fd(self._map(name)))

    def read_words(self, name: str, words: int) -> tuple[int, ...]:
        """Entry 0 of an array whose value is `words` u64."""
        value = (ctypes.c_uint64 * words)()
        key = ctypes.c_uint32(0)
        self._lib.bpf_map_lookup_elem(self.map_fd(name), ctypes.byref(key), ctypes.byref(value))
        return tuple(value)

    def read_per_cpu(self, name: str, words: int) -> list[tuple[int, ...]]:
        """Entry 0 of a per-CPU array whose value is `words` u64; one tuple a possible CPU."""
        cpus = self._lib.libbpf_num_possible_cpus()
        values = (ctypes.c_uint64 * (words * cpus))()
        key = ctypes.c_uint32(0)
        self._lib.bpf_map_lookup_elem(self.map_fd(name), ctypes.byref(key), ctypes.byref(values))
        return [tuple(values[cpu * words : (cpu + 1) * words]) for cpu in range(cpus)]

    def detach(self) -> None:
        """Detach every program; maps stay readable."""
        while self._links:
            self._lib.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None
        self._lib.libbpf_set_print(None)
