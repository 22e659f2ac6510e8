/* SPDX-License-Identifier: MIT */
/*
 * Locks in memory that somebody else wrote over: before they are taken, and while they are held.
 */
#include "libipc/platform/lock.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/platform/lock_take.h"
#include "tests/support/actor.h"
#include "tests/support/process.h"
#include "tests/support/wakes.h"

#define N_ROUNDS 100000
#define PAGE     4096

static uint64_t dice_state;

/* The same numbers in each run. */
static uint64_t dice(void)
{
	uint64_t x = dice_state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void fill(void *memory, size_t size)
{
	unsigned char *bytes = memory;

	for (size_t i = 0; i < size; ++i)
		bytes[i] = (unsigned char)dice();
}

static pthread_mutex_t *mutex_of(struct lock *lock)
{
	return (pthread_mutex_t *)(void *)lock;
}

/* Words that are near the edges of what a lock may say. */
static int strange_word(void)
{
	const unsigned me = (unsigned)gettid();
	const unsigned words[] = {
		0,
		1,
		me,
		me | 0x80000000u,
		me | 0x40000000u,
		me | 0xc0000000u,
		0x80000000u,
		0x40000000u,
		0xc0000000u,
		0x3fffffffu,
		0xffffffffu,
		INT_MAX,
		INT_MAX - 1u,
		0x40000001u,
		0xbfffffffu,
		(unsigned)getppid(),
	};

	return (int)words[dice() % (sizeof(words) / sizeof(words[0]))];
}

/* M-60 */
Test(lock_garbage, is_never_followed, .timeout = 60)
{
	static struct lock good;
	struct lock *lock = shared_memory(PAGE);
	unsigned n_held = 0, n_broken = 0, n_others = 0;

	cr_assert(lock);
	lock_init(&good);

	for (unsigned i = 0; i < N_ROUNDS; ++i) {
		enum lock_result r;

		fill(lock, sizeof(*lock));
		if (dice() % 8 != 0)
			mutex_of(lock)->__data.__kind = mutex_of(&good)->__data.__kind;
		if (dice() % 4 != 0)
			mutex_of(lock)->__data.__lock = strange_word();
		if (dice() % 4 != 0)
			mutex_of(lock)->__data.__owner = strange_word();

		cr_assert_eq(lock_is_mine(lock), 0);
		cr_assert_eq(lock_unlock(lock), -1);
		(void)lock_sleep(lock, NULL, 0, 0);
		r = lock_try(lock);
		switch (r) {
		case LOCK_HELD:
		case LOCK_HELD_AFTER_DEATH:
			++n_held;
			cr_assert_eq(lock_is_mine(lock), 1);
			cr_assert_eq(lock_unlock(lock), 0);
			break;
		case LOCK_BROKEN:
			++n_broken;
			break;
		case LOCK_BUSY:
		case LOCK_DEADLOCK:
			++n_others;
			break;
		}
		cr_assert_eq(lock_is_mine(lock), 0);
		cr_assert_eq(lock_unlock(lock), -1);
	}

	cr_assert_gt(n_held, N_ROUNDS / 100);
	cr_assert_gt(n_broken, N_ROUNDS / 100);
	cr_assert_gt(n_others, N_ROUNDS / 100);
	munmap(lock, PAGE);
}

Test(lock_garbage, zeros_and_other_kinds_are_broken, .timeout = 60)
{
	static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
				    PTHREAD_MUTEX_ERRORCHECK};
	pthread_mutexattr_t attributes;
	static struct lock lock;

	memset(&lock, 0, sizeof(lock));
	cr_assert_eq(lock_try(&lock), LOCK_BROKEN);

	for (int i = 0; i < 3; ++i)
		for (int is_robust = 0; is_robust < 2; ++is_robust)
			for (int has_inheritance = 0; has_inheritance < 2; ++has_inheritance) {
				/* That is the right one: robust mutexes count as shared. */
				if (types[i] == PTHREAD_MUTEX_ERRORCHECK && is_robust &&
				    !has_inheritance)
					continue;

				memset(&lock, 0, sizeof(lock));
				pthread_mutexattr_init(&attributes);
				pthread_mutexattr_settype(&attributes, types[i]);
				pthread_mutexattr_setrobust(&attributes, is_robust);
				pthread_mutexattr_setprotocol(&attributes,
							      has_inheritance ? PTHREAD_PRIO_INHERIT
									      : PTHREAD_PRIO_NONE);
				cr_assert_eq(pthread_mutex_init(mutex_of(&lock), &attributes), 0);
				cr_assert_eq(lock_try(&lock), LOCK_BROKEN);
				cr_assert_eq(lock_unlock(&lock), -1);
			}
}

/* glibc itself would take such a mutex, say ENOTRECOVERABLE and never give it back. */
Test(lock_garbage, given_up_by_others_is_broken_for_everybody, .timeout = 60)
{
	static struct lock lock;

	lock_init(&lock);
	mutex_of(&lock)->__data.__owner = INT_MAX - 1;
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(lock_try(&lock), LOCK_BROKEN);
	cr_assert_eq(mutex_of(&lock)->__data.__lock, 0);
}

Test(lock_garbage, waiters_without_a_holder_are_broken, .timeout = 60)
{
	static struct lock lock;

	lock_init(&lock);
	mutex_of(&lock)->__data.__lock = INT_MIN;
	cr_assert_eq(lock_try(&lock), LOCK_BROKEN);
}

/* M-25: an owner that nobody is */
Test(lock_garbage, holder_that_never_was_is_of_the_dead, .timeout = 60)
{
	static struct lock lock;

	lock_init(&lock);
	mutex_of(&lock)->__data.__lock = 0x3ffffff0;
	cr_assert_eq(lock_take(&lock, clock_after_ns(3 * FUTEX_SLICE_NS)), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(lock_unlock(&lock), 0);
}

/* ---- while it is held ---- */

enum scribble {
	SCRIBBLE_ALL,
	SCRIBBLE_ZEROS,
	SCRIBBLE_KIND,
	SCRIBBLE_WORD,
	SCRIBBLE_OWNER,
	SCRIBBLE_NEXT,
	SCRIBBLE_PREVIOUS,
	SCRIBBLE_LIST,
	N_SCRIBBLES
};

static void *wild_pointer(void *near)
{
	void *const pointers[] = {NULL,        (void *)1,       (void *)8,
				  (void *)-1l, (void *)-8l,     (void *)0x123456789000,
				  near,        (char *)near + 3};

	return pointers[dice() % 8];
}

static void scribble(struct lock *lock, enum scribble how)
{
	struct __pthread_mutex_s *data = &mutex_of(lock)->__data;

	switch (how) {
	case SCRIBBLE_ALL:
		fill(lock, sizeof(*lock));
		break;
	case SCRIBBLE_ZEROS:
		memset(lock, 0, sizeof(*lock));
		break;
	case SCRIBBLE_KIND:
		data->__kind = (int)dice();
		break;
	case SCRIBBLE_WORD:
		data->__lock = strange_word();
		break;
	case SCRIBBLE_OWNER:
		data->__owner = strange_word();
		break;
	case SCRIBBLE_NEXT:
		data->__list.__next = wild_pointer(lock);
		break;
	case SCRIBBLE_PREVIOUS:
		data->__list.__prev = wild_pointer(lock);
		break;
	case SCRIBBLE_LIST:
		data->__list.__next = wild_pointer(lock);
		data->__list.__prev = wild_pointer(lock);
		break;
	case N_SCRIBBLES:
		break;
	}
}

#define N_HELD 4

/* Takes N_HELD locks, each in a page of its own, scribbles over one before it or one of the others
 * is given back, gives all back, takes that one's page away and goes on. */
static void overwrite_one(unsigned victim, unsigned first, enum scribble how)
{
	unsigned when = (unsigned)(dice() % ((victim + N_HELD - first) % N_HELD + 1));
	struct lock *lock[N_HELD], *later;

	for (unsigned i = 0; i < N_HELD; ++i) {
		lock[i] = shared_memory(PAGE);
		cr_assert(lock[i]);
		lock_init(lock[i]);
		cr_assert_eq(lock_try(lock[i]), LOCK_HELD);
	}
	later = shared_memory(PAGE);
	lock_init(later);

	for (unsigned k = 0; k < N_HELD; ++k) {
		unsigned i = (first + k) % N_HELD;

		if (k == when)
			scribble(lock[victim], how);

		cr_assert_eq(lock_is_mine(lock[i]), 1);
		cr_assert_eq(lock_unlock(lock[i]), 0, "lock %u after scribble %d over %u", i, how,
			     victim);
		cr_assert_eq(lock_is_mine(lock[i]), 0);
		if (i == victim)
			munmap(lock[i], PAGE);
		/* The list of this thread must be whole again, or this follows it into nowhere. */
		cr_assert_eq(lock_try(later), LOCK_HELD);
		cr_assert_eq(lock_unlock(later), 0);
	}

	for (unsigned i = 0; i < N_HELD; ++i) {
		if (i == victim)
			continue;
		cr_assert_eq(lock_try(lock[i]), LOCK_HELD);
		cr_assert_eq(lock_unlock(lock[i]), 0);
		munmap(lock[i], PAGE);
	}
	munmap(later, PAGE);
}

/* M-60, M-61 */
Test(lock_garbage, overwritten_while_held_can_be_left, .timeout = 60)
{
	for (unsigned round = 0; round < 40; ++round)
		for (int how = 0; how < N_SCRIBBLES; ++how)
			for (unsigned victim = 0; victim < N_HELD; ++victim)
				overwrite_one(victim, (victim + round) % N_HELD,
					      (enum scribble)how);
}

/* M-60: half of a segment, two locks of it held */
Test(lock_garbage, all_overwritten_while_held_can_be_left, .timeout = 60)
{
	static struct lock good;
	struct lock *locks = shared_memory(PAGE);

	lock_init(&good);
	for (unsigned round = 0; round < 200; ++round) {
		unsigned first = round % 3;

		for (unsigned i = 0; i < 3; ++i) {
			lock_init(&locks[i]);
			cr_assert_eq(lock_try(&locks[i]), LOCK_HELD);
		}
		fill(locks, PAGE);
		for (unsigned i = 0; i < 3; ++i)
			cr_assert_eq(lock_unlock(&locks[(first + i) % 3]), 0);
		cr_assert_eq(lock_try(&good), LOCK_HELD);
		cr_assert_eq(lock_unlock(&good), 0);
	}
	munmap(locks, PAGE);
}

static void want(struct actor *self, void *arg)
{
	actor_say(self, lock_take(arg, CLOCK_FOREVER));
}

/* M-61: says so to everybody, and not only after a slice */
Test(lock_garbage, waiters_find_it_broken, .timeout = 60)
{
	struct lock *lock = shared_memory(PAGE);

	WAKES_TELL();
	for (unsigned i = 0; i < 8; ++i) {
		struct actor waiter;
		uint64_t began;

		lock_init(lock);
		cr_assert_eq(lock_try(lock), LOCK_HELD);
		actor_start(&waiter, want, lock);
		actor_until_asleep(&waiter);
		began = clock_now_ns();
		mutex_of(lock)->__data.__kind = 7;
		cr_assert_eq(lock_unlock(lock), 0);
		cr_assert_eq(actor_hear(&waiter), LOCK_BROKEN);
		ASSERT_WOKEN(began);
		cr_assert_eq(actor_join(&waiter), 0);
	}
	munmap(lock, PAGE);
}
