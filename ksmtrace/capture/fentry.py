"""The `fentry` backend: KSM before Linux 6.4, seen at its functions.

A second CO-RE object (bpf/ksm.fentry.bpf.c) stands on entry and exit of those functions of
mm/ksm.c that the compiler left whole. It uses the kprobes' successors, fentry and fexit: at a
function's exit they still have its arguments, and miss no call that sleeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from ksmtrace.capture.bpf_stream import BpfStream, object_stream
from ksmtrace.capture.libbpf import BpfObject, object_obstacles, required_library
from ksmtrace.errors import Obstacle
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel import host
from ksmtrace.kernel.kallsyms import kernel_symbols

OBJECT = Path(__file__).parent.parent / "bpf" / "ksm.fentry.bpf.o"
PREPARE: Final = "note_ksm"
SWITCHES: Final = "sched_switch"
FUNCTIONS: Final = {
    "fexit___ksm_enter": "__ksm_enter",
    "fexit___ksm_exit": "__ksm_exit",
    "fentry_remove_node_from_stable_tree": "remove_node_from_stable_tree",
    "fexit_try_to_merge_one_page": "try_to_merge_one_page",
    "fexit_try_to_merge_with_ksm_page": "try_to_merge_with_ksm_page",
    "fentry_lru_add_drain_all": "lru_add_drain_all",
}
"""The kernel's function by the program that stands on it, in the order of attaching."""
VARIABLES: Final = ("ksm_scan", "ksm_rmap_items")
_PARTS: Final = {
    "bpf_loop": "bpf_loop(), which came with Linux 5.17",
    "register_ftrace_direct": "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
}
_NAMES = tuple(kind.name for kind in TRACEPOINTS)
_NEWER = "boot Linux 6.4 or newer, which has ksm tracepoints"


class FentrySource:
    """Events from BPF programs on functions of KSM, for kernels without ksm tracepoints."""

    name: ClassVar[str] = "fentry"
    summary: ClassVar[str] = "BPF on KSM's functions, before Linux 6.4: every field"
    fields_unknown: ClassVar[tuple[str, ...]] = ()

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        obstacles = host.bpf_obstacles() + object_obstacles(OBJECT)
        if obstacles:
            return obstacles
        if host.ksm_tracepoints(_NAMES):
            return [
                Obstacle(
                    "not needed: this kernel has the ksm tracepoints",
                    "use --backend core",
                )
            ]
        if host.machine() != "x86_64":
            return [
                Obstacle(f"KSM's functions are hooked on x86-64 only, not {host.machine()}", _NEWER)
            ]
        return hook_obstacles()

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[BpfStream]:
        """See `Source.open`."""
        loaded = BpfObject(
            required_library(),
            OBJECT,
            ring_bytes,
            (),
            further=(PREPARE, SWITCHES, *FUNCTIONS),
            otherwise=_NEWER,
        )
        try:
            loaded.run_raw(PREPARE, (0,))
            for program in (SWITCHES, *FUNCTIONS):
                loaded.attach(program)
            with object_stream(loaded, ring_bytes, loaded.detach, FUNCTIONS) as stream:
                yield stream
        finally:
            loaded.close()


def hook_obstacles() -> list[Obstacle]:
    """What this kernel lacks of the functions and variables that the programs need.

    A function that the compiler inlined is missing; one whose arguments it changed has a name
    with a suffix (.isra, .constprop) and no BTF.
    """
    symbols = kernel_symbols((*FUNCTIONS.values(), *VARIABLES, *_PARTS))
    if symbols and not any(symbols.values()):
        return [
            Obstacle(
                "the kernel hides its addresses (/proc/kallsyms)", "sysctl kernel.kptr_restrict=1"
            )
        ]
    obstacles = [
        Obstacle(f"this kernel has no {what}", _NEWER)
        for symbol, what in _PARTS.items()
        if symbol not in symbols
    ]
    missing = [f for f in FUNCTIONS.values() if f not in symbols or not host.in_btf(f)]
    if missing:
        obstacles.append(Obstacle(f"this kernel can't be hooked at {', '.join(missing)}", _NEWER))
    missing = [variable for variable in VARIABLES if variable not in symbols]
    if missing:
        obstacles.append(
            Obstacle(
                f"/proc/kallsyms lacks {' and '.join(missing)}",
                "boot a kernel built with CONFIG_KALLSYMS_ALL=y",
            )
        )
    return obstacles
