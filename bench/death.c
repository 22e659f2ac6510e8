/* SPDX-License-Identifier: MIT */
/*
 * Deaths: P10 (from SIGKILL to the return of the blocked wait) and P15 (a thousand waiting peers).
 */
#include "bench/bench.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CROWD_MAX = 1000, DEATHS_A_ROUND = 7 };

struct scene {
	int n_waiters;
	_Atomic uint32_t victim_ready, n_ready, n_ended;
	_Atomic uint64_t first_ns, last_ns;
	_Atomic uint32_t n_wrong;
};

static void scene_end(struct scene *scene, bool is_right)
{
	uint64_t now = bench_now_ns(), last = atomic_load(&scene->last_ns);

	if (!is_right)
		atomic_fetch_add(&scene->n_wrong, 1);
	while (last < now && !atomic_compare_exchange_weak(&scene->last_ns, &last, now))
		;
	atomic_fetch_add(&scene->n_ended, 1);

	/* The end of a process is dear: nobody ends while others are still to be woken. */
	for (;;)
		pause();
}

static void watch_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();

	bench_pin(scene->n_waiters == 1 ? 1 : -1);
	(void)bench_producer(client, "bench/death");
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static void watch_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_watch_consumer *consumer = bench_consumer(client, "bench/death");
	uint64_t value[BENCH_PAYLOAD / 8], version = 0;

	bench_pin(scene->n_waiters == 1 ? 0 : -1);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_watch_read_wait(consumer, value, sizeof(value), NULL, &version,
					     NULL) == IPC_EOWNERDEAD);
}

static void shared_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();

	bench_pin(1);
	(void)bench_ledger(client, "bench/death2", IPC_SIDE_A, BENCH_PAYLOAD);
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static bool never(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	return false;
}

static void shared_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_shared *ledger = bench_ledger(client, "bench/death2", IPC_SIDE_B, BENCH_PAYLOAD);
	const void *value;

	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene,
		  ipc_shared_lock_when_wait(ledger, never, NULL, &value, NULL) == IPC_EOWNERDEAD);
}

static void leader_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_flight *flight;

	bench_pin(1);
	if (ipc_flight_join(&flight, bench_table(client, "bench/death3"), "key", 3) != 1)
		bench_fail("join", IPC_EPROTO);
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

/* Ends when this process leads. */
static void leader_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_flight_table *table = bench_table(client, "bench/death3");
	ipc_flight *flight;

	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_flight_join_wait(&flight, table, "key", 3, NULL) == 1);
}

static void handler_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_handler *handler = bench_handler(client, "bench/death4");
	ipc_flight *flight;

	bench_pin(1);
	atomic_store(&scene->victim_ready, 1);
	if (ipc_handler_take_wait(&flight, handler, NULL) < 0)
		bench_fail("take", IPC_EPROTO);
	for (;;)
		pause();
}

static void handler_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_flight_table *table = bench_table(client, "bench/death4");
	ipc_flight *flight;

	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_flight_ask_wait(&flight, table, "key", 3, 0, NULL) == IPC_EOWNERDEAD);
}

static void producer_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();

	bench_pin(1);
	(void)bench_queue_producer(client, "bench/death/queue");
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static void taker_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_queue_consumer *consumer;
	struct ipc_queue_item item;
	int r = ipc_queue_consumer_open_wait(&consumer, client, "bench/death/queue", NULL, NULL);

	if (r < 0)
		bench_fail("consumer", r);
	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_queue_take_wait(consumer, &item, NULL) == IPC_EOWNERDEAD);
}

/* Holds an item. */
static void taker_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_queue_producer *producer = bench_queue_producer(client, "bench/death/lease");
	ipc_queue_consumer *consumer = bench_queue_consumer(client, "bench/death/lease");
	struct ipc_queue_item item;

	bench_pin(1);
	if (ipc_queue_push(producer, 0, "x", 1, IPC_FULL_FAIL) < 0 ||
	    ipc_queue_take(consumer, &item) < 0)
		bench_fail("a lease", IPC_EPROTO);
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static void lease_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_client *client = bench_connect();
	ipc_queue_consumer *consumer = bench_queue_consumer(client, "bench/death/lease");
	struct ipc_queue_item item = {.attempt = 0};

	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_queue_take_wait(consumer, &item, NULL) == 0 && item.attempt == 2);
}

static ipc_limiter *limiter_open(ipc_client *client)
{
	ipc_limiter *limiter;
	int r = ipc_limiter_open_wait(&limiter, client, "bench/death/limiter",
				      IPC_LIMITER_OPTIONS(.flags = IPC_CREATE), NULL);

	if (r < 0)
		bench_fail("limiter", r);
	return limiter;
}

static void permit_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_limiter *limiter = limiter_open(bench_connect());
	struct ipc_limiter_grant grant;

	bench_pin(1);
	if (ipc_limiter_acquire(limiter, 1, &grant) < 0)
		bench_fail("a permit", IPC_EPROTO);
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static void permit_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_limiter *limiter = limiter_open(bench_connect());
	struct ipc_limiter_grant grant;

	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_limiter_acquire_wait(limiter, 1, &grant, NULL) == 0);
}

/* A session is away then, and nothing but this tells it. */
static void session_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_listener *listener;
	ipc_session *session;
	int r;

	bench_pin(1);
	r = ipc_listener_open_wait(&listener, bench_connect(), "bench/death/session",
				   IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL);
	if (r < 0)
		bench_fail("listener", r);
	atomic_store(&scene->victim_ready, 1);

	/* What the one before left away comes first (1). */
	while ((r = ipc_listener_accept_wait(listener, &session, NULL)) == 1)
		(void)ipc_session_close(session);
	if (r < 0)
		bench_fail("accept", r);
	for (;;)
		pause();
}

static void session_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_session *session;
	int r;

	r = ipc_session_connect_wait(&session, bench_connect(), "bench/death/session", NULL, NULL);
	if (r < 0)
		bench_fail("connect", r);
	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_session_peers_wait(session, false, NULL) == 0);
}

static void inbox_victim(void *arg)
{
	struct scene *scene = arg;
	ipc_inbox_sender *sender;
	int r;

	bench_pin(1);
	r = ipc_inbox_sender_open_wait(&sender, bench_connect(), "bench/death/inbox",
				       IPC_INBOX_OPTIONS(.flags = IPC_CREATE), NULL);
	if (r < 0)
		bench_fail("sender", r);
	atomic_store(&scene->victim_ready, 1);
	for (;;)
		pause();
}

static void inbox_waiter(void *arg)
{
	struct scene *scene = arg;
	ipc_inbox_receiver *receiver;
	struct ipc_inbox_event event;
	int r;

	r = ipc_inbox_receiver_open_wait(&receiver, bench_connect(), "bench/death/inbox",
					 IPC_INBOX_OPTIONS(.flags = IPC_CREATE), NULL);
	if (r < 0)
		bench_fail("receiver", r);
	bench_pin(0);
	atomic_fetch_add(&scene->n_ready, 1);
	scene_end(scene, ipc_inbox_receive_wait(receiver, &event, NULL) == IPC_EOWNERDEAD);
}

static double kill_and_wait(void (*victim_fn)(void *), void (*waiter_fn)(void *), int n_waiters)
{
	static pid_t waiters[CROWD_MAX];
	struct scene *scene = bench_shared(sizeof(*scene));
	uint64_t killed;
	double latency;
	pid_t victim;

	scene->n_waiters = n_waiters;
	victim = bench_spawn(victim_fn, scene);
	bench_sleep_until(&scene->victim_ready, 1);
	for (int i = 0; i < n_waiters; ++i)
		waiters[i] = bench_spawn(waiter_fn, scene);
	bench_sleep_until(&scene->n_ready, (uint32_t)n_waiters);
	usleep(n_waiters > 1 ? 300000 : 5000);

	killed = bench_now_ns();
	kill(victim, SIGKILL);
	for (int i = 0; i < 10000 && atomic_load(&scene->n_ended) < (uint32_t)n_waiters; ++i)
		usleep(1000);
	for (int i = 0; i < n_waiters; ++i)
		bench_reap(waiters[i]);
	waitpid(victim, NULL, 0);
	if (atomic_load(&scene->n_ended) < (uint32_t)n_waiters)
		bench_fail("not every wait ended", IPC_ETIMEDOUT);
	if (atomic_load(&scene->n_wrong))
		bench_fail("a wait did not end as it should", IPC_EPROTO);
	latency = (double)(atomic_load(&scene->last_ns) - killed);
	munmap(scene, sizeof(*scene));
	return latency;
}

/* A death passes through the scheduler several times: a round is the median of some. */
static double median_us(double (*one)(void))
{
	double all[DEATHS_A_ROUND];

	for (int i = 0; i < DEATHS_A_ROUND; ++i)
		all[i] = one() / 1e3;
	return bench_median(all, DEATHS_A_ROUND);
}

static double watch_death_ns(void)
{
	return kill_and_wait(watch_victim, watch_waiter, 1);
}

static double shared_death_ns(void)
{
	return kill_and_wait(shared_victim, shared_waiter, 1);
}

static double leader_death_ns(void)
{
	return kill_and_wait(leader_victim, leader_waiter, 1);
}

static double handler_death_ns(void)
{
	return kill_and_wait(handler_victim, handler_waiter, 1);
}

static double producer_death_ns(void)
{
	return kill_and_wait(producer_victim, taker_waiter, 1);
}

static double taker_death_ns(void)
{
	return kill_and_wait(taker_victim, lease_waiter, 1);
}

static double permit_death_ns(void)
{
	return kill_and_wait(permit_victim, permit_waiter, 1);
}

static double session_death_ns(void)
{
	return kill_and_wait(session_victim, session_waiter, 1);
}

static double inbox_death_ns(void)
{
	return kill_and_wait(inbox_victim, inbox_waiter, 1);
}

static double eof_ns(void)
{
	return limit_socket_eof(NULL);
}

static double watch_death(void *arg)
{
	(void)arg;
	return median_us(watch_death_ns);
}

static double shared_death(void *arg)
{
	(void)arg;
	return median_us(shared_death_ns);
}

static double leader_death(void *arg)
{
	(void)arg;
	return median_us(leader_death_ns);
}

static double handler_death(void *arg)
{
	(void)arg;
	return median_us(handler_death_ns);
}

static double producer_death(void *arg)
{
	(void)arg;
	return median_us(producer_death_ns);
}

static double taker_death(void *arg)
{
	(void)arg;
	return median_us(taker_death_ns);
}

static double permit_death(void *arg)
{
	(void)arg;
	return median_us(permit_death_ns);
}

static double session_death(void *arg)
{
	(void)arg;
	return median_us(session_death_ns);
}

static double inbox_death(void *arg)
{
	(void)arg;
	return median_us(inbox_death_ns);
}

static double eof_us(void *arg)
{
	(void)arg;
	return median_us(eof_ns);
}

void bench_death(void)
{
	double one, crowd;

	bench_compare("P10", "SIGKILL to return, watch read_wait", watch_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL to return, shared lock_when_wait", shared_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL of a leader until a follower leads", leader_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "the same beside another kind's end", leader_death,
		      "P10, watch read_wait", watch_death, NULL, false, 2, "us");
	bench_compare("P10", "SIGKILL to return, flight ask_wait", handler_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL to return, queue take_wait", producer_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL until a leased item is another's", taker_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL until a permit is another's", permit_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL to return, session peers_wait", session_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	bench_compare("P10", "SIGKILL to return, inbox receive_wait", inbox_death,
		      "bare socket EOF in epoll", eof_us, NULL, false, 1.7, "us");
	one = watch_death(NULL);
	crowd = kill_and_wait(watch_victim, watch_waiter, CROWD_MAX) / 1e3;
	bench_figure("P15", "1,000 waiting peers: SIGKILL to the last return", crowd, "us");
	bench_figure("P15", "the same for one", one, "us");
	bench_row("P15", "beyond one, per process", (crowd - one) / CROWD_MAX, "30 us", 30, 1,
		  "us");
}
