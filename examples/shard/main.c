/* SPDX-License-Identifier: MIT */

/*
 * shard [KILLS]: starts the three processes, kills runner or shard at random moments, and starts
 * them again.  In the end the replica is what the primary is.
 */

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/shard/shard.h"

enum { PRIMARY, RUNNER, SHARD, N_PROCESSES };

struct play {
	struct primary *primary;
	int listener; /* of the primary */
	int file;     /* of the store */
	pid_t pids[N_PROCESSES];
};

void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

ipc_client *connect_client(void)
{
	ipc_client *client;

	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	return client;
}

const struct ipc_inbox_options *inbox_options(void)
{
	static const struct ipc_inbox_options options = {
		.size = sizeof(options),
		/* IPC_AWAIT: the one that was killed may have the place for a moment. */
		.flags = IPC_CREATE | IPC_KEEP | IPC_STAY | IPC_AWAIT,
		.capacity = CAPACITY,
		.frame_size_max = CHUNK * sizeof(struct mutation),
	};

	return &options;
}

static void start(struct play *play, int which)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		switch (which) {
		case PRIMARY:
			exit(run_primary(play->primary, play->listener));
		case RUNNER:
			exit(run_runner(play->listener));
		default:
			exit(run_shard(play->file));
		}
	}
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	play->pids[which] = pid;
}

/* Nobody ends by himself. */
static void stop(struct play *play, int which)
{
	int status;

	if (kill(play->pids[which], SIGKILL) < 0 || waitpid(play->pids[which], &status, 0) < 0 ||
	    !WIFSIGNALED(status)) {
		fprintf(stderr, "process %d has ended by itself\n", which);
		exit(1);
	}
}

static void setup(struct play *play)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char path[] = "/tmp/shard-XXXXXX";

	/* The kernel finds an address for it. */
	play->listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	play->file = mkstemp(path);
	play->primary = mmap(NULL, sizeof(*play->primary), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (play->listener < 0 || play->file < 0 || play->primary == MAP_FAILED ||
	    bind(play->listener, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
	    listen(play->listener, 8) < 0 || unlink(path) < 0 ||
	    getrandom(&play->primary->generation, sizeof(uint64_t), 0) < 0) {
		perror("shard");
		exit(1);
	}
	play->primary->generation >>= 11;
	play->primary->generation |= 1;
	atomic_store(&play->primary->next, 1);
}

/* It does not make the inbox, so it may come too early. */
static ipc_inbox_observer *observe(ipc_client *client)
{
	ipc_inbox_observer *observer;
	int r;

	while ((r = ipc_inbox_observer_open_wait(&observer, client, INBOX, NULL)) == IPC_ENOENT)
		(void)poll(NULL, 0, 1);
	must("observe", r);
	return observer;
}

/* Read your writes: all that the primary has done so far shows in the replica. */
static bool await_applied(const struct play *play, ipc_inbox_observer *observer)
{
	uint64_t next = atomic_load(&play->primary->next);
	struct timespec deadline;
	int r;

	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	do {
		r = ipc_inbox_observer_applied_wait(observer, play->primary->generation, next,
						    &deadline);
		/* No snapshot yet, or there was no shard for a moment. */
	} while ((r == IPC_ESTALE || r == IPC_EOWNERDEAD) && poll(NULL, 0, 1) == 0);

	if (r < 0)
		fprintf(stderr, "applied: %s\n", ipc_error_text(r));
	return r == 0;
}

static bool kill_at_random(struct play *play, ipc_inbox_observer *observer, int n_kills)
{
	for (int i = 0; i < n_kills; ++i) {
		int victim = rand() % 2 ? RUNNER : SHARD;

		(void)usleep((useconds_t)rand() % 4000);
		stop(play, victim);
		start(play, victim);
		if (i % 4 == 0 && !await_applied(play, observer))
			return false;
	}
	return true;
}

static void rest(struct primary *primary)
{
	atomic_store(&primary->must_rest, true);
	while (!atomic_load(&primary->is_at_rest))
		(void)poll(NULL, 0, 1);
}

static bool is_equal(const struct primary *primary, const struct store *store)
{
	const struct copy *copy = &store->copies[atomic_load(&store->current)];

	return atomic_load(&copy->next) == atomic_load(&primary->next) &&
	       memcmp(copy->values, primary->values, sizeof(copy->values)) == 0;
}

int main(int argc, char **argv)
{
	int n_kills = argc > 1 ? atoi(argv[1]) : 100;
	ipc_inbox_observer *observer;
	const struct store *store;
	struct play play;
	ipc_client *client;
	bool holds;

	setup(&play);
	start(&play, PRIMARY);
	start(&play, RUNNER);
	start(&play, SHARD);

	client = connect_client();
	observer = observe(client);
	holds = kill_at_random(&play, observer, n_kills);
	rest(play.primary);
	store = store_map(play.file);
	holds = holds && await_applied(&play, observer) && is_equal(play.primary, store);

	printf("%d kills, %" PRIu64 " mutations: %" PRIu64 " frames, %" PRIu64
	       " came again, %" PRIu64 " snapshots, %" PRIu64 " torn\n%s\n",
	       n_kills, atomic_load(&play.primary->next) - 1, store->n_frames, store->n_again,
	       store->n_loaded, store->n_torn,
	       holds ? "the replica is what the primary is" : "FAIL");
	for (int i = N_PROCESSES; i-- > 0;)
		stop(&play, i);
	ipc_inbox_observer_close(observer);
	must("remove", ipc_channel_remove_wait(client, INBOX, 0, NULL));
	ipc_client_unref(client);
	return holds ? 0 : 1;
}
