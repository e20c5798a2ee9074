"""The C header that BPF programs share, generated from the registry (`make bpf` writes it)."""

from __future__ import annotations

from ksmtrace.events import registry


def c_header() -> str:
    """The text of bpf/event.h."""
    members = "\n".join(
        f"\t{slot.c} {slot.name};{' ' * max(1, 10 - len(slot.c + slot.name))}/* {slot.meaning} */"
        for slot in registry.SLOTS
    )
    kinds = "\n".join(f"\tKIND_{kind.name.upper()} = {kind.id}," for kind in registry.KINDS)
    return f"""\
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Generated from ksmtrace/events/registry.py by `make bpf`. Do not edit. */
#ifndef KSMTRACE_EVENT_H
#define KSMTRACE_EVENT_H

struct event {{
{members}
}};

enum event_kind {{
{kinds}
}};

enum merge_flag {{
	INTO_EXISTING = {registry.INTO_EXISTING},
	FIRST_SIGHT = {registry.FIRST_SIGHT},
	MAPCOUNT_SHIFT = {registry.MAPCOUNT_SHIFT},
}};

enum enter_via {{
	VIA_SELF = {registry.VIA_SELF},
	VIA_FORK = {registry.VIA_FORK},
	VIA_EXEC = {registry.VIA_EXEC},
}};

enum break_flag {{
	KERNEL_MODE = {registry.KERNEL_MODE},
	ZERO_PAGE = {registry.ZERO_PAGE},
	UNCHECKED = {registry.UNCHECKED},
}};

enum left_how {{
	LEFT_MUNMAP = {registry.LEFT_MUNMAP},
	LEFT_DISCARD = {registry.LEFT_DISCARD},
	LEFT_UNMERGEABLE = {registry.LEFT_UNMERGEABLE},
	LEFT_PRCTL = {registry.LEFT_PRCTL},
	LEFT_MREMAP = {registry.LEFT_MREMAP},
	LEFT_MAP_FIXED = {registry.LEFT_MAP_FIXED},
	LEFT_BRK = {registry.LEFT_BRK},
}};

#define WHOLE_ADDRESS_SPACE {registry.WHOLE_ADDRESS_SPACE:#x}u

#endif
"""
