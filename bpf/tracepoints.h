/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One program for each ksm tracepoint, for libbpf and for bcc. Needs programs.h, and PROGRAM(name):
 * the head of a raw tracepoint program. Argument order is that of TP_PROTO in
 * include/trace/events/ksm.h.
 */

PROGRAM(ksm_start_scan)
{
	return tell_start_scan(ctx->args[0], ctx->args[1]);
}

PROGRAM(ksm_stop_scan)
{
	return tell_stop_scan(ctx->args[0], ctx->args[1]);
}

PROGRAM(ksm_enter)
{
	return tell_enter(ctx->args[0]);
}

PROGRAM(ksm_exit)
{
	return tell_exit(ctx->args[0]);
}

PROGRAM(ksm_merge_one_page)
{
	return tell_merge_one_page(ctx->args[0], ctx->args[1], ctx->args[2], (__s32)ctx->args[3]);
}

PROGRAM(ksm_merge_with_ksm_page)
{
	return tell_merge_with_ksm_page(ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3],
				       (__s32)ctx->args[4]);
}

PROGRAM(ksm_remove_rmap_item)
{
	return tell_remove_rmap_item(ctx->args[0], ctx->args[1], ctx->args[2]);
}

PROGRAM(ksm_remove_ksm_page)
{
	return tell_remove_ksm_page(ctx->args[0]);
}

PROGRAM(ksm_advisor)
{
	return tell_advisor((__s32)ctx->args[0], ctx->args[1], (__u32)ctx->args[2]);
}
