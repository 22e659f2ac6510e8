/* SPDX-License-Identifier: MIT */

/*
 * The broker's worker is killed again and again while processes exchange values and open and close
 * channels all the time: no call of any of them may fail, and at the end nothing is left.
 *
 * IPC_STRESS_WORKER_KILLS is how many kills (1000); a fifth of it at crash points of the worker
 * itself.
 */

#include <criterion/criterion.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/mortal.h"
#include "tests/support/process.h"

enum { N_PAIRS = 2, N_OPENERS = 2, KILLS = 1000, PATIENCE_MS = 20000 };

/* Shared with the children. */
struct tally {
	_Atomic uint32_t stop;
	_Atomic uint64_t n_turns, n_opens, n_lists;
	_Atomic int32_t first_error; /* of any call of any client */
	_Atomic uint32_t where;      /* line of the call */
};

struct role {
	const struct domain *domain;
	struct tally *tally;
	unsigned number;
};

static struct domain domain;
static struct tally *tally;

static void tally_new(void)
{
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(tally, MAP_FAILED);
}

static void setup(void)
{
	tally_new();
	domain_start(&domain, NULL);
}

static void teardown(void)
{
	domain_stop(&domain);
	munmap(tally, sizeof(*tally));
}

/* A broker whose worker dies by itself, at one crash point in so many. */
static void setup_mortal(void)
{
	tally_new();
	domain_start_mortal(&domain, "random:300");
}

/* Its orderly end may itself be died over. */
static void teardown_mortal(void)
{
	domain_kill(&domain);
	munmap(tally, sizeof(*tally));
}

static int tally_note(struct tally *t, int result, uint32_t line)
{
	int32_t none = 0;

	if (result < 0 && atomic_compare_exchange_strong(&t->first_error, &none, result))
		atomic_store(&t->where, line);
	return result;
}
#define NOTE(call) tally_note(role->tally, (call), __LINE__)

/* In pieces, to hear of the stop; the other end may have to open first, while workers die. */
static int await_value(struct tally *t, ipc_watch_consumer *in, uint64_t *value, uint64_t *version)
{
	struct timespec limit = process_deadline(PATIENCE_MS);
	int r;

	do {
		struct timespec piece = domain_deadline(200);

		r = ipc_watch_read_wait(in, value, sizeof(*value), NULL, version, &piece);
	} while (r == IPC_ETIMEDOUT && !process_has_passed(&limit) && !atomic_load(&t->stop));

	return r;
}

/* One end of a ping-pong over two watches. */
static void play(const struct role *role, const char *out_name, const char *in_name, bool serves)
{
	ipc_client *client = domain_connect(role->domain);
	uint64_t value = 0, version = 0;
	ipc_watch_producer *out;
	ipc_watch_consumer *in;

	if (NOTE(ipc_watch_producer_open_wait(&out, client, out_name,
					      IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL)) < 0 ||
	    NOTE(ipc_watch_consumer_open_wait(&in, client, in_name,
					      IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL)) < 0)
		return;

	if (serves)
		(void)NOTE(ipc_watch_publish(out, &value, sizeof(value)));
	while (!atomic_load(&role->tally->stop)) {
		int r = await_value(role->tally, in, &value, &version);

		/* The other end stops first, some time. */
		if (atomic_load(&role->tally->stop))
			break;
		if (NOTE(r) < 0)
			break;
		++value;
		(void)NOTE(ipc_watch_publish(out, &value, sizeof(value)));
		atomic_fetch_add(&role->tally->n_turns, 1);
	}

	/* Nobody ends before all were told to stop: an end would be news to the other one. */
	(void)ipc_watch_producer_close(out);
	(void)ipc_watch_consumer_close(in);
	(void)ipc_client_unref(client);
}

static void play_pair(struct actor *self, void *arg)
{
	const struct role *role = arg;
	char ping[32], pong[32];

	snprintf(ping, sizeof(ping), "pair/%u/ping", role->number / 2);
	snprintf(pong, sizeof(pong), "pair/%u/pong", role->number / 2);
	if (role->number % 2)
		play(role, ping, pong, true);
	else
		play(role, pong, ping, false);
	actor_say(self, 0);
}

static int count_channel(const struct ipc_channel_info *info, void *userdata)
{
	(void)info;
	++*(unsigned *)userdata;
	return 0;
}

/* Opens, looks, closes: all that goes through the broker. */
static void open_and_close(struct actor *self, void *arg)
{
	const struct role *role = arg;
	ipc_client *client = domain_connect(role->domain);

	for (unsigned i = 0; !atomic_load(&role->tally->stop); ++i) {
		struct timespec deadline = domain_deadline(PATIENCE_MS);
		ipc_shared *a = NULL, *b = NULL;
		unsigned n = 0;
		char name[32];

		snprintf(name, sizeof(name), "opener/%u", i % 3);
		(void)NOTE(ipc_shared_open_wait(
			&a, client, name, IPC_SIDE_A,
			IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 64), &deadline));
		(void)NOTE(ipc_shared_open_wait(
			&b, client, name, IPC_SIDE_B,
			IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 64), &deadline));
		if (i % 8 == 0) {
			(void)NOTE(ipc_client_list_wait(client, "opener/*", count_channel, &n,
							&deadline));
			atomic_fetch_add(&role->tally->n_lists, 1);
		}
		(void)ipc_shared_close(a);
		(void)ipc_shared_close(b);
		atomic_fetch_add(&role->tally->n_opens, 2);
	}

	(void)ipc_client_unref(client);
	actor_say(self, 0);
}

static unsigned wanted_kills(void)
{
	const char *text = getenv("IPC_STRESS_WORKER_KILLS");

	return text ? (unsigned)strtoul(text, NULL, 10) : KILLS;
}

/* A kill counts once every kind of traffic has moved since the last one. */
static void until_traffic(uint64_t turns, uint64_t opens)
{
	struct timespec limit = process_deadline(PATIENCE_MS);

	while (atomic_load(&tally->n_turns) == turns || atomic_load(&tally->n_opens) == opens) {
		if (atomic_load(&tally->first_error))
			return;
		cr_assert(!process_has_passed(&limit), "traffic stands still");
		sched_yield();
	}
}

static unsigned count_left(void)
{
	ipc_client *client = domain_connect(&domain);
	struct timespec deadline = domain_deadline(PATIENCE_MS);
	unsigned n = 0;
	int r = ipc_client_list_wait(client, "*", count_channel, &n, &deadline);

	(void)ipc_client_unref(client);
	cr_assert_eq(r, 0);
	return n;
}

enum { N_ACTORS = 2 * N_PAIRS + N_OPENERS };

struct crew {
	struct actor actors[N_ACTORS];
	struct role roles[N_ACTORS];
};

static void crew_start(struct crew *crew)
{
	for (unsigned i = 0; i < N_ACTORS; ++i) {
		crew->roles[i] = (struct role){.domain = &domain, .tally = tally, .number = i};
		actor_start(&crew->actors[i], i < 2 * N_PAIRS ? play_pair : open_and_close,
			    &crew->roles[i]);
	}
	until_traffic(0, 0);
}

/* No call of anybody failed, and nothing is left. */
static void crew_stop(struct crew *crew)
{
	unsigned n_left = 1;

	atomic_store(&tally->stop, 1);
	for (unsigned i = 0; i < N_ACTORS; ++i) {
		(void)actor_hear(&crew->actors[i]);
		cr_assert_eq(actor_join(&crew->actors[i]), 0);
	}

	cr_assert_eq(atomic_load(&tally->first_error), 0, "a call failed with %s in line %u",
		     ipc_error_name(atomic_load(&tally->first_error)), atomic_load(&tally->where));
	for (unsigned i = 0; i < 1000 && n_left > 0; ++i)
		n_left = count_left();
	cr_assert_eq(n_left, 0, "%u channels outlived their handles", n_left);
}

/* M-4, M-6, M-31 */
Test(worker, a_thousand_deaths_under_traffic_go_unnoticed, .init = setup, .fini = teardown,
     .timeout = 600)
{
	unsigned n_kills = wanted_kills();
	struct crew crew;

	crew_start(&crew);
	for (unsigned i = 0; i < n_kills && !atomic_load(&tally->first_error); ++i) {
		uint64_t turns = atomic_load(&tally->n_turns), opens = atomic_load(&tally->n_opens);

		domain_kill_worker(&domain);
		until_traffic(turns, opens);
	}
	crew_stop(&crew);
}

/* M-4, M-6, M-31: between any two steps of its own */
Test(worker, deaths_at_random_crash_points_go_unnoticed, .init = setup_mortal,
     .fini = teardown_mortal, .timeout = 600)
{
	unsigned n_deaths = 0, wanted = wanted_kills() / 5;
	struct crew crew;
	pid_t worker = 0;

	crew_start(&crew);
	while (n_deaths < wanted && !atomic_load(&tally->first_error)) {
		uint64_t opens = atomic_load(&tally->n_opens);
		pid_t present = domain_worker(&domain);

		n_deaths += present != worker;
		worker = present;
		until_traffic(atomic_load(&tally->n_turns), opens);
	}
	crew_stop(&crew);
}
