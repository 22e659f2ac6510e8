/* SPDX-License-Identifier: MIT */
#include "libipc/channel/watch.h"

#include <sched.h>

#include <ipc/admin.h>
#include <ipc/limits.h>

#include "libipc/platform/bytes.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

/*
 * How long a publish without waiting bears another publish: looks first, then yields, together well
 * under a millisecond.  An open edit is borne for a few looks only, since its mark may be left over
 * from a dead editor whose successor is just taking it away.
 */
enum { LOOKS_MAX = 64, YIELDS_MAX = 256, LOOKS_AT_EDIT_MAX = 8 };

uint32_t watch_n_slots(uint64_t value_size_max)
{
	/*
	 * Each slot more gives a reader the time of one more publish for its copy.  While values
	 * are small, memory is cheap and publishes are short; a large value takes as long to write
	 * as to read.
	 */
	if (value_size_max <= UINT64_C(64) << 10)
		return 8;
	if (value_size_max <= UINT64_C(16) << 20)
		return 4;
	return VALUE_SLOTS_MIN;
}

uint64_t watch_size(const uint64_t shape[4])
{
	if (shape[0] == 0 || shape[0] > IPC_VALUE_SIZE_MAX || shape[1] == 0)
		return 0;

	return sizeof(struct watch_segment) + value_slots_size(shape[0], watch_n_slots(shape[0]));
}

static void watch_view(struct watch *ret, void *segment, const uint64_t shape[4],
		       struct eventcount *lines)
{
	ret->segment = segment;
	ret->lines = lines;
	value_view(&ret->value, &ret->segment->control, ret->segment->slots, shape[0],
		   watch_n_slots(shape[0]));
}

int watch_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	uint64_t needed = watch_size(shape);
	struct watch watch;

	(void)flags;

	if (needed == 0 || size < needed)
		return IPC_EINVAL;

	watch_view(&watch, segment, shape, NULL);
	header_init(&watch.segment->header, IPC_KIND_WATCH, size, shape);
	lock_init(&watch.segment->lock);
	eventcount_init(&watch.segment->gate.event);
	value_init(&watch.value);
	return 0;
}

int watch_attach(struct watch *ret, void *segment, uint64_t size, const uint64_t shape[4],
		 struct eventcount *lines)
{
	uint64_t needed = watch_size(shape);
	int r;

	if (needed == 0 || size < needed)
		return IPC_EBADMSG;

	r = header_check(segment, IPC_KIND_WATCH, size, shape);
	if (r < 0)
		return r;

	watch_view(ret, segment, shape, lines);
	return 0;
}

int watch_end(const struct watch *watch)
{
	int r;

	r = header_fault(&watch->segment->header);
	if (r < 0)
		return r;

	return value_is_closed(&watch->value) ? IPC_EPIPE : 0;
}

int watch_read(const struct watch *watch, uint64_t newer_than, void *buffer, size_t size,
	       uint64_t *ret_size, uint64_t *ret_version)
{
	if (UNLIKELY(atomic_load_explicit(&watch->segment->header.broken, memory_order_relaxed) !=
		     HEADER_WHOLE))
		return header_fault(&watch->segment->header);

	switch (value_read(&watch->value, newer_than, buffer, size, ret_size, ret_version)) {
	case VALUE_DONE:
		return 0;
	case VALUE_TOO_LARGE:
		return IPC_EMSGSIZE;
	case VALUE_NONE:
	case VALUE_COLLIDED:
		return IPC_EAGAIN;
	case VALUE_CLOSED:
	case VALUE_BROKEN:
		return IPC_EBADMSG;
	}

	return IPC_EBADMSG;
}

static void watch_ring(const struct watch *watch)
{
	CRASH_POINT();
	if (watch->ring)
		watch->ring(watch->ring_userdata);
}

static void watch_wake(struct watch *watch, enum watch_side side)
{
	/* Before the notification: a waiter that lingers decides by it whether looking pays. */
	eventcount_set_cpu(&watch->lines[side], process_cpu());
	if (eventcount_notify(&watch->lines[side]))
		watch_ring(watch);
}

/* For ends: whoever waits for anything. */
static void watch_wake_all(struct watch *watch)
{
	watch_wake(watch, WATCH_CONSUMERS);
	watch_wake(watch, WATCH_PRODUCERS);
}

/* Nothing is known about the memory any more: everybody is told, now and from now on. */
static int watch_break(struct watch *watch)
{
	int r;

	r = header_break(&watch->segment->header, HEADER_CORRUPT);
	watch_wake_all(watch);
	return r;
}

/* What the lock's holder has set, or a dead one before it. */
static void watch_unmark(struct watch *watch)
{
	struct watch_segment *segment = watch->segment;

	atomic_store_explicit(&segment->header.holder_id, 0, memory_order_relaxed);
	atomic_store_explicit(&segment->header.holder_since, 0, memory_order_relaxed);

	/* [G1] What the holder wrote is seen by whoever finds no mark any more.  Pairs with [G2].
	 */
	atomic_store_explicit(&segment->gate.mark, WATCH_UNMARKED, memory_order_release);
}

static uint32_t watch_mark_now(const struct watch *watch)
{
	/* [G2] Pairs with [G1]; and behind the exchange that took the gate, with [G3]. */
	return atomic_load_explicit(&watch->segment->gate.mark, memory_order_seq_cst);
}

/* The slot of an edit is simply not used; what remains are the marks and the lock. */
void watch_abort(struct watch *watch)
{
	watch_unmark(watch);
	CRASH_POINT();

	/* Cannot fail for the holder; if the memory was overwritten, the next locker finds out. */
	(void)lock_unlock(&watch->segment->lock);
}

static void watch_pause(unsigned n_looks)
{
	if (n_looks >= LOOKS_MAX) {
		(void)sched_yield();
		return;
	}

#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* ---- writing, by whoever is alone ---- */

/* 0, IPC_EPIPE or broken. */
static int watch_result(struct watch *watch, enum value_result result)
{
	switch (result) {
	case VALUE_DONE:
		return 0;
	case VALUE_CLOSED:
		return IPC_EPIPE;
	case VALUE_NONE:
	case VALUE_TOO_LARGE:
	case VALUE_COLLIDED:
	case VALUE_BROKEN:
		return watch_break(watch);
	}

	return watch_break(watch);
}

static int watch_begin(struct watch *watch, struct value_edit *ret)
{
	int r;

	r = header_fault(&watch->segment->header);
	if (r < 0)
		return r;

	return watch_result(watch, value_begin(&watch->value, ret));
}

static int watch_put(struct watch *watch, const void *data, size_t size)
{
	struct value_edit edit;
	int r;

	r = watch_begin(watch, &edit);
	if (r < 0)
		return r;

	bytes_write_shared(value_data(&watch->value, &edit), data, size);
	return watch_result(watch, value_commit(&watch->value, &edit, size));
}

/* ---- the long way: by the lock, where others can wait ---- */

/* 0: held.  Never sleeps. */
static int watch_lock_try(struct watch *watch)
{
	for (unsigned n = 0; n < LOOKS_MAX + YIELDS_MAX; ++n) {
		switch (lock_try(&watch->segment->lock)) {
		case LOCK_HELD:
			return 0;
		case LOCK_HELD_AFTER_DEATH:
			watch_unmark(watch);
			return 0;
		case LOCK_DEADLOCK:
			return IPC_EBUSY;
		case LOCK_BROKEN:
			return watch_break(watch);
		case LOCK_BUSY:
			break;
		}
		if (n >= LOOKS_AT_EDIT_MAX && watch_mark_now(watch) == WATCH_EDITING)
			break;

		watch_pause(n);
	}

	return IPC_EBUSY;
}

static int watch_lock_end(void *subject)
{
	int r;

	r = watch_end(subject);
	return r < 0 ? r : WAITER_NOT_YET;
}

/* 0: held. */
static int watch_lock_wait(struct watch *watch, struct waiter *waiter)
{
	int r;

	waiter->waits_for =
		atomic_load_explicit(&watch->segment->header.holder_id, memory_order_relaxed);

	r = waiter_lock(waiter, &watch->segment->lock, watch_lock_end, watch);
	if (r == IPC_EBADMSG)
		return watch_break(watch);
	if (r > 0)
		watch_unmark(watch);

	return r < 0 ? r : 0;
}

/* For a wait that has become long: someone who is gone for good is asked for by system calls. */
static int watch_gate_look(void *subject)
{
	struct quicklock *lock = subject;

	return quicklock_is_free(lock) || quicklock_release_dead(lock) ? 0 : WAITER_NOT_YET;
}

/* Whoever came in before the mark leaves in a moment, unless stopped or taken off its CPU. */
static int watch_gate_wait(struct watch *watch, const struct waiter *waiter)
{
	union watch_gate *gate = &watch->segment->gate;
	struct waiter at_gate;

	for (unsigned n = 0; n < LOOKS_MAX + (waiter ? 0 : YIELDS_MAX); ++n) {
		if (quicklock_is_free(&gate->lock))
			return 0;
		watch_pause(n);
	}
	if (!waiter)
		return quicklock_release_dead(&gate->lock) ? 0 : IPC_EBUSY;

	/* A wait for a lock: no signal ends it. */
	at_gate = *waiter;
	at_gate.event = &gate->event;
	at_gate.ignores_signals = true;
	return waiter_wait(&at_gate, watch_gate_look, &gate->lock);
}

/*
 * Takes the lock and sees to it that nobody else is writing.  0; else nothing is held.  waiter may
 * be NULL: IPC_EBUSY instead of waiting.
 */
static int watch_exclude(struct watch *watch, struct waiter *waiter, enum watch_mark mark)
{
	int r;

	r = waiter ? watch_lock_wait(watch, waiter) : watch_lock_try(watch);
	if (r < 0)
		return r;

	/* [G3] The mark, then the look at the gate; there the gate, then the look at the mark: one
	 * sees the other.  Pairs with [G2]. */
	atomic_store_explicit(&watch->segment->gate.mark, mark, memory_order_seq_cst);
	CRASH_POINT();

	r = watch_gate_wait(watch, waiter);
	if (r < 0)
		watch_abort(watch);

	return r;
}

static int watch_publish_long(struct watch *watch, struct waiter *waiter, const void *data,
			      size_t size)
{
	int r;

	r = watch_exclude(watch, waiter, WATCH_PUBLISHING);
	if (r < 0)
		return r;

	r = watch_put(watch, data, size);
	watch_abort(watch);
	CRASH_POINT();

	if (r == 0)
		watch_wake(watch, WATCH_CONSUMERS);

	return r;
}

/* ---- the short way: by the gate ---- */

enum watch_entry { WATCH_ENTERED, WATCH_OCCUPIED, WATCH_MARKED, WATCH_REFUSED };

static enum watch_entry watch_enter(struct watch *watch)
{
	struct quicklock *lock = &watch->segment->gate.lock;

	switch (quicklock_try(lock)) {
	case QUICKLOCK_HELD:
		break;
	case QUICKLOCK_BUSY:
		return WATCH_OCCUPIED;
	case QUICKLOCK_REFUSED:
		return WATCH_REFUSED;
	}

	if (LIKELY(watch_mark_now(watch) == WATCH_UNMARKED))
		return WATCH_ENTERED;

	quicklock_unlock(lock);
	return WATCH_MARKED;
}

/* Having entered. */
static int watch_publish_short(struct watch *watch, const void *data, size_t size)
{
	struct eventcount *event = &watch->lines[WATCH_CONSUMERS];
	int r;

	r = watch_put(watch, data, size);

	/* [E1] of core/eventcount.h: a full fence between the flip and the look at the hints. */
	quicklock_unlock(&watch->segment->gate.lock);
	CRASH_POINT();
	if (UNLIKELY(r < 0))
		return r;

	eventcount_set_cpu(event, process_cpu());
	if (UNLIKELY(atomic_load_explicit(&event->word, memory_order_relaxed) &
		     (EVENTCOUNT_SLEEPERS | EVENTCOUNT_ARMED)) &&
	    eventcount_wake(event))
		watch_ring(watch);

	return 0;
}

/* A mark was met.  0: a dead one's, and gone now; IPC_EBUSY: a living one's; broken. */
static int watch_remove_mark(struct watch *watch)
{
	switch (lock_try(&watch->segment->lock)) {
	case LOCK_HELD:
	case LOCK_HELD_AFTER_DEATH:
		watch_abort(watch);
		return 0;
	case LOCK_BUSY:
	case LOCK_DEADLOCK:
		return IPC_EBUSY;
	case LOCK_BROKEN:
		return watch_break(watch);
	}

	return watch_break(watch);
}

/* The first time somebody was in the way.  IPC_EBUSY: an edit is open, or others all the time. */
static int watch_publish_again(struct watch *watch, enum watch_entry entry, const void *data,
			       size_t size)
{
	unsigned n_edit = 0;
	int r;

	for (unsigned n = 0; n < LOOKS_MAX + YIELDS_MAX; ++n) {
		if (entry == WATCH_ENTERED)
			return watch_publish_short(watch, data, size);
		if (entry == WATCH_REFUSED)
			return watch_publish_long(watch, NULL, data, size);

		if (entry == WATCH_MARKED) {
			n_edit += watch_mark_now(watch) == WATCH_EDITING;
			r = watch_remove_mark(watch);
			if (r < 0 && (r != IPC_EBUSY || n_edit >= LOOKS_AT_EDIT_MAX))
				break;
		} else if (n == LOOKS_MAX + YIELDS_MAX / 2) {
			(void)quicklock_release_dead(&watch->segment->gate.lock);
		}

		watch_pause(n);
		entry = watch_enter(watch);
	}

	/* The end is told first: who retries on IPC_EBUSY must not do so for ever. */
	r = watch_end(watch);
	return r < 0 ? r : IPC_EBUSY;
}

/* ---- producers ---- */

int watch_publish(struct watch *watch, const void *data, size_t size)
{
	enum watch_entry entry;

	if (size > watch->value.size_max)
		return IPC_EMSGSIZE;

	entry = watch_enter(watch);
	if (LIKELY(entry == WATCH_ENTERED))
		return watch_publish_short(watch, data, size);

	return watch_publish_again(watch, entry, data, size);
}

int watch_publish_wait(struct watch *watch, struct waiter *waiter, const void *data, size_t size)
{
	if (size > watch->value.size_max)
		return IPC_EMSGSIZE;
	if (LIKELY(watch_enter(watch) == WATCH_ENTERED))
		return watch_publish_short(watch, data, size);

	return watch_publish_long(watch, waiter, data, size);
}

int watch_edit_wait(struct watch *watch, struct waiter *waiter, uint64_t holder_id,
		    struct value_edit *ret_edit, uint64_t *ret_size)
{
	struct channel_header *header = &watch->segment->header;
	struct value_edit edit;
	uint64_t size = 0;
	int r;

	r = watch_exclude(watch, waiter, WATCH_EDITING);
	if (r < 0)
		return r;

	atomic_store_explicit(&header->holder_since, clock_now_ns(), memory_order_relaxed);
	atomic_store_explicit(&header->holder_id, holder_id, memory_order_relaxed);
	CRASH_POINT();

	r = watch_begin(watch, &edit);
	if (r == 0)
		r = watch_result(watch, value_copy_latest(&watch->value, &edit, &size));
	if (r < 0) {
		watch_abort(watch);
		return r;
	}

	*ret_edit = edit;
	*ret_size = size;
	return 0;
}

bool watch_is_editing(const struct watch *watch, uint64_t holder_id)
{
	const struct watch_segment *segment = watch->segment;

	return lock_is_mine(&segment->lock) &&
	       atomic_load_explicit(&segment->header.holder_id, memory_order_relaxed) == holder_id;
}

int watch_commit(struct watch *watch, const struct value_edit *edit, size_t size)
{
	int r;

	if (size > watch->value.size_max)
		return IPC_EMSGSIZE;

	r = header_fault(&watch->segment->header);
	if (r < 0)
		return r;

	r = watch_result(watch, value_commit(&watch->value, edit, size));
	if (r < 0)
		return r;

	watch_abort(watch);
	watch_wake(watch, WATCH_CONSUMERS);
	return 0;
}

void watch_shutdown(struct watch *watch)
{
	/* The mark in the value's word is the shutdown: a commit after it fails, one before it is
	 * seen by whoever sees the mark. */
	value_close(&watch->value);
	CRASH_POINT();
	atomic_store_explicit(&watch->segment->header.is_shut_down, 1, memory_order_release);

	watch_wake_all(watch);

	/* Those who wait for the lock: one is woken, and on leaving it wakes the next. */
	lock_pass_on(&watch->segment->lock);
}
