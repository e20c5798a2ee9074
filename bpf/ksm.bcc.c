// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The ksm tracepoints for bcc, which compiles this on the traced host. Headers may be another
 * kernel version's, so no kernel struct is used: the offsets (OFFSET_*) come from the running
 * kernel's BTF, by -D.
 */
#include <linux/types.h>
#include "event.h"

struct cpu_state_value {
	__u64 words[3];
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(cpu_states, struct cpu_state_value, 1);
BPF_TABLE("lru_hash", __u64, __u32, owners, 16384);

struct cpu_state;

#define PROGRAM(name) int raw_tracepoint__##name(struct bpf_raw_tracepoint_args *ctx)

static __always_inline struct event *reserve(void)
{
	return events.ringbuf_reserve(sizeof(struct event));
}

static __always_inline void submit(struct event *e)
{
	events.ringbuf_submit(e, 1 /* BPF_RB_NO_WAKEUP */);
}

static __always_inline void submit_and_wake(struct event *e)
{
	events.ringbuf_submit(e, 2 /* BPF_RB_FORCE_WAKEUP */);
}

static __always_inline struct cpu_state *this_cpu(void)
{
	int zero = 0;

	return (struct cpu_state *)cpu_states.lookup(&zero);
}

static __always_inline __u32 owner_cached(__u64 mm)
{
	__u32 *tgid = owners.lookup(&mm);

	return tgid ? *tgid : 0;
}

static __always_inline void remember_owner(__u64 mm, __u32 tgid)
{
	owners.update(&mm, &tgid);
}

static __always_inline void forget_owner(__u64 mm)
{
	owners.delete(&mm);
}

static __always_inline __u64 read_u64(__u64 at)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static __always_inline __u32 read_u32(__u64 at)
{
	__u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static __always_inline __u64 item_address(__u64 item)
{
	return read_u64(item + OFFSET_ITEM_ADDRESS);
}

static __always_inline __u32 item_checksum(__u64 item)
{
	return read_u32(item + OFFSET_ITEM_OLDCHECKSUM);
}

static __always_inline __u32 page_mapcount(__u64 page)
{
#ifdef OFFSET_PAGE_MAPCOUNT
	return read_u32(page + OFFSET_PAGE_MAPCOUNT) + 1;
#else
	return 0;
#endif
}

static __always_inline __u64 mm_owner(__u64 mm)
{
#ifdef OFFSET_MM_OWNER
	return read_u64(mm + OFFSET_MM_OWNER);
#else
	return 0;
#endif
}

static __always_inline __u32 task_tgid(__u64 task)
{
	return read_u32(task + OFFSET_TASK_TGID);
}

static __always_inline __u64 task_mm(__u64 task)
{
	return read_u64(task + OFFSET_TASK_MM);
}

#include "programs.h"
#include "tracepoints.h"
