/* SPDX-License-Identifier: MIT */
/*
 * Two players add one to a number in turn, while the broker's processes are killed.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { N_WORKER_KILLS = 10, N_KEEPER_KILLS = 3, TURNS_BETWEEN_LOOKS = 64, RESTART_MS = 5000 };

struct game {
	ipc_shared *handle;
	uint64_t parity; /* ours is the turn when the number's is this */
	uint64_t n_turns;
	int64_t last_ns, longest_ns;
};

static bool is_our_turn(const void *value, size_t size, void *userdata)
{
	const uint64_t *number = value, *parity = userdata;

	(void)size;
	return *number % 2 == *parity;
}

static int take_turn(struct game *game)
{
	struct timespec deadline = in_seconds(5);
	const void *value;
	int64_t now;
	void *copy;
	int r;

	r = ipc_shared_lock_when_wait(game->handle, is_our_turn, &game->parity, &value, &deadline);
	if (r >= 0)
		r = ipc_shared_edit(game->handle, &copy);
	if (r >= 0) {
		*(uint64_t *)copy += 1;
		r = ipc_shared_commit(game->handle);
	}

	now = now_ns();
	if (game->last_ns && now - game->last_ns > game->longest_ns)
		game->longest_ns = now - game->last_ns;
	game->last_ns = now;
	++game->n_turns;
	return r;
}

/* Plays until asked to stop, and reports the longest time between two turns. */
static void player(int fd, enum ipc_side side, uint64_t parity)
{
	struct pollfd asked = {.fd = fd, .events = POLLIN};
	struct timespec deadline = in_seconds(5);
	struct game game = {.parity = parity};
	int r;

	r = ipc_shared_open_wait(&game.handle, broker_connect(), "demo/game", side,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 8),
				 &deadline);
	if (r < 0)
		fail("open game", r);
	report(fd, 0, 0, 0);
	await_word(fd);

	do
		r = take_turn(&game);
	while (r >= 0 && (game.n_turns % TURNS_BETWEEN_LOOKS != 0 || poll(&asked, 1, 0) == 0));

	report(fd, r < 0 ? r : 0, game.n_turns, (uint64_t)game.longest_ns);
	for (;;)
		(void)pause();
}

static void player_a(int fd)
{
	player(fd, IPC_SIDE_A, 0);
}

static void player_b(int fd)
{
	player(fd, IPC_SIDE_B, 1);
}

/*
 * Kills it and waits until another one has its place and has served somebody; false if none comes.
 * To kill the next one earlier would be to kill both within one restart time, which ends a domain.
 */
static bool kill_and_await(pid_t (*whose)(void))
{
	pid_t old = whose();

	if (old <= 0)
		return false;

	(void)kill(old, SIGKILL);
	for (int i = 0; i < RESTART_MS; ++i) {
		pid_t present = whose();

		if (present > 0 && present != old && broker_is_whole()) {
			(void)ipc_client_unref(broker_connect());
			return true;
		}
		pause_ms(1);
	}
	return false;
}

static void play(pid_t (*whose)(void), int n_kills, const char *afterwards)
{
	struct member a = member_start(player_a), b = member_start(player_b);
	struct report of_a, of_b;
	int n_back = 0, n_segments;

	(void)member_hear(a);
	(void)member_hear(b);
	member_tell(a);
	member_tell(b);
	for (int i = 0; i < n_kills; ++i) {
		pause_ms(100);
		n_back += kill_and_await(whose);
	}
	pause_ms(100);
	member_tell(a);
	of_a = member_hear(a);
	n_segments = broker_n_segments();

	/* b waits for a, which stopped playing and stays: only its death can end that wait. */
	member_end(a);
	of_b = member_hear(b);
	member_end(b);

	printf("    %" PRIu64 " turns, the longest pause of one side %.1f ms\n",
	       of_a.number + of_b.number,
	       (double)(of_a.other > of_b.other ? of_a.other : of_b.other) / 1e6);
	check(n_back == n_kills, "another one took its place each time");
	check(of_a.result == 0, "no client saw an error");
	check(of_b.result == IPC_EOWNERDEAD, afterwards);
	check(n_segments > 0, "no segment has a name: nothing can be left in /dev/shm");
}

static void open_as_new(void)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client = broker_connect();
	ipc_watch_producer *producer;
	int r;

	r = ipc_watch_producer_open_wait(&producer, client, "demo/later",
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE), &deadline);
	check(r == 0, "new clients connect and open as before");
	if (r == 0)
		(void)ipc_watch_producer_close(producer);
	(void)ipc_client_unref(client);
}

void act_broker(void)
{
	act("The broker's worker is killed ten times while two processes play ping-pong");
	play(broker_worker, N_WORKER_KILLS, "after ten workers a death is told as before");
	open_as_new();

	act("The broker's keeper is killed three times in the same way");
	play(broker_keeper, N_KEEPER_KILLS, "after three keepers a death is told as before");
	open_as_new();
}
