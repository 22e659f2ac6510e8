/* SPDX-License-Identifier: MIT */
/*
 * A ledger that two sides change: a teller moves money between two accounts, an auditor looks.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { TOTAL = 1000, N_TRANSFERS = 100 };

struct ledger {
	int64_t account[2]; /* together always TOTAL */
	uint64_t n_transfers;
};

static ipc_shared *open_ledger(enum ipc_side side)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client = broker_connect();
	ipc_shared *ledger;
	int r;

	r = ipc_shared_open_wait(
		&ledger, client, "demo/ledger", side,
		IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = sizeof(struct ledger)),
		&deadline);
	if (r < 0)
		fail("open ledger", r);

	/* The handle keeps it. */
	(void)ipc_client_unref(client);
	return ledger;
}

static struct ledger *begin(ipc_shared *handle)
{
	const void *value;
	void *copy;
	int r;

	r = ipc_shared_lock_wait(handle, &value, NULL);
	if (r >= 0)
		r = ipc_shared_edit(handle, &copy);
	if (r < 0)
		fail("edit", r);
	return copy;
}

static void commit(ipc_shared *handle)
{
	int r = ipc_shared_commit(handle);

	if (r < 0)
		fail("commit", r);
}

/* Moves money a hundred times, then stops in the middle of the next transfer, with the lock held.
 */
static void teller(int fd)
{
	ipc_shared *handle = open_ledger(IPC_SIDE_A);
	struct ledger *ledger;

	ledger = begin(handle);
	ledger->account[0] = TOTAL;
	commit(handle);

	for (int i = 0; i < N_TRANSFERS; ++i) {
		ledger = begin(handle);
		ledger->account[0] -= 5;
		ledger->account[1] += 5;
		ledger->n_transfers += 1;
		commit(handle);
	}

	ledger = begin(handle);
	ledger->account[0] -= 5; /* 5 are missing now */
	report(fd, 0, ledger->n_transfers, 0);
	for (;;)
		(void)pause();
}

static bool never(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	return false;
}

/* The other side: waits for the lock and reports the sum; then waits for what never comes. */
static void auditor(int fd)
{
	ipc_shared *handle = open_ledger(IPC_SIDE_B);
	const struct ledger *ledger;
	const void *value;
	int r;

	report(fd, 0, 0, 0);
	await_word(fd);
	r = ipc_shared_lock_wait(handle, &value, NULL);
	if (r >= 0) {
		ledger = value;
		report(fd, r, (uint64_t)(ledger->account[0] + ledger->account[1]),
		       ledger->n_transfers);
		(void)!ipc_shared_unlock(handle);
	} else {
		report(fd, r, 0, 0);
	}

	await_word(fd);
	r = ipc_shared_lock_when_wait(handle, never, NULL, &value, NULL);
	report(fd, r, 0, 0);
	await_word(fd);
}

static void idle_side(int fd)
{
	(void)open_ledger(IPC_SIDE_A);
	report(fd, 0, 0, 0);
	for (;;)
		(void)pause();
}

static void play_holder(struct member other)
{
	struct member holder;
	struct report end, middle;
	int64_t killed_at;

	act("The holder of a lock is killed in the middle of an edit; the other side waits for it");
	holder = member_start(teller);
	middle = member_hear(holder);
	member_tell(other);
	member_until_asleep(other);
	killed_at = member_kill(holder);
	(void)close(holder.fd);

	end = member_hear(other);
	printf("    the lock came after %6.0f us with \"%s\"; %" PRIu64
	       " in the accounts after %" PRIu64 " transfers\n",
	       (double)(end.at_ns - killed_at) / 1e3, result_name(end.result), end.number,
	       end.other);
	check(end.result == 1, "the lock was handed on, and says that its holder died");
	check(end.number == TOTAL && end.other == middle.number && end.other == N_TRANSFERS,
	      "the ledger is the last committed one: nothing lost, nothing half done");
}

static void play_opposite(struct member other)
{
	struct member opposite;
	struct report end;
	int64_t killed_at;

	act("The opposite side is killed while we wait for it to change the value");
	opposite = member_start(idle_side);
	(void)member_hear(opposite);
	member_tell(other);
	member_until_asleep(other);
	killed_at = member_kill(opposite);
	(void)close(opposite.fd);

	end = member_hear(other);
	printf("    the wait ended after %6.0f us with %s\n", (double)(end.at_ns - killed_at) / 1e3,
	       result_name(end.result));
	check(end.result == IPC_EOWNERDEAD, "a wait does not outlive the peer that it waits for");
}

void act_ledger(void)
{
	struct member other = member_start(auditor);

	(void)member_hear(other);
	play_holder(other);
	play_opposite(other);
	member_end(other);
}
