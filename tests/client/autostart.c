/* SPDX-License-Identifier: MIT */
/*
 * The embedded broker: started by whoever needs it, one for all, gone when nobody does.
 */
#include "libipc/client/autostart.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

#define DEADLINE(ms) (&(const struct timespec[]){process_deadline(ms)}[0])

static char dir[] = "/tmp/ipc-test-XXXXXX";
static char address[128];

static void setup(void)
{
	cr_assert_not_null(mkdtemp(dir));
	snprintf(address, sizeof(address), "%s/broker", dir);
	setenv("IPC_BROKER", address, 1);
	(void)domain_program();

	/* The brokers become children of the test, which sees their end. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void file_remove(const char *name)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
}

static void teardown(void)
{
	file_remove("broker");
	file_remove("broker.lock");
	file_remove("ipcbroker");
	cr_assert_eq(rmdir(dir), 0, "%s: %s", dir, strerror(errno));
}

/* Who listens there: the keeper, as the kernel remembers it. */
static pid_t broker_of(ipc_client *client)
{
	struct ucred owner;
	socklen_t size = sizeof(owner);

	cr_assert_eq(getsockopt(client->connection.fd, SOL_SOCKET, SO_PEERCRED, &owner, &size), 0);
	return owner.pid;
}

/* SIGTERM, and all that it started is gone. */
static void broker_end(pid_t pid)
{
	int status;

	kill(pid, SIGTERM);
	cr_assert_eq(process_reap(pid, 30000), 0);
	while (waitpid(-1, &status, 0) > 0)
		;
}

/* M-40 */
Test(autostart, broker_is_started_where_none_listens, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct leaks leaks;
	ipc_client *client, *second;
	char path[64], cwd[64];
	pid_t broker;

	leaks_begin(&leaks);
	cr_assert_eq(ipc_client_connect_wait(&client, NULL, DEADLINE(30000)), 0);
	cr_assert_eq(ipc_client_connect_wait(&second, NULL, DEADLINE(30000)), 0);
	broker = broker_of(client);
	cr_assert_eq(broker_of(second), broker);

	/* In a session of its own, in no directory of ours. */
	cr_assert_neq(getsid(broker), getsid(0));
	snprintf(path, sizeof(path), "/proc/%d/cwd", (int)broker);
	cr_assert_eq(readlink(path, cwd, sizeof(cwd)), 1);

	ipc_client_unref(client);
	ipc_client_unref(second);
	broker_end(broker);
	leaks_check(&leaks);
}

/* M-40, X-8: a call that uses a domain starts one, a call that looks does not. */
Test(autostart, ipcctl_starts_one_for_once_alone, .init = setup, .fini = teardown, .timeout = 60)
{
	static const char *const list[] = {"list", NULL};
	static const char *const once[] = {"once", "key", "--", "echo", "a", NULL};
	struct program program;
	ipc_client *client;
	pid_t broker;

	program_start_ctl(&program, NULL, list, "", 0);
	program_end(&program, 20000);
	cr_assert_eq(program.status, 1);
	cr_assert_neq(access(address, F_OK), 0);
	program_forget(&program);

	program_start_ctl(&program, NULL, once, "", 0);
	program_end(&program, 20000);
	cr_assert_eq(program.status, 0, "%s", program.err);
	cr_assert_str_eq(program.out, "a\n");
	program_forget(&program);

	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_AUTOSTART),
					     DEADLINE(30000)),
		     0);
	broker = broker_of(client);
	ipc_client_unref(client);
	broker_end(broker);
}

/* M-40 */
Test(autostart, is_refused_by_a_flag_and_for_the_callers_address, .init = setup, .fini = teardown,
     .timeout = 60)
{
	ipc_client *client = NULL;

	cr_assert_eq(ipc_client_connect_wait(
			     &client, IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_AUTOSTART), NULL),
		     IPC_ECONNREFUSED);
	cr_assert_eq(ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = address), NULL),
		     IPC_ECONNREFUSED);
	cr_assert_neq(access(address, F_OK), 0);
}

/* M-20: to look is not to start. */
Test(autostart, past_deadline_starts_nothing, .init = setup, .fini = teardown, .timeout = 60)
{
	const struct timespec past = {0, 0};
	ipc_client *client = NULL;

	cr_assert_eq(ipc_client_connect_wait(&client, NULL, &past), IPC_ECONNREFUSED);
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
}

static void script_write(const char *text)
{
	char path[192];
	FILE *file;

	snprintf(path, sizeof(path), "%s/ipcbroker", dir);
	file = fopen(path, "we");
	cr_assert_not_null(file);
	fputs(text, file);
	fclose(file);
	chmod(path, 0755);
	setenv("IPC_BROKER_PROGRAM", path, 1);
}

Test(autostart, program_that_is_not_there_refuses_the_connection, .init = setup, .fini = teardown,
     .timeout = 60)
{
	ipc_client *client = NULL;

	setenv("IPC_BROKER_PROGRAM", "/nowhere/ipcbroker", 1);
	cr_assert_eq(ipc_client_connect_wait(&client, NULL, NULL), IPC_ECONNREFUSED);

	/* It is there, but cannot be executed. */
	script_write("#!/nowhere/sh\n");
	cr_assert_eq(ipc_client_connect_wait(&client, NULL, NULL), IPC_ECONNREFUSED);
}

Test(autostart, broker_that_fails_refuses_the_connection, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct leaks leaks;
	ipc_client *client = NULL;

	leaks_begin(&leaks);
	script_write("#!/bin/sh\nexit 1\n");

	cr_assert_eq(ipc_client_connect_wait(&client, NULL, NULL), IPC_ECONNREFUSED);

	while (waitpid(-1, NULL, 0) > 0)
		;
	leaks_check(&leaks);
}

/* Ends in good order, as one that lost the race for the lock: its client looks again until the
 * deadline. */
Test(autostart, broker_that_never_comes_up_ends_at_the_deadline, .init = setup, .fini = teardown,
     .timeout = 60)
{
	ipc_client *client = NULL;

	script_write("#!/bin/sh\nexit 0\n");

	cr_assert_eq(ipc_client_connect_wait(&client, NULL, DEADLINE(300)), IPC_ETIMEDOUT);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* What it inherits: signals as at login, no descriptors, nothing that makes it talk to our service
 * manager. */
Test(autostart, broker_inherits_nothing_of_ours, .init = setup, .fini = teardown, .timeout = 60)
{
	ipc_client *client = NULL;
	char path[192], line[256] = "";
	sigset_t mask;
	FILE *file;

	script_write("#!/bin/sh\n"
		     "{ ls /proc/self/fd | tr '\\n' ' '; grep -e SigIgn -e SigBlk "
		     "/proc/self/status | tr -d '\\n\\t'; "
		     "echo \" $NOTIFY_SOCKET $LISTEN_FDS $IPC_TEST_KEPT $*\"; } > \"$3.said\"\n"
		     "exit 1\n");
	setenv("NOTIFY_SOCKET", "/ours", 1);
	setenv("LISTEN_FDS", "7", 1);
	setenv("IPC_TEST_KEPT", "kept", 1);
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)!dup(0);

	cr_assert_eq(ipc_client_connect_wait(&client, NULL, NULL), IPC_ECONNREFUSED);

	snprintf(path, sizeof(path), "%s.said", address);
	file = fopen(path, "re");
	cr_assert_not_null(file);
	cr_assert_not_null(fgets(line, sizeof(line), file));
	fclose(file);
	unlink(path);
	cr_assert_not_null(strstr(line, "SigBlk:0000000000000000SigIgn:0000000000000000 "), "%s",
			   line);
	cr_assert_not_null(strstr(line, "   kept --autostart --address "), "%s", line);
	/* 3 is the directory that ls reads. */
	cr_assert_eq(strncmp(line, "0 1 2 3 Sig", 11), 0, "%s", line);
	cr_assert_eq(signal(SIGUSR1, SIG_DFL), SIG_IGN);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void starter_run(struct actor *self, void *arg)
{
	ipc_client *client;
	int r;

	(void)arg;
	(void)actor_hear(self);
	r = ipc_client_connect_wait(&client, NULL, DEADLINE(15000));
	actor_say(self, r < 0 ? r : (int64_t)broker_of(client));
	(void)actor_hear(self);
	if (r == 0)
		ipc_client_unref(client);
}

enum { STARTERS = 4, ROUNDS = 5 };

static void start_together(void)
{
	struct actor actors[STARTERS];
	int64_t brokers[STARTERS];

	for (unsigned i = 0; i < STARTERS; ++i)
		actor_start(&actors[i], starter_run, NULL);
	for (unsigned i = 0; i < STARTERS; ++i)
		actor_say(&actors[i], 1);
	for (unsigned i = 0; i < STARTERS; ++i)
		brokers[i] = actor_hear(&actors[i]);

	for (unsigned i = 0; i < STARTERS; ++i) {
		cr_assert_gt(brokers[i], 0, "%s", ipc_error_name((int)brokers[i]));
		cr_assert_eq(brokers[i], brokers[0]);
		actor_say(&actors[i], 1);
		cr_assert_eq(actor_join(&actors[i]), 0);
	}
	broker_end((pid_t)brokers[0]);
}

/* M-40 */
Test(autostart, several_processes_at_once_end_up_with_one_broker, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (unsigned i = 0; i < ROUNDS; ++i)
		start_together();
}

/* M-40: a program's own children are its own business. */
Test(autostart, start_is_no_child_that_the_program_sees, .init = setup, .fini = teardown,
     .timeout = 60)
{
	ipc_client *client;
	pid_t broker;

	prctl(PR_SET_CHILD_SUBREAPER, 0);
	signal(SIGCHLD, SIG_DFL);

	cr_assert_eq(ipc_client_connect_wait(&client, NULL, DEADLINE(30000)), 0);

	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
	broker = broker_of(client);
	ipc_client_unref(client);

	/* Not ours to reap. */
	int pidfd = process_open(broker);
	kill(broker, SIGTERM);
	process_until_ended(pidfd, 10000);
	close(pidfd);
}
