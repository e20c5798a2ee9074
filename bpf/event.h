/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Generated from ksmtrace/events/registry.py by `make bpf`. Do not edit. */
#ifndef KSMTRACE_EVENT_H
#define KSMTRACE_EVENT_H

struct event {
	__u64 ts;   /* when, in nanoseconds of CLOCK_MONOTONIC */
	__u64 pfn;  /* page frame number */
	__u64 item; /* kernel address of the rmap_item */
	__u64 mm;   /* kernel address of the mm_struct */
	__u64 addr; /* virtual address of the page */
	__u32 tgid; /* process that owns the mm */
	__s32 err;  /* 0, or a negative errno */
	__u16 kind; /* the event kind's id */
	__u16 cpu;  /* CPU the event was emitted on */
	__u32 arg;  /* flags or a small number, by kind */
};

enum event_kind {
	KIND_KSM_ENTER = 1,
	KIND_KSM_EXIT = 2,
	KIND_KSM_START_SCAN = 3,
	KIND_KSM_STOP_SCAN = 4,
	KIND_KSM_MERGE_ONE_PAGE = 5,
	KIND_KSM_MERGE_WITH_KSM_PAGE = 6,
	KIND_KSM_REMOVE_RMAP_ITEM = 7,
	KIND_KSM_REMOVE_KSM_PAGE = 8,
	KIND_KSM_ADVISOR = 9,
	KIND_LOST = 10,
	KIND_COW_BREAK = 11,
	KIND_RANGE_LEFT = 12,
};

enum merge_flag {
	INTO_EXISTING = 1,
	FIRST_SIGHT = 2,
	MAPCOUNT_SHIFT = 8,
};

enum enter_via {
	VIA_SELF = 1,
	VIA_FORK = 2,
	VIA_EXEC = 3,
};

enum break_flag {
	KERNEL_MODE = 1,
	ZERO_PAGE = 2,
	UNCHECKED = 4,
};

enum left_how {
	LEFT_MUNMAP = 1,
	LEFT_DISCARD = 2,
	LEFT_UNMERGEABLE = 3,
	LEFT_PRCTL = 4,
	LEFT_MREMAP = 5,
	LEFT_MAP_FIXED = 6,
	LEFT_BRK = 7,
};

#define WHOLE_ADDRESS_SPACE 0xffffffffu

#endif
