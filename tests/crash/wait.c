/* SPDX-License-Identifier: MIT */
/*
 * Kill at every instruction: ipc_wait_any(), and who notifies it.  A survivor waits in a process of
 * its own, for two channels; whatever was killed, it gets what is published next, and at once.
 */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

#define NAME       "crash/wait"
#define OTHER_NAME "crash/wait-other"

struct scene {
	_Atomic uint32_t got; /* by the survivor: version */
	bool refuses_waitv;
	uint64_t version; /* the latest, as the test knows it */
	long n_waits, n_changed;
};

static struct scene *scene;
static ipc_watch_producer *producer, *other_producer;
static struct actor survivor;

/* ---- the survivor ---- */

static bool open_items(struct ipc_wait_item *items)
{
	const char *names[2] = {OTHER_NAME, NAME};
	ipc_client *own = domain_connect(&fixture_domain);

	if (scene->refuses_waitv)
		futex_refuse_waitv();
	for (unsigned i = 0; i < 2; ++i) {
		ipc_watch_consumer *consumer;

		if (ipc_watch_consumer_open_wait(&consumer, own, names[i], NULL, NULL) < 0)
			return false;
		items[i] = (struct ipc_wait_item){.handle = consumer, .events = IPC_READY_READABLE};
	}
	return true;
}

static void survive(struct actor *self, void *arg)
{
	struct ipc_wait_item items[2];

	(void)arg;
	if (!open_items(items))
		process_end(1);
	actor_say(self, 0);
	for (;;) {
		uint64_t value;

		if (ipc_wait_any(items, 2, NULL) != 1 || items[1].ready != IPC_READY_READABLE ||
		    ipc_watch_read(items[1].handle, &value, sizeof(value), NULL,
				   &items[1].version) != 0)
			process_end(2);
		atomic_store(&scene->got, (uint32_t)items[1].version);
		futex_wake_all(&scene->got);
	}
}

/* ---- the scene ---- */

static void setup(void)
{
	WAKES_TELL();
	fixture_setup();
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(scene, MAP_FAILED);
	producer = producer_new(NAME);
	other_producer = producer_new(OTHER_NAME);
}

static void begin(bool refuses_waitv)
{
	scene->refuses_waitv = refuses_waitv;
	actor_start(&survivor, survive, NULL);
	cr_assert_eq(actor_hear(&survivor), 0);
}

static void teardown(void)
{
	actor_kill(&survivor);
	ipc_watch_producer_close(producer);
	ipc_watch_producer_close(other_producer);
	munmap(scene, sizeof(*scene));
	fixture_teardown();
}

static void expect_got(long n)
{
	uint64_t began = clock_now_ns(), limit = began + 30 * NS_PER_S;
	uint32_t now;

	while ((now = atomic_load(&scene->got)) < scene->version) {
		struct futex_word sleep = {.word = &scene->got, .expected = now};

		cr_assert_lt(clock_now_ns(), limit, "killed before instruction %ld: not woken", n);
		futex_sleep(&sleep, 1, limit);
	}
	scene->n_waits++;
	ASSERT_WOKEN(began);
}

static void publish_and_expect(long n)
{
	++scene->version;
	cr_assert_eq(ipc_watch_publish(producer, &scene->version, sizeof(scene->version)), 0,
		     "killed before instruction %ld", n);
	expect_got(n);
}

static void check_points(long n_points)
{
	cr_log_info("%ld kill points, %ld waits", n_points, scene->n_waits);
	cr_assert_gt(n_points, 20);
}

/* ---- a waiter is killed ---- */

static struct ipc_wait_item child_items[2];

/* After waits in vain the next one goes to sleep at once. */
enum { WAITS_IN_VAIN = 6 };

static void child_open(void *arg)
{
	(void)arg;
	if (!open_items(child_items))
		_exit(1);
	child_items[1].version = scene->version;
	for (unsigned i = 0; i < WAITS_IN_VAIN && scene->refuses_waitv; ++i) {
		struct timespec soon = domain_deadline(5);

		(void)!ipc_wait_any(child_items, 2, &soon);
	}
}

/* Ends in its sleep, or with the deadline where sleeps are short. */
static void child_wait(void *arg)
{
	struct timespec soon = domain_deadline(150);

	(void)arg;
	(void)!ipc_wait_any(child_items, 2, scene->refuses_waitv ? &soon : NULL);
}

static void check_waiter(void *arg, long n)
{
	(void)arg;
	publish_and_expect(n);
}

static void kill_waiters(bool refuses_waitv)
{
	const struct step_case step = {.prepare = child_open,
				       .operation = child_wait,
				       .check = check_waiter,
				       .stride = 29};

	begin(refuses_waitv);
	check_points(step_run(&step, NULL));
}

/* M-26, M-29 */
Test(crash_wait, killed_waiter_blocks_no_notifier, .init = setup, .fini = teardown, .timeout = 700)
{
	kill_waiters(false);
}

/* M-26, M-29 */
Test(crash_wait, killed_waiter_that_was_armed_blocks_no_notifier, .init = setup, .fini = teardown,
     .timeout = 700)
{
	kill_waiters(true);
}

/* ---- a notifier is killed ---- */

static ipc_watch_producer *child_producer;

static void child_open_producer(void *arg)
{
	(void)arg;
	if (ipc_watch_producer_open_wait(&child_producer, domain_connect(&fixture_domain), NAME,
					 NULL, NULL) < 0)
		_exit(1);
	actor_until_asleep(&survivor);
}

static void child_publish(void *arg)
{
	uint64_t value = scene->version + 1;

	(void)arg;
	if (ipc_watch_publish(child_producer, &value, sizeof(value)) < 0)
		_exit(1);
}

/* What it committed is got; and so is what comes after. */
static void check_notifier(void *arg, long n)
{
	ipc_watch_consumer *consumer = NULL;
	uint64_t value, version = 0;
	int r;

	(void)arg;
	cr_assert_eq(consume(&consumer, NAME, 0), 0);
	r = ipc_watch_read(consumer, &value, sizeof(value), NULL, &version);
	cr_assert(r == 0 || (r == IPC_EAGAIN && scene->version == 0), "%s", ipc_error_name(r));
	ipc_watch_consumer_close(consumer);

	if (version > scene->version) {
		cr_assert_eq(version, scene->version + 1);
		scene->version = version;
		scene->n_changed++;
		expect_got(n);
	}
	publish_and_expect(n);
}

static void kill_notifiers(bool refuses_waitv)
{
	const struct step_case step = {.prepare = child_open_producer,
				       .operation = child_publish,
				       .check = check_notifier,
				       .stride = 3};

	begin(refuses_waitv);
	check_points(step_run(&step, NULL));
	cr_assert_gt(scene->n_changed, 0);
}

/* M-25, M-29 */
Test(crash_wait, killed_notifier_leaves_nobody_asleep, .init = setup, .fini = teardown,
     .timeout = 700)
{
	kill_notifiers(false);
}

/* M-25, M-29 */
Test(crash_wait, killed_notifier_leaves_nobody_asleep_who_is_armed, .init = setup, .fini = teardown,
     .timeout = 700)
{
	kill_notifiers(true);
}
