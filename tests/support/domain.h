/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_DOMAIN_H
#define TESTS_SUPPORT_DOMAIN_H

/*
 * A private domain for a test: the built broker, in a directory of its own.
 *
 * The program is IPC_TEST_BROKER (of the environment, else as compiled in); the words of
 * $IPC_TEST_BROKER_ARGS are added to its arguments. Everything that is started dies with the thread
 * that started it.
 */

#include <sys/types.h>
#include <time.h>

#include <ipc/client.h>

struct domain {
	char dir[64];
	char address[100];
	pid_t keeper;
};

/* The broker program; also puts it into $IPC_BROKER_PROGRAM, where the library looks before it
 * starts one itself. */
const char *domain_program(void);

/* more_args: NULL-terminated, or NULL.  Returns when the broker accepts. */
void domain_start(struct domain *domain, const char *const *more_args);

/* SIGTERM; the status has to be 0, and no socket, process or name in /dev/shm may be left: aborts
 * otherwise. */
void domain_stop(struct domain *domain);

/* The same for a broker that ends by itself. */
void domain_until_ended(struct domain *domain);

/* SIGKILL to keeper and worker, so that none restarts the other (M-6), then removes what they left.
 */
void domain_kill(struct domain *domain);

/* The present worker; during a restart the next one. */
pid_t domain_worker(const struct domain *domain);

/* SIGKILL to the worker; returns when the next one has answered. */
void domain_kill_worker(struct domain *domain);

/*
 * How many descriptors the keeper has.  With a client connected, before anything else is opened:
 * more than that later are of what was opened.  The worker is killed for it: the keeper has heard
 * all that one worker said before it starts the next.  While a worker starts it has a few more.
 */
unsigned domain_fds_before(struct domain *domain);

/* SIGKILL to the keeper; returns when the next one, which is nobody's child, has a worker that
 * answers. */
void domain_kill_keeper(struct domain *domain);

/* Waits until the present worker answers. */
void domain_until_ready(const struct domain *domain);

/* A connected client; aborts on failure. */
ipc_client *domain_connect(const struct domain *domain);

/* Prints the broker's log so far. */
void domain_show_log(const struct domain *domain);

/* now + ms */
struct timespec domain_deadline(unsigned ms);

#endif
