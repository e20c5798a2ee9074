"""A peer for the bench: bcc with a Python callback an event, as most bcc tools are written.

Writes text lines to the file named; SIGINT ends it and prints how many events came.
"""

import signal
import sys
from pathlib import Path
from typing import Any

from ksmtrace.capture.bcc import kernel_headers, load_bcc

_HANDLER = """
RAW_TRACEPOINT_PROBE({name})
{{
    struct record r = {{}};
    r.ts = bpf_ktime_get_ns(); r.kind = {kind};
    r.pfn = {pfn}; r.item = {item}; r.mm = {mm}; r.err = {err};
    events.ringbuf_output(&r, sizeof(r), 0);
    return 0;
}}
"""
_ARG = "ctx->args[{}]".format
TEXT = """
struct record { u64 ts; u64 pfn; u64 item; u64 mm; s32 err; u32 kind; };
BPF_RINGBUF_OUTPUT(events, 16384);
""" + "".join(
    _HANDLER.format(name=name, kind=kind, pfn=pfn, item=item, mm=mm, err=err)
    for name, kind, pfn, item, mm, err in (
        ("ksm_merge_with_ksm_page", 6, _ARG(1), _ARG(2), _ARG(3), _ARG(4)),
        ("ksm_remove_rmap_item", 7, _ARG(0), _ARG(1), _ARG(2), 0),
        ("ksm_remove_ksm_page", 8, _ARG(0), 0, 0, 0),
    )
)


def main(path: str) -> None:
    """Trace until interrupted."""
    bcc = load_bcc()
    assert bcc is not None
    with kernel_headers():
        programs = bcc.BPF(text=TEXT, cflags=["-Wno-everything"])
    count = 0
    ended = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGINT, stop)
    with Path(path).open("w") as out:

        def callback(_context: Any, data: Any, _size: int) -> None:
            nonlocal count
            r = programs["events"].event(data)
            count += 1
            out.write(f"{r.ts} {r.kind} {r.pfn} {r.item:x} {r.mm:x} {r.err}\n")

        programs["events"].open_ring_buffer(callback)
        print("ready", flush=True)
        while not ended:
            programs.ring_buffer_poll(50)
        programs.ring_buffer_consume()
    print(count, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
