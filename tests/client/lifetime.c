/* SPDX-License-Identifier: MIT */

/*
 * What the library leaves alone, and what its users notice of the broker's deaths.
 */

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/fixture.h"

TestSuite(lifetime, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- what the library leaves alone ---- */

static unsigned count_threads(void)
{
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/task");

	cr_assert_not_null(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* Everything that a program does with it, the death of the other side and of the broker's worker
 * among it. */
static void use_everything(void)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	struct actor actor;
	ipc_shared *shared = shared_new("b", IPC_SIDE_A);
	const void *value;
	uint64_t version = 0;
	char buffer[8];

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	actor_start(&actor, hold_producer, "a");
	(void)actor_hear(&actor);
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	cr_assert_eq(ipc_watch_read_wait(consumer, buffer, sizeof(buffer), NULL, &version, NULL),
		     0);
	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	cr_assert_eq(ipc_shared_commit(shared), 0);
	domain_kill_worker(&fixture_domain);
	ipc_watch_producer_close(producer);
	actor_kill(&actor);
	cr_assert_eq(ipc_watch_read_wait(consumer, buffer, sizeof(buffer), NULL, &version, NULL),
		     IPC_EOWNERDEAD);
	ipc_watch_consumer_close(consumer);
	ipc_shared_close(shared);
}

/* M-5 */
Test(lifetime, the_library_has_no_threads_handlers_or_output)
{
	struct sigaction before[NSIG], after;
	int out = memfd_create("out", MFD_CLOEXEC), saved_out = dup(1), saved_err = dup(2);
	sigset_t mask_before, mask_after;
	unsigned n_threads;
	struct stat status;

	for (int signal = 1; signal < NSIG; ++signal)
		(void)sigaction(signal, NULL, &before[signal]);
	(void)sigprocmask(SIG_SETMASK, NULL, &mask_before);
	n_threads = count_threads();
	fflush(NULL);
	cr_assert(dup2(out, 1) == 1 && dup2(out, 2) == 2);
	use_everything();
	fflush(NULL);
	cr_assert(dup2(saved_out, 1) == 1 && dup2(saved_err, 2) == 2);

	cr_assert_eq(count_threads(), n_threads);
	for (int signal = 1; signal < NSIG; ++signal) {
		if (sigaction(signal, NULL, &after) == 0)
			cr_assert_eq((void *)after.sa_handler, (void *)before[signal].sa_handler,
				     "signal %d", signal);
	}
	(void)sigprocmask(SIG_SETMASK, NULL, &mask_after);
	for (int signal = 1; signal < NSIG; ++signal)
		cr_assert_eq(sigismember(&mask_before, signal), sigismember(&mask_after, signal));
	cr_assert_eq(fstat(out, &status), 0);
	cr_assert_eq(status.st_size, 0, "it has written something");
	close(out);
	close(saved_out);
	close(saved_err);
}

/* ---- the broker ---- */

/* M-6: killing either, any number of times, is unnoticed. */
Test(lifetime, keeper_and_worker_are_replaced)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	char value[16], text[16];
	struct actor actor;
	uint64_t id;
	size_t size;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	for (unsigned i = 0; i < 6; ++i) {
		pid_t keeper = fixture_domain.keeper, worker = domain_worker(&fixture_domain);

		if (i % 2) {
			domain_kill_worker(&fixture_domain);
		} else {
			domain_kill_keeper(&fixture_domain);
			cr_assert_neq(fixture_domain.keeper, keeper);
		}
		cr_assert_neq(domain_worker(&fixture_domain), worker);

		snprintf(text, sizeof(text), "value %u", i);
		cr_assert_eq(ipc_watch_publish(producer, text, strlen(text)), 0);
		cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), &size, NULL), 0);
		cr_assert(size == strlen(text) && memcmp(value, text, size) == 0);
		cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

		/* Opening and deaths work as before. */
		actor_start(&actor, hold_producer, "a");
		id = (uint64_t)actor_hear(&actor);
		cr_assert_eq(ipc_client_is_alive(fixture_client, id), 1);
		actor_kill(&actor);
		until_not_alive(id);
	}
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-6, M-24: what died while nobody looked is found dead. */
Test(lifetime, a_death_during_a_restart_is_told_after_it)
{
	ipc_watch_consumer *consumer;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;
	pid_t worker;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	actor_start(&actor, hold_producer, "a");
	(void)actor_hear(&actor);
	ipc_watch_producer_close(producer);
	cr_assert(exists("a"), "the broker has heard of the close before it answers");
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

	worker = domain_worker(&fixture_domain);
	kill(worker, SIGSTOP);
	actor_kill(&actor);
	kill(worker, SIGKILL);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, &deadline), 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 0);
	ipc_watch_consumer_close(consumer);
}

/* M-6 */
Test(lifetime, both_killed_ends_the_domain)
{
	ipc_watch_producer *producer = producer_new("a"), *other;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_consumer *consumer;
	uint64_t version = 0;
	char value[8];
	size_t size;
	int r;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	domain_kill(&fixture_domain);

	r = ipc_watch_producer_open_wait(&other, fixture_client, "a", NULL, &deadline);
	cr_assert_eq(r, IPC_ECONNREFUSED, "%s", ipc_error_name(r));
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0, "data goes on flowing");
	cr_assert_eq(
		ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, &deadline), 0);
	r = ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, &deadline);
	cr_assert_eq(r, IPC_ECONNRESET, "%s", ipc_error_name(r));
	cr_assert_eq(ipc_watch_publish(producer, "y", 1), 0);
	cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), &size, NULL), 0);

	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
	ipc_client_unref(fixture_client);
	domain_start(&fixture_domain, NULL);
	fixture_client = domain_connect(&fixture_domain);
}
