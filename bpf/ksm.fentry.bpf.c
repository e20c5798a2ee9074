// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * KSM before Linux 6.4, which has no tracepoints: the same events from entry and exit of its
 * functions (fentry, fexit), for x86-64. ksmtrace/capture/fentry.py says what a kernel must have.
 *
 * ksmd's outermost functions are inlined into its thread, so the two ends of a scan are seen by
 * what goes with them: it drains the LRU batches when the cursor leaves the head of the list, and
 * counts the scan just before it goes to sleep.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"

#define CO_RE __attribute__((preserve_access_index))

struct task_struct {
	int tgid;
	unsigned int flags;
	struct mm_struct *mm;
} CO_RE;

struct mm_struct {
	struct task_struct *owner;
} CO_RE;

struct vm_area_struct {
	struct mm_struct *vm_mm;
} CO_RE;

typedef struct {
	int counter;
} atomic_t;

struct page {
	atomic_t _mapcount;
	void *mapping;
} CO_RE;

struct hlist_node {
	struct hlist_node *next;
} CO_RE;

struct hlist_head {
	struct hlist_node *first;
} CO_RE;

struct ksm_rmap_item {
	struct ksm_rmap_item *rmap_list;
	struct mm_struct *mm;
	unsigned long address;
	unsigned int oldchecksum;
	struct hlist_node hlist;
} CO_RE;

struct ksm_stable_node {
	struct hlist_head hlist;
	unsigned long kpfn;
} CO_RE;

/* Their names before 6.1. */
struct rmap_item {
	struct rmap_item *rmap_list;
	struct mm_struct *mm;
	unsigned long address;
	unsigned int oldchecksum;
	struct hlist_node hlist;
} CO_RE;

struct stable_node {
	struct hlist_head hlist;
	unsigned long kpfn;
} CO_RE;

struct ksm_scan {
	void *rmap_list;
	unsigned long seqnr;
} CO_RE;

extern const void ksm_scan __ksym;
extern const void ksm_rmap_items __ksym;
extern const void vmemmap_base __ksym __weak;

#include "libbpf.h"

/* Which task ksmd is, once seen, and the number of the scan that it has not been seen to end. */
struct scanner {
	__u64 ksmd;
	__u64 seq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scanner);
} scanners SEC(".maps");

#define READ(type, address, member)                        \
	({                                                 \
		const type *_at = (const type *)(address); \
		BPF_CORE_READ(_at, member);                \
	})
#define OLD_NAMES (!bpf_core_type_exists(struct ksm_rmap_item))
#define READ_ITEM(address, member) \
	(OLD_NAMES ? READ(struct rmap_item, address, member) : READ(struct ksm_rmap_item, address, member))

static __always_inline __u64 item_address(__u64 item)
{
	return READ_ITEM(item, address);
}

static __always_inline __u32 item_checksum(__u64 item)
{
	return READ_ITEM(item, oldchecksum);
}

static __always_inline __u32 page_mapcount(__u64 page)
{
	return READ(struct page, page, _mapcount.counter) + 1;
}

/* Only with CONFIG_MEMCG. */
static __always_inline __u64 mm_owner(__u64 mm)
{
	if (!bpf_core_field_exists(struct mm_struct, owner))
		return 0;
	return (__u64)READ(struct mm_struct, mm, owner);
}

static __always_inline __u32 task_tgid(__u64 task)
{
	return READ(struct task_struct, task, tgid);
}

static __always_inline __u64 task_mm(__u64 task)
{
	return (__u64)READ(struct task_struct, task, mm);
}

#include "programs.h"

#define FUNCTION(moment, name) SEC(#moment "/" #name) int moment##_##name(void *call)
#define FIXED_VMEMMAP 0xffffea0000000000ULL
#define PF_KTHREAD 0x00200000

static __always_inline __u64 read_u64(const void *at)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

/* Arguments as numbers: as typed pointers the verifier would not let them be reckoned with. */
static __always_inline __u64 argument(void *call, __u32 number)
{
	__u64 value = 0;

	bpf_get_func_arg(call, number, &value);
	return value;
}

static __always_inline __s32 result(void *call)
{
	__u64 value = 0;

	bpf_get_func_ret(call, &value);
	return (__s32)value;
}

/* The array of all struct pages; it has no variable where the kernel doesn't randomise memory. */
static __always_inline __u64 page_frame(__u64 page)
{
	__u64 base = &vmemmap_base ? read_u64(&vmemmap_base) : FIXED_VMEMMAP;

	return (page - base) / bpf_core_type_size(struct page);
}

static __always_inline struct scanner *scanner(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scanners, &zero);
}

static __always_inline __u64 seqnr(void)
{
	return READ(struct ksm_scan, &ksm_scan, seqnr);
}

static __always_inline __u64 rmap_items(void)
{
	return read_u64(&ksm_rmap_items);
}

static __always_inline int current_is_ksmd(struct scanner *s)
{
	__u64 task = bpf_get_current_task();
	char comm[16] = "";

	if (s->ksmd)
		return s->ksmd == task;
	if (!(READ(struct task_struct, task, flags) & PF_KTHREAD))
		return 0;
	bpf_get_current_comm(comm, sizeof(comm));
	if (comm[0] != 'k' || comm[1] != 's' || comm[2] != 'm' || comm[3] != 'd' || comm[4])
		return 0;
	s->ksmd = task;
	return 1;
}

/*
 * Tell the end of a scan, once, if one has ended. ksmd does nothing between the scan's being
 * counted and ksmd's sleep, but other processes enter and exit meanwhile: whoever tells of
 * something that is not ksmd's looks here first. run=2 begins to count from 0 again, which ends
 * no scan.
 */
static __always_inline void tell_if_ended(struct scanner *s)
{
	__u64 was = s->seq, now = seqnr();

	if (now == was || __sync_val_compare_and_swap(&s->seq, was, now) != was)
		return;
	if (now == was + 1)
		tell_stop_scan(was, rmap_items());
}

/* Run once, before any other is attached. */
PROGRAM(note_ksm)
{
	struct scanner *s = scanner();

	if (s)
		s->seq = seqnr();
	return 0;
}

PROGRAM(sched_switch)
{
	struct scanner *s = scanner();

	if (s && current_is_ksmd(s))
		tell_if_ended(s);
	return 0;
}

FUNCTION(fentry, lru_add_drain_all)
{
	struct scanner *s = scanner();

	if (!s || !current_is_ksmd(s))
		return 0;
	tell_if_ended(s);
	return tell_start_scan(s->seq, rmap_items());
}

FUNCTION(fexit, __ksm_enter)
{
	struct scanner *s = scanner();

	if (!s || result(call))
		return 0;
	tell_if_ended(s);
	return tell_enter(argument(call, 0));
}

FUNCTION(fexit, __ksm_exit)
{
	struct scanner *s = scanner();

	if (!s)
		return 0;
	tell_if_ended(s);
	return tell_exit(argument(call, 0));
}

FUNCTION(fexit, try_to_merge_with_ksm_page)
{
	__u64 item = argument(call, 0), page = argument(call, 1), ksm_page = argument(call, 2);

	return tell_merge_with_ksm_page(ksm_page, page_frame(ksm_page ? ksm_page : page), item,
					(__u64)READ_ITEM(item, mm), result(call));
}

/*
 * Called inside of try_to_merge_with_ksm_page() too, there with a KSM page or none. The zero page
 * is no KSM page: it belongs to nothing. The page's item is not an argument, but the cursor, which
 * stands behind it, points to a member of it.
 */
FUNCTION(fexit, try_to_merge_one_page)
{
	__u64 mm, item, onto = argument(call, 2);

	if (!onto || READ(struct page, onto, mapping))
		return 0;
	mm = (__u64)READ(struct vm_area_struct, argument(call, 0), vm_mm);
	item = (__u64)READ(struct ksm_scan, &ksm_scan, rmap_list);
	item -= OLD_NAMES ? bpf_core_field_offset(struct rmap_item, rmap_list)
			  : bpf_core_field_offset(struct ksm_rmap_item, rmap_list);
	if ((__u64)READ_ITEM(item, mm) != mm)
		return 0;
	return tell_merge_one_page(page_frame(onto), item, mm, result(call));
}

struct removal {
	__u64 pfn;
	__u64 link;	/* of the next item to tell */
};

/* The oldest item of a page, the last here, has no event in kernels with tracepoints either. */
static long remove_item(__u32 number, struct removal *removal)
{
	__u64 item, next = (__u64)READ(struct hlist_node, removal->link, next);

	if (!next)
		return 1;
	item = removal->link - (OLD_NAMES ? bpf_core_field_offset(struct rmap_item, hlist)
					  : bpf_core_field_offset(struct ksm_rmap_item, hlist));
	tell_remove_rmap_item(removal->pfn, item, (__u64)READ_ITEM(item, mm));
	removal->link = next;
	return 0;
}

/* Never called with the head of a chain, which is no KSM page. */
FUNCTION(fentry, remove_node_from_stable_tree)
{
	__u64 node = argument(call, 0);
	struct scanner *s = scanner();
	struct removal removal;

	if (!s)
		return 0;
	tell_if_ended(s);
	if (OLD_NAMES) {
		removal.pfn = READ(struct stable_node, node, kpfn);
		removal.link = (__u64)READ(struct stable_node, node, hlist.first);
	} else {
		removal.pfn = READ(struct ksm_stable_node, node, kpfn);
		removal.link = (__u64)READ(struct ksm_stable_node, node, hlist.first);
	}
	if (removal.link)
		bpf_loop(1 << 23, remove_item, &removal, 0);
	return tell_remove_ksm_page(removal.pfn);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
