/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Writes to merged pages, as they happen (`record --cow`), for the CO-RE object on x86-64.
 *
 * Nothing is remembered between a merge and a write: at a page fault the page table itself is read
 * as the processor reads it, so it says what is mapped there now, whoever merged it, whichever
 * process inherited it. That needs to know where the kernel maps physical memory and its struct
 * page: cow_prepare finds out, once, and user space checks its answer.
 */

#define PAGE_SHIFT 12
#define PAGE_MASK (~0xfffULL)
#define GIGABYTE (1ULL << 30)

/* Intel SDM volume 3, 4.5: bits of a paging-structure entry. 58: arch/x86's saved dirty bit. */
#define ENTRY_PRESENT (1ULL << 0)
#define ENTRY_WRITABLE (1ULL << 1)
#define ENTRY_DIRTY (1ULL << 6 | 1ULL << 58)
#define ENTRY_LEAF (1ULL << 7)

/* Intel SDM volume 3, 4.7: the error code of a page fault. */
#define FAULT_PRESENT (1ULL << 0)
#define FAULT_WRITE (1ULL << 1)
#define FAULT_KEY (1ULL << 5)

#define TAIL_PAGE 1ULL		/* in page.compound_head */
#define MAPPING_KIND 3ULL	/* in page.mapping: 1 anonymous, 3 KSM */
#define MAPPING_KSM 3ULL
#define VM_WRITE 2ULL

struct cow_layout {
	__u64 direct_map;	/* where physical address 0 is mapped */
	__u64 vmemmap;		/* where the struct page of frame 0 is */
	__u64 zero_pfn;
	__u64 levels;		/* of page tables, 4 or 5; 0: not found out */
	__u64 checked_pfn;	/* cow_prepare: what the page table says about the page asked for ... */
	__u64 checked_mapping;	/* ... and the struct page of that frame */
};

/* Page faults come here with interrupts off: nobody else counts on this CPU meanwhile. */
struct cow_counts {
	__u64 faults;		/* write faults on present pages that were looked at */
	__u64 breaks;
	__u64 unchecked;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cow_layout);
} cow_layouts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cow_counts);
} cow_counters SEC(".maps");

static __always_inline struct cow_layout *cow_layout(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cow_layouts, &zero);
}

/* A word of kernel memory as a load, see AT(): any struct will do that begins with a number. */
static __always_inline __u64 read_kernel(__u64 at)
{
	return AT(struct rb_node, at)->__rb_parent_color;
}

/* A look-up in a page table: where, and what was found. */
struct look_up {
	__u64 table;
	__u64 direct_map;
	__u64 levels;
	__u64 address;
	__u64 entry;	/* the last one, 0 if nothing is mapped there */
	__u64 physical;	/* what the address stands for */
	__u32 open;	/* how many bits of the address the last entry leaves open */
};

static __noinline int look_up(struct look_up *at)
{
	__u64 frames = (at->levels == 5 ? (1ULL << 51) - 1 : (1ULL << 46) - 1) & PAGE_MASK;
	__u64 table = at->table, entry = 0;
	__u32 open = at->levels == 5 ? 48 : 39;
	int level;

	at->entry = 0;
	for (level = 0; level < 5; level++) {
		entry = read_kernel(table + (at->address >> (open & 63) & 511) * 8);
		if (!(entry & ENTRY_PRESENT))
			return 0;
		if (open == PAGE_SHIFT || entry & ENTRY_LEAF)
			break;
		table = at->direct_map + (entry & frames);
		open -= 9;
	}
	at->open = open;
	at->entry = entry;
	entry &= frames;
	at->physical = (entry >> (open & 63) << (open & 63)) |
		       (at->address & ((1ULL << (open & 63)) - 1));
	return 0;
}

/* Read as plain numbers: some of these words have another type in another use of the struct. */
#define WORD(type, address, member) read_kernel((address) + bpf_core_field_offset(type, member))

/* What says of which kind a frame is. In a tail page of a folio nothing means what it seems to. */
static __always_inline __u64 mapping_of(struct cow_layout *layout, __u64 pfn)
{
	__u64 page = layout->vmemmap + pfn * bpf_core_type_size(struct page);

	if (WORD(struct page, page, compound_head) & TAIL_PAGE)
		return 0;
	return WORD(struct page, page, mapping);
}

static __always_inline __u64 pgd_of(__u64 mm)
{
	return WORD(struct mm_struct, mm, pgd);
}

struct vma_check {
	__u64 mm;
	__u64 address;
	__u64 entry;	/* of the tree of mappings, on the way */
	__u64 vma;	/* 0: not found */
	__u64 flags;
	__u64 file_page;
};

/* lib/maple_tree.c: a node's type stands in its pointer; so does that it is one. */
#define NODE_TYPE(entry) ((entry) >> 3 & 15)
#define NODE_ADDRESS(entry) ((entry) & ~255ULL)
#define MOST_NODES 12	/* from the root down */
#define LEAF_64 1
#define ARANGE_64 3

/* One node of the tree of mappings: to the next one, or to the mapping. 1: that was it. */
static long go_down(__u64 depth, struct vma_check *check)
{
	__u64 entry = check->entry, node = NODE_ADDRESS(entry), pivots, slots, pivot;
	__u32 type = NODE_TYPE(entry), last;
	int i;

	if (type == ARANGE_64) {
		pivots = node + bpf_core_field_offset(struct maple_arange_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_arange_64, slot);
		last = bpf_core_field_size(struct maple_arange_64, pivot) / 8;
	} else {
		pivots = node + bpf_core_field_offset(struct maple_range_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_range_64, slot);
		last = bpf_core_field_size(struct maple_range_64, pivot) / 8;
	}
	for (i = 0; i < 16; i++) {
		if (i >= last)
			break;
		pivot = read_kernel(pivots + i * 8);
		if (pivot >= check->address || (!pivot && i))
			break;
	}
	check->entry = read_kernel(slots + i * 8);
	return type <= LEAF_64 || !check->entry;
}

/*
 * The mapping that an address lies in, found in the tree without a lock, as page faults do it
 * (lock_vma_under_rcu(), 6.4). bpf_find_vma() would do, but its lock is let go by an interrupt that
 * a CPU sends to itself, and in a virtual machine that takes 12 us. What is found says itself
 * whether it is what was looked for.
 */
static __noinline int find_mapping(struct vma_check *check)
{
	__u64 vma;

	check->vma = 0;
	check->entry = WORD(struct mm_struct, check->mm, mm_mt.ma_root);
	if ((check->entry & 3) != 2)
		return 0;
	bpf_loop(MOST_NODES, go_down, check, 0);
	vma = check->entry;
	if (!vma || WORD(struct vm_area_struct, vma, vm_start) > check->address ||
	    WORD(struct vm_area_struct, vma, vm_end) <= check->address ||
	    WORD(struct vm_area_struct, vma, vm_mm) != check->mm)
		return 0;
	check->flags = WORD(struct vm_area_struct, vma, vm_flags);
	check->vma = vma;
	return 0;
}

static long note_flags(struct task_struct *task, struct vm_area_struct *vma, void *context)
{
	struct vma_check *check = context;

	check->vma = (__u64)vma;
	check->flags = vma->vm_flags;
	return 0;
}

static __noinline int saw_write(struct bpf_raw_tracepoint_args *ctx, __u32 arg)
{
	__u64 address = ctx->args[0], error = ctx->args[2];
	struct vma_check check = {};
	struct cow_layout *layout;
	struct cow_counts *counts;
	struct cpu_state *cpu;
	struct task_struct *task;
	struct look_up at = {};
	__u64 mm, pfn, owner;
	struct event *e;
	__u32 zero = 0;

	if ((error & (FAULT_PRESENT | FAULT_WRITE | FAULT_KEY)) != (FAULT_PRESENT | FAULT_WRITE))
		return 0;
	if (address >> 63)
		return 0;
	task = bpf_get_current_task_btf();
	mm = (__u64)task->mm;
	layout = cow_layout();
	counts = bpf_map_lookup_elem(&cow_counters, &zero);
	if (!mm || !layout || !layout->levels || !counts)
		return 0;
	counts->faults++;
	/* The kernel looks whether it may write, and is prepared to be told no. */
	if (arg & KERNEL_MODE && task->pagefault_disabled)
		return 0;
	at.table = pgd_of(mm);
	at.direct_map = layout->direct_map;
	at.levels = layout->levels;
	at.address = address;
	look_up(&at);
	if (!at.entry || at.open != PAGE_SHIFT || at.entry & ENTRY_WRITABLE)
		return 0;
	pfn = at.physical >> PAGE_SHIFT;
	if (pfn == layout->zero_pfn) {
		if (!(at.entry & ENTRY_DIRTY))
			return 0;	/* a zero page, but not ksmd's (is_ksm_zero_pte(), 6.6) */
		arg |= ZERO_PAGE;
	} else if ((mapping_of(layout, pfn) & MAPPING_KIND) != MAPPING_KSM) {
		return 0;
	}
	check.mm = mm;
	check.address = address;
	find_mapping(&check);
	if (!check.vma)
		bpf_find_vma(task, address, note_flags, &check, 0);
	if (!check.vma) {
		arg |= UNCHECKED;	/* somebody changes the address space right now */
		counts->unchecked++;
	} else if (!(check.flags & VM_WRITE)) {
		return 0;
	}
	counts->breaks++;
	cpu = this_cpu();
	if (!cpu)
		return 0;
	e = begin(cpu, KIND_COW_BREAK);
	if (!e)
		return 0;
	e->pfn = pfn;
	e->item = AT(struct pt_regs, ctx->args[1])->ip;
	e->mm = mm;
	e->addr = address & PAGE_MASK;
	owner = mm_owner(mm);
	e->tgid = owner ? task_tgid(owner) : (__u32)task->tgid;
	e->arg = arg;
	submit(e);
	return 0;
}

PROGRAM(page_fault_user)
{
	return saw_write(ctx, 0);
}

PROGRAM(page_fault_kernel)
{
	return saw_write(ctx, KERNEL_MODE);
}

/* Where physical memory is mapped the page table lies, and maps itself there. */
static long try_base(__u64 number, struct look_up *at)
{
	at->direct_map = (at->table & ~(GIGABYTE - 1)) - number * GIGABYTE;
	at->address = at->table;
	look_up(at);
	return at->entry && at->physical == at->table - at->direct_map;
}

static long note_file_page(struct task_struct *task, struct vm_area_struct *vma, void *context)
{
	struct vma_check *check = context;

	if (!vma->vm_file)
		return 0;
	check->vma = (__u64)vma;
	check->file_page = (__u64)vma->vm_file->f_mapping->i_pages.xa_head;
	return 0;
}

/*
 * Run once, by user space in its own name. Arguments: an address where the first page of a file of
 * one page is mapped, that page's frame, an address of an anonymous page, the zero page's frame,
 * and how many gigabytes of physical addresses there are.
 */
PROGRAM(cow_prepare)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct vma_check check = {};
	struct cow_layout *layout = cow_layout();
	struct look_up at = {};

	if (!layout || !task->mm)
		return 0;
	at.table = pgd_of((__u64)task->mm);
	at.levels = 4;
	bpf_loop((__u32)ctx->args[4], try_base, &at, 0);
	if (!at.entry || at.physical != at.table - at.direct_map) {
		at.levels = 5;
		bpf_loop((__u32)ctx->args[4], try_base, &at, 0);
	}
	if (!at.entry || at.physical != at.table - at.direct_map)
		return 0;
	bpf_find_vma(task, ctx->args[0], note_file_page, &check, 0);
	if (!check.vma || check.file_page & 3)
		return 0;
	layout->direct_map = at.direct_map;
	layout->vmemmap = check.file_page - ctx->args[1] * bpf_core_type_size(struct page);
	layout->zero_pfn = ctx->args[3];
	at.address = ctx->args[2];
	look_up(&at);
	if (!at.entry || at.open != PAGE_SHIFT)
		return 0;
	layout->checked_pfn = at.physical >> PAGE_SHIFT;
	layout->checked_mapping = mapping_of(layout, layout->checked_pfn);
	layout->levels = at.levels;
	return 0;
}
