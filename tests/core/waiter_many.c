/* SPDX-License-Identifier: MIT */
/*
 * A wait for several things, without a broker: the test plays it, and what has to be slept on or
 * armed is seen from outside.
 */
#include "libipc/core/waiter.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/mman.h>

#include <ipc/error.h>

#include "tests/support/actor.h"
#include "tests/support/wakes.h"

enum { MANY = WAITER_MORE_MAX };

/* Shared between the test and its actor. */
struct scene {
	struct eventcount event[MANY];
	_Alignas(64) _Atomic uint32_t attention;
	_Atomic uint32_t ready; /* number of what is there, from 1 */
	_Atomic uint32_t n_shown, n_hidden, n_checks;
};

static struct scene *scene;
static _Atomic uint32_t cancel_word, handle_cancelled, client_cancelled;

TestSuite(waiter_many, .timeout = 60);

static void setup(void)
{
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(scene, MAP_FAILED);
	for (unsigned i = 0; i < MANY; ++i)
		eventcount_init(&scene->event[i]);
}

static void teardown(void)
{
	munmap(scene, sizeof(*scene));
}

#define SCENE .init = setup, .fini = teardown

static int look(void *unused)
{
	uint32_t ready = atomic_exchange(&scene->ready, 0);

	(void)unused;
	return ready ? (int)ready : WAITER_NOT_YET;
}

static void show(void *unused, uint64_t since_ns)
{
	(void)unused;
	atomic_fetch_add(since_ns ? &scene->n_shown : &scene->n_hidden, 1);
}

static int check(void *unused)
{
	(void)unused;
	atomic_fetch_add(&scene->n_checks, 1);
	return 0;
}

struct part {
	unsigned n_events;
	bool refuses_waitv;
};

static int wait_many(const struct part *part, uint64_t deadline_ns)
{
	struct eventcount *events[MANY];
	struct waiter_more more = {
		.events = events,
		.n_events = part->n_events,
		.show = show,
	};
	struct waiter waiter = {
		.attention = &scene->attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
		.more = &more,
		.deadline_ns = deadline_ns,
		.check = check,
	};

	for (unsigned i = 0; i < MANY; ++i)
		events[i] = &scene->event[i];
	return waiter_wait(&waiter, look, NULL);
}

/* Waits again and again, and says each time what came. */
static void play(struct actor *self, void *arg)
{
	const struct part *part = arg;

	if (part->refuses_waitv)
		futex_refuse_waitv();
	for (;;)
		actor_say(self, wait_many(part, CLOCK_FOREVER));
}

static void start(struct actor *actor, unsigned n_events, bool refuses_waitv)
{
	struct part part = {n_events, refuses_waitv};

	actor_start(actor, play, &part);
	actor_until_asleep(actor);
}

static void bump(_Atomic uint32_t *attention)
{
	atomic_fetch_add(attention, 1);
	futex_wake_all(attention);
}

static unsigned count(uint32_t flag, unsigned n_events)
{
	unsigned n = 0;

	for (unsigned i = 0; i < n_events; ++i)
		n += (atomic_load(&scene->event[i].word) & flag) != 0;
	return n;
}

/* M-27, M-29 */
Test(waiter_many, each_event_wakes_without_a_slice, SCENE)
{
	struct actor actor;

	WAKES_TELL();
	start(&actor, MANY, false);
	for (unsigned i = 0; i < MANY; ++i) {
		uint64_t began = clock_now_ns();

		atomic_store(&scene->ready, i + 1);
		cr_assert_not(eventcount_notify(&scene->event[i]), "nobody is armed");
		cr_assert_eq(actor_hear(&actor), i + 1);
		ASSERT_WOKEN(began);
		actor_until_asleep(&actor);
	}
	actor_kill(&actor);
}

/* M-29: what the broker tells */
Test(waiter_many, attention_wakes_and_has_the_socket_looked_at, SCENE)
{
	enum { N = 5 };
	struct actor actor;

	WAKES_TELL();
	start(&actor, MANY, false);
	for (unsigned i = 0; i < N; ++i) {
		uint64_t began = clock_now_ns();
		uint32_t n_checks = atomic_load(&scene->n_checks);

		bump(&scene->attention);
		while (atomic_load(&scene->n_checks) == n_checks)
			cr_assert_lt(clock_now_ns() - began, 10 * NS_PER_S);
		ASSERT_WOKEN(began);
		actor_until_asleep(&actor);
	}
	actor_kill(&actor);
}

/* M-29: without futex_waitv nobody sleeps on an event, and all are armed */
Test(waiter_many, where_one_word_can_be_waited_for_all_events_are_armed, SCENE)
{
	struct actor actor;

	WAKES_TELL();
	start(&actor, MANY, true);
	for (unsigned i = 0; i < MANY; ++i) {
		uint64_t began;

		cr_assert_eq(count(EVENTCOUNT_ARMED, MANY), MANY);
		cr_assert_eq(count(EVENTCOUNT_SLEEPERS, MANY), 0);

		began = clock_now_ns();
		atomic_store(&scene->ready, i + 1);
		cr_assert(eventcount_notify(&scene->event[i]));
		bump(&scene->attention);
		cr_assert_eq(actor_hear(&actor), i + 1);
		ASSERT_WOKEN(began);
		actor_until_asleep(&actor);
	}
	actor_kill(&actor);
}

/* M-26 */
Test(waiter_many, killed_waiter_costs_its_notifier_one_ring, SCENE)
{
	struct actor actor;

	start(&actor, 2, true);
	actor_kill(&actor);

	cr_assert(eventcount_notify(&scene->event[0]));
	cr_assert_not(eventcount_notify(&scene->event[0]));

	start(&actor, 2, false);
	actor_kill(&actor);
	cr_assert(eventcount_notify(&scene->event[1]), "still armed by the first");
	cr_assert_not(eventcount_notify(&scene->event[1]));

	start(&actor, 2, false);
	atomic_store(&scene->ready, 5);
	(void)eventcount_notify(&scene->event[1]);
	cr_assert_eq(actor_hear(&actor), 5);
	actor_kill(&actor);
}

/* M-20, M-45 */
Test(waiter_many, deadline_is_kept_and_the_sleep_is_shown, SCENE)
{
	const struct part part = {.n_events = 3};
	uint64_t began = clock_now_ns();

	cr_assert_eq(wait_many(&part, began + 150 * NS_PER_MS), IPC_ETIMEDOUT);

	cr_assert_geq(clock_now_ns() - began, 150 * NS_PER_MS);
	cr_assert_eq(atomic_load(&scene->n_shown), 1);
	cr_assert_eq(atomic_load(&scene->n_hidden), 1);
	cr_assert_geq(atomic_load(&scene->n_checks), 1, "once a slice");

	cr_assert_eq(wait_many(&part, 0), IPC_ETIMEDOUT);
	cr_assert_eq(atomic_load(&scene->n_shown), 1, "a look is no sleep");
}

/* M-28 */
Test(waiter_many, cancel_is_seen, SCENE)
{
	const struct part part = {.n_events = 3};

	atomic_store(&client_cancelled, 1);
	cr_assert_eq(wait_many(&part, CLOCK_FOREVER), IPC_ECANCELED);
	atomic_store(&scene->ready, 4);
	cr_assert_eq(wait_many(&part, CLOCK_FOREVER), 4, "what is ready comes first");
}
