/* SPDX-License-Identifier: MIT */
/*
 * The kind `inbox` as threads on one mapping, for the thread sanitizer: each end has a view of its
 * own, as each process has, which several threads use: one sends snapshots and frames, one claims
 * frames beside it, two receive, one at each end looks at everything, and an observer with a view
 * of its own reads positions.  All of it where a full inbox is refused, and where the backlog is
 * given up.  Prints nothing and ends with 0 if each event was one that may come there, snapshots
 * came whole, and what was applied in the end is what was written.
 */
#include "libipc/channel/inbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/inbox_replica.h"
#include "tests/support/inbox_scene.h"

enum { CAPACITY = 4096, LARGEST = 600, N_FRAMES = 40000, N_CHUNKS = 5, BATCH = 4 };

static struct inbox_scene scene;
static struct inbox_sender sender;
static struct inbox_receiver receiver;
static struct inbox observer;
static bool collapses;

/* Relaxed, but for the ends of loops: the test must not order what the library does not. */
static _Atomic uint64_t next_offset, n_ends;
static _Atomic uint32_t is_settling, is_over;

static void must(bool holds, const char *what)
{
	inbox_scene_must(holds, what);
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	must(pthread_create(thread, NULL, fn, arg) == 0, "pthread_create");
}

static void join(pthread_t thread)
{
	must(pthread_join(thread, NULL) == 0, "pthread_join");
}

static bool is_set(const _Atomic uint32_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

/*
 * Whoever looks on may read a number where tail or head has been and bytes of a record are by now:
 * an atomic load beside a plain store.  They drop it when they find the word changed (ring_look()).
 * So may a receiver that looks ahead of its mark at what is given up just then; where nothing is
 * ever given up, it receives by ring_peek().
 */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:^inbox_look$\nrace:^find_received$\nrace:^ring_peek_ahead$\n";
}

/* ---- the sender's end ---- */

/* Another thread may have sent the one of this offset, or be inside of a snapshot. */
static void require_refusal(int r)
{
	must(r == 0 || r == IPC_EAGAIN || r == IPC_EINVAL || r == IPC_EOVERFLOW,
	     "what a frame says");
}

static bool send_frame(unsigned *seed)
{
	unsigned char bytes[LARGEST];
	uint64_t offset = atomic_load_explicit(&next_offset, memory_order_relaxed);
	uint64_t size = 8 + (uint64_t)rand_r(seed) % 200;
	int r;

	pattern_fill(bytes, size, offset);
	r = inbox_send_frame(&sender, offset, bytes, size, rand_r(seed) % 8 != 0);
	require_refusal(r);
	if (r == 0)
		(void)atomic_compare_exchange_strong_explicit(&next_offset, &offset, offset + 1,
							      memory_order_relaxed,
							      memory_order_relaxed);
	return r == 0;
}

/* Of this offset or of none: others may give the backlog up under an open claim. */
static bool claim_frame(unsigned *seed)
{
	uint64_t offset = atomic_load_explicit(&next_offset, memory_order_relaxed);
	uint64_t size = 8 + (uint64_t)rand_r(seed) % 200;
	void *data;
	int r = inbox_claim_frame(&sender, size, &data, rand_r(seed) % 8 != 0);

	require_refusal(r);
	if (r < 0)
		return false;

	pattern_fill(data, size, offset);
	r = rand_r(seed) % 8 ? inbox_commit_frame(&sender, offset, data, size) : IPC_EAGAIN;
	require_refusal(r);
	if (r < 0)
		must(inbox_abort_frame(&sender, data) == 0, "abort of a claim");
	else
		(void)atomic_compare_exchange_strong_explicit(&next_offset, &offset, offset + 1,
							      memory_order_relaxed,
							      memory_order_relaxed);
	return r == 0;
}

static uint64_t written(void)
{
	return inbox_scene_positions(&sender.inbox).written;
}

/* The n-th try: 0, or why it came to nothing. */
static int try_snapshot(uint64_t n, unsigned *seed)
{
	unsigned char bytes[LARGEST];
	bool waits = rand_r(seed) % 4 != 0;
	uint64_t next = 0;
	int r = inbox_begin_snapshot(&sender, n, waits);

	for (unsigned i = 0; r == 0 && i < N_CHUNKS; ++i) {
		pattern_fill(bytes, 100, n * N_CHUNKS + i);
		while ((r = !collapses && i == 2
				    ? inbox_send_chunk_fd(&sender, scene.pair[0], n, 100, waits)
				    : inbox_send_chunk(&sender, bytes, 100, waits)) == IPC_EAGAIN)
			(void)sched_yield();
	}
	if (r == 0 && rand_r(seed) % 16 == 0) {
		must(inbox_abort_snapshot(&sender) == 0, "abort of a snapshot");
		return IPC_EAGAIN;
	}
	if (r < 0)
		return r;

	next = written() + rand_r(seed) % 3;
	while ((r = inbox_end_snapshot(&sender, next, waits)) == IPC_EAGAIN)
		(void)sched_yield();
	if (r == 0)
		atomic_store_explicit(&next_offset, next, memory_order_relaxed);
	return r;
}

static void send_snapshot(unsigned *seed)
{
	static uint64_t n;
	int r;

	do {
		r = try_snapshot(++n, seed);
		must(r == 0 || r == IPC_EAGAIN || r == IPC_EOVERFLOW, "a snapshot");
		if (r < 0)
			(void)sched_yield();
	} while (r < 0);
}

static bool is_settled(void)
{
	struct ipc_inbox_positions at = inbox_scene_positions(&sender.inbox);

	return at.applied == at.written && at.applied_generation == at.generation && at.depth == 0;
}

static void *main_sender(void *arg)
{
	unsigned seed = 1;

	(void)arg;
	send_snapshot(&seed);
	for (unsigned n = 0; n < N_FRAMES;) {
		if (inbox_is_requested(&sender) || rand_r(&seed) % 500 == 0)
			send_snapshot(&seed);
		if (send_frame(&seed))
			++n;
		else
			(void)sched_yield();
	}
	return NULL;
}

static void *claimer(void *arg)
{
	unsigned seed = 2;

	(void)arg;
	while (!is_set(&is_settling))
		if (!claim_frame(&seed))
			(void)sched_yield();
	return NULL;
}

static void *sender_looker(void *arg)
{
	uint64_t served = 0;

	(void)arg;
	while (!is_set(&is_over)) {
		(void)inbox_is_requested(&sender);
		(void)!inbox_probe_wanted(&sender, &served);
		(void)!inbox_probe_room(&sender);
		(void)!inbox_probe_applied(&sender.inbox, 0, 10);
		(void)sched_yield();
	}
	return NULL;
}

/* ---- the receiver's end ---- */

/* A mark is cumulative: what another thread still reads must not go, so each has its turn. */
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;
static struct inbox_replica replica;
static uint64_t n_chunks;

static void see(const struct ipc_inbox_event *event)
{
	inbox_replica_see(&replica, event);
	must(replica.wrong == NULL, replica.wrong ? replica.wrong : "");
	must(collapses || event->reason != IPC_INBOX_COLLAPSED, "a backlog that nobody gave up");
	if (event->type == IPC_INBOX_BEGIN) {
		n_chunks = 0;
	} else if (event->type == IPC_INBOX_CHUNK) {
		must(event->fd >= 0 ? event->offset == event->generation
				    : inbox_scene_number(event->data, event->size) ==
					      event->generation * N_CHUNKS + n_chunks,
		     "a chunk");
		++n_chunks;
	} else if (event->type == IPC_INBOX_END) {
		must(n_chunks == N_CHUNKS, "a snapshot that is whole");
		atomic_fetch_add_explicit(&n_ends, 1, memory_order_relaxed);
	} else if (event->type == IPC_INBOX_FRAME) {
		must(inbox_scene_number(event->data, event->size) == event->offset, "a frame");
	}
}

static void *reader(void *arg)
{
	(void)arg;
	for (;;) {
		bool was_over = is_set(&is_over);
		struct ipc_inbox_event events[BATCH];
		int n;

		pthread_mutex_lock(&reading);
		n = inbox_receive_many(&receiver, events, BATCH, 0);
		must(n > 0 || n == IPC_EAGAIN, "receive");
		for (int i = 0; i < n; ++i) {
			see(&events[i]);
			(void)fd_close(events[i].fd);
		}
		if (n > 0)
			must(inbox_mark_applied(&receiver, &events[n - 1]) == 0, "mark_applied");
		pthread_mutex_unlock(&reading);
		if (n < 0 && was_over)
			return NULL;
		if (n < 0)
			(void)sched_yield();
	}
}

static void *receiver_looker(void *arg)
{
	(void)arg;
	for (unsigned n = 0; !is_set(&is_over); ++n) {
		int r = inbox_probe_event(&receiver, 0);

		must(r == 0 || r == IPC_EAGAIN, "probe_event");
		if (n % 256 == 255 && !is_set(&is_settling))
			must(inbox_request_snapshot(&receiver) >= 0, "request_snapshot");
		(void)sched_yield();
	}
	return NULL;
}

/* ---- the observer ---- */

static void *observe(void *arg)
{
	struct ipc_inbox_positions at = {.size = sizeof(at)};
	uint64_t last_written = 0, last_wanted = 0;

	(void)arg;
	while (!is_set(&is_over)) {
		int r = inbox_get_positions(&observer, &at);

		must(r == 0 || r == IPC_EAGAIN, "get_positions");
		if (r == 0) {
			must(at.written >= last_written, "what was written stays so");
			must(at.snapshot_wanted >= last_wanted, "requests stay");
			must(at.depth <= CAPACITY && at.depth <= at.depth_max, "depth");
			must(at.generation == 0 || at.generation != at.applied_generation ||
				     (at.applied <= at.received && at.received <= at.written),
			     "the order of positions");
			last_written = at.written;
			last_wanted = at.snapshot_wanted;
		}
		r = inbox_probe_applied(&observer, at.generation, at.written);
		must(r == 0 || r == IPC_EAGAIN || r == IPC_ESTALE, "probe_applied");
		(void)sched_yield();
	}
	return NULL;
}

/* ---- all of them ---- */

/* Until all that was written is applied, which a request may take another snapshot for. */
static void settle(void)
{
	unsigned seed = 3;

	while (inbox_is_requested(&sender) || !is_settled()) {
		if (inbox_is_requested(&sender))
			send_snapshot(&seed);
		(void)sched_yield();
	}
}

static void run(enum ipc_inbox_full full)
{
	const uint64_t shape[4] = INBOX_SHAPE(CAPACITY, LARGEST, full);
	pthread_t threads[5], first, claims;
	struct inbox_state lasting = {0};

	collapses = full == IPC_INBOX_FULL_COLLAPSE;
	inbox_scene_init(&scene, shape);
	inbox_scene_send(&scene, &sender, 1);
	inbox_scene_receive(&scene, &receiver, 2);
	must(inbox_attach(&observer, scene.segment, scene.size, scene.shape) == 0, "attach");
	inbox_replica_begin(&replica, &lasting, &receiver);
	atomic_store(&next_offset, 0);
	atomic_store(&n_ends, 0);
	atomic_store(&is_settling, 0);
	atomic_store(&is_over, 0);

	start(&threads[0], reader, NULL);
	start(&threads[1], reader, NULL);
	start(&threads[2], sender_looker, NULL);
	start(&threads[3], receiver_looker, NULL);
	start(&threads[4], observe, NULL);
	start(&first, main_sender, NULL);
	start(&claims, claimer, NULL);
	join(first);
	atomic_store_explicit(&is_settling, 1, memory_order_release);
	join(claims);
	settle();
	atomic_store_explicit(&is_over, 1, memory_order_release);
	for (unsigned i = 0; i < 5; ++i)
		join(threads[i]);

	must(replica.expected == written() && !replica.is_inside && !replica.is_lost,
	     "all that was written came");
	must(atomic_load(&n_ends) > 2, "snapshots came");
	must(header_fault(scene.segment) == 0, "the inbox");
	inbox_close_sender(&sender);
	inbox_leave_sender(&sender);
	inbox_leave_receiver(&receiver);
	inbox_scene_deinit(&scene);
}

int main(void)
{
	run(IPC_INBOX_FULL_FAIL);
	run(IPC_INBOX_FULL_COLLAPSE);
	return 0;
}
