/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_PROCESS_H
#define LIBIPC_PLATFORM_PROCESS_H

/*
 * This process: is it still the one that opened, which CPU runs it, and barriers for all its
 * threads.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "include/ipc/client.h"
#include "libipc/platform/compiler.h"

/*
 * True in every forked copy of the process that called process_mark_init() (M-42), however it was
 * forked: one load from a page that the kernel wipes at fork (MADV_WIPEONFORK).  False in the
 * process itself and in vfork children.
 */
bool process_is_forked_child(void);

/* Once per process, before the first use of the above; repeatable.  IPC_ENOMEM, IPC_ENOSYS. */
int process_mark_init(void);

/* CPU of the calling thread, or UINT32_MAX. About 1 ns (rseq). */
uint32_t process_cpu(void);

/* How many CPUs this process may run on (cached). */
unsigned process_n_cpus(void);

/*
 * A full barrier in every running thread of this process (membarrier PRIVATE_EXPEDITED), so that
 * the fast side of a store-then-load protocol needs only a compiler barrier.  process_fence_light()
 * is that fast side: a compiler barrier, or a full fence where membarrier is refused.
 */
void process_fence_heavy(void);

/* Not 0: process_fence_heavy() reaches every thread, so the light side needs no instruction. */
extern _Atomic uint32_t process_has_membarrier __attribute__((__visibility__("hidden")));

/*
 * The same over all processes that use the library (membarrier GLOBAL_EXPEDITED), for memory that
 * they share.  IPC_ENOSYS: the kernel refuses it.
 */
IPC_CHECKED int process_fence_everywhere(void);

/* Not 0: this process is reached by the above. */
extern _Atomic uint32_t process_is_reached __attribute__((__visibility__("hidden")));

/* The fast side of it. */
static inline void process_fence_shared(void)
{
	if (LIKELY(atomic_load_explicit(&process_is_reached, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		/* [F4] As [F2].  Pairs with [F3]. */
		atomic_thread_fence(memory_order_seq_cst);
}

/* Inline: every call of the library has two of them. */
static inline void process_fence_light(void)
{
	if (LIKELY(atomic_load_explicit(&process_has_membarrier, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		/* [F2] The store before is visible before the load after is made.  Pairs with [F1].
		 */
		atomic_thread_fence(memory_order_seq_cst);
}

#endif
