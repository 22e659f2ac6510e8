/* SPDX-License-Identifier: MIT */
/*
 * The kind `session` as threads on one mapping, for the thread sanitizer: each end has a view of
 * its own, as each process has, which several threads use: two send and claim, one fills what the
 * other claims, two receive, one answers with commit_release, one looks at the state.  Then one
 * end is taken over again and again from those who go on.  Prints nothing and ends with 0 if each
 * message came once and in order.
 */
#include "libipc/channel/session.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 600, N_SENDERS = 2, N_EACH = 6000, N_TAKES = 600 };

static struct session_scene scene;
static struct session_member ends[2];

/* Relaxed, all of it: the test must not order what the library does not. */
static _Atomic uint32_t n_received, n_replies, is_sent, is_over;
static _Atomic uint32_t came[N_SENDERS * N_EACH];

static void must(bool holds, const char *what)
{
	session_scene_must(holds, what);
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	must(pthread_create(thread, NULL, fn, arg) == 0, "pthread_create");
}

static void join(pthread_t thread)
{
	must(pthread_join(thread, NULL) == 0, "pthread_join");
}

/* ---- several threads at each end ---- */

/* One claims, another one commits. */
static _Atomic(void *) handed;

static void *committer(void *arg)
{
	(void)arg;
	for (unsigned n = 0; n < N_EACH / 10;) {
		void *data = atomic_exchange_explicit(&handed, NULL, memory_order_acq_rel);

		if (!data) {
			(void)sched_yield();
			continue;
		}
		must(n % 3 == 2 ? session_abort(&ends[0].view, data) == 0
				: session_commit(&ends[0].view, data, n % 2 ? 0 : 8) == 0,
		     "commit of what another one claimed");
		++n;
	}
	return NULL;
}

static void *claimer(void *arg)
{
	(void)arg;
	for (unsigned n = 0; n < N_EACH / 10;) {
		void *expected = NULL, *data;
		int r = session_claim(&ends[0].view, 100, &data);

		must(r == 0 || r == IPC_EAGAIN, "claim");
		if (r < 0) {
			(void)sched_yield();
			continue;
		}
		pattern_fill(data, 8, UINT64_MAX);
		while (!atomic_compare_exchange_weak_explicit(
			&handed, &expected, data, memory_order_acq_rel, memory_order_relaxed)) {
			expected = NULL;
			(void)sched_yield();
		}
		++n;
	}
	return NULL;
}

static void *sender(void *arg)
{
	uint64_t who = (uintptr_t)arg;
	unsigned seed = (unsigned)who;

	for (uint64_t i = 0; i < N_EACH;) {
		uint64_t size = 16 + (uint64_t)rand_r(&seed) % 200;
		int r = session_scene_send(&ends[0], (who * N_EACH + i) << 1 | 1, size);

		must(r == 0 || r == IPC_EAGAIN, "send");
		if (r < 0)
			(void)sched_yield();
		else
			++i;
	}
	return NULL;
}

static void saw(const struct ipc_session_message *message)
{
	uint64_t value;

	if (message->size < 16)
		return;
	value = session_scene_number(message->data, message->size) >> 1;
	must(value < N_SENDERS * N_EACH, "a message of nobody");
	must(atomic_fetch_add_explicit(&came[value], 1, memory_order_relaxed) == 0,
	     "a message came twice");
	atomic_fetch_add_explicit(&n_received, 1, memory_order_relaxed);
}

static void answer(const struct ipc_session_message *request)
{
	void *data;
	int r;

	while ((r = session_claim(&ends[1].view, 24, &data)) == IPC_EAGAIN)
		(void)sched_yield();
	must(r == 0, "claim");
	pattern_fill(data, 24, request->sequence);
	must(session_commit_release(&ends[1].view, data, 24, request) == 0, "commit_release");
	atomic_fetch_add_explicit(&n_replies, 1, memory_order_relaxed);
}

/* A release is cumulative: what another thread still reads must not go, so each has its turn. */
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static void *receiver(void *arg)
{
	bool answers = arg != NULL;

	for (;;) {
		bool was_sent = atomic_load_explicit(&is_sent, memory_order_acquire);
		struct ipc_session_message messages[3];
		int n;

		pthread_mutex_lock(&reading);
		n = session_receive_many(&ends[1].view, messages, 3);
		must(n > 0 || n == IPC_EAGAIN, "receive");
		for (int i = 0; i < n; ++i)
			saw(&messages[i]);
		if (n > 0 && answers)
			answer(&messages[n - 1]);
		else if (n > 0)
			must(session_release(&ends[1].view, &messages[n - 1]) == 0, "release");
		pthread_mutex_unlock(&reading);
		if (n < 0 && was_sent)
			return NULL;
		if (n < 0)
			(void)sched_yield();
	}
}

/* Of the answers. */
static void *reader(void *arg)
{
	uint64_t number = 0;

	(void)arg;
	for (;;) {
		bool was_over = atomic_load_explicit(&is_over, memory_order_acquire);
		struct ipc_session_message message;
		int r = session_scene_receive(&ends[0], &message);

		must(r == 1 || r == IPC_EAGAIN, "receive");
		if (r < 0 && was_over)
			break;
		if (r < 0) {
			(void)sched_yield();
			continue;
		}
		must(message.sequence == ++number, "the number of an answer");
		must(session_scene_number(message.data, message.size) != 0, "an answer");
		must(session_release(&ends[0].view, &message) == 0, "release");
	}
	must(number == atomic_load_explicit(&n_replies, memory_order_relaxed), "each answer came");
	return NULL;
}

static void *looker(void *arg)
{
	uint64_t sent = 0, acknowledged = 0;

	(void)arg;
	while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
		struct ipc_session_state state = session_scene_state(&ends[0]);

		must(state.sent >= sent && state.acknowledged >= acknowledged, "state");
		must(state.acknowledged <= state.sent, "state");
		sent = state.sent;
		acknowledged = state.acknowledged;
		(void)!session_probe_room(&ends[0].view);
		(void)!session_probe_message(&ends[0].view);
		(void)sched_yield();
	}
	return NULL;
}

static void run_threads(void)
{
	pthread_t senders[N_SENDERS], receivers[2], hands[2], others[2];

	for (unsigned s = 0; s < 2; ++s)
		session_scene_enter(&scene, &ends[s], s, 1 + s, 0);
	start(&others[0], reader, NULL);
	start(&others[1], looker, NULL);
	start(&hands[0], claimer, NULL);
	start(&hands[1], committer, NULL);
	for (uintptr_t i = 0; i < N_SENDERS; ++i)
		start(&senders[i], sender, (void *)i);
	for (unsigned i = 0; i < 2; ++i)
		start(&receivers[i], receiver, i ? &scene : NULL);

	for (unsigned i = 0; i < N_SENDERS; ++i)
		join(senders[i]);
	for (unsigned i = 0; i < 2; ++i)
		join(hands[i]);
	atomic_store_explicit(&is_sent, 1, memory_order_release);
	for (unsigned i = 0; i < 2; ++i)
		join(receivers[i]);
	atomic_store_explicit(&is_over, 1, memory_order_release);
	for (unsigned i = 0; i < 2; ++i)
		join(others[i]);
	must(atomic_load(&n_received) == N_SENDERS * N_EACH, "each message came");
	for (unsigned s = 0; s < 2; ++s)
		session_scene_leave(&scene, &ends[s]);
}

/* ---- one end, one owner after another ---- */

static _Atomic uint32_t n_taken;
static _Atomic uint64_t n_sent[N_TAKES];

/*
 * The k-th who has the end sends until somebody else has it.  Nobody receives there: who was
 * overtaken reads what others write, finds that out, and drops it, which is a race by the book.
 */
static void *owner(void *arg)
{
	uintptr_t k = (uintptr_t)arg;
	struct session_member *member = calloc(1, sizeof(*member));
	uint64_t n = 0;
	int r;

	must(member != NULL, "calloc");
	session_scene_attach(&scene, member, 0, (unsigned)(10 + k));
	r = session_begin(&member->view, member->id, (uint32_t)getpid());
	must(r == 0, "begin");
	atomic_fetch_add_explicit(&n_taken, 1, memory_order_relaxed);

	while (r == 0 || r == IPC_EAGAIN) {
		r = session_scene_send(member, (uint64_t)(k + 1) << 32 | (n + 1), 40);
		if (r == 0)
			++n;
		else if (r == IPC_EAGAIN)
			(void)sched_yield();
		if (n > 0 && k == N_TAKES - 1)
			break;
	}
	must(r == IPC_ESTALE || k == N_TAKES - 1, "what an owner is told");
	atomic_store_explicit(&n_sent[k], n, memory_order_relaxed);
	session_scene_leave(&scene, member);
	free(member);
	return NULL;
}

static uint64_t n_came[N_TAKES];

/* Of all owners. */
static void *follower(void *arg)
{
	uint64_t number = 0, before = 0;

	(void)arg;
	for (;;) {
		bool was_over = atomic_load_explicit(&is_over, memory_order_acquire);
		struct ipc_session_message message;
		int r = session_scene_receive(&ends[1], &message);
		uint64_t value;

		must(r == 1 || r == IPC_EAGAIN, "receive");
		if (r < 0 && was_over)
			return NULL;
		if (r < 0) {
			(void)sched_yield();
			continue;
		}
		value = session_scene_number(message.data, message.size);
		must(message.sequence == ++number, "a number");
		must(value > before && value >> 32 <= N_TAKES, "the order");
		must(++n_came[(value >> 32) - 1] == (uint32_t)value, "each of an owner's came");
		before = value;
		must(session_release(&ends[1].view, &message) == 0, "release");
	}
}

static void run_owners(void)
{
	pthread_t threads[N_TAKES], last;

	session_scene_reset(&scene);
	atomic_store(&is_over, 0);
	session_scene_enter(&scene, &ends[1], 1, 1, 0);
	start(&last, follower, NULL);
	for (uintptr_t k = 0; k < N_TAKES; ++k) {
		start(&threads[k], owner, (void *)k);
		while (atomic_load_explicit(&n_taken, memory_order_relaxed) <= k)
			(void)sched_yield();

		/* At most three of those who were overtaken live. */
		if (k >= 3)
			join(threads[k - 3]);
	}
	for (unsigned k = N_TAKES - 3; k < N_TAKES; ++k)
		join(threads[k]);
	atomic_store_explicit(&is_over, 1, memory_order_release);
	join(last);
	for (unsigned k = 0; k < N_TAKES; ++k)
		must(n_came[k] == atomic_load(&n_sent[k]), "all of an owner's came");
	must(header_fault(scene.segment) == 0, "the session");
	session_scene_leave(&scene, &ends[1]);
}

int main(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	run_threads();
	run_owners();
	session_scene_deinit(&scene);
	return 0;
}
