/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an object that libbpf loads has of what programs.h asks for: the ring, the losses and the
 * owners, under the names that ksmtrace/capture reads them by.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 26);
} events SEC(".maps");

struct cpu_state;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[3]);
} cpu_states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} owners SEC(".maps");

#define PROGRAM(name) SEC("raw_tp/" #name) int name(struct bpf_raw_tracepoint_args *ctx)

static __always_inline struct event *reserve(void)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct event), 0);
}

static __always_inline void submit(struct event *e)
{
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline void submit_and_wake(struct event *e)
{
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

static __always_inline struct cpu_state *this_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cpu_states, &zero);
}

static __always_inline __u32 owner_cached(__u64 mm)
{
	__u32 *tgid = bpf_map_lookup_elem(&owners, &mm);

	return tgid ? *tgid : 0;
}

static __always_inline void remember_owner(__u64 mm, __u32 tgid)
{
	bpf_map_update_elem(&owners, &mm, &tgid, BPF_ANY);
}

static __always_inline void forget_owner(__u64 mm)
{
	bpf_map_delete_elem(&owners, &mm);
}

_Static_assert(sizeof(struct event) == 56, "the ring's stride is 64 bytes");
