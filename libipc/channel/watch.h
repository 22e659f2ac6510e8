/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_WATCH_H
#define LIBIPC_CHANNEL_WATCH_H

/*
 * The structure of the kind `watch`: the latest value, written by producers that exclude each other
 * with robust locks, read by consumers that map all of it read-only and take no lock.
 *
 * Segment:
 *
 * part       written by          rule
 * header     see core/header.h   shape[0] is a value's largest size, shape[1] the most consumers
 * lock       producers           held from edit to commit or abort, and by who has to wait
 * gate.lock  producers           held by a publish that need not wait, and for no longer
 * gate.mark  lock's holder       not WATCH_UNMARKED: whoever is let in by the gate turns back
 * control    see below           see core/value.h; its mark CLOSED is the shutdown, set by any
 *                                producer without a lock
 * slots      see below           as many as watch_n_slots() says: a function of shape[0]
 *
 * Values are written by the gate's holder while there is no mark, and by the lock's holder after it
 * has set the mark and then seen the gate free.  So a publish is two exchanges on a word where
 * nobody sleeps, and an edit, in which user code runs, holds a lock that others can wait for.
 *
 * header.holder_id is not 0 while an edit is open.  header.is_shut_down follows control.latest, for
 * those who look from outside.
 *
 * Everybody sleeps on event counts outside of the segment, in memory that consumers may write too
 * (it holds no value): lines[WATCH_CONSUMERS] for the next value, lines[WATCH_PRODUCERS] for what
 * producers wait for beside the lock.
 *
 * Deaths: who dies leaves the value as it was before the flip or after it, and the kernel releases
 * both locks.  A dead holder of the gate leaves nothing else; one of the lock leaves its marks,
 * which the next one who takes the lock removes: a publish that meets a mark tries to take it.  A
 * death between the flip and the wake leaves sleepers to the broker, which tells them of it.
 */

#include <stddef.h>
#include <stdint.h>

#include <ipc/error.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/value.h"
#include "libipc/core/waiter.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/quicklock.h"

enum watch_side { WATCH_PRODUCERS = 0, WATCH_CONSUMERS = 1 };

enum watch_mark { WATCH_UNMARKED = 0, WATCH_PUBLISHING = 1, WATCH_EDITING = 2 };

/*
 * Who waits for the gate to be free sleeps on its word as on an event count: the bit that says so
 * is the same, and the holder's unlock and the kernel wake by it.
 */
union watch_gate {
	struct eventcount event;
	struct {
		struct quicklock lock;
		uint32_t notifier_cpu;
		_Atomic uint32_t mark;
	};
};
ASSERT_SIZE(union watch_gate, 64);
ASSERT_OFFSET(union watch_gate, lock, offsetof(struct eventcount, word));
static_assert(EVENTCOUNT_SLEEPERS == FUTEX_WAITERS, "one bit for both");

struct watch_segment {
	struct channel_header header;
	struct lock lock;
	union watch_gate gate;
	struct value_control control;
	unsigned char slots[];
};
ASSERT_OFFSET(struct watch_segment, lock, 256);
ASSERT_OFFSET(struct watch_segment, gate, 320);
ASSERT_OFFSET(struct watch_segment, control, 384);
ASSERT_OFFSET(struct watch_segment, slots, 448);

/* A view, in private memory. */
struct watch {
	struct watch_segment *segment;
	struct value value;
	struct eventcount *lines;

	/* Given by the owner after attach: who is armed on the lines and has to be rung. NULL:
	 * nobody is ever. */
	void (*ring)(void *userdata);
	void *ring_userdata;
};

/* Bytes of a segment; 0: shape[0] is not 1 to IPC_VALUE_SIZE_MAX, or shape[1] is 0. */
uint64_t watch_size(const uint64_t shape[4]);

uint32_t watch_n_slots(uint64_t value_size_max);

/* A new segment, whatever was in it before.  0 or IPC_EINVAL. */
int watch_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* 0, or what header_check() says; IPC_EBADMSG: too small for its shape.  Works on a read-only
 * mapping. */
int watch_attach(struct watch *ret, void *segment, uint64_t size, const uint64_t shape[4],
		 struct eventcount *lines);

/* 0; IPC_EPIPE: shut down; IPC_EBADMSG, IPC_ENOTRECOVERABLE: broken. */
int watch_end(const struct watch *watch);

/* ---- consumers; nothing is written but through the pointers ---- */

/*
 * 0; IPC_EAGAIN: nothing newer; IPC_EMSGSIZE: *ret_size is what is needed; or broken.
 */
int watch_read(const struct watch *watch, uint64_t newer_than, void *buffer, size_t size,
	       uint64_t *ret_size, uint64_t *ret_version);

/* ---- producers ---- */

/* 0; IPC_EMSGSIZE; IPC_EBUSY: an edit is open, or others hold the lock all the time; IPC_EPIPE;
 * broken. */
int watch_publish(struct watch *watch, const void *data, size_t size);

/* The same, waiting for the lock: also IPC_EDEADLK (this thread's edit is open) and what
 * waiter_lock() says. */
int watch_publish_wait(struct watch *watch, struct waiter *waiter, const void *data, size_t size);

/* Takes the lock and gives a copy of the latest value; holder_id is who holds it, for people.
 * Results as above, without EMSGSIZE, EBUSY. */
int watch_edit_wait(struct watch *watch, struct waiter *waiter, uint64_t holder_id,
		    struct value_edit *ret_edit, uint64_t *ret_size);

/* Whether the calling thread holds the lock with the edit of this holder.  False after another
 * holder took it over from a dead thread. */
bool watch_is_editing(const struct watch *watch, uint64_t holder_id);

/* By the editing thread.  0, and the lock is free; IPC_EMSGSIZE, IPC_EPIPE, broken: nothing
 * happened, the edit stays open. */
int watch_commit(struct watch *watch, const struct value_edit *edit, size_t size);

/* By the editing thread: nothing changed, and the lock is free. */
void watch_abort(struct watch *watch);

/* Wakes everybody who waits. */
void watch_shutdown(struct watch *watch);

#endif
