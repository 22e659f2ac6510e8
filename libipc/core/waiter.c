/* SPDX-License-Identifier: MIT */
#include "libipc/core/waiter.h"

#include <sched.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/process.h"

/*
 * The budget of the first two steps.  Fifty looks are a few hundred nanoseconds: what a prompt peer
 * on another CPU needs.  On one CPU they only keep the peer from running.  A handle whose last
 * waits all ended in a sleep goes to sleep at once, and tries again now and then.
 */
enum { LOOKS_MAX = 50, YIELDS_MAX = 32, SLEEPS_UNTIL_RESIGNED = 4, WAITS_BETWEEN_TRIES = 32 };

/* Of a wait for one thing: event, attention, cancel. */
#define WORDS_OF_ONE 3

/* What a sleep waits for, read before the look that precedes it.  The event word comes first: the
 * fallback wakes at once by the first word only. */
struct waiter_words {
	struct futex_word *word;
	unsigned n;
	uint32_t attention;
};

static void waiter_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* The words that every sleep shares.  `n` words stand before them. */
static void waiter_load(const struct waiter *waiter, struct waiter_words *words)
{
	/* [A1] What the broker told before it bumped the word is seen by the look that follows.
	 * Pairs with [V3] in liveness.c. */
	words->attention = atomic_load_explicit(waiter->attention, memory_order_acquire);
	words->word[words->n++] =
		(struct futex_word){.word = waiter->attention, .expected = words->attention};

	/* [A2] A cancel sets its flag, then bumps the word.  Pairs with the release there. */
	words->word[words->n++] = (struct futex_word){
		.word = waiter->cancel_word,
		.expected = atomic_load_explicit(waiter->cancel_word, memory_order_acquire),
		.is_private = true,
	};
}

static void waiter_announce(struct eventcount *event, struct waiter_words *words)
{
	words->word[words->n++] = (struct futex_word){
		.word = &event->word,
		.expected = eventcount_announce(event),
	};
}

static_assert(WAITER_MORE_MAX + 2 <= FUTEX_WORDS_MAX, "the kernel takes all of them");

/*
 * After the words of every sleep: the attention word was read before an event is armed whose ring
 * bumps it.
 */
static void waiter_load_more(const struct waiter_more *more, struct waiter_words *words)
{
	bool is_heard = futex_has_waitv();

	/* Before anything is armed: who rings reads it after that. */
	if (!is_heard && more->is_deaf && more->n_events > 0)
		atomic_store_explicit(more->is_deaf, 1, memory_order_relaxed);

	for (unsigned i = 0; i < more->n_events; ++i)
		if (is_heard)
			waiter_announce(more->events[i], words);
		else
			(void)eventcount_arm(more->events[i]);
}

static bool waiter_is_cancelled(const struct waiter *waiter)
{
	return atomic_load_explicit(waiter->handle_cancelled, memory_order_acquire) ||
	       atomic_load_explicit(waiter->client_cancelled, memory_order_acquire);
}

static int waiter_look(const struct waiter *waiter, waiter_look_fn look, void *subject)
{
	int r;

	r = look(subject);
	if (r != WAITER_NOT_YET)
		return r;

	return waiter_is_cancelled(waiter) ? IPC_ECANCELED : WAITER_NOT_YET;
}

static bool waiter_is_resigned(struct waiter_patience *patience)
{
	uint32_t n_waits = atomic_fetch_add_explicit(&patience->n_waits, 1, memory_order_relaxed);

	return atomic_load_explicit(&patience->n_sleeps_in_a_row, memory_order_relaxed) >=
		       SLEEPS_UNTIL_RESIGNED &&
	       n_waits % WAITS_BETWEEN_TRIES != 0;
}

static bool waiter_event_is_near(const struct eventcount *event)
{
	return atomic_load_explicit(&event->notifier_cpu, memory_order_relaxed) == process_cpu();
}

/* A peer that last ran here cannot do anything while we look. */
static bool waiter_shares_cpu(const struct waiter *waiter)
{
	if (process_n_cpus() < 2)
		return true;
	if (waiter->event && waiter_event_is_near(waiter->event))
		return true;

	for (unsigned i = 0; waiter->more && i < waiter->more->n_events; ++i)
		if (waiter_event_is_near(waiter->more->events[i]))
			return true;

	return false;
}

/* The budget is time: a look at many things is a long one. */
static unsigned waiter_n_looks(const struct waiter *waiter)
{
	return waiter->more ? LOOKS_MAX / (1 + waiter->more->n_events) : LOOKS_MAX;
}

static int waiter_linger(struct waiter *waiter, waiter_look_fn look, void *subject)
{
	int r = WAITER_NOT_YET;

	if (!waiter->patience || waiter_is_resigned(waiter->patience))
		return WAITER_NOT_YET;

	for (unsigned n = waiter_n_looks(waiter);
	     n > 0 && r == WAITER_NOT_YET && !waiter_shares_cpu(waiter); --n) {
		waiter_pause();
		r = waiter_look(waiter, look, subject);
	}

	for (unsigned i = 0; i < YIELDS_MAX && r == WAITER_NOT_YET; ++i) {
		(void)sched_yield();
		r = waiter_look(waiter, look, subject);
	}

	if (r != WAITER_NOT_YET)
		atomic_store_explicit(&waiter->patience->n_sleeps_in_a_row, 0,
				      memory_order_relaxed);

	return r;
}

/* For people who look on (ipcctl): what this handle waits for.  A hint: two threads that wait on
 * one handle overwrite each other. */
static void waiter_show(const struct waiter *waiter, void *subject, uint64_t since_ns)
{
	if (waiter->more && waiter->more->show)
		waiter->more->show(subject, since_ns);
	if (!waiter->cell)
		return;

	atomic_store_explicit(&waiter->cell->waits_for, since_ns ? waiter->waits_for : 0,
			      memory_order_relaxed);
	atomic_store_explicit(&waiter->cell->waits_since, since_ns, memory_order_relaxed);
}

/*
 * After each return of a sleep that decided nothing: the deadline, and the control socket if the
 * broker spoke or a slice passed without anybody saying anything.
 */
static int waiter_between(const struct waiter *waiter, bool ask_socket)
{
	if (clock_now_ns() >= waiter->deadline_ns)
		return IPC_ETIMEDOUT;

	if (ask_socket && waiter->check) {
		int r = waiter->check(waiter->userdata);

		if (r < 0)
			return r;
	}

	return WAITER_NOT_YET;
}

/* `room` is for as many words as the waiter has. */
static int waiter_sleep(struct waiter *waiter, waiter_look_fn look, void *subject,
			struct futex_word *room)
{
	uint32_t attention = atomic_load_explicit(waiter->attention, memory_order_relaxed);
	bool slice_over = false, interrupted = false;
	int r;

	for (;;) {
		struct waiter_words words = {.word = room};

		if (waiter->event)
			waiter_announce(waiter->event, &words);
		waiter_load(waiter, &words);
		if (waiter->more)
			waiter_load_more(waiter->more, &words);

		r = waiter_look(waiter, look, subject);
		if (r == WAITER_NOT_YET)
			r = waiter_between(waiter, slice_over || words.attention != attention);
		if (r == WAITER_NOT_YET && interrupted)
			r = IPC_EINTR;
		if (r != WAITER_NOT_YET)
			return r;

		attention = words.attention;

		switch (futex_sleep(words.word, words.n, waiter->deadline_ns)) {
		case FUTEX_WOKEN:
			slice_over = false;
			break;
		case FUTEX_SLICE_OVER:
			slice_over = true;
			break;
		case FUTEX_INTERRUPTED:
			interrupted = !waiter->ignores_signals;
			break;
		case FUTEX_BROKEN:
			return IPC_EBADMSG;
		}
	}
}

static int waiter_sleep_for_one(struct waiter *waiter, waiter_look_fn look, void *subject)
{
	struct futex_word room[WORDS_OF_ONE];

	return waiter_sleep(waiter, look, subject, room);
}

static int waiter_sleep_for_many(struct waiter *waiter, waiter_look_fn look, void *subject)
{
	struct futex_word room[WAITER_MORE_MAX + 2];

	return waiter_sleep(waiter, look, subject, room);
}

int waiter_wait(struct waiter *waiter, waiter_look_fn look, void *subject)
{
	int r;

	r = waiter_look(waiter, look, subject);
	if (r != WAITER_NOT_YET)
		return r;
	if (waiter->deadline_ns == 0)
		return IPC_ETIMEDOUT;

	r = waiter_linger(waiter, look, subject);
	if (r != WAITER_NOT_YET)
		return r;

	waiter_show(waiter, subject, clock_now_ns());
	r = waiter->more ? waiter_sleep_for_many(waiter, look, subject)
			 : waiter_sleep_for_one(waiter, look, subject);
	waiter_show(waiter, subject, 0);

	if (waiter->patience)
		atomic_fetch_add_explicit(&waiter->patience->n_sleeps_in_a_row, 1,
					  memory_order_relaxed);

	return r;
}

/* 0, 1, an error, or WAITER_NOT_YET: somebody else holds it. */
static int waiter_try(struct lock *lock, bool has_slept)
{
	enum lock_result r = lock_try(lock);

	switch (r) {
	case LOCK_HELD:
	case LOCK_HELD_AFTER_DEATH:
		if (has_slept)
			lock_inherit(lock);
		return r == LOCK_HELD_AFTER_DEATH;
	case LOCK_BUSY:
		return WAITER_NOT_YET;
	case LOCK_DEADLOCK:
		return IPC_EDEADLK;
	case LOCK_BROKEN:
		return IPC_EBADMSG;
	}

	return IPC_EBADMSG;
}

static int waiter_lock_try(const struct waiter *waiter, struct lock *lock, bool has_slept,
			   waiter_look_fn end, void *subject)
{
	int r;

	r = waiter_try(lock, has_slept);
	if (r == WAITER_NOT_YET && end)
		r = end(subject);
	if (r == WAITER_NOT_YET && waiter_is_cancelled(waiter))
		r = IPC_ECANCELED;

	return r;
}

static int waiter_lock_sleep(struct waiter *waiter, struct lock *lock, waiter_look_fn end,
			     void *subject)
{
	uint32_t attention = atomic_load_explicit(waiter->attention, memory_order_relaxed);
	struct futex_word room[WORDS_OF_ONE];
	bool has_slept = false, slice_over = false;
	int r;

	for (;;) {
		struct waiter_words words = {.word = room};

		waiter_load(waiter, &words);

		r = waiter_lock_try(waiter, lock, has_slept, end, subject);
		if (r == WAITER_NOT_YET)
			r = waiter_between(waiter, slice_over || words.attention != attention);
		if (r != WAITER_NOT_YET)
			break;

		attention = words.attention;
		slice_over = lock_sleep(lock, words.word, words.n, waiter->deadline_ns) ==
			     FUTEX_SLICE_OVER;
		has_slept = true;
	}

	/* The wake that ended this thread's last sleep may have been the one for the next holder.
	 */
	if (r < 0 && has_slept)
		lock_pass_on(lock);

	return r;
}

int waiter_lock(struct waiter *waiter, struct lock *lock, waiter_look_fn end, void *subject)
{
	int r;

	r = waiter_lock_try(waiter, lock, false, end, subject);
	if (r != WAITER_NOT_YET)
		return r;
	if (waiter->deadline_ns == 0)
		return IPC_ETIMEDOUT;

	/* Locks are held for microseconds, unless user code holds them: one short look, then sleep.
	 */
	for (unsigned i = 0; i < LOOKS_MAX && r == WAITER_NOT_YET && process_n_cpus() > 1; ++i) {
		waiter_pause();
		r = waiter_lock_try(waiter, lock, false, end, subject);
	}
	if (r != WAITER_NOT_YET)
		return r;

	waiter_show(waiter, NULL, clock_now_ns());
	r = waiter_lock_sleep(waiter, lock, end, subject);
	waiter_show(waiter, NULL, 0);
	return r;
}
