/* SPDX-License-Identifier: MIT */
/*
 * watch: the latest value of something, from whoever knows it to whoever wants to know.
 *
 * Two processes.  One publishes the settings of a service; the other prints each settings it sees,
 * until there is nobody left who could publish.  A consumer may skip values, but never misses the
 * last one: that is what a watch is for.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

/* The value is any bytes; here a struct.  Both sides have to agree on it. */
struct settings {
	uint32_t n_workers;
	char greeting[32];
};

static const char *const name = "example/settings";

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* A client is one process's connection.  Connect after fork: a forked child cannot use what its
 * parent opened. */
static ipc_client *connect_client(void)
{
	struct timespec deadline;
	ipc_client *client;

	/* Deadlines are moments, not spans: one deadline serves a whole chain of waits. */
	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	must("connect", ipc_client_connect_wait(&client, NULL, &deadline));
	return client;
}

static int run_consumer(void)
{
	ipc_client *client = connect_client();
	ipc_watch_consumer *consumer;
	struct settings settings;
	uint64_t version = 0; /* 0: not seen any yet */
	int r;

	/* IPC_AWAIT: if the channel is not there yet, sleep until somebody makes it. */
	must("open", ipc_watch_consumer_open_wait(&consumer, client, name,
						  IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), NULL));

	/* Sleeps until there is something newer than `version`.  No deadline: when the producers
	 * are gone the wait ends all the same. */
	while ((r = ipc_watch_read_wait(consumer, &settings, sizeof(settings), NULL, &version,
					NULL)) == 0)
		printf("consumer: version %lu: %u workers say \"%s\"\n", (unsigned long)version,
		       settings.n_workers, settings.greeting);

	/* IPC_EPIPE: the last producer closed.  IPC_EOWNERDEAD: it was killed.  The value can be
	 * read in both cases. */
	printf("consumer: the end: %s\n", ipc_error_text(r));
	must("read after the end",
	     ipc_watch_read(consumer, &settings, sizeof(settings), NULL, &version));
	printf("consumer: the last value stays: version %lu\n", (unsigned long)version);

	ipc_watch_consumer_close(consumer);
	ipc_client_unref(client);
	return r == IPC_EPIPE ? 0 : 1;
}

static void run_producer(void)
{
	const struct ipc_watch_options *options =
		IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = sizeof(struct settings));
	struct settings first = {.n_workers = 1, .greeting = "hello"}, *edited;
	ipc_client *client = connect_client();
	ipc_watch_producer *producer;
	size_t size, size_max;
	void *value;

	must("open", ipc_watch_producer_open_wait(&producer, client, name, options, NULL));

	/* A publish replaces the whole value.  It takes a copy, wakes who waits, and never waits
	 * for any consumer. */
	must("publish", ipc_watch_publish(producer, &first, sizeof(first)));
	printf("producer: published\n");

	must("wait for a consumer", ipc_watch_producer_peers_wait(producer, true, NULL));
	printf("producer: there is a consumer\n");

	/*
	 * An edit changes the latest value: it keeps other producers out, gives a copy, and nobody
	 * sees anything before the commit.  A producer that is killed in here has changed nothing.
	 */
	must("edit", ipc_watch_edit_wait(producer, &value, &size, &size_max, NULL));
	edited = value;
	edited->n_workers += 3;
	must("commit", ipc_watch_commit(producer, size));
	printf("producer: changed the number of workers\n");

	ipc_watch_producer_close(producer);
	ipc_client_unref(client);
}

int main(void)
{
	int status;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0)
		return run_consumer();

	run_producer();

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 1;
	return WEXITSTATUS(status);
}
