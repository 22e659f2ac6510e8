/* SPDX-License-Identifier: MIT */
/*
 * A replica: a runner feeds the inbox of a shard with a snapshot and with what changes after it.
 * What of a snapshot came before its runner was killed does not show; frames that a killed shard
 * had not applied come again; and under kills of both the replica ends up as the primary is.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	KEYS = 4096,
	CHUNK_KEYS = 128,
	N_BEFORE = 10000, /* mutations of the primary before anything starts */
	N_HELD = 5,
	N_UNDER_KILLS = 40000,
	N_KILLS = 20,
	N_AT_ONCE = 16
};

static const char channel[] = "demo/shard";
static const uint64_t generation = 0x5eed;

/* The replica: two copies, one of which counts; it survives the shard. */
struct replica {
	_Atomic uint32_t current;
	struct copy {
		_Atomic uint64_t next;
		uint64_t values[KEYS];
	} copies[2];
};

/* The mutation of an offset sets one key to that offset. */
struct inbox_stage {
	_Atomic uint64_t next,
		last; /* of the primary: there are mutations up to `last` some time */
	_Atomic uint32_t n_again, n_loaded;
	struct replica replica;
};

static struct inbox_stage *stage;
static bool shard_tells;

static uint64_t primary_value(uint64_t key, uint64_t next)
{
	return next - 1 - (next - 1 - key) % KEYS;
}

static bool replica_is_right(void)
{
	const struct copy *copy = &stage->replica.copies[atomic_load(&stage->replica.current)];
	uint64_t next = atomic_load(&stage->next);
	bool is = atomic_load(&copy->next) == next;

	for (uint64_t key = 0; key < KEYS; ++key)
		is = is && copy->values[key] == primary_value(key, next);
	return is;
}

static const struct ipc_inbox_options *inbox_options(void)
{
	static const struct ipc_inbox_options options = {
		.size = sizeof(options),
		.flags = IPC_CREATE | IPC_KEEP | IPC_STAY | IPC_AWAIT,
		.capacity = 16384, /* a half of a snapshot */
	};

	return &options;
}

static void must(const char *what, int result)
{
	if (result < 0)
		fail(what, result);
}

/* ---- runners ---- */

static ipc_inbox_sender *sender_open(void)
{
	struct timespec deadline = in_seconds(5);
	ipc_inbox_sender *sender;

	must("open sender", ipc_inbox_sender_open_wait(&sender, broker_connect(), channel,
						       inbox_options(), &deadline));
	return sender;
}

/* The first n keys of a snapshot; IPC_EOVERFLOW: it is of no use any more. */
static int send_snapshot(ipc_inbox_sender *sender, uint64_t next, uint64_t n)
{
	int r = ipc_inbox_begin_snapshot_wait(sender, generation, NULL);

	for (uint64_t key = 0; key < n && r == 0; key += CHUNK_KEYS) {
		uint64_t values[CHUNK_KEYS];

		for (uint64_t i = 0; i < CHUNK_KEYS; ++i)
			values[i] = primary_value(key + i, next);
		r = ipc_inbox_send_chunk_wait(sender, values, sizeof(values), NULL);
	}
	return r == 0 && n == KEYS ? ipc_inbox_end_snapshot_wait(sender, next, NULL) : r;
}

static void torn_runner(int fd)
{
	ipc_inbox_sender *sender = sender_open();

	must("snapshot", send_snapshot(sender, atomic_load(&stage->next), KEYS / 2));
	report(fd, 0, 0, 0);
	for (;;)
		(void)pause();
}

/* The primary has nothing new; it is asked again in a millisecond, if the shard asks for nothing
 * before. */
static int idle(ipc_inbox_sender *sender)
{
	struct ipc_wait_item item = {.handle = sender, .events = IPC_READY_REQUEST};
	struct timespec deadline;
	int r;

	ipc_deadline_after(&deadline, 1000000);
	r = ipc_wait_any(&item, 1, &deadline);
	return r == 0 ? IPC_EOVERFLOW : r == IPC_ETIMEDOUT ? 0 : r;
}

/* Goes on where the one before ended. */
static void runner(int fd)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	ipc_inbox_sender *sender = sender_open();
	uint64_t at;
	int r;

	(void)fd;
	must("positions", ipc_inbox_get_positions(sender, &positions));
	at = positions.written;
	r = positions.generation == generation ? 0 : IPC_EOVERFLOW;
	for (;;) {
		if (r == IPC_EOVERFLOW) {
			at = atomic_load(&stage->next);
			r = send_snapshot(sender, at, KEYS);
		} else if (at < atomic_load(&stage->next)) {
			r = ipc_inbox_send_frame_wait(sender, at, &at, sizeof(at), NULL);
			at += r == 0;
		} else if (at < atomic_load(&stage->last)) {
			atomic_store(&stage->next, at + 1);
		} else {
			r = idle(sender);
		}
		if (r != IPC_EOVERFLOW)
			must("send", r);
	}
}

/* ---- shards ---- */

static ipc_inbox_receiver *receiver_open(int fd)
{
	struct timespec deadline = in_seconds(5);
	ipc_inbox_receiver *receiver;

	must("open receiver", ipc_inbox_receiver_open_wait(&receiver, broker_connect(), channel,
							   inbox_options(), &deadline));
	report(fd, 0, 0, 0);
	return receiver;
}

static void apply_frame(struct copy *copy, const struct ipc_inbox_event *event)
{
	if (event->offset < atomic_load(&copy->next)) {
		atomic_fetch_add(&stage->n_again, 1);
		return;
	}

	memcpy(&copy->values[event->offset % KEYS], event->data, event->size);
	atomic_store(&copy->next, event->offset + 1);
}

static void apply(const struct ipc_inbox_event *event)
{
	struct replica *replica = &stage->replica;
	uint32_t current = atomic_load(&replica->current);
	struct copy *shadow = &replica->copies[!current];
	static uint64_t key;

	switch (event->type) {
	case IPC_INBOX_BEGIN:
		key = 0;
		break;
	case IPC_INBOX_CHUNK:
		memcpy(&shadow->values[key], event->data, event->size);
		key += event->size / sizeof(uint64_t);
		break;
	case IPC_INBOX_END:
		atomic_store(&shadow->next, event->offset);
		atomic_store(&replica->current, !current);
		atomic_fetch_add(&stage->n_loaded, 1);
		break;
	case IPC_INBOX_FRAME:
		apply_frame(&replica->copies[current], event);
		break;
	case IPC_INBOX_ABORT:
	case IPC_INBOX_GAP:
		break;
	}
}

static void tell(int fd, const struct ipc_inbox_event *event)
{
	if (event->type == IPC_INBOX_CHUNK || event->type == IPC_INBOX_BEGIN)
		return;
	report(fd, (int64_t)event->type, event->offset, event->reason);
}

static void shard(int fd)
{
	ipc_inbox_receiver *receiver = receiver_open(fd);
	struct ipc_inbox_event events[N_AT_ONCE];

	for (;;) {
		int n = ipc_inbox_receive_many_wait(receiver, events, N_AT_ONCE, NULL);

		must("receive", n);
		for (int i = 0; i < n; ++i)
			apply(&events[i]);
		must("mark", ipc_inbox_mark_applied(receiver, &events[n - 1]));
		for (int i = 0; i < n && shard_tells; ++i)
			tell(fd, &events[i]);
	}
}

/* Receives, and comes to nothing. */
static void holding_shard(int fd)
{
	ipc_inbox_receiver *receiver = receiver_open(fd);
	struct ipc_inbox_event event;

	for (int i = 0; i < N_HELD; ++i)
		must("receive", ipc_inbox_receive_wait(receiver, &event, NULL));
	report(fd, 0, 0, 0);
	for (;;)
		(void)pause();
}

static struct member member_of(void (*fn)(int fd))
{
	struct member member = member_start(fn);

	(void)member_hear(member);
	return member;
}

/* ---- the acts ---- */

static struct member play_torn(struct member *feeder)
{
	struct member living = member_of(shard), dying = member_of(torn_runner);
	struct report told;
	int64_t killed_at;

	act("A runner is killed in the middle of a snapshot");
	member_until_asleep(living);
	killed_at = member_kill(dying);
	(void)close(dying.fd);
	told = member_hear(living);
	printf("    the shard, asleep, was told after %6.0f us\n",
	       (double)(told.at_ns - killed_at) / 1e3);
	check(told.result == IPC_INBOX_ABORT && told.other == IPC_INBOX_SENDER_DIED &&
		      atomic_load(&stage->n_loaded) == 0,
	      "ABORT: the sender died; nothing of the snapshot shows");

	*feeder = member_start(runner);
	told = member_hear(living);
	printf("    the next runner's snapshot was loaded after %6.0f us\n",
	       (double)(told.at_ns - killed_at) / 1e3);
	check(told.result == IPC_INBOX_END && replica_is_right(),
	      "it began anew, and all of it shows at once");
	return living;
}

static struct member play_unapplied(struct member living)
{
	struct member holder;
	bool in_order = true;
	int64_t killed_at, first_at = 0;

	act("A shard is killed with five frames that it had not applied");
	member_end(living);
	holder = member_of(holding_shard);
	atomic_fetch_add(&stage->last, N_HELD);
	(void)member_hear(holder);
	killed_at = member_kill(holder);
	(void)close(holder.fd);

	living = member_of(shard);
	for (uint64_t i = 0; i < N_HELD; ++i) {
		struct report told = member_hear(living);

		in_order =
			in_order && told.result == IPC_INBOX_FRAME && told.number == N_BEFORE + i;
		first_at = first_at ? first_at : told.at_ns;
	}
	printf("    a new process has the first of them after %6.0f us\n",
	       (double)(first_at - killed_at) / 1e3);
	check(in_order, "all five came again, in their order, with the same offsets");
	return living;
}

static bool until_applied(ipc_inbox_observer *observer)
{
	struct timespec deadline = in_seconds(5);
	int r;

	for (int i = 0; i < 5000 && atomic_load(&stage->next) < atomic_load(&stage->last); ++i)
		pause_ms(1);
	do {
		r = ipc_inbox_observer_applied_wait(observer, generation, atomic_load(&stage->last),
						    &deadline);
	} while (r == IPC_EOWNERDEAD); /* of the last one that was killed */
	return r == 0;
}

static void play_kills(struct member feeder, struct member living)
{
	struct member members[2] = {feeder, living};
	ipc_client *client = broker_connect();
	uint64_t first = atomic_load(&stage->last);
	int64_t started = now_ns();
	ipc_inbox_observer *observer;
	bool is_applied;

	act("Runner and shard are killed in turn, twenty times, under load");
	must("observe", ipc_inbox_observer_open_wait(&observer, client, channel, NULL));
	shard_tells = false; /* nobody would hear it */
	member_end(members[1]);
	members[1] = member_start(shard);
	atomic_fetch_add(&stage->last, N_UNDER_KILLS);
	for (uint64_t i = 0; i < N_KILLS; ++i) {
		int64_t limit = now_ns() + INT64_C(5000000000);

		while (atomic_load(&stage->next) < first + i * (N_UNDER_KILLS / N_KILLS) &&
		       now_ns() < limit)
			(void)sched_yield();
		member_end(members[i % 2]);
		members[i % 2] = member_start(i % 2 ? shard : runner);
	}
	is_applied = until_applied(observer);

	printf("    %d mutations in %.0f ms; %" PRIu32 " frames came again, %" PRIu32
	       " snapshots\n",
	       N_UNDER_KILLS, (double)(now_ns() - started) / 1e6, atomic_load(&stage->n_again),
	       atomic_load(&stage->n_loaded));
	check(is_applied && replica_is_right(), "the replica is what the primary is");
	member_end(members[0]);
	member_end(members[1]);
	(void)ipc_inbox_observer_close(observer);
	if (ipc_channel_remove_wait(client, channel, 0, NULL) < 0)
		check(false, "the kept inbox can be removed");
	(void)ipc_client_unref(client);
}

void act_inbox(void)
{
	struct member feeder, living;

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		fail("mmap", IPC_ENOMEM);
	atomic_store(&stage->next, N_BEFORE);
	atomic_store(&stage->last, N_BEFORE);

	shard_tells = true;
	living = play_torn(&feeder);
	living = play_unapplied(living);
	play_kills(feeder, living);
	(void)munmap(stage, sizeof(*stage));
}
