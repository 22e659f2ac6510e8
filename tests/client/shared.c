/* SPDX-License-Identifier: MIT */
/*
 * shared through the public interface, with a broker: the rules S-*, and those of the model as far
 * as they show here.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

/* Long enough for a busy machine; nothing here waits for it unless it is broken. */
#define LONG_MS 30000

static struct leaks leaks;
static struct domain domain;
static ipc_client *client;

static void setup(void)
{
	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}

static void teardown(void)
{
	ipc_client_unref(client);
	domain_stop(&domain);
	leaks_check(&leaks);
}

TestSuite(shared, .init = setup, .fini = teardown, .timeout = 60);

/* ---- short forms, for test and actors alike: nothing here asserts ---- */

static const struct timespec past = {0, 0};

static int open_side(ipc_shared **ret, ipc_client *by, enum ipc_side side, uint64_t flags)
{
	struct timespec deadline = domain_deadline(LONG_MS);

	return ipc_shared_open_wait(ret, by, "test/shared", side,
				    IPC_SHARED_OPTIONS(.flags = flags, .value_size = 64),
				    &deadline);
}

static int lock_in(ipc_shared *shared, const void **ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_shared_lock_wait(shared, ret, &deadline);
}

/* The value's first word is at least *userdata. */
static bool is_at_least(const void *value, size_t size, void *userdata)
{
	return size == 64 && *(const int64_t *)value >= *(int64_t *)userdata;
}

/* Locks when the value is at least `least`, and unlocks.  Result of the wait; -1 if the unlock
 * failed. */
static int await_value(ipc_shared *shared, int64_t least, const struct timespec *deadline)
{
	const void *value;
	int r;

	r = ipc_shared_lock_when_wait(shared, is_at_least, &least, &value, deadline);
	if (r >= 0 && ipc_shared_unlock(shared) != 0)
		return -1;
	return r;
}

static int await_in(ipc_shared *shared, int64_t least, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return await_value(shared, least, &deadline);
}

/* Result of the lock, or of what failed. */
static int set_value(ipc_shared *shared, int64_t number)
{
	const void *value;
	void *copy;
	int r, locked;

	locked = lock_in(shared, &value, LONG_MS);
	if (locked < 0)
		return locked;
	r = ipc_shared_edit(shared, &copy);
	if (r < 0)
		return r;
	memcpy(copy, &number, sizeof(number));
	r = ipc_shared_commit(shared);
	return r < 0 ? r : locked;
}

/* The value's first word, or a negative result; *ret_told is the lock's result. */
static int64_t get_value(ipc_shared *shared, int *ret_told)
{
	const void *value;
	int64_t number;
	int r;

	r = lock_in(shared, &value, LONG_MS);
	if (r < 0)
		return r;
	*ret_told = r;
	memcpy(&number, value, sizeof(number));
	r = ipc_shared_unlock(shared);
	return r < 0 ? r : number;
}

static void expect_value(ipc_shared *shared, int64_t number, int told)
{
	int got_told = -1;
	int64_t got = get_value(shared, &got_told);

	cr_expect_eq(got, number, "the value is %lld", (long long)got);
	cr_expect_eq(got_told, told, "the lock said %d", got_told);
}

static ipc_shared *side_new(enum ipc_side side, uint64_t flags)
{
	ipc_shared *shared = NULL;

	cr_assert_eq(open_side(&shared, client, side, IPC_CREATE | flags), 0);
	return shared;
}

/* ---- an actor with one handle that does what it is told ---- */

enum task {
	TASK_LOCK,   /* says the result; holds */
	TASK_EDIT,   /* lock and scribble into the edit; says the result; holds */
	TASK_AWAIT,  /* waits for a value of 1; says the result and lets go */
	TASK_SET,    /* commits 1; says the result of the lock */
	TASK_COMMIT, /* commit alone */
	TASK_UNLOCK,
	TASK_MARK,
	TASK_CLOSE,     /* says 0 */
	TASK_CLOSE_FDS, /* closes all descriptors of the process but its own; says 0 */
	TASK_EXEC,      /* runs another program instead of itself, without a word */
	TASK_END,
};

struct side {
	enum ipc_side side;
	uint64_t flags;
};

static int edit_torn(ipc_shared *shared)
{
	const void *value;
	void *copy;
	int r, locked;

	locked = lock_in(shared, &value, LONG_MS);
	if (locked < 0)
		return locked;
	r = ipc_shared_edit(shared, &copy);
	memset(copy, 0x7e, 64);
	return r < 0 ? r : locked;
}

static void close_fds_but(int fd)
{
	closefrom(fd + 1);
	for (int i = 3; i < fd; ++i)
		close(i);
}

static int64_t side_do(ipc_shared **shared, enum task task, int fd)
{
	const void *value;

	switch (task) {
	case TASK_LOCK:
		return lock_in(*shared, &value, LONG_MS);
	case TASK_EDIT:
		return edit_torn(*shared);
	case TASK_AWAIT:
		return await_value(*shared, 1, NULL);
	case TASK_SET:
		return set_value(*shared, 1);
	case TASK_COMMIT:
		return ipc_shared_commit(*shared);
	case TASK_UNLOCK:
		return ipc_shared_unlock(*shared);
	case TASK_MARK:
		return ipc_shared_mark_consistent(*shared);
	case TASK_CLOSE:
		*shared = ipc_shared_close(*shared);
		return 0;
	case TASK_CLOSE_FDS:
		close_fds_but(fd);
		return 0;
	case TASK_EXEC:
		execlp("sleep", "sleep", "1000", (char *)NULL);
		break;
	case TASK_END:
		break;
	}
	return -1;
}

static void side_run(struct actor *self, void *arg)
{
	const struct side *side = arg;
	ipc_client *own = domain_connect(&domain);
	ipc_shared *shared = NULL;

	actor_say(self, open_side(&shared, own, side->side, IPC_CREATE | side->flags));

	for (;;) {
		enum task task = (enum task)actor_hear(self);

		if (task == TASK_END)
			_exit(0);
		actor_say(self, side_do(&shared, task, self->fd));
	}
}

static void side_start(struct actor *actor, enum ipc_side side, uint64_t flags)
{
	struct side arg = {side, flags};

	actor_start(actor, side_run, &arg);
	cr_assert_eq(actor_hear(actor), 0);
}

static int64_t side_tell(struct actor *actor, enum task task)
{
	actor_say(actor, task);
	return actor_hear(actor);
}

/* Returns when it sleeps. */
static void side_begin(struct actor *actor, enum task task)
{
	actor_say(actor, task);
	actor_until_asleep(actor);
}

/* ---- value, lock, edit ---- */

/* S-2, S-6, S-11, M-71 */
Test(shared, commit_is_seen_by_the_other_side)
{
	static const unsigned char zeros[64];
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	const void *value;
	void *copy, *same;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_expect_arr_eq(value, zeros, sizeof(zeros));
	cr_expect_eq((uintptr_t)value % 64, 0);
	cr_assert_eq(ipc_shared_edit(a, &copy), 0);
	cr_expect_eq((uintptr_t)copy % 64, 0);
	memcpy(copy, "new", 4);
	cr_expect_eq(ipc_shared_edit(a, &same), 0);
	cr_expect_eq(same, copy);
	cr_expect_str_eq(value, "", "an edit is seen before its commit");
	cr_assert_eq(ipc_shared_commit(a), 0);

	cr_assert_eq(ipc_shared_lock_wait(b, &value, NULL), 0);
	cr_expect_str_eq(value, "new");
	cr_assert_eq(ipc_shared_edit(b, &copy), 0);
	memcpy(copy, "not", 4);
	cr_assert_eq(ipc_shared_unlock(b), 0);

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_expect_str_eq(value, "new", "an edit outlived its unlock");
	cr_assert_eq(ipc_shared_commit(a), 0, "a commit without edit is an unlock");

	ipc_shared_close(a);
	ipc_shared_close(b);
}

/* S-8 */
Test(shared, same_thread_twice_would_wait_for_itself)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	const void *value, *none = &value;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_expect_eq(ipc_shared_lock_wait(a, &none, NULL), IPC_EDEADLK);
	cr_expect_eq(ipc_shared_lock_wait(b, &none, NULL), IPC_EDEADLK);
	cr_expect_eq(await_value(a, 0, NULL), IPC_EDEADLK);
	cr_expect_eq(none, &value, "a failure wrote its result");
	cr_expect_eq(ipc_shared_unlock(b), IPC_EINVAL);
	cr_expect_eq(ipc_shared_unlock(a), 0);

	ipc_shared_close(a);
	ipc_shared_close(b);
}

static void expect_not_held(ipc_shared *shared)
{
	void *copy;

	cr_expect_eq(ipc_shared_edit(shared, &copy), IPC_EINVAL);
	cr_expect_eq(ipc_shared_commit(shared), IPC_EINVAL);
	cr_expect_eq(ipc_shared_unlock(shared), IPC_EINVAL);
	cr_expect_eq(ipc_shared_mark_consistent(shared), IPC_EINVAL);
}

static void *expect_not_held_here(void *arg)
{
	expect_not_held(arg);
	return NULL;
}

/* S-9, S-10, M-42 */
Test(shared, only_the_holding_thread_may_end_the_lock)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	const void *value;
	pthread_t thread;

	expect_not_held(a);
	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_expect_eq(ipc_shared_mark_consistent(a), IPC_EINVAL);
	cr_assert_eq(pthread_create(&thread, NULL, expect_not_held_here, a), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(ipc_shared_unlock(a), 0);
	expect_not_held(a);

	ipc_shared_close(a);
}

static void *lock_and_end(void *arg)
{
	const void *value;

	return (void *)(intptr_t)ipc_shared_lock_wait(arg, &value, NULL);
}

/* M-42 */
Test(shared, thread_that_ends_holding_counts_as_dead)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, lock_and_end, a), 0);
	cr_assert_eq(pthread_join(thread, &result), 0);
	cr_assert_eq((intptr_t)result, 0);

	expect_not_held(a);
	expect_value(a, 0, 1);
	expect_value(a, 0, 0);
	ipc_shared_close(a);
}

/* M-20, M-74 */
Test(shared, arguments_that_break_the_rules_are_refused)
{
	const struct timespec wrong = {0, 1000000000};
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	int64_t least = 0;
	const void *value;
	uint64_t id;

	cr_expect_eq(ipc_shared_lock_wait(NULL, &value, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_wait(a, NULL, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_wait(a, &value, &wrong), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_wait((ipc_shared *)&wrong, &value, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_when_wait(NULL, is_at_least, &least, &value, NULL),
		     IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_when_wait(a, NULL, &least, &value, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_when_wait(a, is_at_least, &least, NULL, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_lock_when_wait(a, is_at_least, &least, &value, &wrong), IPC_EINVAL);
	cr_expect_eq(ipc_shared_edit(NULL, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_commit(NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_unlock(NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_mark_consistent(NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_shutdown(NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_get_id(NULL, &id), IPC_EINVAL);
	cr_expect_eq(ipc_shared_get_id(a, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_cancel(NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_peers(NULL), IPC_EINVAL);
	cr_expect_null(ipc_shared_close(NULL));

	/* A past moment is one look. */
	cr_expect_eq(ipc_shared_lock_wait(a, &value, &past), 0);
	cr_expect_eq(ipc_shared_edit(a, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_shared_unlock(a), 0);
	cr_expect_eq(await_value(a, 1, &past), IPC_ETIMEDOUT);
	cr_expect_eq(await_value(a, 0, &past), 0);
	ipc_shared_close(a);
}

/* ---- opening ---- */

static int open_with(const struct ipc_shared_options *options, enum ipc_side side)
{
	struct timespec deadline = domain_deadline(LONG_MS);
	ipc_shared *shared = NULL;
	int r;

	r = ipc_shared_open_wait(&shared, client, "test/options", side, options, &deadline);
	cr_expect_eq(shared == NULL, r < 0);
	ipc_shared_close(shared);
	return r;
}

/* S-12, M-41, M-43, M-47, M-54, M-76 */
Test(shared, options_that_break_the_rules_are_refused)
{
	struct {
		struct ipc_shared_options known;
		uint64_t future;
	} longer = {.known = {.size = sizeof(longer), .flags = IPC_CREATE}, .future = 1};
	const struct ipc_shared_options none = {.size = 1};

	cr_expect_eq(open_with(NULL, 0), IPC_EINVAL);
	cr_expect_eq(open_with(NULL, 3), IPC_EINVAL);
	cr_expect_eq(open_with(NULL, IPC_SIDE_A), IPC_ENOENT);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_KEEP), IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREAT), IPC_SIDE_A), IPC_EINVAL);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_EXCLUSIVE), IPC_SIDE_A), IPC_EINVAL);
	cr_expect_eq(
		open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE | UINT64_C(1) << 40), IPC_SIDE_A),
		IPC_EINVAL);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .mode = 01000), IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .mode = 0620), IPC_SIDE_A),
		     IPC_EACCES);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .mode = 0602), IPC_SIDE_A),
		     IPC_EACCES);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE,
						  .value_size = IPC_VALUE_SIZE_MAX + 1),
			       IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = UINT64_MAX),
			       IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_eq(open_with(&longer.known, IPC_SIDE_A), IPC_E2BIG);
	cr_expect_eq(open_with(&none, IPC_SIDE_A), IPC_EINVAL);
	longer.future = 0;
	cr_expect_eq(open_with(&longer.known, IPC_SIDE_A), 0);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_EXCLUSIVE | IPC_STAY,
						  .mode = 0600),
			       IPC_SIDE_B),
		     0);
}

static bool size_is(const void *value, size_t size, void *userdata)
{
	(void)value;
	return size == *(size_t *)userdata;
}

static void expect_size(ipc_shared *shared, size_t size)
{
	const void *value;

	cr_expect_eq(ipc_shared_lock_when_wait(shared, size_is, &size, &value, &past), 0);
	cr_expect_eq(ipc_shared_unlock(shared), 0);
}

/* S-3, M-43 */
Test(shared, shape_is_the_creators)
{
	ipc_shared *small = NULL, *again = NULL, *standard = NULL;

	cr_assert_eq(
		ipc_shared_open_wait(&small, client, "test/options", IPC_SIDE_A,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_SHARED_IN_PLACE,
							.value_size = 1),
				     NULL),
		0);
	cr_assert_eq(ipc_shared_open_wait(&standard, client, "test/standard", IPC_SIDE_A,
					  IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);

	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.value_size = 2), IPC_SIDE_B), IPC_EPROTOTYPE);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.value_size = 1), IPC_SIDE_B), 0);
	cr_expect_eq(open_with(IPC_SHARED_OPTIONS(.flags = IPC_SHARED_IN_PLACE), IPC_SIDE_B), 0);
	cr_expect_eq(ipc_shared_open_wait(&again, client, "test/standard", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.flags = IPC_SHARED_IN_PLACE), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_shared_open_wait(&again, client, "test/options", IPC_SIDE_B, NULL, NULL),
		     0);

	expect_size(small, 1);
	expect_size(again, 1);
	expect_size(standard, 4096);
	ipc_shared_close(again);
	ipc_shared_close(small);
	ipc_shared_close(standard);
}

/* M-3, M-23, M-32 */
Test(shared, sides_count_each_other)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b, *more;
	struct timespec deadline;
	uint64_t id = 0, other = 0;

	cr_expect_eq(ipc_shared_peers(a), 0);
	deadline = domain_deadline(1);
	cr_expect_eq(ipc_shared_peers_wait(a, true, &deadline), IPC_ETIMEDOUT);
	b = side_new(IPC_SIDE_B, 0);
	more = side_new(IPC_SIDE_B, 0);
	cr_expect_eq(ipc_shared_peers_wait(a, true, NULL), 0);
	cr_expect_eq(ipc_shared_peers(a), 2);
	cr_expect_eq(ipc_shared_peers(b), 1);

	cr_expect_eq(ipc_shared_get_id(a, &id), 0);
	cr_expect_eq(ipc_shared_get_id(b, &other), 0);
	cr_expect_neq(id, other);
	cr_expect_eq(ipc_client_is_alive(client, other), 1);
	ipc_shared_close(b);
	ipc_shared_close(more);
	cr_expect_eq(ipc_shared_peers_wait(a, false, NULL), 0);
	cr_expect_eq(ipc_client_is_alive(client, other), 0);
	ipc_shared_close(a);
}

/* ---- a holder's death ---- */

static void expect_death_told_once(void (*end)(struct actor *actor))
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	struct actor a;

	cr_assert_eq(set_value(b, 7), 0);
	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	end(&a);

	expect_value(b, 7, 1);
	expect_value(b, 7, 0);
	cr_expect_eq(set_value(b, 8), 0);
	expect_value(b, 8, 0);
	if (a.fd >= 0)
		actor_kill(&a);
	ipc_shared_close(b);
}

static void end_by_kill(struct actor *actor)
{
	actor_kill(actor);
}

static void end_by_exit(struct actor *actor)
{
	actor_say(actor, TASK_END);
	cr_assert_eq(actor_join(actor), 0);
}

static void end_by_exec(struct actor *actor)
{
	actor_say(actor, TASK_EXEC);
}

/* S-1, S-2, M-25 */
Test(shared, killed_holder_leaves_the_last_commit)
{
	expect_death_told_once(end_by_kill);
}

/* S-1, M-24 */
Test(shared, holder_that_exits_leaves_the_last_commit)
{
	expect_death_told_once(end_by_exit);
}

/* S-1, M-24 */
Test(shared, holder_that_executes_leaves_the_last_commit)
{
	expect_death_told_once(end_by_exec);
}

/* S-1, M-33: the death of the opposite side ends no lock wait, and gives the lock. */
Test(shared, lock_wait_gets_the_lock_of_a_dying_holder)
{
	struct actor a, b;

	side_start(&a, IPC_SIDE_A, 0);
	side_start(&b, IPC_SIDE_B, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	side_begin(&b, TASK_LOCK);
	actor_kill(&a);
	cr_expect_eq(actor_hear(&b), 1);
	cr_expect_eq(side_tell(&b, TASK_UNLOCK), 0);
	cr_expect_eq(side_tell(&b, TASK_LOCK), 0,
		     "a lock wait says that the opposite side is gone");
	actor_kill(&b);
}

/* M-24: a stopped process is alive, and holds what it holds. */
Test(shared, stopped_holder_is_alive)
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	const void *value;
	struct actor a;

	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	cr_assert_eq(kill(a.pid, SIGSTOP), 0);
	cr_expect_eq(lock_in(b, &value, 250), IPC_ETIMEDOUT);
	cr_expect_eq(await_in(b, 1, 20), IPC_ETIMEDOUT);
	cr_assert_eq(kill(a.pid, SIGCONT), 0);
	cr_expect_eq(side_tell(&a, TASK_COMMIT), 0);
	cr_expect_eq(await_in(b, 1, LONG_MS), 0);

	actor_kill(&a);
	ipc_shared_close(b);
}

/* ---- waiting for a predicate ---- */

/* S-4, S-6 */
Test(shared, commit_wakes_who_waits_for_it)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct actor b[2];

	for (unsigned i = 0; i < 2; ++i) {
		side_start(&b[i], i ? IPC_SIDE_A : IPC_SIDE_B, 0);
		side_begin(&b[i], TASK_AWAIT);
	}
	cr_expect_eq(set_value(a, 1), 0);
	for (unsigned i = 0; i < 2; ++i) {
		cr_expect_eq(actor_hear(&b[i]), 0);
		actor_kill(&b[i]);
	}
	ipc_shared_close(a);
}

/* S-4, M-21: what was committed before the death is delivered. */
Test(shared, predicate_that_holds_wins_over_the_end)
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	struct actor a;

	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_SET), 0);
	actor_kill(&a);
	cr_assert_eq(ipc_shared_peers_wait(b, false, NULL), 0);
	cr_expect_eq(await_in(b, 1, LONG_MS), 0);
	cr_expect_eq(await_in(b, 2, LONG_MS), IPC_EOWNERDEAD);
	ipc_shared_close(b);
}

/* S-5, M-22 */
Test(shared, wait_for_a_predicate_ends_with_the_opposite_side)
{
	struct actor a, b;
	ipc_shared *other;

	side_start(&a, IPC_SIDE_A, 0);
	side_start(&b, IPC_SIDE_B, 0);
	side_begin(&b, TASK_AWAIT);
	actor_kill(&a);
	cr_expect_eq(actor_hear(&b), IPC_EOWNERDEAD);
	cr_expect_eq(side_tell(&b, TASK_UNLOCK), IPC_EINVAL, "an end holds the lock");
	cr_expect_eq(side_tell(&b, TASK_AWAIT), IPC_EOWNERDEAD,
		     "a call that begins while the side is gone");

	side_start(&a, IPC_SIDE_A, 0);
	side_begin(&b, TASK_AWAIT);
	cr_expect_eq(side_tell(&a, TASK_CLOSE), 0);
	cr_expect_eq(actor_hear(&b), IPC_EPIPE);
	actor_kill(&a);

	other = side_new(IPC_SIDE_A, 0);
	side_begin(&b, TASK_AWAIT);
	cr_expect_eq(set_value(other, 1), 0);
	cr_expect_eq(actor_hear(&b), 0);
	ipc_shared_close(other);
	actor_kill(&b);
}

/* S-5, M-22: awaited never ends a wait, and one of several is not the side. */
Test(shared, awaited_side_and_one_of_several_end_nothing)
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	struct actor first, second;

	cr_expect_eq(await_in(b, 1, 20), IPC_ETIMEDOUT);
	side_start(&first, IPC_SIDE_A, 0);
	side_start(&second, IPC_SIDE_A, 0);
	actor_kill(&first);
	cr_expect_eq(await_in(b, 1, 150), IPC_ETIMEDOUT);
	actor_kill(&second);
	cr_expect_eq(await_in(b, 1, LONG_MS), IPC_EOWNERDEAD);
	ipc_shared_close(b);
}

/* S-5, M-22: IPC_STAY */
Test(shared, handle_that_stays_is_not_ended_by_absence)
{
	struct actor a, b;

	side_start(&b, IPC_SIDE_B, IPC_STAY);
	side_start(&a, IPC_SIDE_A, 0);
	side_begin(&b, TASK_AWAIT);
	actor_kill(&a);
	side_start(&a, IPC_SIDE_A, 0);
	cr_expect_eq(side_tell(&a, TASK_SET), 0);
	cr_expect_eq(actor_hear(&b), 0, "absence ended a wait");
	actor_kill(&a);
	actor_kill(&b);
}

/* M-22: ends are counted; a side that is there again when the waiter looks has ended all the same.
 */
Test(shared, end_is_told_although_the_side_is_back)
{
	ipc_shared *watcher = side_new(IPC_SIDE_B, 0);
	struct actor a, b;
	int status;

	side_start(&a, IPC_SIDE_A, 0);
	side_start(&b, IPC_SIDE_B, 0);
	side_begin(&b, TASK_AWAIT);
	cr_assert_eq(kill(b.pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(b.pid, &status, WUNTRACED), b.pid);
	actor_kill(&a);
	cr_assert_eq(ipc_shared_peers_wait(watcher, false, NULL), 0);
	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(kill(b.pid, SIGCONT), 0);
	cr_expect_eq(actor_hear(&b), IPC_EOWNERDEAD);
	cr_expect_eq(await_in(watcher, 1, 20), IPC_ETIMEDOUT, "the side is present");

	actor_kill(&a);
	actor_kill(&b);
	ipc_shared_close(watcher);
}

struct calls {
	ipc_shared *shared;
	uint64_t id;
	int r[5];
	int is_alive;
	unsigned n;
};

static bool call_the_library(const void *value, size_t size, void *userdata)
{
	struct calls *calls = userdata;
	const void *other;
	void *copy;

	(void)value;
	(void)size;
	++calls->n;
	calls->r[0] = ipc_shared_lock_wait(calls->shared, &other, NULL);
	calls->r[1] = ipc_shared_edit(calls->shared, &copy);
	calls->r[2] = ipc_shared_commit(calls->shared);
	calls->r[3] = ipc_shared_unlock(calls->shared);
	calls->r[4] = ipc_shared_peers(calls->shared);
	calls->is_alive = ipc_client_is_alive(client, calls->id);
	return true;
}

/* M-42 */
Test(shared, predicate_must_not_call_the_library)
{
	struct calls calls = {.shared = side_new(IPC_SIDE_A, 0)};
	const void *value;

	cr_assert_eq(ipc_shared_get_id(calls.shared, &calls.id), 0);
	cr_expect_eq(
		ipc_shared_lock_when_wait(calls.shared, call_the_library, &calls, &value, NULL), 0);
	for (unsigned i = 0; i < 5; ++i)
		cr_expect_eq(calls.r[i], IPC_EDEADLK, "call %u said %s", i,
			     ipc_error_name(calls.r[i]));
	cr_expect_eq(calls.is_alive, 1);
	cr_expect_eq(calls.n, 1);
	cr_expect_eq(ipc_shared_unlock(calls.shared), 0, "a refused call let go of the lock");
	ipc_shared_close(calls.shared);
}

/* S-7: the value is a queue of one; the requester finds its entry still there when the last handler
 * goes. */
Test(shared, requester_withdraws_when_the_last_handler_goes)
{
	ipc_shared *requester = side_new(IPC_SIDE_A, 0);
	struct actor handler;
	uint64_t id = 0;

	side_start(&handler, IPC_SIDE_B, IPC_STAY);
	cr_assert_eq(ipc_shared_peers_wait(requester, true, NULL), 0);
	cr_assert_eq(ipc_shared_get_id(requester, &id), 0);
	cr_assert_eq(set_value(requester, (int64_t)id), 0);
	actor_kill(&handler);
	cr_expect_eq(await_in(requester, INT64_MAX, LONG_MS), IPC_EOWNERDEAD);
	expect_value(requester, (int64_t)id, 0);
	cr_expect_eq(ipc_client_is_alive(client, id), 1);
	ipc_shared_close(requester);
	cr_expect_eq(ipc_client_is_alive(client, id), 0);
}

/* S-12 */
Test(shared, shutdown_ends_predicates_for_both_sides_and_lets_them_drain)
{
	ipc_shared *a = side_new(IPC_SIDE_A, IPC_STAY);
	struct actor b;

	side_start(&b, IPC_SIDE_B, IPC_STAY);
	side_begin(&b, TASK_AWAIT);
	cr_expect_eq(ipc_shared_shutdown(a), 0);
	cr_expect_eq(actor_hear(&b), IPC_EPIPE);
	cr_expect_eq(await_in(a, 1, LONG_MS), IPC_EPIPE);
	cr_expect_eq(side_tell(&b, TASK_SET), 0);
	cr_expect_eq(await_in(a, 1, LONG_MS), 0, "a predicate that holds wins");
	expect_value(a, 1, 0);
	cr_expect_eq(ipc_shared_shutdown(a), 0);
	actor_kill(&b);
	ipc_shared_close(a);
}

/* ---- in place ---- */

static void repair(ipc_shared *shared)
{
	void *memory;

	cr_assert_eq(ipc_shared_edit(shared, &memory), 0);
	memset(memory, 0, 64);
	cr_expect_eq(ipc_shared_mark_consistent(shared), 0);
	cr_expect_eq(ipc_shared_mark_consistent(shared), IPC_EINVAL,
		     "there is nothing left to mark");
}

/* S-3, S-10 */
Test(shared, in_place_edits_are_the_value)
{
	ipc_shared *a = side_new(IPC_SIDE_A, IPC_SHARED_IN_PLACE), *b = side_new(IPC_SIDE_B, 0);
	const void *value;
	void *memory;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_assert_eq(ipc_shared_edit(a, &memory), 0);
	cr_expect_eq(memory, value);
	memcpy(memory, "kept", 5);
	cr_expect_eq(ipc_shared_mark_consistent(a), IPC_EINVAL);
	cr_expect_eq(ipc_shared_unlock(a), 0);

	cr_assert_eq(ipc_shared_lock_wait(b, &value, NULL), 0);
	cr_expect_str_eq(value, "kept");
	cr_expect_eq(ipc_shared_commit(b), 0);
	ipc_shared_close(a);
	ipc_shared_close(b);
}

/* S-3, S-10 */
Test(shared, in_place_a_death_is_marked_by_the_next)
{
	ipc_shared *b = side_new(IPC_SIDE_B, IPC_SHARED_IN_PLACE);
	const void *value;
	struct actor a;

	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	actor_kill(&a);
	cr_assert_eq(lock_in(b, &value, LONG_MS), 1);
	cr_expect_eq(*(const unsigned char *)value, 0x7e,
		     "a half-made value is not what its holder left");
	repair(b);
	cr_expect_eq(ipc_shared_commit(b), 0);
	expect_value(b, 0, 0);
	ipc_shared_close(b);
}

/* S-3: told, and dead before the mark or after it. */
Test(shared, in_place_death_of_the_one_that_was_told_is_told_again)
{
	ipc_shared *b = side_new(IPC_SIDE_B, IPC_SHARED_IN_PLACE);
	const void *value;
	struct actor a;

	for (int marks = 0; marks < 2; ++marks) {
		side_start(&a, IPC_SIDE_A, 0);
		cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
		actor_kill(&a);
		side_start(&a, IPC_SIDE_A, 0);
		cr_assert_eq(side_tell(&a, TASK_LOCK), 1);
		if (marks)
			cr_assert_eq(side_tell(&a, TASK_MARK), 0);
		actor_kill(&a);
		cr_assert_eq(lock_in(b, &value, LONG_MS), 1);
		repair(b);
		cr_expect_eq(ipc_shared_unlock(b), 0);
		expect_value(b, 0, 0);
	}
	ipc_shared_close(b);
}

static unsigned n_asked;

static bool count_asked(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	++n_asked;
	return false;
}

/* S-10 */
Test(shared, in_place_a_death_comes_before_the_predicate)
{
	ipc_shared *b = side_new(IPC_SIDE_B, IPC_SHARED_IN_PLACE);
	const void *value;
	struct actor a;

	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	actor_kill(&a);
	cr_assert_eq(ipc_shared_peers_wait(b, false, NULL), 0);
	cr_assert_eq(ipc_shared_lock_when_wait(b, count_asked, NULL, &value, NULL), 1);
	cr_expect_eq(n_asked, 0);
	repair(b);
	cr_expect_eq(ipc_shared_unlock(b), 0);
	cr_expect_eq(ipc_shared_lock_when_wait(b, count_asked, NULL, &value, NULL), IPC_EOWNERDEAD);
	cr_expect_eq(n_asked, 2, "before the end was looked at, and after");
	ipc_shared_close(b);
}

/* S-3, S-9, S-10, M-61 */
Test(shared, in_place_without_the_mark_everybody_gives_up)
{
	ipc_shared *a = side_new(IPC_SIDE_A, IPC_SHARED_IN_PLACE), *late = NULL;
	struct actor dying, b, waiting;
	const void *value;

	side_start(&b, IPC_SIDE_B, 0);
	side_start(&waiting, IPC_SIDE_B, 0);
	side_start(&dying, IPC_SIDE_B, 0);
	cr_assert_eq(side_tell(&dying, TASK_EDIT), 0);
	actor_kill(&dying);
	cr_assert_eq(lock_in(a, &value, LONG_MS), 1);
	side_begin(&b, TASK_LOCK);
	side_begin(&waiting, TASK_AWAIT);

	cr_expect_eq(ipc_shared_commit(a), IPC_ENOTRECOVERABLE);
	cr_expect_eq(actor_hear(&b), IPC_ENOTRECOVERABLE);
	cr_expect_eq(actor_hear(&waiting), IPC_ENOTRECOVERABLE);
	expect_not_held(a);
	cr_expect_eq(ipc_shared_lock_wait(a, &value, NULL), IPC_ENOTRECOVERABLE);
	cr_expect_eq(await_value(a, 0, NULL), IPC_ENOTRECOVERABLE);
	cr_expect_eq(ipc_shared_shutdown(a), IPC_ENOTRECOVERABLE);

	/* Whoever comes later hears it too, at the latest with its first lock. */
	if (open_side(&late, client, IPC_SIDE_B, 0) == 0)
		cr_expect_eq(ipc_shared_lock_wait(late, &value, NULL), IPC_ENOTRECOVERABLE);
	ipc_shared_close(late);
	actor_kill(&b);
	actor_kill(&waiting);
	ipc_shared_close(a);
}

/* ---- cancel, signals, close, fork ---- */

struct call {
	ipc_shared *shared;
	bool for_predicate;
	int r;
	pthread_t thread;
	_Atomic pid_t tid;
};

static void *call_run(void *arg)
{
	struct call *call = arg;
	const void *value;

	call->tid = gettid();
	call->r = call->for_predicate ? await_value(call->shared, 1, NULL)
				      : ipc_shared_lock_wait(call->shared, &value, NULL);
	if (!call->for_predicate && call->r >= 0 && ipc_shared_unlock(call->shared) < 0)
		call->r = -1;
	return NULL;
}

static void call_start(struct call *call, ipc_shared *shared, bool for_predicate)
{
	*call = (struct call){.shared = shared, .for_predicate = for_predicate, .r = 1000};
	cr_assert_eq(pthread_create(&call->thread, NULL, call_run, call), 0);
}

static void call_until_asleep(struct call *call)
{
	while (!call->tid)
		process_pause();
	process_until_asleep(call->tid, 1);
}

static int call_end(struct call *call)
{
	cr_assert_eq(pthread_join(call->thread, NULL), 0);
	return call->r;
}

/* M-28 */
Test(shared, cancel_ends_waits_and_nothing_else)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct call for_value, for_lock;
	const void *value;
	void *copy;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	call_start(&for_value, a, true);
	call_start(&for_lock, a, false);
	call_until_asleep(&for_value);
	call_until_asleep(&for_lock);
	cr_expect_eq(ipc_shared_cancel(a), 0);
	cr_expect_eq(call_end(&for_value), IPC_ECANCELED);
	cr_expect_eq(call_end(&for_lock), IPC_ECANCELED);

	cr_expect_eq(ipc_shared_edit(a, &copy), 0);
	memcpy(copy, "\1", 1);
	cr_expect_eq(ipc_shared_commit(a), 0);
	cr_expect_eq(await_in(a, 2, LONG_MS), IPC_ECANCELED);
	ipc_shared_close(a);
}

/* M-28 */
Test(shared, cancel_of_the_client_reaches_its_handles)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct call call;

	call_start(&call, a, true);
	call_until_asleep(&call);
	cr_expect_eq(ipc_client_cancel(client), 0);
	cr_expect_eq(call_end(&call), IPC_ECANCELED);
	ipc_shared_close(a);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void handle_signal(int signal, int flags)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};

	cr_assert_eq(sigaction(signal, &action, NULL), 0);
}

/* M-21 */
Test(shared, signals_end_waits_for_predicates_and_never_for_the_lock)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct call for_value, for_lock;
	const void *value;

	handle_signal(SIGUSR1, 0);
	handle_signal(SIGUSR2, SA_RESTART);

	call_start(&for_value, a, true);
	call_until_asleep(&for_value);
	cr_assert_eq(pthread_kill(for_value.thread, SIGUSR2), 0);
	call_until_asleep(&for_value);
	cr_assert_eq(pthread_kill(for_value.thread, SIGUSR1), 0);
	cr_expect_eq(call_end(&for_value), IPC_EINTR);

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	call_start(&for_lock, a, false);
	call_until_asleep(&for_lock);
	cr_assert_eq(pthread_kill(for_lock.thread, SIGUSR1), 0);
	call_until_asleep(&for_lock);
	cr_expect_eq(ipc_shared_unlock(a), 0);
	cr_expect_eq(call_end(&for_lock), 0);
	ipc_shared_close(a);
}

/* S-8, M-44, M-70 */
Test(shared, close_lets_go_without_a_commit)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	const void *value;
	void *copy;

	cr_assert_eq(set_value(a, 5), 0);
	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_assert_eq(ipc_shared_edit(a, &copy), 0);
	memset(copy, 0x7e, 64);
	cr_expect_null(ipc_shared_close(a));
	expect_value(b, 5, 0);
	ipc_shared_close(b);
}

/* M-44 */
Test(shared, close_ends_waits_of_other_threads)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	struct call for_value, for_lock;
	const void *value;

	cr_assert_eq(ipc_shared_lock_wait(b, &value, NULL), 0);
	call_start(&for_value, a, true);
	call_start(&for_lock, a, false);
	call_until_asleep(&for_value);
	call_until_asleep(&for_lock);
	ipc_shared_close(a);
	cr_expect_eq(call_end(&for_value), IPC_ECANCELED);
	cr_expect_eq(call_end(&for_lock), IPC_ECANCELED);
	cr_expect_eq(ipc_shared_unlock(b), 0);
	ipc_shared_close(b);
}

struct keeper {
	ipc_shared *shared;
	pthread_barrier_t step;
};

static void *keep_lock(void *arg)
{
	struct keeper *keeper = arg;
	const void *value;
	intptr_t r = ipc_shared_lock_wait(keeper->shared, &value, NULL);

	(void)pthread_barrier_wait(&keeper->step);
	(void)pthread_barrier_wait(&keeper->step); /* the handle is closed now */
	return (void *)(r + *(const volatile unsigned char *)value);
}

/* M-44: the C library keeps a list through the locks that a thread holds, so what it holds stays
 * mapped. */
static void close_under_a_holding_thread(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	struct keeper keeper;
	pthread_t thread;
	void *result = NULL;

	(void)arg;
	if (open_side(&keeper.shared, own, IPC_SIDE_A, IPC_CREATE) < 0 ||
	    pthread_barrier_init(&keeper.step, NULL, 2) ||
	    pthread_create(&thread, NULL, keep_lock, &keeper))
		_exit(1);
	(void)pthread_barrier_wait(&keeper.step);
	ipc_shared_close(keeper.shared);
	(void)pthread_barrier_wait(&keeper.step);
	(void)pthread_join(thread, &result);
	actor_say(self, (intptr_t)result);
}

/* M-42, M-44 */
Test(shared, close_under_a_thread_that_holds_is_safe)
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	struct actor a;

	actor_start(&a, close_under_a_holding_thread, NULL);
	cr_expect_eq(actor_hear(&a), 0);
	cr_expect_eq(actor_join(&a), 0);
	expect_value(b, 0, 1);
	ipc_shared_close(b);
}

static int64_t fork_and_try(ipc_shared *shared)
{
	const void *value;
	void *copy;
	uint64_t id;
	pid_t pid;

	pid = process_fork();
	if (pid == 0) {
		bool refused = ipc_shared_lock_wait(shared, &value, NULL) == IPC_ECHILD &&
			       ipc_shared_edit(shared, &copy) == IPC_ECHILD &&
			       ipc_shared_commit(shared) == IPC_ECHILD &&
			       ipc_shared_unlock(shared) == IPC_ECHILD &&
			       await_value(shared, 0, NULL) == IPC_ECHILD &&
			       ipc_shared_mark_consistent(shared) == IPC_ECHILD &&
			       ipc_shared_shutdown(shared) == IPC_ECHILD &&
			       ipc_shared_peers(shared) == IPC_ECHILD &&
			       ipc_shared_get_id(shared, &id) == IPC_ECHILD;

		ipc_shared_close(shared);
		_exit(refused ? 0 : 1);
	}
	return process_reap(pid, LONG_MS);
}

/* S-8, M-24, M-42 */
Test(shared, forked_child_has_no_part_in_the_lock)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	const void *value;
	void *copy;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_assert_eq(ipc_shared_edit(a, &copy), 0);
	memcpy(copy, "\3\0\0\0\0\0\0\0", 8);
	cr_expect_eq(fork_and_try(a), 0);
	cr_expect_eq(ipc_shared_peers(b), 1, "the child's close closed the parent's handle");
	cr_expect_eq(ipc_shared_commit(a), 0);
	expect_value(b, 3, 0);
	ipc_shared_close(a);
	ipc_shared_close(b);
}

/* S-9, M-24: who closed the library's descriptors is dead for the domain, lives, and lets go of its
 * lock. */
Test(shared, refused_commit_of_a_stale_client_lets_go)
{
	ipc_shared *b = side_new(IPC_SIDE_B, 0);
	struct actor a;

	side_start(&a, IPC_SIDE_A, 0);
	cr_assert_eq(side_tell(&a, TASK_EDIT), 0);
	cr_assert_eq(side_tell(&a, TASK_CLOSE_FDS), 0);
	cr_assert_eq(ipc_shared_peers_wait(b, false, NULL), 0);
	cr_expect_eq(await_in(b, 1, 20), IPC_ETIMEDOUT, "it lives, and holds the lock");
	cr_expect_eq(side_tell(&a, TASK_COMMIT), IPC_ESTALE);
	expect_value(b, 0, 0);
	actor_kill(&a);
	ipc_shared_close(b);
}

/* ---- the broker ---- */

/* M-4, M-6, M-31 */
Test(shared, death_of_the_worker_is_not_noticed)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct actor b;

	side_start(&b, IPC_SIDE_B, 0);
	side_begin(&b, TASK_AWAIT);
	domain_kill_worker(&domain);
	cr_expect_eq(set_value(a, 1), 0);
	cr_expect_eq(actor_hear(&b), 0);

	cr_expect_eq(set_value(a, 0), 0);
	side_begin(&b, TASK_AWAIT);
	domain_kill_worker(&domain);
	ipc_shared_close(a);
	cr_expect_eq(actor_hear(&b), IPC_EPIPE);
	actor_kill(&b);
}

static void outlive_the_broker(struct actor *self, void *arg)
{
	const struct ipc_client_options *options =
		IPC_CLIENT_OPTIONS(.address = domain.address, .grace_ns = 50000000);
	ipc_client *own = NULL;
	ipc_shared *a = NULL, *b = NULL;

	(void)arg;
	actor_say(self, ipc_client_connect_wait(&own, options, NULL));
	actor_say(self, open_side(&a, own, IPC_SIDE_A, IPC_CREATE));
	actor_say(self, open_side(&b, own, IPC_SIDE_B, IPC_CREATE));
	(void)actor_hear(self);
	actor_say(self, set_value(a, 1));
	actor_say(self, await_value(b, 1, NULL));
	actor_say(self, await_value(b, 2, NULL));
	actor_say(self, set_value(b, 2));
	actor_say(self, await_value(a, 2, NULL));
	_exit(0);
}

/* M-6 */
Test(shared, data_flows_on_without_any_broker)
{
	struct actor actor;

	actor_start(&actor, outlive_the_broker, NULL);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(actor_hear(&actor), 0);
	client = ipc_client_unref(client);
	domain_kill(&domain);
	actor_say(&actor, 0);
	cr_expect_eq(actor_hear(&actor), 0);
	cr_expect_eq(actor_hear(&actor), 0);
	cr_expect_eq(actor_hear(&actor), IPC_ECONNRESET);
	cr_expect_eq(actor_hear(&actor), 0, "a call that need not wait");
	cr_expect_eq(actor_hear(&actor), 0, "a condition that holds");
	cr_expect_eq(actor_join(&actor), 0);

	domain_start(&domain, NULL);
}

/* M-60, M-61: the memory under the value is the channel's; somebody wrote over the lock. */
Test(shared, lock_that_is_none_breaks_the_channel_for_everybody)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, 0);
	struct timespec deadline = domain_deadline(LONG_MS);
	struct actor waiting;
	const void *value;

	side_start(&waiting, IPC_SIDE_B, 0);
	side_begin(&waiting, TASK_AWAIT);
	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_assert_eq(ipc_shared_unlock(a), 0);
	memset((unsigned char *)(uintptr_t)value - 448 + 256, 0xa5, 64);

	cr_expect_eq(ipc_shared_lock_wait(a, &value, NULL), IPC_EBADMSG);
	cr_expect_eq(actor_hear(&waiting), IPC_EBADMSG);
	cr_expect_eq(ipc_shared_lock_wait(b, &value, NULL), IPC_EBADMSG);
	cr_expect_eq(await_value(b, 0, NULL), IPC_EBADMSG);
	cr_expect_eq(ipc_channel_remove_wait(client, "test/shared", 0, &deadline), 0,
		     "a broken channel can be removed");
	actor_kill(&waiting);
	ipc_shared_close(a);
	ipc_shared_close(b);
}

/* M-48, M-22: a removed channel works on among its handles; its end is final, also for who stays.
 */
Test(shared, removed_channel_ends_with_its_handles)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0), *b = side_new(IPC_SIDE_B, IPC_STAY);
	struct timespec deadline = domain_deadline(LONG_MS);

	cr_assert_eq(ipc_channel_remove_wait(client, "test/shared", 0, &deadline), 0);
	cr_expect_eq(set_value(a, 1), 0);
	cr_expect_eq(await_in(b, 1, LONG_MS), 0);
	ipc_shared_close(a);
	cr_expect_eq(await_in(b, 2, LONG_MS), IPC_EPIPE);
	ipc_shared_close(b);
}

/* M-45, D5: people see who holds the lock. */
Test(shared, holder_is_listed)
{
	ipc_shared *a = side_new(IPC_SIDE_A, 0);
	struct ipc_channel_info info = {.size = sizeof(info)};
	struct timespec deadline = domain_deadline(LONG_MS);
	const void *value;
	uint64_t id = 0;

	cr_assert_eq(ipc_shared_get_id(a, &id), 0);
	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	cr_assert_eq(ipc_channel_info_wait(client, "test/shared", &info, &deadline), 0);
	cr_expect_eq(info.kind, IPC_KIND_SHARED);
	cr_expect_eq(info.item_size_max, 64);
	cr_expect_eq(info.handles[0], 1);
	cr_expect_eq(info.handles[1], 0);
	cr_expect_eq(ipc_shared_unlock(a), 0);
	ipc_shared_close(a);
}
