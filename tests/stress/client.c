/* SPDX-License-Identifier: MIT */
/*
 * One client used by all threads at once: opens, closes under sleepers, cancels, lists.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "tests/support/domain.h"
#include "tests/support/failure.h"
#include "tests/support/leaks.h"
#include "tests/support/thing.h"

enum { N_ROUNDS = 1000, N_OPENERS = 3 };

static struct domain domain;
static ipc_client *client;
static _Atomic(struct thing *) handed;
static _Atomic bool is_over;

static void must(bool holds, const char *what)
{
	if (!holds) {
		failure("%s", what);
	}
}

static struct thing *opened(const char *name, enum ipc_role role)
{
	struct timespec deadline = domain_deadline(30000);
	struct thing *thing;

	must(thing_open_wait(&thing, client, name, role, IPC_CREATE, &deadline) == 0, "open");
	return thing;
}

static void *run_opener(void *arg)
{
	for (unsigned i = 0; i < N_ROUNDS; ++i)
		thing_close(opened(i % 2 ? "common" : arg,
				   i % 3 ? IPC_ROLE_SHARED_A : IPC_ROLE_SHARED_B));

	return NULL;
}

/* Sleeps in what the closer closes under it. */
static void *run_sleeper(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < N_ROUNDS; ++i) {
		struct timespec deadline = domain_deadline(30000);
		struct thing *thing = opened("slept/in", IPC_ROLE_SHARED_A);
		int r;

		must(endpoint_enter(&thing->endpoint, 0) == 0, "enter");
		atomic_store(&handed, thing);
		r = thing_sleep(thing, &deadline);
		endpoint_leave(&thing->endpoint);
		must(r == IPC_ECANCELED, ipc_error_name(r));
	}
	return NULL;
}

static void *run_closer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < N_ROUNDS; ++i) {
		struct thing *thing;

		while (!(thing = atomic_exchange(&handed, NULL)))
			sched_yield();
		if (i % 2)
			must(endpoint_cancel(&thing->endpoint) == 0, "cancel");
		thing_close(thing);
	}
	return NULL;
}

static int see(const struct ipc_channel_info *info, void *userdata)
{
	(void)userdata;
	return info->name[0] == '\0' || ipc_client_is_alive(client, info->holder_id) != 0;
}

static void *run_lister(void *arg)
{
	(void)arg;
	while (!atomic_load(&is_over)) {
		struct timespec deadline = domain_deadline(30000);

		must(ipc_client_list_wait(client, "*", see, NULL, &deadline) == 0, "list");
		must(client_check(client) == 0, "check");
	}
	return NULL;
}

/* M-42, M-44 */
Test(client, all_threads_use_it_at_once, .timeout = 120)
{
	static char names[N_OPENERS][2] = {"a", "b", "c"};
	pthread_t openers[N_OPENERS], sleeper, closer, lister;
	struct leaks leaks;

	domain_start(&domain, NULL);
	leaks_begin(&leaks);
	client = domain_connect(&domain);

	pthread_create(&lister, NULL, run_lister, NULL);
	pthread_create(&sleeper, NULL, run_sleeper, NULL);
	pthread_create(&closer, NULL, run_closer, NULL);
	for (unsigned i = 0; i < N_OPENERS; ++i)
		pthread_create(&openers[i], NULL, run_opener, names[i]);

	for (unsigned i = 0; i < N_OPENERS; ++i)
		pthread_join(openers[i], NULL);
	pthread_join(sleeper, NULL);
	pthread_join(closer, NULL);
	atomic_store(&is_over, true);
	pthread_join(lister, NULL);

	cr_assert_eq(thing_n_released(), N_OPENERS * N_ROUNDS + N_ROUNDS);
	ipc_client_unref(client);
	leaks_check(&leaks);
	domain_stop(&domain);
}
