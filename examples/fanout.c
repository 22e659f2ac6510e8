/* SPDX-License-Identifier: MIT */
/*
 * group: a topic with subscribers that come and go; one that is slow stalls nobody.
 *
 * One process publishes, the others each open a queue of their own under the topic's name.  One of
 * them keeps up, one is stopped and misses what its queue has no room for, one is killed.  The
 * publisher does nothing about any of them.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

enum { N_MESSAGES = 200, N_SLOW_HOLDS = 8 };

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* ---- a subscriber ---- */

/* Counts messages until the publisher has closed. */
static int subscribe(const char *name, uint32_t items_max, int ready_fd)
{
	struct ipc_queue_item item;
	ipc_queue_consumer *queue;
	ipc_client *client;
	int n = 0, r;

	/* Connect after fork: a forked child cannot use what its parent opened. */
	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("subscribe",
	     ipc_queue_consumer_open_wait(
		     &queue, client, name,
		     IPC_QUEUE_OPTIONS(.flags = IPC_CREATE, .items_max = items_max), NULL));
	if (write(ready_fd, "r", 1) != 1)
		return 1;

	while ((r = ipc_queue_take_wait(queue, &item, NULL)) == 0) {
		++n;
		must("ack", ipc_queue_ack(queue, &item));
	}

	printf("%s got %d of %d messages; %s\n", name, n, N_MESSAGES, ipc_error_text(r));
	ipc_queue_consumer_close(queue);
	ipc_client_unref(client);
	return items_max < N_MESSAGES ? n != N_SLOW_HOLDS : n != N_MESSAGES;
}

static pid_t subscriber_start(const char *name, uint32_t items_max)
{
	int fds[2];
	pid_t pid;
	char c;

	if (pipe(fds) < 0) {
		perror("pipe");
		exit(1);
	}

	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		exit(subscribe(name, items_max, fds[1]));
	}

	close(fds[1]);
	if (pid < 0 || read(fds[0], &c, 1) != 1)
		exit(1);
	close(fds[0]);
	return pid;
}

/* ---- the publisher ---- */

struct totals {
	unsigned queued, dropped, gone;
};

static void publish(ipc_group *topic, int i, struct totals *totals)
{
	struct ipc_group_result result = {.size = sizeof(result)};
	char message[32];

	snprintf(message, sizeof(message), "message %d", i);
	must("push",
	     ipc_group_push(topic, 0, message, strlen(message) + 1, IPC_FULL_DROP, &result));
	totals->queued += result.queued;
	totals->dropped += result.dropped;
	totals->gone += result.gone;
}

int main(void)
{
	/* First, so that no child inherits a client that it cannot use. */
	pid_t quick = subscriber_start("example/topic/quick", N_MESSAGES);
	pid_t slow = subscriber_start("example/topic/slow", N_SLOW_HOLDS);
	pid_t mortal = subscriber_start("example/topic/mortal", N_MESSAGES);
	struct totals totals = {0};
	ipc_client *client;
	ipc_group *topic;
	int status, status_slow;

	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("topic", ipc_group_open_wait(&topic, client, "example/topic/*", NULL));
	printf("the topic has %d subscribers\n", ipc_group_count(topic));

	kill(slow, SIGSTOP);
	waitpid(slow, &status, WUNTRACED);
	for (int i = 0; i < N_MESSAGES; ++i) {
		if (i == N_MESSAGES / 2) {
			kill(mortal, SIGKILL);
			waitpid(mortal, &status, 0);
			while (ipc_group_count(topic) == 3)
				;
		}
		publish(topic, i, &totals);
	}

	printf("%u queued, %u dropped, %u gone\n", totals.queued, totals.dropped, totals.gone);
	ipc_group_close(topic);
	ipc_client_unref(client);

	kill(slow, SIGCONT);
	waitpid(quick, &status, 0);
	waitpid(slow, &status_slow, 0);
	return status == 0 && status_slow == 0 && totals.dropped == N_MESSAGES - N_SLOW_HOLDS &&
			       totals.gone == 1
		       ? 0
		       : 1;
}
