/* SPDX-License-Identifier: MIT */
/*
 * What all handles have in common, with a real broker.
 */
#include "libipc/client/endpoint.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "libipc/platform/clock.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/thing.h"

#define DEADLINE(ms) (&(const struct timespec[]){process_deadline(ms)}[0])

static struct domain domain;
static struct leaks leaks;
static ipc_client *client;

static void setup(void)
{
	domain_start(&domain, NULL);
	leaks_begin(&leaks);
	client = domain_connect(&domain);
}

static void teardown(void)
{
	client = ipc_client_unref(client);
	leaks_check(&leaks);
	domain_stop(&domain);
}

static struct thing *opened(ipc_client *by, const char *name, enum ipc_role role, uint64_t flags)
{
	struct thing *thing = NULL;
	int r = thing_open_wait(&thing, by, name, role, flags, DEADLINE(30000));

	cr_assert_eq(r, 0, "open of %s: %s", name, ipc_error_name(r));
	return thing;
}

static struct thing *made(const char *name, enum ipc_role role)
{
	return opened(client, name, role, IPC_CREATE);
}

/* ---- open ---- */

/* M-43 */
Test(endpoint, open_without_create_needs_the_name, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = NULL, *other;

	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, 0, DEADLINE(30000)),
		     IPC_ENOENT);
	cr_assert_null(thing);

	other = made("a", IPC_ROLE_SHARED_A);
	thing = opened(client, "a", IPC_ROLE_SHARED_B, 0);
	cr_assert_eq(thing->endpoint.channel_slot, other->endpoint.channel_slot);
	cr_assert_eq(thing->endpoint.generation, other->endpoint.generation);
	cr_assert_neq(thing->endpoint.id, other->endpoint.id);

	thing_close(other);
	thing_close(thing);
}

/* M-2, M-20, M-42 */
Test(endpoint, wrong_arguments_are_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	const struct timespec wrong = {0, -1};
	struct thing *thing = NULL;
	char name[300];
	uint64_t id;

	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	cr_assert_eq(thing_open_wait(&thing, client, name, IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_EINVAL);
	name[255] = '\0';
	thing = made(name, IPC_ROLE_SHARED_A);
	cr_assert_eq(endpoint_get_id(&thing->endpoint, IPC_ROLE_SHARED_A, NULL), IPC_EINVAL);
	cr_assert_eq(endpoint_get_id(&thing->endpoint, IPC_ROLE_SHARED_B, &id), IPC_EINVAL);
	cr_assert_eq(endpoint_get_id(&thing->endpoint, IPC_ROLE_SHARED_A, &id), 0);
	cr_assert_eq(id, thing->endpoint.id);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, IPC_ROLE_SHARED_A, true, &wrong),
		     IPC_EINVAL);
	thing_close(thing);

	cr_assert_eq(thing_open_wait(&thing, client, "", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_EINVAL);
	cr_assert_eq(thing_open_wait(&thing, client, "/a", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_EINVAL);
	cr_assert_eq(thing_open_wait(&thing, NULL, "a", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_EINVAL);
	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE, &wrong),
		     IPC_EINVAL);
	cr_assert_eq(endpoint_get_id(NULL, 0, &id), IPC_EINVAL);
	cr_assert_eq(endpoint_cancel((struct endpoint *)&domain), IPC_EINVAL);
	thing_close(NULL);
}

/* M-20, M-43 */
Test(endpoint, awaited_open_ends_at_its_deadline_and_leaves_nothing, .init = setup,
     .fini = teardown, .timeout = 60)
{
	const struct timespec past = {0, 0};
	struct thing *thing = NULL;

	cr_assert_eq(
		thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_AWAIT, DEADLINE(50)),
		IPC_ETIMEDOUT);
	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_AWAIT, &past),
		     IPC_ETIMEDOUT);

	/* Nobody got the handle that was not waited for any longer. */
	thing = made("a", IPC_ROLE_SHARED_B);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 0);
	thing_close(thing);
}

static void *open_awaited(void *arg)
{
	return opened(arg, "later", IPC_ROLE_SHARED_B, IPC_AWAIT);
}

/* M-43 */
Test(endpoint, awaited_open_succeeds_when_the_channel_is_made, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing;
	pthread_t thread;
	void *other;

	pthread_create(&thread, NULL, open_awaited, client);
	thing = made("later", IPC_ROLE_SHARED_A);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, true, DEADLINE(30000)), 0);

	pthread_join(thread, &other);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);
	thing_close(other);
	thing_close(thing);
}

/* M-74 */
Test(endpoint, handles_keep_their_client, .init = setup, .fini = teardown, .timeout = 60)
{
	ipc_client *second = domain_connect(&domain);
	struct thing *thing = opened(second, "a", IPC_ROLE_SHARED_A, IPC_CREATE);
	uint64_t id = thing->endpoint.id;

	cr_assert_null(ipc_client_unref(second));
	cr_assert_eq(endpoint_enter(&thing->endpoint, 0), 0);
	endpoint_leave(&thing->endpoint);
	cr_assert_eq(ipc_client_is_alive(client, id), 1);

	thing_close(thing);
	cr_assert_eq(ipc_client_is_alive(client, id), 0);
}

static void *open_close_often(void *arg)
{
	for (unsigned i = 0; i < 200; ++i)
		thing_close(opened(client, arg, IPC_ROLE_SHARED_A, IPC_CREATE));

	return NULL;
}

/* M-42 */
Test(endpoint, threads_open_and_close_at_the_same_time, .init = setup, .fini = teardown,
     .timeout = 60)
{
	static char names[3][2] = {"a", "b", "a"};
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; ++i)
		pthread_create(&threads[i], NULL, open_close_often, names[i]);
	for (unsigned i = 0; i < 3; ++i)
		pthread_join(threads[i], NULL);

	cr_assert_eq(thing_n_released(), 600);
}

/* ---- ends ---- */

struct peer {
	enum ipc_role role;
	uint64_t flags;
};

static void peer_run(struct actor *self, void *arg)
{
	const struct peer *peer = arg;
	ipc_client *own = domain_connect(&domain);
	struct thing *thing = NULL;
	int r;

	r = thing_open_wait(&thing, own, "a", peer->role, peer->flags, DEADLINE(30000));
	actor_say(self, r == 0 ? (int64_t)thing->endpoint.id : r);
	for (;;) {
		switch (actor_hear(self)) {
		case 'w':
			actor_say(self, thing_wait(thing, DEADLINE(30000)));
			break;
		case 'g':
			actor_say(self,
				  endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)));
			break;
		case 'p':
			actor_say(self,
				  endpoint_peers_wait(&thing->endpoint, 0, true, DEADLINE(30000)));
			break;
		case 'c':
			thing_close(thing);
			actor_say(self, 0);
			break;
		default:
			return;
		}
	}
}

static uint64_t peer_start(struct actor *actor, enum ipc_role role, uint64_t flags)
{
	struct peer peer = {.role = role, .flags = flags};
	int64_t id;

	actor_start(actor, peer_run, &peer);
	id = actor_hear(actor);
	cr_assert_gt(id, 0, "open: %s", ipc_error_name((int)id));
	return (uint64_t)id;
}

/* M-3, M-22, M-24 */
Test(endpoint, death_of_the_last_peer_ends_a_wait, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter, victim;
	uint64_t id;

	peer_start(&waiter, IPC_ROLE_SHARED_A, IPC_CREATE);
	id = peer_start(&victim, IPC_ROLE_SHARED_B, 0);
	cr_assert_eq(ipc_client_is_alive(client, id), 1);
	actor_say(&waiter, 'w');
	actor_until_asleep(&waiter);

	actor_kill(&victim);

	cr_assert_eq(actor_hear(&waiter), IPC_EOWNERDEAD);
	cr_assert_eq(ipc_client_is_alive(client, id), 0);
	actor_kill(&waiter);
}

/* M-22 */
Test(endpoint, close_of_the_last_peer_ends_a_wait, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter, other;

	peer_start(&waiter, IPC_ROLE_SHARED_A, IPC_CREATE);
	peer_start(&other, IPC_ROLE_SHARED_B, 0);
	actor_say(&waiter, 'w');
	actor_until_asleep(&waiter);

	actor_say(&other, 'c');

	cr_assert_eq(actor_hear(&waiter), IPC_EPIPE);
	/* A wait that begins now says the same. */
	actor_say(&waiter, 'w');
	cr_assert_eq(actor_hear(&waiter), IPC_EPIPE);
	actor_kill(&waiter);
	actor_kill(&other);
}

/* M-22: exit without close is a death. */
Test(endpoint, exit_without_close_is_a_death, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter, other;

	peer_start(&waiter, IPC_ROLE_SHARED_A, IPC_CREATE);
	peer_start(&other, IPC_ROLE_SHARED_B, 0);
	actor_say(&waiter, 'w');
	actor_until_asleep(&waiter);

	actor_say(&other, 'x');
	cr_assert_eq(actor_join(&other), 0);

	cr_assert_eq(actor_hear(&waiter), IPC_EOWNERDEAD);
	actor_kill(&waiter);
}

/* M-22 */
Test(endpoint, handle_that_stays_sees_the_end_by_peers_wait_only, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = opened(client, "a", IPC_ROLE_SHARED_A, IPC_CREATE | IPC_STAY);
	struct actor other;

	peer_start(&other, IPC_ROLE_SHARED_B, 0);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, true, DEADLINE(30000)), 0);
	actor_kill(&other);

	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);
	cr_assert_eq(thing_wait(thing, DEADLINE(20)), IPC_ETIMEDOUT);
	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, 0), 0);
	thing_close(thing);
}

/* M-32 */
Test(endpoint, peers_wait_sleeps_until_somebody_comes_and_goes, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor waiter, other;

	peer_start(&waiter, IPC_ROLE_SHARED_A, IPC_CREATE);
	actor_say(&waiter, 'p');
	actor_until_asleep(&waiter);
	peer_start(&other, IPC_ROLE_SHARED_B, 0);
	cr_assert_eq(actor_hear(&waiter), 0);

	actor_say(&waiter, 'g');
	actor_until_asleep(&waiter);
	actor_kill(&other);
	cr_assert_eq(actor_hear(&waiter), 0);
	actor_kill(&waiter);
}

/* M-32 */
Test(endpoint, absence_never_ends_a_wait_for_presence, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other = made("a", IPC_ROLE_SHARED_B);

	thing_close(other);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);

	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, true, DEADLINE(50)), IPC_ETIMEDOUT);

	/* A final end does. */
	atomic_store(&thing->endpoint.header->is_shut_down, 1);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, true, DEADLINE(30000)), IPC_EPIPE);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);
	thing_close(thing);
}

/* M-22: ends are counted. */
Test(endpoint, end_is_told_although_somebody_is_there_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other = made("a", IPC_ROLE_SHARED_B);
	uint64_t began = endpoint_opposite(&thing->endpoint);

	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, began), 0);
	thing_close(other);
	other = made("a", IPC_ROLE_SHARED_B);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);

	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, began), IPC_EPIPE);
	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, endpoint_opposite(&thing->endpoint)),
		     0);
	thing_close(other);
	thing_close(thing);
}

/* ---- cancel, close ---- */

struct sleeper {
	struct thing *thing;
	int result;
	pthread_t thread;
};

static void *sleeper_run(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->result = thing_wait(sleeper->thing, DEADLINE(15000));
	return NULL;
}

static void sleeper_start(struct sleeper *sleeper, struct thing *thing)
{
	*sleeper = (struct sleeper){.thing = thing};
	cr_assert_eq(pthread_create(&sleeper->thread, NULL, sleeper_run, sleeper), 0);
}

/* M-28 */
Test(endpoint, cancel_ends_waits_of_this_handle_alone, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other = made("b", IPC_ROLE_SHARED_A);
	struct sleeper sleeper, unconcerned;

	sleeper_start(&sleeper, thing);
	sleeper_start(&unconcerned, other);
	process_until_asleep(getpid(), 2);

	cr_assert_eq(endpoint_cancel(&thing->endpoint), 0);

	pthread_join(sleeper.thread, NULL);
	cr_assert_eq(sleeper.result, IPC_ECANCELED);
	cr_assert_eq(thing_wait(thing, NULL), IPC_ECANCELED);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 0);

	cr_assert_eq(ipc_client_cancel(client), 0);
	pthread_join(unconcerned.thread, NULL);
	cr_assert_eq(unconcerned.result, IPC_ECANCELED);
	thing_close(thing);
	thing_close(other);
}

/* M-44 */
Test(endpoint, close_ends_waits_of_other_threads, .init = setup, .fini = teardown, .timeout = 60)
{
	struct sleeper sleepers[2];
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);

	for (unsigned i = 0; i < 2; ++i)
		sleeper_start(&sleepers[i], thing);
	process_until_asleep(getpid(), 2);

	cr_assert_null(thing_close(thing));

	for (unsigned i = 0; i < 2; ++i) {
		pthread_join(sleepers[i].thread, NULL);
		cr_assert_eq(sleepers[i].result, IPC_ECANCELED);
	}
	cr_assert_eq(thing_n_released(), 1);
}

/* ---- close against a call that is just beginning, many times ---- */

enum { RACES = 3000 };

struct race {
	_Atomic(struct thing *) thing;
	_Atomic unsigned n_begun, n_wrong;
};

static void *race_run(void *arg)
{
	struct race *race = arg;

	for (unsigned i = 0; i < RACES; ++i) {
		struct thing *thing;
		int r;

		while (!(thing = atomic_exchange(&race->thing, NULL)))
			sched_yield();

		/* The call has begun when the closer is told; how far it gets is left to chance. */
		r = endpoint_enter(&thing->endpoint, 0);
		atomic_fetch_add(&race->n_begun, 1);
		if (r == 0) {
			if (i % 2)
				r = thing_sleep(thing, DEADLINE(30000));
			else
				r = header_fault(thing->endpoint.header) ? 0 : IPC_ECANCELED;
			endpoint_leave(&thing->endpoint);
		}
		if (r != IPC_ECANCELED && r != IPC_ESTALE)
			atomic_fetch_add(&race->n_wrong, 1);
	}
	return NULL;
}

/* M-44 */
Test(endpoint, close_while_another_thread_is_inside, .init = setup, .fini = teardown,
     .timeout = 100)
{
	struct race race = {.n_wrong = 0};
	pthread_t thread;

	pthread_create(&thread, NULL, race_run, &race);
	for (unsigned i = 0; i < RACES; ++i) {
		struct thing *thing = made("a", IPC_ROLE_SHARED_A);

		atomic_store(&race.thing, thing);
		while (atomic_load(&race.n_begun) <= i)
			sched_yield();
		thing_close(thing);
	}
	pthread_join(thread, NULL);

	cr_assert_eq(atomic_load(&race.n_wrong), 0);
	cr_assert_eq(thing_n_released(), RACES);
}

/* ---- callbacks ---- */

/* M-3, M-42 */
Test(endpoint, callback_may_only_ask_who_is_alive, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other;
	uint64_t id = thing->endpoint.id;
	ipc_client *second;

	endpoint_callback_begin();
	cr_assert_eq(endpoint_get_id(&thing->endpoint, 0, &id), IPC_EDEADLK);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), IPC_EDEADLK);
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, true, NULL), IPC_EDEADLK);
	cr_assert_eq(thing_open_wait(&other, client, "b", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_EDEADLK);
	cr_assert_eq(ipc_channel_remove_wait(client, "a", 0, NULL), IPC_EDEADLK);
	cr_assert_eq(ipc_client_is_alive(client, id), 1);
	second = domain_connect(&domain);
	endpoint_callback_end();

	ipc_client_unref(second);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 0);
	thing_close(thing);
}

/* ---- fork ---- */

static int child_tries(struct thing *thing)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	struct thing *other;
	uint64_t id;

	return endpoint_get_id(&thing->endpoint, 0, &id) == IPC_ECHILD &&
	       endpoint_peers(&thing->endpoint, 0) == IPC_ECHILD &&
	       thing_wait(thing, NULL) == IPC_ECHILD &&
	       endpoint_cancel(&thing->endpoint) == IPC_ECHILD &&
	       thing_open_wait(&other, client, "b", IPC_ROLE_SHARED_A, IPC_CREATE, NULL) ==
		       IPC_ECHILD &&
	       ipc_channel_info_wait(client, "a", &info, NULL) == IPC_ECHILD &&
	       ipc_client_cancel(client) == IPC_ECHILD &&
	       ipc_client_is_alive(client, 1) == IPC_ECHILD;
}

static int child_fds(void)
{
	struct connection *connection = &client->connection;

	return fcntl(connection->fd, F_GETFD) == -1 && fcntl(connection->event_fd, F_GETFD) == -1;
}

/* M-42 */
Test(endpoint, forked_child_is_refused_and_may_close, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other = made("a", IPC_ROLE_SHARED_B);
	pid_t pid = process_fork();

	if (pid == 0) {
		int good = child_tries(thing) && child_fds();

		thing_close(thing);
		thing_close(other);
		good = good && thing_n_released() == 2;
		ipc_client_unref(client);
		process_end(good ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);

	/* The parent did not notice. */
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);
	cr_assert_eq(client_check(client), 0);
	thing_close(thing);
	thing_close(other);
}

/* M-42: also where the child came to be past the C library. */
Test(endpoint, child_of_a_bare_clone_is_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0) {
		int good = child_tries(thing);

		thing_close(thing);
		ipc_client_unref(client);
		_exit(good ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);

	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 0);
	thing_close(thing);
}

/* M-42: connect after fork, in each child. */
Test(endpoint, forked_child_connects_on_its_own, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);
	pid_t pid = process_fork();

	if (pid == 0) {
		ipc_client *own = domain_connect(&domain);
		struct thing *peer = NULL;
		int good = thing_open_wait(&peer, own, "a", IPC_ROLE_SHARED_B, 0,
					   DEADLINE(30000)) == 0;

		good = good && endpoint_peers(&peer->endpoint, 0) == 1 &&
		       endpoint_peers(&thing->endpoint, 0) == IPC_ECHILD;
		thing_close(peer);
		thing_close(thing);
		ipc_client_unref(own);
		ipc_client_unref(client);
		process_end(good ? 0 : 1);
	}

	cr_assert_eq(process_reap(pid, 30000), 0);

	/* It came, and went in good order. */
	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);
	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, 0), IPC_EPIPE);
	thing_close(thing);
}

static void orphan_run(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	struct thing *thing = NULL;
	pid_t pid;

	(void)arg;
	if (thing_open_wait(&thing, own, "a", IPC_ROLE_SHARED_B, 0, DEADLINE(30000)) < 0)
		process_end(1);
	pid = fork();
	if (pid == 0) {
		/* Lives on until the test says so, with all that it inherited. */
		(void)actor_hear(self);
		_exit(0);
	}
	actor_say(self, pid);
	for (;;)
		pause();
}

/* M-24: who merely inherited descriptors keeps nothing alive. */
Test(endpoint, child_that_lives_on_does_not_keep_the_dead_alive, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);
	struct actor orphan;
	pid_t child;

	actor_start(&orphan, orphan_run, NULL);
	child = (pid_t)actor_hear(&orphan);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);

	kill(orphan.pid, SIGKILL);

	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);
	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, 0), IPC_EOWNERDEAD);
	cr_assert_eq(kill(child, 0), 0);
	actor_say(&orphan, 1);
	actor_kill(&orphan);
	thing_close(thing);
}

/* ---- the broker's ends ---- */

/* M-24 */
Test(endpoint, closefrom_makes_the_process_stale, .timeout = 60)
{
	struct sleeper sleepers[2];
	struct thing *thing;
	uint64_t id;

	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	thing = made("a", IPC_ROLE_SHARED_A);
	id = thing->endpoint.id;
	for (unsigned i = 0; i < 2; ++i)
		sleeper_start(&sleepers[i], thing);
	process_until_asleep(getpid(), 2);

	close(client->connection.fd);
	close(client->connection.event_fd);

	for (unsigned i = 0; i < 2; ++i) {
		pthread_join(sleepers[i].thread, NULL);
		cr_assert_eq(sleepers[i].result, IPC_ESTALE);
	}
	while (liveness_handle_is(client->table, id))
		sched_yield();
	cr_assert_eq(endpoint_get_id(&thing->endpoint, 0, &id), IPC_ESTALE);
	cr_assert_eq(endpoint_cancel(&thing->endpoint), IPC_ESTALE);
	cr_assert_eq(thing_open_wait(&thing, client, "b", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_ESTALE);
	thing_close(thing);
	ipc_client_unref(client);
	domain_stop(&domain);
}

static unsigned ms_of_wait(struct thing *thing, int expected)
{
	uint64_t begin = clock_now_ns();

	cr_assert_eq(thing_wait(thing, DEADLINE(30000)), expected);
	return (unsigned)((clock_now_ns() - begin) / NS_PER_MS);
}

/* M-6 */
Test(endpoint, waits_bear_the_absence_of_a_broker_for_the_grace_time, .timeout = 60)
{
	ipc_client *patient;
	struct thing *thing, *other;
	unsigned ms;
	int r;

	domain_start(&domain, NULL);
	r = ipc_client_connect_wait(
		&patient,
		IPC_CLIENT_OPTIONS(.address = domain.address, .grace_ns = 500 * NS_PER_MS),
		DEADLINE(30000));
	cr_assert_eq(r, 0);
	thing = opened(patient, "a", IPC_ROLE_SHARED_A, IPC_CREATE);
	other = opened(patient, "a", IPC_ROLE_SHARED_B, 0);

	domain_kill(&domain);

	ms = ms_of_wait(thing, IPC_ECONNRESET);
	cr_assert(ms >= 450 && ms < 1500, "%u ms", ms);
	ms = ms_of_wait(other, IPC_ECONNRESET);
	cr_assert_lt(ms, 400);

	/* What need not wait goes on working. */
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);
	cr_assert_eq(thing_open_wait(&thing, patient, "b", IPC_ROLE_SHARED_A, IPC_CREATE, NULL),
		     IPC_ECONNREFUSED);
	thing_close(thing);
	thing_close(other);
	ipc_client_unref(patient);
}

/* M-6: the same after an end in good order, which the table tells. */
Test(endpoint, orderly_end_of_the_broker_ends_waits_after_the_grace_time, .timeout = 60)
{
	struct sleeper sleepers[2];
	struct thing *thing;
	int r;

	domain_start(&domain, NULL);
	r = ipc_client_connect_wait(
		&client, IPC_CLIENT_OPTIONS(.address = domain.address, .grace_ns = 200 * NS_PER_MS),
		DEADLINE(30000));
	cr_assert_eq(r, 0);
	thing = made("a", IPC_ROLE_SHARED_A);
	for (unsigned i = 0; i < 2; ++i)
		sleeper_start(&sleepers[i], thing);
	process_until_asleep(getpid(), 2);

	domain_stop(&domain);

	for (unsigned i = 0; i < 2; ++i) {
		pthread_join(sleepers[i].thread, NULL);
		cr_assert_eq(sleepers[i].result, IPC_ECONNRESET);
	}
	cr_assert_eq(ipc_channel_remove_wait(client, "a", 0, NULL), IPC_ECONNREFUSED);
	thing_close(thing);
	ipc_client_unref(client);
}

/* M-42: vfork and posix_spawn children need nothing. */
Test(endpoint, spawned_program_inherits_nothing, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other = made("a", IPC_ROLE_SHARED_B);
	char command[128];

	snprintf(command, sizeof(command),
		 "test ! -e /proc/self/fd/%d && test ! -e /proc/self/fd/%d", client->connection.fd,
		 client->connection.event_fd);
	cr_assert_eq(system(command), 0);

	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);
	thing_close(thing);
	thing_close(other);
}

static void exec_run(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	struct thing *thing = NULL;

	(void)arg;
	if (thing_open_wait(&thing, own, "a", IPC_ROLE_SHARED_B, 0, DEADLINE(30000)) < 0)
		process_end(1);
	actor_say(self, 1);
	(void)actor_hear(self);
	execl("/bin/sleep", "sleep", "30", NULL);
	process_end(1);
}

/* M-22, M-24: the process goes on as another program, and is dead for the domain. */
Test(endpoint, exec_is_a_death, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);
	struct actor other;

	actor_start(&other, exec_run, NULL);
	(void)actor_hear(&other);
	cr_assert_eq(endpoint_peers(&thing->endpoint, 0), 1);
	actor_say(&other, 1);

	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(30000)), 0);
	cr_assert_eq(endpoint_opposite_end(&thing->endpoint, 0), IPC_EOWNERDEAD);
	cr_assert_eq(kill(other.pid, 0), 0);
	actor_kill(&other);
	thing_close(thing);
}

/* M-24: a stopped process is alive. */
Test(endpoint, stopped_process_is_alive, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A);
	struct actor other;
	uint64_t id = peer_start(&other, IPC_ROLE_SHARED_B, 0);
	int status;

	kill(other.pid, SIGSTOP);
	cr_assert_eq(waitpid(other.pid, &status, WUNTRACED), other.pid);

	cr_assert_eq(endpoint_peers_wait(&thing->endpoint, 0, false, DEADLINE(300)), IPC_ETIMEDOUT);
	cr_assert_eq(ipc_client_is_alive(client, id), 1);
	actor_kill(&other);
	thing_close(thing);
}

/* M-6, M-31 */
Test(endpoint, death_of_the_worker_is_unnoticed, .init = setup, .fini = teardown, .timeout = 40)
{
	struct thing *thing = made("a", IPC_ROLE_SHARED_A), *other;
	struct sleeper sleeper;

	sleeper_start(&sleeper, thing);
	for (unsigned i = 0; i < 5; ++i) {
		domain_kill_worker(&domain);
		other = opened(client, "a", IPC_ROLE_SHARED_B, IPC_STAY);
		cr_assert_eq(endpoint_peers(&other->endpoint, 0), 1);
		if (i < 4)
			cr_assert_eq(client_check(client), 0);
		endpoint_cancel(&thing->endpoint);
		thing_close(other);
	}
	pthread_join(sleeper.thread, NULL);
	cr_assert(sleeper.result == IPC_ECANCELED || sleeper.result == IPC_EPIPE);
	thing_close(thing);
}
