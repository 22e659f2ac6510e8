/* SPDX-License-Identifier: MIT */
/*
 * Kill at every instruction: who notifies a client that sleeps on its descriptor, and who asks its
 * poll set.  Nobody looks again after a slice here: what is not told is lost.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/step.h"

#define NAME "crash/poll"

#define LOST_NS (60 * NS_PER_S)

struct scene {
	_Atomic uint32_t got;    /* by the survivor: version */
	_Atomic uint32_t rested; /* the same when it last found nothing more: it is armed */
	_Atomic uint32_t is_published;
	_Atomic uint32_t is_told; /* by one who stood still meanwhile */
	uint64_t version;         /* the latest, as the test knows it */
	long n_changed;
};

static struct scene *scene;
static ipc_watch_producer *producer;
static struct actor survivor;

/* ---- the survivor ---- */

/* A client whose poll set has a consumer; false: something failed. */
static bool open_polled(const char *name, ipc_client **ret, ipc_watch_consumer **ret_consumer)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	*ret = domain_connect(&fixture_domain);
	return ipc_watch_consumer_open_wait(ret_consumer, *ret, name, NULL, &deadline) == 0 &&
	       ipc_poll_add(*ret, *ret_consumer, IPC_READY_READABLE, NULL) == 0;
}

static void survive(struct actor *self, void *arg)
{
	ipc_watch_consumer *consumer;
	struct pollfd poll_fd = {.events = POLLIN};
	struct ipc_poll_event event;
	ipc_client *own;

	(void)arg;
	if (!open_polled(NAME, &own, &consumer))
		process_end(1);
	poll_fd.fd = ipc_client_get_fd(own);
	actor_say(self, 0);
	for (;;) {
		uint64_t value, version = 0;

		while (ipc_poll_next(own, &event) == 0) {
			if (event.ready != IPC_READY_READABLE ||
			    ipc_watch_read(consumer, &value, sizeof(value), NULL, &version) < 0)
				process_end(2);
			atomic_store(&scene->got, (uint32_t)version);
			futex_wake_all(&scene->got);
		}
		atomic_store(&scene->rested, atomic_load(&scene->got));
		futex_wake_all(&scene->rested);
		(void)!poll(&poll_fd, 1, -1);
	}
}

/* ---- the scene ---- */

static void setup(void)
{
	fixture_setup();
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(scene, MAP_FAILED);
	producer = producer_new(NAME);
	actor_start(&survivor, survive, NULL);
	cr_assert_eq(actor_hear(&survivor), 0);
}

static void teardown(void)
{
	actor_kill(&survivor);
	ipc_watch_producer_close(producer);
	munmap(scene, sizeof(*scene));
	fixture_teardown();
}

static bool reaches(const _Atomic uint32_t *word, uint64_t version)
{
	uint64_t limit = clock_after_ns(LOST_NS);
	uint32_t now;

	while ((now = atomic_load(word)) < version) {
		struct futex_word sleep = {.word = word, .expected = now};

		if (clock_now_ns() >= limit)
			return false;
		futex_sleep(&sleep, 1, limit);
	}
	return true;
}

static void publish_and_expect(long n)
{
	++scene->version;
	cr_assert_eq(ipc_watch_publish(producer, &scene->version, sizeof(scene->version)), 0,
		     "killed before instruction %ld", n);
	cr_assert(reaches(&scene->got, scene->version), "killed before instruction %ld: not told",
		  n);
}

/* ---- a notifier is killed ---- */

static ipc_watch_producer *child_producer;

static void child_open_producer(void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	(void)arg;
	if (ipc_watch_producer_open_wait(&child_producer, domain_connect(&fixture_domain), NAME,
					 NULL, &deadline) < 0 ||
	    !reaches(&scene->rested, scene->version))
		_exit(1);
}

static void child_publish(void *arg)
{
	uint64_t value = ++scene->version;

	(void)arg;
	if (ipc_watch_publish(child_producer, &value, sizeof(value)) < 0)
		_exit(1);
}

/* The first of its rings went through the broker, the next one takes the bells. */
static void child_open_and_ring(void *arg)
{
	child_open_producer(arg);
	for (unsigned i = 0; i < 2; ++i) {
		child_publish(arg);
		if (!reaches(&scene->rested, scene->version))
			_exit(1);
	}
}

/* What it committed is got, though nothing else is published; and so is what comes after. */
static void check_notifier(void *arg, long n)
{
	ipc_watch_consumer *consumer = NULL;
	uint64_t value, version = 0;
	int r;

	(void)arg;
	cr_assert_eq(consume(&consumer, NAME, 0), 0);
	r = ipc_watch_read(consumer, &value, sizeof(value), NULL, &version);
	cr_assert(r == 0 || r == IPC_EAGAIN, "%s", ipc_error_name(r));
	ipc_watch_consumer_close(consumer);

	scene->n_changed += version == scene->version;
	scene->version = version;
	cr_assert(reaches(&scene->got, version),
		  "killed before instruction %ld: committed, not told", n);
	publish_and_expect(n);
}

static void kill_notifiers(void (*prepare)(void *arg))
{
	const struct step_case step = {
		.prepare = prepare, .operation = child_publish, .check = check_notifier};
	long n_points = step_run(&step, NULL);

	cr_log_info("%ld kill points, %ld after the commit", n_points, scene->n_changed);
	cr_assert_gt(n_points, 20);
	cr_assert_gt(scene->n_changed, 5);
}

/* M-25, M-30: its ring goes through the broker */
Test(crash_poll, killed_notifier_leaves_nobody_asleep, .init = setup, .fini = teardown,
     .timeout = 700)
{
	kill_notifiers(child_open_producer);
}

/* M-25, M-30: it rings itself */
Test(crash_poll, killed_notifier_with_bells_leaves_nobody_asleep, .init = setup, .fini = teardown,
     .timeout = 700)
{
	kill_notifiers(child_open_and_ring);
}

/* ---- a notifier of the own side is killed ---- */

static unsigned n_names;
static ipc_watch_producer *sibling; /* of the one that is killed */

static const char *shut_name(void)
{
	static char name[32];

	(void)snprintf(name, sizeof(name), "crash/poll/%u", n_names);
	return name;
}

static void sibling_open(void)
{
	struct ipc_poll_event event;

	++n_names;
	sibling = producer_new(shut_name());
	cr_assert_eq(ipc_poll_add(fixture_client, sibling, IPC_READY_PEER_GONE, NULL), 0);
	while (ipc_poll_next(fixture_client, &event) == 0)
		;
}

static void child_open_sibling(void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	(void)arg;
	if (ipc_watch_producer_open_wait(&child_producer, domain_connect(&fixture_domain),
					 shut_name(), NULL, &deadline) < 0)
		_exit(1);
}

static void child_shut_down(void *arg)
{
	(void)arg;
	(void)!ipc_watch_shutdown(child_producer);
}

static bool end_is_told(void)
{
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(fixture_client), .events = POLLIN};
	uint64_t limit = clock_after_ns(LOST_NS);
	struct ipc_poll_event event;

	while (clock_now_ns() < limit && poll(&poll_fd, 1, (int)(LOST_NS / NS_PER_MS)) == 1)
		if (ipc_poll_next(fixture_client, &event) == 0)
			return event.handle == sibling && event.ready & IPC_READY_END;

	return false;
}

static void check_sibling(void *arg, long n)
{
	(void)arg;
	if (ipc_watch_publish(sibling, "value", 6) != IPC_EPIPE)
		return;

	scene->n_changed++;
	cr_assert(end_is_told(), "killed before instruction %ld: shut down, not told", n);
	ipc_watch_producer_close(sibling);
	sibling_open();
}

/* M-25, M-30, M-34: a death is told to those of its own side, too, who may have been armed */
Test(crash_poll, killed_sibling_leaves_nobody_asleep, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {.prepare = child_open_sibling,
				       .operation = child_shut_down,
				       .check = check_sibling};

	sibling_open();
	cr_log_info("%ld kill points", step_run(&step, NULL));
	cr_assert_gt(scene->n_changed, 5);
	ipc_watch_producer_close(sibling);
}

/* ---- who asks is killed ---- */

static ipc_client *child_client;
static ipc_watch_consumer *child_consumer;

static void child_open_polled(void *arg)
{
	const char *name = arg;

	if (!open_polled(name, &child_client, &child_consumer))
		_exit(1);
}

static void child_ask(void *arg)
{
	struct ipc_poll_event event;

	(void)arg;
	while (ipc_poll_next(child_client, &event) == 0 && event.ready == 0)
		;
}

static void check_asker(void *arg, long n)
{
	(void)arg;
	publish_and_expect(n);
}

/* M-26, M-30 */
Test(crash_poll, killed_asker_blocks_no_notifier, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.prepare = child_open_polled,
				       .operation = child_ask,
				       .check = check_asker,
				       .stride = 5};

	publish_and_expect(-1);
	cr_assert_gt(step_run(&step, (void *)(uintptr_t)NAME), 20);
}

/* ---- who asks stands still ---- */

/* Nobody else is armed there, so that nobody else's rings help. */
#define OTHER_NAME "crash/poll-other"

static ipc_watch_producer *other_producer;

/* The handle was given and read: the next call finds it not ready, arms it and rests. */
static void child_open_and_read(void *arg)
{
	struct ipc_poll_event event;
	uint64_t value;

	child_open_polled(arg);
	if (ipc_poll_next(child_client, &event) < 0 ||
	    ipc_watch_read(child_consumer, &value, sizeof(value), NULL, NULL) < 0)
		_exit(1);
	atomic_store(&scene->is_published, 0);
	atomic_store(&scene->is_told, 0);
}

/* It was found not ready: it is armed when it is asked again. */
static void child_open_and_rest(void *arg)
{
	struct ipc_poll_event event;

	child_open_and_read(arg);
	if (ipc_poll_next(child_client, &event) != IPC_EAGAIN)
		_exit(1);
}

/* Asks until nothing is ready; then, if something was published by then, the descriptor says so. */
static void child_ask_and_watch(void *arg)
{
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(child_client), .events = POLLIN};
	uint64_t limit = clock_after_ns(LOST_NS);
	struct ipc_poll_event event;

	(void)arg;
	while (ipc_poll_next(child_client, &event) < 0) {
		if (!atomic_load(&scene->is_published))
			break;
		while (poll(&poll_fd, 1, 0) == 0)
			if (clock_now_ns() > limit)
				return;
	}
	atomic_store(&scene->is_told, 1);
}

static void publish_meanwhile(void *arg, long n)
{
	(void)arg;
	cr_assert_eq(ipc_watch_publish(other_producer, "value", 6), 0, "before instruction %ld", n);
	atomic_store(&scene->is_published, 1);
}

static void check_told(void *arg, long n)
{
	(void)arg;
	cr_assert(atomic_load(&scene->is_told), "published before instruction %ld: not told", n);
}

static void publish_between(void (*prepare)(void *arg))
{
	const struct step_case step = {.prepare = prepare,
				       .operation = child_ask_and_watch,
				       .meanwhile = publish_meanwhile,
				       .check = check_told};

	other_producer = producer_new(OTHER_NAME);
	cr_assert_eq(ipc_watch_publish(other_producer, "value", 6), 0);
	cr_assert_gt(step_run(&step, (void *)(uintptr_t)OTHER_NAME), 100);
	ipc_watch_producer_close(other_producer);
}

/* M-30: a change after IPC_EAGAIN, however soon, and before it, however late */
Test(crash_poll, publish_while_it_goes_to_rest_is_told, .init = setup, .fini = teardown,
     .timeout = 700)
{
	publish_between(child_open_and_read);
}

/* M-30 */
Test(crash_poll, publish_while_it_asks_again_is_told, .init = setup, .fini = teardown,
     .timeout = 700)
{
	publish_between(child_open_and_rest);
}
