/* SPDX-License-Identifier: MIT */
/*
 * Many kept queues with one queue of dead letters; producers and consumers, each with handles of
 * many queues, killed at random: by the test's SIGKILL at any instruction, and by their own crash
 * points.  Whoever dies is replaced at once.
 *
 *	IPC_STRESS_KILLS      how many, default 400
 *	IPC_STRESS_SECONDS    how long at least, default 3
 *	IPC_STRESS_QUEUES     how many queues, default 16
 *
 * What must hold: each item whose push came back ends once, acknowledged or in the dead letters;
 *one whose pusher was killed in the call ends once or never was; an item that comes again has a
 *larger attempt; items of one producer and one class come in the order of their pushes; each wait
 *comes to one of the ends that it may have; and at the end the counts of all queues add up
 *and agree with what was seen from outside.
 */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define DEAD "stress/dead"

enum {
	QUEUES_MAX = 64,
	N_PRODUCERS = 4, /* of each queue */
	N_CONSUMERS = 4, /* each of its own queues */
	UNDERTAKER = N_PRODUCERS + N_CONSUMERS,
	N = UNDERTAKER + 1,
	CLASSES = 3,
	ITEMS_MAX = 24,
	SIZE_MAX_OF_ITEM = 200,
	ATTEMPTS_MAX = 4,
	IDS_MAX = 1 << 26,
	WAIT_MS = 30000, /* that long nobody waits for those who live */
};

/* Exit statuses: none of them is a death by SIGKILL. */
enum { WRONG_RESULT = 10, WRONG_ITEM, WRONG_ORDER, WRONG_ATTEMPT, ENDED_TWICE, STUCK, TOO_MANY };

/* What is known of an item, from outside. */
enum { PUSHED = 1, ACKED = 2, DEAD_LETTER = 4, MAYBE_PUSHED = 8, MAYBE_ENDED = 16, DROPPED = 32 };

struct item {
	uint64_t id;
	uint32_t queue, producer, life, number; /* of this life's items in this class */
	uint32_t size;
};

struct board {
	_Atomic uint32_t next_id;
	_Atomic uint32_t producing;  /* 0: no more pushes */
	_Atomic uint32_t in_call[N]; /* id + 1 that is being pushed, or ended */
	_Atomic uint32_t life[N];
	_Atomic uint64_t n_pushed, n_acked, n_dead, n_again, n_full, n_timeouts, n_killed;
	_Atomic uint32_t last[QUEUES_MAX][CLASSES][N_PRODUCERS]; /* number of the first takes */
	_Atomic uint32_t last_life[QUEUES_MAX][CLASSES][N_PRODUCERS];
	_Atomic int32_t result;
	_Atomic uint8_t known[IDS_MAX];
	_Atomic uint8_t attempt[IDS_MAX];
};

static struct board *board;
static struct domain domain;
static pid_t pids[N];
static unsigned n_queues;

static ipc_client *client;
static unsigned me, seed;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void end_of(int r, int status)
{
	atomic_store(&board->result, r);
	_exit(r == IPC_ETIMEDOUT ? STUCK : status);
}

static void must(int r)
{
	if (r < 0)
		end_of(r, WRONG_RESULT);
}

static struct timespec wait_deadline(void)
{
	return domain_deadline(rand_r(&seed) % 8 ? WAIT_MS : (unsigned)rand_r(&seed) % 2);
}

static void begin_call(uint64_t id)
{
	atomic_store(&board->in_call[me], (uint32_t)id + 1);
}

static void end_call(void)
{
	atomic_store(&board->in_call[me], 0);
}

static void learn(uint64_t id, unsigned what)
{
	atomic_fetch_or(&board->known[id], (uint8_t)what);
}

static void queue_name(char name[32], unsigned queue)
{
	(void)snprintf(name, 32, "stress/queue/%u", queue);
}

static const struct ipc_queue_options *options(void)
{
	static struct ipc_queue_options made = IPC_QUEUE_OPTIONS_INIT;

	made.flags = IPC_CREATE | IPC_KEEP | IPC_STAY;
	made.priorities = CLASSES;
	made.items_max = ITEMS_MAX;
	made.bytes_max = ITEMS_MAX * SIZE_MAX_OF_ITEM / 2;
	made.item_size_max = SIZE_MAX_OF_ITEM;
	made.attempts_max = ATTEMPTS_MAX;
	made.dead_letters = DEAD;
	return &made;
}

static const struct ipc_queue_options *dead_options(void)
{
	static struct ipc_queue_options made = IPC_QUEUE_OPTIONS_INIT;

	made.flags = IPC_CREATE | IPC_KEEP | IPC_STAY;
	made.priorities = 1;
	made.items_max = 100000;
	made.bytes_max = (uint64_t)100000 * SIZE_MAX_OF_ITEM;
	made.item_size_max = SIZE_MAX_OF_ITEM;
	return &made;
}

/* ---- producers ---- */

static ipc_queue_producer *outs[QUEUES_MAX];
static uint32_t numbers[QUEUES_MAX][CLASSES];

static int push_claimed(ipc_queue_producer *out, unsigned class, const struct item *item)
{
	struct timespec deadline = wait_deadline();
	void *data;
	int r;

	r = ipc_queue_claim_wait(out, class, SIZE_MAX_OF_ITEM, &data, &deadline);
	if (r < 0)
		return r;
	if (rand_r(&seed) % 16 == 0) {
		must(ipc_queue_abort(out, data));
		return IPC_EAGAIN;
	}
	memset(data, (int)item->id, item->size);
	memcpy(data, item, sizeof(*item));
	return ipc_queue_commit(out, data, item->size);
}

static int push(ipc_queue_producer *out, unsigned class, const struct item *item)
{
	unsigned char bytes[SIZE_MAX_OF_ITEM];
	struct timespec deadline = wait_deadline();

	memset(bytes, (int)item->id, item->size);
	memcpy(bytes, item, sizeof(*item));
	switch (rand_r(&seed) % 4) {
	case 0:
		return push_claimed(out, class, item);
	case 1:
		return ipc_queue_push(out, class, bytes, item->size, IPC_FULL_FAIL);
	case 2:
		return ipc_queue_push(out, class, bytes, item->size,
				      rand_r(&seed) % 64 ? IPC_FULL_FAIL : IPC_FULL_DEAD_LETTER);
	default:
		return ipc_queue_push_wait(out, class, bytes, item->size, &deadline);
	}
}

static void produce_once(void)
{
	unsigned queue = (unsigned)rand_r(&seed) % n_queues;
	unsigned class = (unsigned)rand_r(&seed) % CLASSES;
	struct item item = {
		.id = atomic_fetch_add(&board->next_id, 1),
		.queue = queue,
		.producer = me,
		.life = atomic_load(&board->life[me]),
		.number = numbers[queue][class] + 1,
		.size = (uint32_t)sizeof(item) +
			(uint32_t)rand_r(&seed) % (SIZE_MAX_OF_ITEM - (uint32_t)sizeof(item)),
	};
	int r;

	if (item.id >= IDS_MAX)
		end_of(0, TOO_MANY);
	begin_call(item.id);
	r = push(outs[queue], class, &item);
	if (r >= 0) {
		++numbers[queue][class];
		learn(item.id, r == IPC_DROPPED ? DROPPED : PUSHED);
		atomic_fetch_add(&board->n_pushed, 1);
	} else if (r == IPC_EAGAIN) {
		atomic_fetch_add(&board->n_full, 1);
		(void)sched_yield();
	} else if (r == IPC_ETIMEDOUT) {
		atomic_fetch_add(&board->n_timeouts, 1);
	} else {
		end_of(r, WRONG_RESULT);
	}
	end_call();
}

static void producer_run(void)
{
	client = domain_connect(&domain);
	for (unsigned i = 0; i < n_queues; ++i) {
		struct timespec deadline = domain_deadline(WAIT_MS);
		char name[32];

		queue_name(name, i);
		must(ipc_queue_producer_open_wait(&outs[i], client, name, options(), &deadline));
	}
	while (atomic_load(&board->producing))
		produce_once();
	for (;;)
		pause();
}

/* ---- consumers ---- */

static void item_check(const struct ipc_queue_item *item, struct item *ret)
{
	const unsigned char *bytes = item->data;

	if (item->size < sizeof(*ret))
		end_of((int)item->size, WRONG_ITEM);
	memcpy(ret, item->data, sizeof(*ret));
	if (ret->id >= IDS_MAX || ret->size != item->size || ret->producer >= N_PRODUCERS ||
	    ret->queue >= n_queues)
		end_of((int)ret->size, WRONG_ITEM);
	for (size_t i = sizeof(*ret); i < item->size; ++i) {
		if (bytes[i] != (unsigned char)ret->id)
			end_of(bytes[i], WRONG_ITEM);
	}
}

/* One consumer at a time has the queue: whoever takes an item for the first time is the only one.
 */
static void order_check(const struct ipc_queue_item *taken, const struct item *item)
{
	_Atomic uint32_t *last = &board->last[item->queue][taken->priority][item->producer];
	_Atomic uint32_t *life = &board->last_life[item->queue][taken->priority][item->producer];

	if (taken->attempt != 1)
		return;
	if (atomic_load(life) == item->life && atomic_load(last) >= item->number)
		end_of((int)item->number, WRONG_ORDER);
	if (atomic_load(life) > item->life)
		end_of((int)item->life, WRONG_ORDER);
	atomic_store(last, item->number);
	atomic_store(life, item->life);
}

static void attempt_check(const struct ipc_queue_item *taken, const struct item *item)
{
	uint8_t before = atomic_exchange(&board->attempt[item->id], (uint8_t)taken->attempt);

	if (taken->attempt <= before || taken->attempt > ATTEMPTS_MAX)
		end_of((int)taken->attempt, WRONG_ATTEMPT);
	if (taken->attempt > 1)
		atomic_fetch_add(&board->n_again, 1);
	if (atomic_load(&board->known[item->id]) & (ACKED | DEAD_LETTER))
		end_of((int)taken->attempt, ENDED_TWICE);
}

static void settle(ipc_queue_consumer *in, const struct ipc_queue_item *taken,
		   const struct item *item)
{
	switch (rand_r(&seed) % 40) {
	case 0:
		must(ipc_queue_reject(in, taken));
		break;
	case 1:
	case 2:
		must(ipc_queue_requeue(in, taken));
		break;
	default:
		begin_call(item->id);
		must(ipc_queue_ack(in, taken));
		learn(item->id, ACKED);
		end_call();
		atomic_fetch_add(&board->n_acked, 1);
		break;
	}
}

static void consume_from(ipc_queue_consumer *in)
{
	struct ipc_queue_item taken[4];
	int n;

	n = ipc_queue_take_many(in, taken, 1 + (unsigned)rand_r(&seed) % 4);
	if (n == IPC_EAGAIN)
		return;
	must(n);
	for (int i = 0; i < n; ++i) {
		struct item item;

		item_check(&taken[i], &item);
		order_check(&taken[i], &item);
		attempt_check(&taken[i], &item);
		settle(in, &taken[i], &item);
	}
}

static void consumer_run(void)
{
	static ipc_queue_consumer *ins[QUEUES_MAX];
	struct ipc_wait_item items[QUEUES_MAX];
	unsigned n = 0;

	client = domain_connect(&domain);
	for (unsigned i = me - N_PRODUCERS; i < n_queues; i += N_CONSUMERS) {
		struct timespec deadline = domain_deadline(WAIT_MS);
		char name[32];

		queue_name(name, i);
		must(ipc_queue_consumer_open_wait(&ins[n], client, name, options(), &deadline));
		items[n] = (struct ipc_wait_item){.handle = ins[n], .events = IPC_READY_READABLE};
		++n;
	}
	for (;;) {
		int r = ipc_wait_any(items, n, NULL);

		must(r);
		/* The first ready one comes first: the others get their turn by chance. */
		consume_from(ins[r]);
		consume_from(ins[(unsigned)rand_r(&seed) % n]);
	}
}

/* ---- the undertaker: never killed ---- */

static void bury(const struct ipc_queue_item *taken)
{
	struct item item;
	uint8_t known;

	item_check(taken, &item);
	if (!taken->source || taken->reason == IPC_DEAD_NONE)
		end_of((int)taken->reason, WRONG_ITEM);
	known = atomic_fetch_or(&board->known[item.id], DEAD_LETTER);

	/* A mover that died may leave a doubt, which the attempt tells. */
	if ((known & DEAD_LETTER) && taken->attempt == 1)
		end_of((int)taken->reason, ENDED_TWICE);
	if ((known & ACKED) && taken->attempt == 1)
		end_of((int)taken->reason, ENDED_TWICE);
	atomic_fetch_add(&board->n_dead, 1);
}

static void undertaker_run(void)
{
	ipc_queue_consumer *in;

	client = domain_connect(&domain);
	must(ipc_queue_consumer_open_wait(&in, client, DEAD, dead_options(), NULL));
	for (;;) {
		struct ipc_queue_item taken;

		must(ipc_queue_take_wait(in, &taken, NULL));
		bury(&taken);
		must(ipc_queue_ack(in, &taken));
	}
}

/* ---- the killer ---- */

static void hire(unsigned i)
{
	atomic_fetch_add(&board->life[i], 1);
	pids[i] = process_fork();
	if (pids[i] != 0)
		return;

	me = i;
	seed = (unsigned)getpid();
	if (i != UNDERTAKER && i % 2)
		setenv("IPC_CRASH", "random:20000", 1);
	else
		unsetenv("IPC_CRASH");
	if (i < N_PRODUCERS)
		producer_run();
	else if (i < UNDERTAKER)
		consumer_run();
	else
		undertaker_run();
}

static void mourn(unsigned i, int status)
{
	uint32_t in_call = atomic_exchange(&board->in_call[i], 0);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		domain_show_log(&domain);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		  "worker %u ended with status 0x%x, result %d", i, (unsigned)status,
		  atomic_load(&board->result));
	if (in_call > 0)
		learn(in_call - 1, i < N_PRODUCERS ? MAYBE_PUSHED : MAYBE_ENDED);
	atomic_fetch_add(&board->n_killed, 1);
	hire(i);
}

static void reap_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < N; ++i) {
			if (pids[i] == pid)
				mourn(i, status);
		}
	}
}

static uint64_t n_done(void)
{
	return atomic_load(&board->n_acked) + atomic_load(&board->n_dead);
}

static void kill_one(unsigned *luck)
{
	unsigned victim = (unsigned)rand_r(luck) % UNDERTAKER;
	int status;

	for (unsigned spin = (unsigned)rand_r(luck) % 20000; spin > 0; --spin)
		__asm__ __volatile__("");
	cr_assert_eq(kill(pids[victim], SIGKILL), 0);
	cr_assert_eq(waitpid(pids[victim], &status, 0), pids[victim]);
	mourn(victim, status);
}

static void kill_them(uint64_t n_kills, unsigned seconds)
{
	struct timespec until = process_deadline(seconds * 1000);
	unsigned luck = (unsigned)getpid();

	while (atomic_load(&board->n_killed) < n_kills || !process_has_passed(&until)) {
		struct timespec limit = process_deadline(2 * WAIT_MS);
		uint64_t seen = n_done();

		while (n_done() < seen + 100) {
			cr_assert(!process_has_passed(&limit), "nothing was done for 60 s");
			reap_all();
			process_pause();
		}
		if (atomic_load(&board->next_id) > IDS_MAX / 8 * 7)
			break;
		kill_one(&luck);
	}
}

/* ---- the end ---- */

struct sums {
	uint64_t queued, acknowledged, dead, dropped, full_dead, full_dropped;
};

/* */
static void state_add(const struct ipc_queue_state *state, unsigned queue, struct sums *sums)
{
	for (unsigned i = 0; i < CLASSES; ++i) {
		uint64_t ended = 0;

		for (unsigned reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason) {
			if (reason == IPC_DEAD_FULL)
				continue;
			ended += state->dead_lettered[i][reason] + state->dropped[i][reason];
			sums->dead += state->dead_lettered[i][reason];
			sums->dropped += state->dropped[i][reason];
		}
		cr_expect_eq(state->queued[i],
			     state->acknowledged[i] + state->items[i] + state->leased[i] + ended,
			     "queue %u, class %u", queue, i);
		sums->queued += state->queued[i];
		sums->acknowledged += state->acknowledged[i];
		sums->full_dead += state->dead_lettered[i][IPC_DEAD_FULL];
		sums->full_dropped += state->dropped[i][IPC_DEAD_FULL];
	}
}

static bool state_is_empty(const struct ipc_queue_state *state)
{
	for (unsigned i = 0; i < CLASSES; ++i) {
		if (state->items[i] > 0 || state->leased[i] > 0)
			return false;
	}
	return true;
}

static void drain_one(ipc_queue_producer *out, unsigned queue, struct sums *sums)
{
	struct timespec limit = process_deadline(2 * WAIT_MS);
	struct ipc_queue_state state = {.size = sizeof(state)};

	for (;;) {
		cr_assert_eq(ipc_queue_producer_get_state(out, &state), 0);
		if (state_is_empty(&state))
			break;
		cr_assert(!process_has_passed(&limit), "queue %u is not drained", queue);
		reap_all();
		process_pause();
	}
	state_add(&state, queue, sums);
}

/* All of a class's room is there again. */
static void expect_room(ipc_queue_producer *out, unsigned queue)
{
	void *claims[ITEMS_MAX];

	for (unsigned i = 0; i < ITEMS_MAX; ++i)
		cr_assert_eq(ipc_queue_claim(out, 1, SIZE_MAX_OF_ITEM / 2, &claims[i]), 0,
			     "queue %u lost room: %u", queue, i);
	for (unsigned i = 0; i < ITEMS_MAX; ++i)
		cr_assert_eq(ipc_queue_abort(out, claims[i]), 0);
}

static void drain_all(struct sums *sums)
{
	for (unsigned i = 0; i < n_queues; ++i) {
		ipc_queue_producer *out;
		char name[32];

		queue_name(name, i);
		cr_assert_eq(ipc_queue_producer_open_wait(&out, client, name, options(), NULL), 0);
		drain_one(out, i, sums);
		expect_room(out, i);
		ipc_queue_producer_close(out);
	}
}

static void await_burials(const struct sums *sums)
{
	struct timespec limit = process_deadline(2 * WAIT_MS);

	while (atomic_load(&board->n_dead) < sums->dead + sums->full_dead) {
		cr_assert(!process_has_passed(&limit), "%ju dead letters of %ju came",
			  (uintmax_t)atomic_load(&board->n_dead),
			  (uintmax_t)(sums->dead + sums->full_dead));
		reap_all();
		process_pause();
	}
}

static void expect_all_accounted(const struct sums *sums)
{
	uint64_t n_lost = 0, n_maybe = 0, n_acked = 0;
	uint32_t n_ids = atomic_load(&board->next_id);

	for (uint32_t id = 0; id < n_ids; ++id) {
		unsigned known = atomic_load(&board->known[id]);

		n_acked += (known & ACKED) != 0;
		n_maybe += (known & MAYBE_ENDED) != 0;
		if ((known & PUSHED) && !(known & (ACKED | DEAD_LETTER | MAYBE_ENDED)))
			++n_lost;
		cr_expect(!(known & (ACKED | DEAD_LETTER)) || (known & (PUSHED | MAYBE_PUSHED)),
			  "item %u came, but was never pushed: 0x%x", id, known);
	}
	cr_expect_eq(n_lost, 0, "%ju items are lost", (uintmax_t)n_lost);
	cr_expect_eq(sums->dropped, 0, "the dead letters were never full");
	cr_expect_geq(sums->acknowledged, n_acked);
	cr_expect_leq(sums->acknowledged, n_acked + n_maybe);
	cr_log_info("%ju pushed, %ju acknowledged (%ju maybe), %ju again, %ju dead letters, %ju "
		    "found it full, %ju timeouts, %ju killed",
		    (uintmax_t)board->n_pushed, (uintmax_t)sums->acknowledged, (uintmax_t)n_maybe,
		    (uintmax_t)board->n_again, (uintmax_t)board->n_dead, (uintmax_t)board->n_full,
		    (uintmax_t)board->n_timeouts, (uintmax_t)board->n_killed);
}

/* M-25 */
Test(queue, every_item_ends_once_under_random_kills, .timeout = 600)
{
	struct sums sums = {0};
	ipc_queue_consumer *dead;
	struct leaks leaks;

	leaks_begin(&leaks);
	n_queues = (unsigned)number_of("IPC_STRESS_QUEUES", 16);
	cr_assert(n_queues >= N_CONSUMERS && n_queues <= QUEUES_MAX);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	atomic_store(&board->producing, 1);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	cr_assert_eq(ipc_queue_consumer_open_wait(&dead, client, DEAD, dead_options(), NULL), 0);
	dead = ipc_queue_consumer_close(dead);
	for (unsigned i = 0; i < N; ++i)
		hire(i);

	kill_them(number_of("IPC_STRESS_KILLS", 400), (unsigned)number_of("IPC_STRESS_SECONDS", 3));
	atomic_store(&board->producing, 0);
	for (unsigned i = 0; i < N_PRODUCERS; ++i) {
		int status;

		(void)kill(pids[i], SIGKILL);
		cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
		mourn(i, status);
	}
	drain_all(&sums);
	await_burials(&sums);
	for (unsigned i = 0; i < N; ++i) {
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
	}
	expect_all_accounted(&sums);

	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(board, sizeof(*board));
	leaks_check(&leaks);
}
