/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How each kind of event is told, whoever saw it: the ksm tracepoints (tracepoints.h, in the CO-RE
 * object ksm.bpf.c and in ksm.bcc.c) or KSM's functions (ksm.fentry.bpf.c). The file that includes
 * this one provides:
 *
 *   reserve(), submit(), submit_and_wake()      the ring
 *   this_cpu()                        this CPU's struct cpu_state, or NULL
 *   owner_cached(mm), remember_owner(mm, tgid), forget_owner(mm)
 *   item_address(), item_checksum(), page_mapcount(), mm_owner(), task_tgid(), task_mm()
 */

struct cpu_state {
	__u64 lost;	/* not yet told to the reader */
	__u64 mm;	/* the mm that was last put into the map of owners from here ... */
	__u64 tgid;	/* ... and its owner: ksmd stays with one mm for many events */
};

_Static_assert(sizeof(struct cpu_state) == sizeof(__u64[3]), "cpu_states holds struct cpu_state");

static __always_inline void head(struct event *e, __u16 kind)
{
	e->ts = bpf_ktime_get_ns();
	e->pfn = 0;
	e->item = 0;
	e->mm = 0;
	e->addr = 0;
	e->tgid = 0;
	e->err = 0;
	e->kind = kind;
	e->cpu = bpf_get_smp_processor_id();
	e->arg = 0;
}

/* Loss is told before the first event that fits again, so that it stands where it happened. */
static __always_inline struct event *begin(struct cpu_state *cpu, __u16 kind)
{
	struct event *e;

	if (cpu->lost) {
		e = reserve();
		if (e) {
			head(e, KIND_LOST);
			e->addr = __sync_lock_test_and_set(&cpu->lost, 0);
			submit_and_wake(e);
		}
	}
	e = reserve();
	if (!e) {
		__sync_fetch_and_add(&cpu->lost, 1);
		return 0;
	}
	head(e, kind);
	return e;
}

/* An exiting mm has no owner any more; the one it had is kept in a map. */
static __always_inline __u32 owner_of(struct cpu_state *cpu, __u64 mm)
{
	__u64 owner = mm_owner(mm);
	__u32 tgid = owner ? task_tgid(owner) : 0;

	if (!tgid)
		return owner_cached(mm);
	if (cpu->mm != mm || cpu->tgid != tgid) {
		remember_owner(mm, tgid);
		cpu->mm = mm;
		cpu->tgid = tgid;
	}
	return tgid;
}

static __always_inline void about_item(struct cpu_state *cpu, struct event *e, __u64 pfn, __u64 item, __u64 mm)
{
	e->pfn = pfn;
	e->item = item;
	e->mm = mm;
	e->addr = item_address(item) & ~0xfffULL;	/* the low bits are the item's own flags */
	e->tgid = owner_of(cpu, mm);
}

static __always_inline int scan_event(__u16 kind, __u64 seq, __u64 rmap_entries)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, kind);
	if (!e)
		return 0;
	e->addr = (__u32)seq;
	e->arg = (__u32)rmap_entries;
	submit_and_wake(e);
	return 0;
}

static __always_inline int tell_start_scan(__u64 seq, __u64 rmap_entries)
{
	return scan_event(KIND_KSM_START_SCAN, seq, rmap_entries);
}

static __always_inline int tell_stop_scan(__u64 seq, __u64 rmap_entries)
{
	return scan_event(KIND_KSM_STOP_SCAN, seq, rmap_entries);
}

static __always_inline int tell_enter(__u64 mm)
{
	__u64 task, owner;
	struct cpu_state *cpu = this_cpu();
	struct event *e;
	__u32 tgid;

	if (!cpu)
		return 0;
	/* The kernel may have given a dead mm's address to this one. */
	cpu->mm = 0;
	forget_owner(mm);
	e = begin(cpu, KIND_KSM_ENTER);
	if (!e)
		return 0;
	e->mm = mm;
	task = bpf_get_current_task();
	tgid = bpf_get_current_pid_tgid() >> 32;
	owner = mm_owner(mm);
	if (task_mm(task) == mm) {
		e->arg = VIA_SELF;
	} else if (!owner) {
		tgid = 0;	/* without CONFIG_MEMCG fork and exec can't be told apart */
	} else if (owner == task) {
		e->arg = VIA_EXEC;
	} else {
		e->arg = VIA_FORK;
		e->addr = tgid;
		tgid = 0;
	}
	e->tgid = tgid;
	if (tgid)
		remember_owner(mm, tgid);
	submit_and_wake(e);
	return 0;
}

static __always_inline int tell_exit(__u64 mm)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_EXIT);
	if (!e)
		return 0;
	e->mm = mm;
	e->tgid = owner_of(cpu, mm);
	if (!e->tgid)
		e->tgid = bpf_get_current_pid_tgid() >> 32;
	if (e->tgid)
		remember_owner(mm, e->tgid);
	cpu->mm = 0;
	submit_and_wake(e);
	return 0;
}

static __always_inline int tell_merge_one_page(__u64 pfn, __u64 item, __u64 mm, __s32 err)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_MERGE_ONE_PAGE);
	if (!e)
		return 0;
	about_item(cpu, e, pfn, item, mm);
	e->err = err;
	submit(e);
	return 0;
}

static __always_inline int tell_merge_with_ksm_page(__u64 ksm_page, __u64 pfn, __u64 item, __u64 mm, __s32 err)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;
	__u32 arg = 0;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_MERGE_WITH_KSM_PAGE);
	if (!e)
		return 0;
	about_item(cpu, e, pfn, item, mm);
	e->err = err;
	if (ksm_page)
		arg = INTO_EXISTING | page_mapcount(ksm_page) << MAPCOUNT_SHIFT;
	if (!item_checksum(item))
		arg |= FIRST_SIGHT;
	e->arg = arg;
	submit(e);
	return 0;
}

static __always_inline int tell_remove_rmap_item(__u64 pfn, __u64 item, __u64 mm)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_REMOVE_RMAP_ITEM);
	if (!e)
		return 0;
	about_item(cpu, e, pfn, item, mm);
	submit(e);
	return 0;
}

static __always_inline int tell_remove_ksm_page(__u64 pfn)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_REMOVE_KSM_PAGE);
	if (!e)
		return 0;
	e->pfn = pfn;
	submit(e);
	return 0;
}

static __always_inline int tell_advisor(__s32 scan_time, __u64 pages_to_scan, __u32 cpu_percent)
{
	struct cpu_state *cpu = this_cpu();
	struct event *e;

	if (!cpu)
		return 0;
	e = begin(cpu, KIND_KSM_ADVISOR);
	if (!e)
		return 0;
	e->err = scan_time;
	e->addr = pages_to_scan;
	e->arg = cpu_percent;
	submit_and_wake(e);
	return 0;
}
