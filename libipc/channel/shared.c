/* SPDX-License-Identifier: MIT */
#include "libipc/channel/shared.h"

#include <string.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/platform/bytes.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

/* ---- size, make, attach ---- */

static uint64_t shared_stride(uint64_t value_size)
{
	return (value_size + 63) & ~UINT64_C(63);
}

uint64_t shared_segment_size(uint64_t value_size, uint64_t shape)
{
	if (value_size == 0 || value_size > IPC_VALUE_SIZE_MAX)
		return 0;
	if (shape != SHARED_TRANSACTIONAL && shape != SHARED_IN_PLACE)
		return 0;

	return sizeof(struct shared_segment) +
	       shared_stride(value_size) * (shape == SHARED_IN_PLACE ? 1 : 2);
}

int shared_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct shared_segment *shared = segment;
	uint64_t needed = shared_segment_size(shape[0], shape[1]);

	(void)flags;

	if (needed == 0 || size < needed)
		return IPC_EINVAL;

	header_init(&shared->header, IPC_KIND_SHARED, size, shape);
	lock_init(&shared->lock);
	eventcount_init(&shared->event);
	atomic_store_explicit(&shared->current, 0, memory_order_relaxed);
	atomic_store_explicit(&shared->fate, 0, memory_order_relaxed);
	memset(shared->reserved, 0, sizeof(shared->reserved));
	return 0;
}

int shared_attach(struct shared *ret_shared, void *segment, uint64_t size, const uint64_t shape[4],
		  uint64_t handle_id)
{
	uint64_t needed = shared_segment_size(shape[0], shape[1]);
	int r;

	if (needed == 0 || size < needed)
		return IPC_EBADMSG;

	r = header_check(segment, IPC_KIND_SHARED, size, shape);
	if (r < 0)
		return r;

	*ret_shared = (struct shared){
		.segment = segment,
		.value_size = shape[0],
		.handle_id = handle_id,
		.is_in_place = shape[1] == SHARED_IN_PLACE,
		.cpu = UINT32_MAX,
	};
	return 0;
}

/* ---- the lock ---- */

/*
 * A number for each thread that is never given again, unlike pthread_self() and thread ids: a
 * thread that ends holding the lock has lost it, and no later thread may pass for it. initial-exec:
 * one load.
 */
static uint64_t shared_self(void)
{
	static _Thread_local uint64_t self __attribute__((__tls_model__("initial-exec")));
	static _Atomic uint64_t n_threads;

	if (UNLIKELY(self == 0))
		self = atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed) + 1;

	return self;
}

static void shared_notify(struct shared_segment *segment)
{
	/* Nobody is armed there: who waits for several things sleeps on the lines. */
	(void)eventcount_notify(&segment->event);
}

/* For ends: whoever waits for anything. */
static void shared_notify_all(struct shared *shared)
{
	bool is_armed = false;

	shared_notify(shared->segment);
	CRASH_POINT();
	for (unsigned side = 0; shared->lines && side < 2; ++side)
		is_armed |= eventcount_notify(&shared->lines[side]);
	if (is_armed && shared->ring)
		shared->ring(shared->ring_userdata);
}

/*
 * The same right after an unlock.  That is an atomic exchange of the lock word (it has to learn
 * whether somebody sleeps there), which x86 executes as a full barrier: a second one would cost
 * more than the rest of a commit.
 */
static void shared_notify_unlocked(struct shared_segment *segment)
{
#if defined(__x86_64__) || defined(__i386__)
	/* [E1] of eventcount.h: only the compiler is left to be told. */
	atomic_signal_fence(memory_order_seq_cst);
	if (LIKELY(!(atomic_load_explicit(&segment->event.word, memory_order_relaxed) &
		     (EVENTCOUNT_SLEEPERS | EVENTCOUNT_ARMED))))
		return;

	(void)eventcount_wake(&segment->event);
#else
	shared_notify(segment);
#endif
}

/* One load where there is nothing to be said. */
static inline int shared_fault(const struct shared_segment *segment)
{
	if (LIKELY(atomic_load_explicit(&segment->header.broken, memory_order_relaxed) ==
		   HEADER_WHOLE))
		return 0;

	return header_fault(&segment->header);
}

/* What was found proves that somebody wrote where nobody may write: nobody goes on here. */
static int shared_break(struct shared *shared, enum header_broken reason)
{
	int r = header_break(&shared->segment->header, reason);

	CRASH_POINT();
	shared_notify_all(shared);
	return r;
}

/* The last holder died.  Whether it died with a half-made value, between commit and wake, or only
 * looking, nobody knows. */
static void shared_note_death(struct shared *shared)
{
	struct shared_segment *segment = shared->segment;
	uint32_t fate = SHARED_UNTOLD | (shared->is_in_place ? SHARED_UNMARKED : 0);

	/* Relaxed: read only under the lock. */
	atomic_store_explicit(&segment->fate, fate, memory_order_relaxed);
	shared->owes_wake = true;
	CRASH_POINT();
}

/* Lets go.  Everything of the view is read before the unlock: another thread may hold through it
 * right after. */
static int shared_release(struct shared *shared, bool wakes)
{
	struct shared_segment *segment = shared->segment;

	wakes |= shared->owes_wake;

	atomic_store_explicit(&segment->header.holder_id, 0, memory_order_relaxed);
	atomic_store_explicit(&shared->holder, 0, memory_order_relaxed);
	CRASH_POINT();

	if (UNLIKELY(lock_unlock(&segment->lock) < 0))
		return shared_break(shared, HEADER_CORRUPT);

	/* Killed here: the broker wakes both sides. */
	CRASH_POINT();

	if (wakes)
		shared_notify_unlocked(segment);

	return 0;
}

/* Right after the lock was taken, by whichever way. 0, or the fault of a broken channel, whose lock
 * is not held any more. */
static int shared_taken(struct shared *shared, bool after_death)
{
	struct shared_segment *segment = shared->segment;
	int r;

	CRASH_POINT();
	shared->is_edited = false;
	shared->owes_wake = false;
	atomic_store_explicit(&shared->holder, shared_self(), memory_order_relaxed);

	if (UNLIKELY(after_death))
		shared_note_death(shared);

	/* A lock is held for seconds where somebody looks at this. */
	atomic_store_explicit(&segment->header.holder_since, clock_coarse_now_ns(),
			      memory_order_relaxed);
	atomic_store_explicit(&segment->header.holder_id, shared->handle_id, memory_order_relaxed);

	r = shared_fault(segment);
	if (UNLIKELY(r < 0)) {
		(void)shared_release(shared, false);
		return r;
	}

	return 0;
}

/* The user of this holder is told now: told once, also if this process dies before it returns (that
 * is a new death). */
static int shared_tell(struct shared *shared)
{
	uint32_t fate = atomic_load_explicit(&shared->segment->fate, memory_order_relaxed);

	if (LIKELY(!(fate & (SHARED_UNTOLD | SHARED_UNMARKED))))
		return 0;

	atomic_store_explicit(&shared->segment->fate, fate & ~SHARED_UNTOLD, memory_order_relaxed);
	CRASH_POINT();
	return 1;
}

int shared_lock_try(struct shared *shared)
{
	enum lock_result result = lock_try(&shared->segment->lock);
	int r;

	switch (result) {
	case LOCK_HELD:
	case LOCK_HELD_AFTER_DEATH:
		r = shared_taken(shared, result == LOCK_HELD_AFTER_DEATH);
		return r < 0 ? r : shared_tell(shared);
	case LOCK_BUSY:
		return IPC_EBUSY;
	case LOCK_DEADLOCK:
		return IPC_EDEADLK;
	case LOCK_BROKEN:
		break;
	}

	return shared_break(shared, HEADER_CORRUPT);
}

/* Asked before each sleep on the lock: nobody waits for the lock of a broken channel. */
static int shared_lock_end(void *subject)
{
	const struct shared *shared = subject;
	int r = shared_fault(shared->segment);

	return r < 0 ? r : WAITER_NOT_YET;
}

/* Takes the lock and tells nobody: it may be for a look only. */
static int shared_take_wait(struct shared *shared, struct waiter *waiter)
{
	struct shared_segment *segment = shared->segment;
	int r;

	/* A hint for people: the holder may change while this one waits. */
	waiter->waits_for = atomic_load_explicit(&segment->header.holder_id, memory_order_relaxed);
	r = waiter_lock(waiter, &segment->lock, shared_lock_end, shared);
	waiter->waits_for = 0;

	if (r == IPC_EBADMSG)
		return shared_break(shared, HEADER_CORRUPT);

	return r < 0 ? r : shared_taken(shared, r == 1);
}

int shared_lock_wait(struct shared *shared, struct waiter *waiter)
{
	int r;

	r = shared_take_wait(shared, waiter);
	return r < 0 ? r : shared_tell(shared);
}

bool shared_is_mine(const struct shared *shared)
{
	return atomic_load_explicit(&shared->holder, memory_order_relaxed) == shared_self();
}

/* ---- the value ---- */

static unsigned char *shared_buffer(const struct shared *shared, uint64_t current)
{
	uint64_t buffer = shared->is_in_place ? 0 : current & 1;

	return shared->segment->values + buffer * shared_stride(shared->value_size);
}

const void *shared_value(const struct shared *shared)
{
	/* Relaxed: under the lock. */
	return shared_buffer(shared,
			     atomic_load_explicit(&shared->segment->current, memory_order_relaxed));
}

int shared_edit(struct shared *shared, void **ret_value)
{
	uint64_t current;
	int r;

	if (!shared_is_mine(shared))
		return IPC_EINVAL;

	r = shared_fault(shared->segment);
	if (r < 0)
		return r;

	if (!shared->is_edited) {
		current = atomic_load_explicit(&shared->segment->current, memory_order_relaxed);
		if (!shared->is_in_place)
			memcpy(shared_buffer(shared, current ^ 1), shared_buffer(shared, current),
			       shared->value_size);

		shared->edited_from = current;
		shared->is_edited = true;
	}

	*ret_value = shared_buffer(shared, shared->edited_from ^ 1);
	return 0;
}

/* In place: whether a holder's death is still to be made good. */
static bool shared_is_unmarked(const struct shared *shared)
{
	return shared->is_in_place &&
	       atomic_load_explicit(&shared->segment->fate, memory_order_relaxed) & SHARED_UNMARKED;
}

/* Broken first, then unlocked: whoever gets the lock next finds it broken; killed in between, the
 * next one does as well. */
static int shared_give_up(struct shared *shared)
{
	int r = header_break(&shared->segment->header, HEADER_GIVEN_UP);

	CRASH_POINT();
	if (shared_release(shared, true) == 0)
		shared_notify_all(shared);
	return r;
}

/*
 * Tells waiters where the committer runs.  Threads move seldom: as long as the hint is what this
 * view wrote, only now and then is it asked for anew.
 */
static void shared_show_cpu(struct shared *shared)
{
	struct eventcount *event = &shared->segment->event;
	uint32_t shown = atomic_load_explicit(&event->notifier_cpu, memory_order_relaxed);

	if (LIKELY(shown == shared->cpu && shared->n_commits++ % 16 != 0))
		return;

	shared->cpu = process_cpu();
	eventcount_set_cpu(event, shared->cpu);
}

int shared_commit(struct shared *shared)
{
	int r;

	if (!shared_is_mine(shared))
		return IPC_EINVAL;

	r = shared_fault(shared->segment);
	if (UNLIKELY(r < 0)) {
		(void)shared_release(shared, false);
		return r;
	}
	if (UNLIKELY(shared_is_unmarked(shared)))
		return shared_give_up(shared);
	if (!shared->is_edited)
		return shared_release(shared, false);

	CRASH_POINT();

	/*
	 * [S1] The commit: one store.  Every byte of the edit is there before it.  Pairs with [S2]
	 * in shared_look(), and with the lock for everybody else.  The version moves by one, the
	 * buffer to the other (in place the lowest bit means nothing).
	 */
	atomic_store_explicit(&shared->segment->current, (shared->edited_from + 2) ^ 1,
			      memory_order_release);
	CRASH_POINT();

	shared_show_cpu(shared);
	return shared_release(shared, true);
}

static int shared_let_go(struct shared *shared)
{
	if (UNLIKELY(shared_is_unmarked(shared))) {
		(void)shared_give_up(shared);
		return 0;
	}

	return shared_release(shared, false);
}

int shared_unlock(struct shared *shared)
{
	return shared_is_mine(shared) ? shared_let_go(shared) : IPC_EINVAL;
}

void shared_drop(struct shared *shared)
{
	if (shared_is_mine(shared))
		(void)shared_let_go(shared);
}

void shared_put_back(struct shared *shared, bool was_told)
{
	uint32_t fate = atomic_load_explicit(&shared->segment->fate, memory_order_relaxed);

	if (was_told)
		atomic_store_explicit(&shared->segment->fate, fate | SHARED_UNTOLD,
				      memory_order_relaxed);

	/* Others may sleep for a predicate, not for the lock: one of them is to be told instead. */
	(void)shared_release(shared, was_told);
}

int shared_mark_consistent(struct shared *shared)
{
	if (!shared_is_mine(shared) || !shared_is_unmarked(shared))
		return IPC_EINVAL;

	/* Killed before or after: the lock is held, the next holder is told and has to mark again.
	 */
	atomic_store_explicit(&shared->segment->fate, 0, memory_order_relaxed);
	return 0;
}

bool shared_is_ended(const struct shared *shared)
{
	const struct channel_header *header = &shared->segment->header;

	return header_fault(header) < 0 ||
	       atomic_load_explicit(&header->is_shut_down, memory_order_acquire);
}

int shared_shutdown(struct shared *shared)
{
	int r;

	r = shared_fault(shared->segment);
	if (r < 0)
		return r;

	/* Relaxed: the notification brings the order. */
	atomic_store_explicit(&shared->segment->header.is_shut_down, 1, memory_order_relaxed);
	CRASH_POINT();
	shared_notify_all(shared);
	return 0;
}

/* ---- waiting for a predicate ---- */

struct shared_look {
	struct shared *shared;
	struct waiter *waiter;
	const struct shared_condition *condition;
	bool has_looked;
	uint64_t seen; /* `current` when the predicate last said no */
};

static bool shared_holds(const struct shared_look *look)
{
	const struct shared *shared = look->shared;

	return look->condition->holds(shared_value(shared), shared->value_size,
				      look->condition->userdata);
}

/* A shutdown is final and told first; what became of the opposite side says the caller. */
static int shared_end(const struct shared_look *look)
{
	if (atomic_load_explicit(&look->shared->segment->header.is_shut_down, memory_order_relaxed))
		return IPC_EPIPE;

	return look->condition->end(look->condition->userdata);
}

/*
 * Whether asking the predicate again could give another answer.  Not while nothing was committed:
 * then the steps before the sleep cost the others no lock. But once somebody announced a sleep
 * (this waiter does before its last look) it is asked in any case, since a death shows in the lock
 * alone.
 */
static bool shared_is_worth_a_look(const struct shared_look *look)
{
	const struct shared_segment *segment = look->shared->segment;

	if (!look->has_looked)
		return true;

	/* [S2] Pairs with [S1]: the value of this version is there. */
	if (atomic_load_explicit(&segment->current, memory_order_acquire) != look->seen)
		return true;
	if (atomic_load_explicit(&segment->event.word, memory_order_relaxed) & EVENTCOUNT_SLEEPERS)
		return true;

	return shared_end(look) < 0;
}

/*
 * A wait for the lock inside the wait for the predicate: people see the one while it lasts, then
 * the other again.
 */
static int shared_look_take(const struct shared_look *look)
{
	struct desk_cell *cell = look->waiter->cell;
	uint64_t since = cell ? atomic_load_explicit(&cell->waits_since, memory_order_relaxed) : 0;
	int r;

	r = shared_take_wait(look->shared, look->waiter);
	if (since)
		atomic_store_explicit(&cell->waits_since, since, memory_order_relaxed);

	return r;
}

/* The waiter's look.  Returns with the lock held only if it decides for 0 or 1. */
static int shared_look(void *subject)
{
	struct shared_look *look = subject;
	struct shared *shared = look->shared;
	int r;

	r = shared_fault(shared->segment);
	if (r < 0)
		return r;
	if (!shared_is_worth_a_look(look))
		return WAITER_NOT_YET;

	r = shared_look_take(look);
	if (r < 0)
		return r;

	/* In place the value may be half-made: no predicate may see it. */
	if (shared_is_unmarked(shared))
		return shared_tell(shared);

	look->has_looked = true;
	look->seen = atomic_load_explicit(&shared->segment->current, memory_order_relaxed);
	if (shared_holds(look))
		return shared_tell(shared);

	r = shared_end(look);
	if (r < 0 && shared_holds(look))
		return shared_tell(shared);

	(void)shared_release(shared, false);
	return r < 0 ? r : WAITER_NOT_YET;
}

int shared_lock_when_wait(struct shared *shared, struct waiter *waiter,
			  const struct shared_condition *condition)
{
	struct shared_look look = {.shared = shared, .waiter = waiter, .condition = condition};

	return waiter_wait(waiter, shared_look, &look);
}
