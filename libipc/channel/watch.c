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
 * How long a publish without waiting bears the lock of another publish: looks first, then yields,
 * together well under a millisecond.  An open edit is borne for a few looks only, since what shows
 * it may be left over from a dead editor whose successor is just taking it away.
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

static void watch_wake(struct watch *watch, enum watch_side side)
{
	/* Before the notification: a waiter that lingers decides by it whether looking pays. */
	eventcount_set_cpu(&watch->lines[side], process_cpu());
	(void)eventcount_notify(&watch->lines[side]);
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

/* What a holder that died in an edit left: the mark.  Its slot is filled anew by the next writer
 * anyway. */
static void watch_forget_edit(struct watch *watch)
{
	atomic_store_explicit(&watch->segment->header.holder_id, 0, memory_order_relaxed);
	atomic_store_explicit(&watch->segment->header.holder_since, 0, memory_order_relaxed);
}

static bool watch_shows_edit(const struct watch *watch)
{
	return atomic_load_explicit(&watch->segment->header.holder_id, memory_order_relaxed) != 0;
}

static void watch_unlock(struct watch *watch)
{
	/* Cannot fail for the holder; if the memory was overwritten, the next locker finds that
	 * out. */
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

/* 0: held.  Never sleeps. */
static int watch_lock_try(struct watch *watch)
{
	unsigned n_edit = 0;

	for (unsigned n = 0; n < LOOKS_MAX + YIELDS_MAX; ++n) {
		switch (lock_try(&watch->segment->lock)) {
		case LOCK_HELD:
			return 0;
		case LOCK_HELD_AFTER_DEATH:
			watch_forget_edit(watch);
			return 0;
		case LOCK_DEADLOCK:
			return IPC_EBUSY;
		case LOCK_BROKEN:
			return watch_break(watch);
		case LOCK_BUSY:
			break;
		}

		if (watch_shows_edit(watch) && ++n_edit >= LOOKS_AT_EDIT_MAX)
			return IPC_EBUSY;

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
		watch_forget_edit(watch);

	return r < 0 ? r : 0;
}

/* Under the lock: 0, IPC_EPIPE or broken. */
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

/* With the lock held, which is free afterwards. */
static int watch_put(struct watch *watch, const void *data, size_t size)
{
	struct value_edit edit;
	int r;

	r = watch_begin(watch, &edit);
	if (r == 0) {
		bytes_write_shared(value_data(&watch->value, &edit), data, size);
		r = watch_result(watch, value_commit(&watch->value, &edit, size));
	}

	watch_unlock(watch);
	CRASH_POINT();

	if (r == 0)
		watch_wake(watch, WATCH_CONSUMERS);

	return r;
}

int watch_publish(struct watch *watch, const void *data, size_t size)
{
	int r;

	if (size > watch->value.size_max)
		return IPC_EMSGSIZE;

	r = watch_lock_try(watch);
	if (r < 0)
		/* A shutdown is told first: who retries on IPC_EBUSY must not do so for ever. */
		return r == IPC_EBUSY && watch_end(watch) < 0 ? watch_end(watch) : r;

	return watch_put(watch, data, size);
}

int watch_publish_wait(struct watch *watch, struct waiter *waiter, const void *data, size_t size)
{
	int r;

	if (size > watch->value.size_max)
		return IPC_EMSGSIZE;

	r = watch_lock_wait(watch, waiter);
	if (r < 0)
		return r;

	return watch_put(watch, data, size);
}

int watch_edit_wait(struct watch *watch, struct waiter *waiter, uint64_t holder_id,
		    struct value_edit *ret_edit, uint64_t *ret_size)
{
	struct value_edit edit;
	uint64_t size = 0;
	int r;

	r = watch_lock_wait(watch, waiter);
	if (r < 0)
		return r;

	/* Before the copy, which may take long: a publish that collides with it meets an edit, not
	 * another publish. */
	atomic_store_explicit(&watch->segment->header.holder_since, clock_now_ns(),
			      memory_order_relaxed);
	atomic_store_explicit(&watch->segment->header.holder_id, holder_id, memory_order_relaxed);
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
	return lock_is_mine(&watch->segment->lock) &&
	       atomic_load_explicit(&watch->segment->header.holder_id, memory_order_relaxed) ==
		       holder_id;
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

/* The slot is simply not used; what remains is the mark and the lock. */
void watch_abort(struct watch *watch)
{
	watch_forget_edit(watch);
	CRASH_POINT();
	watch_unlock(watch);
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
