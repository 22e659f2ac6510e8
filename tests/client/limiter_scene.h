/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_LIMITER_SCENE_H
#define TESTS_CLIENT_LIMITER_SCENE_H

/*
 * What the tests of the kind `limiter` through the public interface share: short forms of the
 * calls, and other processes that do with a handle of theirs what they are told.
 */

#include <criterion/criterion.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/wakes.h"

#define NAME      "test/limiter"
#define OTHER_UID 61001 /* nobody's */
#define MS        UINT64_C(1000000)

static inline int limiter_open(ipc_limiter **ret, ipc_client *by, const char *name,
			       struct ipc_limiter_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_limiter_open_wait(ret, by, name, &options, &deadline);
}

static inline ipc_limiter *limiter_new_with(struct ipc_limiter_options options)
{
	ipc_limiter *limiter = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = limiter_open(&limiter, fixture_client, NAME, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return limiter;
}

#define LIMITER_NEW(...) limiter_new_with((struct ipc_limiter_options){__VA_ARGS__})

/* ---- short forms; nothing here asserts ---- */

static inline int acquire(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret)
{
	return ipc_limiter_acquire(limiter, permits, ret);
}

static inline int acquire_in(ipc_limiter *limiter, uint32_t permits, unsigned ms,
			     struct ipc_limiter_grant *ret)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_limiter_acquire_wait(limiter, permits, ret, &deadline);
}

static inline int release(ipc_limiter *limiter, const struct ipc_limiter_grant *grant)
{
	return ipc_limiter_release(limiter, grant, false);
}

static inline struct ipc_limiter_state state_of(ipc_limiter *limiter)
{
	struct ipc_limiter_state state = {.size = sizeof(state)};

	if (ipc_limiter_get_state(limiter, &state) < 0)
		state.n_free = state.n_held = state.n_waiting = UINT32_MAX;
	return state;
}

static inline void until_waiting(ipc_limiter *limiter, uint32_t n)
{
	struct timespec deadline = process_deadline(WAIT_MS);

	while (state_of(limiter).n_waiting != n && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(state_of(limiter).n_waiting, n, "%u wait", state_of(limiter).n_waiting);
}

/* ---- another process ---- */

enum order {
	ORDER_ACQUIRE,      /* permits */
	ORDER_ACQUIRE_WAIT, /* permits, for WAIT_MS */
	ORDER_RELEASE,      /* the last grant */
	ORDER_RELEASE_OURS, /* the grant whose id is given: the test's own */
	ORDER_ID,
	ORDER_CLOSE,
	ORDER_CLOSE_FDS, /* as a daemon does that was told nothing */
};

struct caller_plan {
	const char *name;
	uint32_t uid; /* 0: as it is */
	uint64_t flags;
};

static inline void caller_become(uint32_t uid)
{
	if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
		process_end(2);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static inline int64_t caller_do(ipc_limiter **limiter, enum order order, int64_t argument,
				struct ipc_limiter_grant *last)
{
	struct ipc_limiter_grant ours = {.id = (uint64_t)argument, .permits = 1};
	uint64_t id;
	int r;

	switch (order) {
	case ORDER_ACQUIRE:
		return acquire(*limiter, (uint32_t)argument, last);
	case ORDER_ACQUIRE_WAIT:
		return acquire_in(*limiter, (uint32_t)argument, WAIT_MS, last);
	case ORDER_RELEASE:
		return release(*limiter, last);
	case ORDER_RELEASE_OURS:
		return release(*limiter, &ours);
	case ORDER_ID:
		r = ipc_limiter_get_id(*limiter, &id);
		return r < 0 ? r : (int64_t)id;
	case ORDER_CLOSE:
		*limiter = ipc_limiter_close(*limiter);
		return 0;
	case ORDER_CLOSE_FDS:
		return 0;
	}
	return INT64_MIN;
}

static inline void caller_run(struct actor *self, void *arg)
{
	const struct caller_plan *plan = arg;
	struct ipc_limiter_grant last = {0};
	ipc_limiter *limiter = NULL;

	if (plan->uid)
		caller_become(plan->uid);
	actor_say(self, limiter_open(&limiter, domain_connect(&fixture_domain), plan->name,
				     (struct ipc_limiter_options){.flags = plan->flags}));
	for (;;) {
		enum order order = (enum order)actor_hear(self);
		int64_t argument = actor_hear(self);

		if (order == ORDER_CLOSE_FDS)
			for (int fd = 3; fd < 100; ++fd)
				if (fd != self->fd)
					close(fd);
		actor_say(self, caller_do(&limiter, order, argument, &last));
	}
}

static inline void caller_start_as(struct actor *caller, uint32_t uid)
{
	struct caller_plan plan = {.name = NAME, .uid = uid};

	actor_start(caller, caller_run, &plan);
	cr_assert_eq(actor_hear(caller), 0);
}

static inline void caller_start(struct actor *caller)
{
	caller_start_as(caller, 0);
}

static inline void order_begin(struct actor *caller, enum order order, int64_t argument)
{
	actor_say(caller, order);
	actor_say(caller, argument);
}

static inline int64_t order_do(struct actor *caller, enum order order, int64_t argument)
{
	order_begin(caller, order, argument);
	return actor_hear(caller);
}

#define EXPECT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t expect_r = (call);                                                         \
                                                                                                   \
		cr_expect(expect_r == (wanted), "%s is %ld (%s), not " #wanted, #call,             \
			  (long)expect_r, ipc_error_name((int)expect_r));                          \
	} while (0)

#define ASSERT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t assert_r = (call);                                                         \
                                                                                                   \
		cr_assert(assert_r == (wanted), "%s is %ld (%s), not " #wanted, #call,             \
			  (long)assert_r, ipc_error_name((int)assert_r));                          \
	} while (0)

#endif
