/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_THREAD_H
#define LIBIPC_CLIENT_THREAD_H

/*
 * What the library knows of each thread: which handles it is inside of, and whether it runs a
 * callback.  And of the process: which of possibly many forked generations it is.
 *
 * Each thread has a record that only it writes.  Entering a handle leaves the handle's address
 * there; whoever closes a handle runs a heavy barrier over all threads and looks at the records.  A
 * handle that some thread is inside of is freed by the last one that leaves.
 *
 * The records stand in pages that the kernel wipes at fork, and `ready` holds the epoch of the
 * process: one comparison with the epoch that a handle was opened in says that the handle is this
 * process's, that the thread is known, that it is inside of nothing and in no callback.  All of the
 * rest is the slow path.
 *
 * A call on many handles at once is inside of them by one entry, which names a list of them; the
 * entry is told from an address by its lowest bit.
 *
 * field    written by     rule
 * inside   the thread     what it is inside of; [0] is the outermost
 * ready    the thread     epoch, or 0: look closer
 * nested   the thread     how many calls beyond the outermost; 1 for ever where there is no record
 * epoch    the thread     of the process when the record was taken
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

#define THREAD_DEPTH_MAX 4
#define THREAD_CROWD_MAX 64

struct thread_record {
	_Alignas(64) _Atomic(const void *) inside[THREAD_DEPTH_MAX];
	uint32_t ready;
	uint32_t nested;
	uint32_t epoch;
	uint32_t is_used;           /* under the mutex of thread.c */
	struct thread_record *next; /* in the list of all; never changes */
	_Atomic uint32_t mark;      /* the epoch, in one record that no thread takes */
	uint32_t reserved;
};
ASSERT_SIZE(struct thread_record, 64);

/* Never NULL.  The model keeps the access one load; the library is small enough for the loader's
 * spare room. */
extern _Thread_local struct thread_record *thread_self
	__attribute__((__visibility__("hidden"), __tls_model__("initial-exec")));

/* How many objects wait for threads to leave them. */
extern _Atomic uint32_t thread_n_retired __attribute__((__visibility__("hidden")));

/* Something that threads may be inside of when it ends.  `address` is what they entered. */
struct thread_object {
	struct thread_object *next;
	const void *address;

	/* In whichever thread comes last, without locks held. */
	void (*free)(struct thread_object *object);
};

/*
 * Makes the process able to open things, also a forked child whose parent had opened things:
 * *ret_epoch is what these are stamped with. IPC_ECHILD: a child that was forked past the C library
 * (clone, _Fork), whose state cannot be trusted.  IPC_ENOMEM, IPC_ENOSYS.
 */
int thread_process_init(uint32_t *ret_epoch, void (*forked_fn)(void));

/* Whether what was opened in that epoch is another process's. */
bool thread_is_foreign(uint32_t epoch);

/* The slow paths.  enter: 0; IPC_ECHILD, IPC_EDEADLK. */
int thread_enter_slow(const void *address, uint32_t epoch);
void thread_leave_slow(void);

/* 0; IPC_ECHILD: not of this process; IPC_EDEADLK: inside a callback. */
static inline int thread_enter(const void *address, uint32_t epoch)
{
	struct thread_record *self = thread_self;

	if (UNLIKELY(self->ready != epoch))
		return thread_enter_slow(address, epoch);

	self->ready = 0;
	atomic_store_explicit(&self->inside[0], address, memory_order_relaxed);

	/* [T1] The address stands in the record before anything of the handle is touched.  Pairs
	 * with [T3]. */
	process_fence_light();
	return 0;
}

/*
 * Enters n handles of one epoch at once, THREAD_CROWD_MAX at most; left by one thread_leave().  Not
 * again before that.  Results as above.
 */
int thread_enter_crowd(const void *const *addresses, unsigned n, uint32_t epoch);

/* Frees what nobody is inside of any more. */
void thread_collect(void);

static inline void thread_leave(void)
{
	struct thread_record *self = thread_self;

	if (UNLIKELY(self->nested)) {
		thread_leave_slow();
		return;
	}

	/* [T2] The handle is not touched after this; and the record is cleared before the counter
	 * is read.  Pairs with [T3]. */
	atomic_store_explicit(&self->inside[0], NULL, memory_order_release);
	self->ready = self->epoch;
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(&thread_n_retired, memory_order_relaxed)))
		thread_collect();
}

/*
 * The same for signal handlers: no record, one atomic counter, and what is left behind is freed by
 * somebody else.
 */
void thread_visit(void);
void thread_visit_end(void);

/* The object is closed: no thread begins a call on it any more.  Frees it now, or in the thread
 * that leaves last.  Never sleeps. */
void thread_retire(struct thread_object *object);

bool thread_in_callback(void);
void thread_callback_begin(void);
void thread_callback_end(void);

#endif
