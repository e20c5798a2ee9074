// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The ksm tracepoints as one CO-RE object for libbpf. Needs no vmlinux.h: only the members read
 * are declared, and libbpf finds their real offsets in the running kernel's BTF.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"

#define CO_RE __attribute__((preserve_access_index))

struct thread_info {
	__u32 status;
} CO_RE;

struct task_struct {
	int tgid;
	int pagefault_disabled;
	struct mm_struct *mm;
	struct thread_info thread_info;
} CO_RE;

struct maple_tree {
	void *ma_root;
} CO_RE;

struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
} CO_RE;

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
} CO_RE;

struct mm_struct {
	struct maple_tree mm_mt;
	struct task_struct *owner;
	void *pgd;
	unsigned long brk;
	unsigned long flags;
} CO_RE;

struct mm_struct___bitmap {
	struct {
		unsigned long __mm_flags[1];
	} flags;
} CO_RE;

struct ksm_rmap_item {
	unsigned long address;
	unsigned int oldchecksum;
} CO_RE;

typedef struct {
	int counter;
} atomic_t;

struct page {
	atomic_t _mapcount;
	void *mapping;
	unsigned long compound_head;
} CO_RE;

struct xarray {
	void *xa_head;
} CO_RE;

struct address_space {
	struct xarray i_pages;
} CO_RE;

struct file {
	struct address_space *f_mapping;
} CO_RE;

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	unsigned long vm_flags;
	struct file *vm_file;
} CO_RE;

struct rb_node {
	unsigned long __rb_parent_color;
} CO_RE;

struct pt_regs {
	unsigned long r10;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
} CO_RE;

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

/*
 * Kernel memory read as memory, at the cost of a load: a bpf_probe_read_kernel() takes 30 ns. The
 * kernel has it since 6.2, so every kernel with ksm tracepoints does.
 */
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym;

#define AT(type, address) \
	((const type *)bpf_rdonly_cast((const void *)(address), bpf_core_type_id_kernel(type)))

static __always_inline __u64 item_address(__u64 item)
{
	return AT(struct ksm_rmap_item, item)->address;
}

static __always_inline __u32 item_checksum(__u64 item)
{
	return AT(struct ksm_rmap_item, item)->oldchecksum;
}

static __always_inline __u32 page_mapcount(__u64 page)
{
	if (!bpf_core_field_exists(struct page, _mapcount))
		return 0;
	return AT(struct page, page)->_mapcount.counter + 1;
}

/* Only with CONFIG_MEMCG. */
static __always_inline __u64 mm_owner(__u64 mm)
{
	if (!bpf_core_field_exists(struct mm_struct, owner))
		return 0;
	return (__u64)AT(struct mm_struct, mm)->owner;
}

static __always_inline __u32 task_tgid(__u64 task)
{
	return AT(struct task_struct, task)->tgid;
}

static __always_inline __u64 task_mm(__u64 task)
{
	return (__u64)AT(struct task_struct, task)->mm;
}

#include "programs.h"
#include "cow.h"
#include "ranges.h"

_Static_assert(sizeof(struct cpu_state) == sizeof(__u64[3]), "cpu_states holds struct cpu_state");
_Static_assert(sizeof(struct event) == 56, "the ring's stride is 64 bytes");

char LICENSE[] SEC("license") = "Dual BSD/GPL";
