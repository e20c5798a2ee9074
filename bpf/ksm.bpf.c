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

#include "libbpf.h"

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
#include "tracepoints.h"
#include "cow.h"
#include "ranges.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
