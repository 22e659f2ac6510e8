/* SPDX-License-Identifier: MIT */

/*
 * The worker's life: the idle end, a new configuration, and the death of its keeper, with clients
 * that stay.
 */

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/process.h"
#include "tests/support/rawpeer.h"

static struct domain domain;

/* Whether it ends by itself within ms. */
static bool ends_within(unsigned ms)
{
	int pidfd = process_open(domain.keeper);
	struct pollfd pollfd = {.fd = pidfd, .events = POLLIN};
	bool has_ended = poll(&pollfd, 1, (int)ms) > 0;

	close(pidfd);
	return has_ended;
}

/* D22: counted from the last disconnect; a connection that says nothing is one, until it is closed.
 */
Test(worker, idle_end_waits_for_the_last_client, .timeout = 60)
{
	const char *args[] = {"--idle", "0.3", NULL};
	struct rawpeer peer;
	uint64_t left_ns;

	domain_start(&domain, args);
	rawpeer_join(&peer, domain.address);
	cr_assert_not(ends_within(1000));
	left_ns = clock_now_ns();
	rawpeer_disconnect(&peer);

	domain_until_ended(&domain);
	cr_assert_gt(clock_now_ns() - left_ns, 200 * NS_PER_MS);
}

/* D22: not before the starter was served. */
Test(worker, autostarted_broker_waits_for_its_starter, .timeout = 60)
{
	const char *args[] = {"--autostart", "--idle", "0.1", NULL};
	struct rawpeer peer;

	domain_start(&domain, args);
	cr_assert_not(ends_within(1500));
	rawpeer_join(&peer, domain.address);
	rawpeer_disconnect(&peer);

	domain_until_ended(&domain);
}

/* D22: nobody who finds the socket is lost, however often the broker is about to end. */
Test(worker, clients_that_come_at_an_idle_end_are_served, .timeout = 60)
{
	/* It waits for the first one, which may be slow. */
	const char *args[] = {"--autostart", "--idle", "0.005", NULL};
	struct rawpeer peer, other;

	domain_start(&domain, args);
	rawpeer_join(&peer, domain.address);
	for (unsigned i = 0; i < 200; ++i) {
		rawpeer_join(&other, domain.address);
		rawpeer_sync(&other);
		rawpeer_disconnect(&other);
	}
	rawpeer_disconnect(&peer);
	domain_until_ended(&domain);
}

static void config_write(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	cr_assert_not_null(file);
	fputs(text, file);
	fclose(file);
}

/* */
Test(worker, new_configuration_counts_for_clients_that_stay, .timeout = 60)
{
	char path[] = "/tmp/ipc-test-reload-XXXXXX";
	const char *args[] = {"--config", path, NULL};
	struct rawpeer peer;
	uint64_t id, deadline_ns;
	int r;

	close(mkstemp(path));
	config_write(path, "[limits]\nhandles = 1\n");
	domain_start(&domain, args);
	rawpeer_join(&peer, domain.address);
	cr_assert_eq(rawpeer_open_role(&peer, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&peer, IPC_ROLE_SHARED_B, "s", 0, &id), IPC_EDQUOT);

	config_write(path, "[limits]\nhandles = 2\n");
	kill(domain.keeper, SIGHUP);
	deadline_ns = clock_after_ns(30 * NS_PER_S);
	do
		r = rawpeer_open_role(&peer, IPC_ROLE_SHARED_B, "s", 0, &id);
	while (r == IPC_EDQUOT && clock_now_ns() < deadline_ns);
	cr_assert_eq(r, 0);
	cr_assert_eq(rawpeer_open_role(&peer, IPC_ROLE_SHARED_B, "s", 0, &id), IPC_EDQUOT);

	rawpeer_disconnect(&peer);
	domain_stop(&domain);
	unlink(path);
}

static _Atomic int *is_over; /* shared with the child */

/* Opens and closes without end; says how often, or what went wrong. */
static void open_and_close(struct actor *self, void *arg)
{
	struct rawpeer peer;
	int64_t n = 0;
	uint64_t id;

	(void)arg;
	rawpeer_join(&peer, domain.address);
	actor_say(self, 0);
	while (!atomic_load(is_over)) {
		int r = rawpeer_open_role(&peer, IPC_ROLE_SHARED_A, "busy", IPC_CREATE, &id);

		if (r < 0) {
			actor_say(self, r);
			process_end(0);
		}
		rawpeer_close(&peer, id);
		++n;
	}
	actor_say(self, n);
}

/* M-6, M-31: under traffic, and now one, now the other. */
Test(worker, deaths_of_keeper_and_worker_under_traffic_give_no_error, .timeout = 120)
{
	struct actor actor;
	int64_t n;

	is_over = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq((void *)is_over, MAP_FAILED);
	domain_start(&domain, NULL);
	actor_start(&actor, open_and_close, NULL);
	cr_assert_eq(actor_hear(&actor), 0);

	for (unsigned i = 0; i < 40; ++i) {
		if (i % 2)
			domain_kill_keeper(&domain);
		else
			domain_kill_worker(&domain);
	}

	atomic_store(is_over, 1);
	n = actor_hear(&actor);
	cr_assert_gt(n, 0, "%s", ipc_error_name((int)n));
	cr_assert_eq(actor_join(&actor), 0);
	domain_stop(&domain);
}

/* M-6: killing either, any number of times, is unnoticed. */
Test(worker, clients_do_not_notice_the_keepers_death, .timeout = 60)
{
	struct rawpeer a, b;
	uint64_t producer, consumer, id;
	uint32_t slot, attention;

	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &producer), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &consumer), 0);
	slot = b.reply.opened.channel_slot;
	attention = atomic_load(&b.table->attention[b.slot].word);

	for (unsigned i = 0; i < 20; ++i) {
		domain_kill_keeper(&domain);
		cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
		rawpeer_close(&b, id);
		rawpeer_sync(&a);
	}

	cr_assert_eq(atomic_load(&b.table->attention[b.slot].word), attention);
	cr_assert(liveness_handle_is(b.table, producer));
	cr_assert_eq(liveness_side(b.table, slot, 0), side_make(0, 1, SIDE_EVER));
	rawpeer_disconnect(&a);
	cr_assert(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_DIED);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}
