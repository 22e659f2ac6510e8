/* SPDX-License-Identifier: MIT */
/*
 * inbox: a copy of a state, that stays right whoever is killed.
 *
 * The primary is a table of counters and a log of changes to it.  A sender hands a snapshot of it
 * to the owner of the copy, then a frame for each change; it is killed again and again, once in the
 * middle of a snapshot, and the next one goes on where the inbox says that it was.  At the end the
 * copy is what the primary is.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

enum { N_COUNTERS = 16, N_CHANGES = 1000, SNAPSHOT_AT = 100, CHUNK = 4, CAPACITY = 4096 };

/* More than the inbox holds: no sender lives and dies before the owner has seen it come. */
enum { CHANGES_A_LIFE = 200 };

static const char *const inbox_name = "example/inbox";

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* ---- the primary ---- */

/* The change of each offset adds its offset to one counter. */
static void state_change(uint64_t counters[N_COUNTERS], uint64_t offset)
{
	counters[offset % N_COUNTERS] += offset;
}

static void state_at(uint64_t ret[N_COUNTERS], uint64_t offset)
{
	memset(ret, 0, N_COUNTERS * sizeof(*ret));
	for (uint64_t i = 0; i < offset; ++i)
		state_change(ret, i);
}

/* ---- the sender ---- */

static void send_snapshot(ipc_inbox_sender *sender, uint64_t generation, unsigned life)
{
	uint64_t counters[N_COUNTERS];

	state_at(counters, SNAPSHOT_AT);
	must("begin", ipc_inbox_begin_snapshot_wait(sender, generation, NULL));
	for (unsigned i = 0; i < N_COUNTERS; i += CHUNK) {
		must("chunk", ipc_inbox_send_chunk_wait(sender, &counters[i],
							CHUNK * sizeof(counters[i]), NULL));
		if (life == 0 && i == CHUNK)
			raise(SIGKILL);
	}
	must("end", ipc_inbox_end_snapshot_wait(sender, SNAPSHOT_AT, NULL));
}

static int send_changes(unsigned life)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	ipc_inbox_sender *sender;
	ipc_client *client;

	/* Connect after fork: a forked child cannot use what its parent opened. */
	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("open",
	     ipc_inbox_sender_open_wait(&sender, client, inbox_name,
					IPC_INBOX_OPTIONS(.flags = IPC_AWAIT | IPC_STAY), NULL));

	must("positions", ipc_inbox_get_positions(sender, &positions));
	if (positions.generation == 0) {
		send_snapshot(sender, life + 1, life);
		must("positions", ipc_inbox_get_positions(sender, &positions));
	}

	for (uint64_t i = positions.written, n = 0; i < N_CHANGES; ++i, ++n) {
		if (n == CHANGES_A_LIFE)
			raise(SIGKILL);
		must("frame", ipc_inbox_send_frame_wait(sender, i, &i, sizeof(i), NULL));
	}

	/* Whatever the owner has not got yet stays there. */
	must("applied", ipc_inbox_applied_wait(sender, N_CHANGES, NULL));
	ipc_inbox_sender_close(sender);
	ipc_client_unref(client);
	return 0;
}

static pid_t start_sender(unsigned life)
{
	pid_t pid = fork();

	if (pid == 0)
		exit(send_changes(life));
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

/* ---- the owner of the copy ---- */

struct copy {
	uint64_t counters[N_COUNTERS];
	uint64_t coming[N_COUNTERS]; /* of a snapshot that is not complete */
	unsigned n_coming;
	unsigned n_aborted;
};

static void copy_apply(struct copy *copy, const struct ipc_inbox_event *event)
{
	switch (event->type) {
	case IPC_INBOX_BEGIN:
		copy->n_coming = 0;
		break;
	case IPC_INBOX_CHUNK:
		memcpy(&copy->coming[copy->n_coming], event->data, event->size);
		copy->n_coming += CHUNK;
		break;
	case IPC_INBOX_END:
		memcpy(copy->counters, copy->coming, sizeof(copy->counters));
		break;
	case IPC_INBOX_FRAME:
		state_change(copy->counters, event->offset);
		break;
	case IPC_INBOX_ABORT:
	case IPC_INBOX_GAP:
		++copy->n_aborted;
		break;
	}
}

int main(void)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	uint64_t wanted[N_COUNTERS];
	ipc_inbox_receiver *receiver;
	struct copy copy = {.n_aborted = 0};
	unsigned n_lives = 1;
	ipc_client *client;
	pid_t sender;
	int status;

	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("open", ipc_inbox_receiver_open_wait(
			     &receiver, client, inbox_name,
			     IPC_INBOX_OPTIONS(.flags = IPC_CREATE, .capacity = CAPACITY), NULL));
	sender = start_sender(0);
	while (positions.applied < N_CHANGES) {
		struct ipc_inbox_event event;
		int r = ipc_inbox_receive_wait(receiver, &event, NULL);

		if (r == IPC_EOWNERDEAD) {
			if (waitpid(sender, &status, 0) < 0)
				return 1;
			sender = start_sender(n_lives++);
			must("await the next one",
			     ipc_inbox_receiver_peers_wait(receiver, true, NULL));
			continue;
		}
		must("receive", r);
		copy_apply(&copy, &event);
		must("mark", ipc_inbox_mark_applied(receiver, &event));
		must("positions", ipc_inbox_receiver_get_positions(receiver, &positions));
	}

	if (waitpid(sender, &status, 0) < 0)
		return 1;
	state_at(wanted, N_CHANGES);
	printf("%u senders, %u snapshot aborted; the copy is %s\n", n_lives, copy.n_aborted,
	       memcmp(wanted, copy.counters, sizeof(wanted)) == 0 ? "right" : "wrong");

	ipc_inbox_receiver_close(receiver);
	ipc_client_unref(client);
	return status == 0 && n_lives > 3 && copy.n_aborted == 1 &&
			       memcmp(wanted, copy.counters, sizeof(wanted)) == 0
		       ? 0
		       : 1;
}
