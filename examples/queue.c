/* SPDX-License-Identifier: MIT */
/*
 * queue: work for whoever is free, whoever is killed.
 *
 * One process pushes jobs, some of them urgent; three workers take them.  One of the jobs kills the
 * worker that has it: it comes back, and goes to the next one, as long as it has attempts left;
 * then it is a dead letter.  All others are done, once each.
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

enum { N_WORKERS = 3, N_JOBS = 30, URGENT = 0, ORDINARY = 1, POISON = 13, ATTEMPTS = 2 };

static const char *const jobs_name = "example/jobs";
static const char *const failed_name = "example/failed-jobs";
static const char *const done_name = "example/done-jobs";

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* A done queue of its own tells the parent which jobs are done, and at which attempt. */
struct done {
	int32_t job;
	uint32_t attempt;
};

static int work(void)
{
	ipc_queue_consumer *jobs;
	ipc_queue_producer *results;
	struct ipc_queue_item item;
	ipc_client *client;
	int r;

	/* Connect after fork: a forked child cannot use what its parent opened. */
	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("open jobs", ipc_queue_consumer_open_wait(&jobs, client, jobs_name, NULL, NULL));
	must("open results", ipc_queue_producer_open_wait(&results, client, done_name, NULL, NULL));

	while ((r = ipc_queue_take_wait(jobs, &item, NULL)) == 0) {
		struct done done = {.attempt = item.attempt};

		memcpy(&done.job, item.data, sizeof(done.job));
		if (done.job == POISON)
			raise(SIGKILL);

		must("push", ipc_queue_push(results, 0, &done, sizeof(done), IPC_FULL_FAIL));
		must("ack", ipc_queue_ack(jobs, &item));
	}

	/* Shut down, and nothing is left. */
	must("take", r == IPC_EPIPE ? 0 : r);
	ipc_queue_producer_close(results);
	ipc_queue_consumer_close(jobs);
	ipc_client_unref(client);
	return 0;
}

static void start_worker(void)
{
	pid_t pid = fork();

	if (pid == 0)
		exit(work());
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
}

/* Hears of all jobs but the poisonous one; each is done once. */
static void await_jobs(ipc_queue_consumer *results)
{
	unsigned char is_done[N_JOBS] = {0};

	for (int n = 0; n < N_JOBS - 1; ++n) {
		struct ipc_queue_item item;
		struct done done;

		must("take a result", ipc_queue_take_wait(results, &item, NULL));
		memcpy(&done, item.data, sizeof(done));
		must("ack a result", ipc_queue_ack(results, &item));
		if (done.job < 0 || done.job >= N_JOBS || is_done[done.job]++) {
			fprintf(stderr, "job %d twice\n", (int)done.job);
			exit(1);
		}
	}
}

int main(void)
{
	ipc_queue_consumer *failed, *results, *jobs_end;
	struct ipc_queue_item letter;
	ipc_queue_producer *jobs;
	int32_t poison = -1;
	ipc_client *client;
	int n_killed = 0;

	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("open failed",
	     ipc_queue_consumer_open_wait(&failed, client, failed_name,
					  IPC_QUEUE_OPTIONS(.flags = IPC_CREATE | IPC_STAY), NULL));
	must("open results",
	     ipc_queue_consumer_open_wait(&results, client, done_name,
					  IPC_QUEUE_OPTIONS(.flags = IPC_CREATE | IPC_STAY), NULL));
	must("open jobs", ipc_queue_producer_open_wait(
				  &jobs, client, jobs_name,
				  IPC_QUEUE_OPTIONS(.flags = IPC_CREATE, .attempts_max = ATTEMPTS,
						    .dead_letters = failed_name),
				  NULL));

	/* The queue ends with its last consumer: this one stays while workers come and go. */
	must("open jobs", ipc_queue_consumer_open_wait(&jobs_end, client, jobs_name, NULL, NULL));

	for (int32_t job = 0; job < N_JOBS; ++job)
		must("push", ipc_queue_push_wait(jobs, job % 5 == 0 ? URGENT : ORDINARY, &job,
						 sizeof(job), NULL));
	for (int i = 0; i < N_WORKERS; ++i)
		start_worker();
	await_jobs(results);

	must("take a letter", ipc_queue_take_wait(failed, &letter, NULL));
	memcpy(&poison, letter.data, sizeof(poison));
	printf("%d jobs done; job %d of %s failed: %s\n", N_JOBS - 1, (int)poison, letter.source,
	       letter.reason == IPC_DEAD_ATTEMPTS ? "too many attempts" : "?");
	must("ack a letter", ipc_queue_ack(failed, &letter));
	must("shutdown", ipc_queue_shutdown(jobs_end));

	for (int i = 0; i < N_WORKERS; ++i) {
		int status;

		if (wait(&status) < 0)
			return 1;
		n_killed += WIFSIGNALED(status);
		if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			return 1;
	}
	printf("%d workers were killed\n", n_killed);

	ipc_queue_consumer_close(jobs_end);
	ipc_queue_producer_close(jobs);
	ipc_queue_consumer_close(results);
	ipc_queue_consumer_close(failed);
	ipc_client_unref(client);
	return poison == POISON && letter.reason == IPC_DEAD_ATTEMPTS && n_killed == ATTEMPTS ? 0
											      : 1;
}
