/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ranges that processes give up, move or unshare by system calls (`record --cow`), told when the
 * call has succeeded. Needs cow.h.
 */

#define MMF_VM_MERGEABLE (1ULL << 16)
#define TS_COMPAT 2u

/* Where the heap of an mm ended when last looked at: after brk() nobody knows where it was. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} cow_heaps SEC(".maps");

/* Numbers of arch/x86/entry/syscalls/syscall_64.tbl. */
enum { SYS_MMAP = 9, SYS_MUNMAP = 11, SYS_BRK = 12, SYS_MREMAP = 25, SYS_MADVISE = 28, SYS_PRCTL = 157 };
enum { ADVISE_DONTNEED = 4, ADVISE_MERGEABLE = 12, ADVISE_UNMERGEABLE = 13, ADVISE_DONTNEED_LOCKED = 24, ADVISE_GUARD = 102 };
#define PRCTL_MEMORY_MERGE 67
#define MMAP_FIXED 0x10
#define MMAP_FIXED_NOREPLACE 0x100000
#define REMAP_FIXED 2
#define NO_MEMORY -12	/* madvise: done, though there were holes in the range */

/* Since 6.18 the flags are a bitmap in a struct. */
static __always_inline int is_registered(__u64 mm)
{
	if (bpf_core_field_exists(struct mm_struct___bitmap, flags.__mm_flags))
		return !!(AT(struct mm_struct___bitmap, mm)->flags.__mm_flags[0] & MMF_VM_MERGEABLE);
	return !!(AT(struct mm_struct, mm)->flags & MMF_VM_MERGEABLE);
}

static __noinline int left(__u64 mm, __u64 start, __u64 bytes, __s32 how)
{
	__u64 pages = (bytes + ~PAGE_MASK) >> PAGE_SHIFT, owner = mm_owner(mm);
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu || !pages)
		return 0;
	e = begin(cpu, KIND_RANGE_LEFT);
	if (!e)
		return 0;
	e->mm = mm;
	e->addr = start & PAGE_MASK;
	e->tgid = owner ? task_tgid(owner) : (__u32)(bpf_get_current_pid_tgid() >> 32);
	e->arg = how == LEFT_PRCTL ? WHOLE_ADDRESS_SPACE
				   : (__u32)(pages < WHOLE_ADDRESS_SPACE ? pages : WHOLE_ADDRESS_SPACE - 1);
	e->err = how;
	submit(e);
	return 0;
}

/* The mm of a caller whose ranges matter, or 0. A 32-bit call's numbers mean other calls. */
static __always_inline __u64 caller_mm(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 mm = (__u64)task->mm;

	return mm && is_registered(mm) && !(task->thread_info.status & TS_COMPAT) ? mm : 0;
}

static __always_inline void remember_heap(__u64 mm)
{
	__u64 end = AT(struct mm_struct, mm)->brk;

	bpf_map_update_elem(&cow_heaps, &mm, &end, BPF_ANY);
}

static __always_inline void heap_left(__u64 mm)
{
	__u64 end, start = (AT(struct mm_struct, mm)->brk + ~PAGE_MASK) & PAGE_MASK;
	__u64 *before = bpf_map_lookup_elem(&cow_heaps, &mm);

	end = before ? (*before + ~PAGE_MASK) & PAGE_MASK : 0;
	remember_heap(mm);
	if (start < end)
		left(mm, start, end - start, LEFT_BRK);
}

PROGRAM(sys_exit)
{
	const struct pt_regs *regs = AT(struct pt_regs, ctx->args[0]);
	__s64 result = (__s64)ctx->args[1];
	__u64 number = regs->orig_ax, a, b, c, mm;

	if (number != SYS_MUNMAP && number != SYS_MADVISE && number != SYS_MMAP &&
	    number != SYS_MREMAP && number != SYS_BRK && number != SYS_PRCTL)
		return 0;
	if (result < 0 && result > -4096 && !(number == SYS_MADVISE && result == NO_MEMORY))
		return 0;
	a = regs->di;
	b = regs->si;
	c = regs->dx;
	if (number == SYS_PRCTL && a != PRCTL_MEMORY_MERGE)
		return 0;
	if (number == SYS_MMAP && (regs->r10 & (MMAP_FIXED | MMAP_FIXED_NOREPLACE)) != MMAP_FIXED)
		return 0;
	if (number == SYS_MADVISE && (__s32)c != ADVISE_DONTNEED && (__s32)c != ADVISE_DONTNEED_LOCKED &&
	    (__s32)c != ADVISE_GUARD && (__s32)c != ADVISE_UNMERGEABLE && (__s32)c != ADVISE_MERGEABLE)
		return 0;
	mm = caller_mm();
	if (!mm)
		return 0;
	if (number == SYS_MUNMAP) {
		left(mm, a, b, LEFT_MUNMAP);
	} else if ((number == SYS_MADVISE && (__s32)c == ADVISE_MERGEABLE) ||
		   (number == SYS_PRCTL && b)) {
		remember_heap(mm);
	} else if (number == SYS_MADVISE) {
		left(mm, a, b, (__s32)c == ADVISE_UNMERGEABLE ? LEFT_UNMERGEABLE : LEFT_DISCARD);
	} else if (number == SYS_MMAP) {
		left(mm, (__u64)result, b, LEFT_MAP_FIXED);
	} else if (number == SYS_PRCTL) {
		left(mm, 0, 1, LEFT_PRCTL);
	} else if (number == SYS_BRK) {
		heap_left(mm);
	} else {
		/* What a smaller mapping cuts off is unmapped, the rest unshared where it moves. */
		b = (b + ~PAGE_MASK) & PAGE_MASK;
		c = (c + ~PAGE_MASK) & PAGE_MASK;
		if (c < b)
			left(mm, a + c, b - c, LEFT_MUNMAP);
		if ((__u64)result != a)
			left(mm, a, c < b ? c : b, LEFT_MREMAP);
		if (regs->r10 & REMAP_FIXED)
			left(mm, (__u64)result, c, LEFT_MUNMAP);
	}
	return 0;
}
