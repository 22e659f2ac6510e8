/* SPDX-License-Identifier: MIT */
/*
 * The keeper: its configuration, and a service manager above it.
 */
#include "tests/broker/keeper_scene.h"

/* ---- reload ---- */

/* M-6 */
Test(keeper_service, reload_with_an_error_changes_nothing, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct process before, after;
	pid_t keeper;
	int64_t end = now_ms() + PATIENCE_MS;

	conf_write("[limits]\nchannels = 11\n");
	keeper = keeper_start();
	manager_await("READY=1");
	before = ask_process();

	conf_write("[limits]\nchannels = 12\nchanels = 13\n");
	kill(keeper, SIGHUP);
	while (!log_has("/conf:3: chanels: no such key; legal: bytes, channels"))
		cr_assert_lt(now_ms(), end);

	after = ask_process();
	cr_assert_eq(after.pid, before.pid);
	kill(after.pid, SIGKILL);
	while (ask_process().pid == after.pid)
		;
	cr_assert(strstr(ask("config"), "channels = 11\n"));
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

/* to the keeper, then to the worker */
Test(keeper_service, reload_gives_the_next_worker_the_new_text, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct process before, after;
	pid_t keeper;

	conf_write("[limits]\nchannels = 11\n");
	keeper = keeper_start();
	manager_await("READY=1");
	cr_assert(strstr(ask("config"), "channels = 11\n"));
	cr_assert_str_eq(ask("add c1.1"), "0");

	for (unsigned i = 0; i < 2; ++i) {
		before = ask_process();
		conf_write(i == 0 ? "[limits]\nchannels = 12\n" : "[limits]\nchannels = 13\n");
		kill(i == 0 ? keeper : before.pid, SIGHUP);
		do
			after = ask_process();
		while (after.pid == before.pid);
		cr_assert_eq(after.ppid, keeper);
		cr_assert(strstr(ask("config"), i == 0 ? "channels = 12\n" : "channels = 13\n"));
		cr_assert(strstr(ask("list"), "c1.1 "));
	}

	/* The keeper after the next death has it, too. */
	before = ask_process();
	kill(keeper, SIGKILL);
	(void)reap(keeper);
	do
		after = ask_process();
	while (after.pid == before.pid);
	cr_assert(strstr(ask("config"), "channels = 13\n"));
	cr_assert_eq(keeper_stop(after.ppid, SIGTERM), 0);
}

/* */
Test(keeper_service, error_in_the_configuration_is_status_2, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t keeper;
	int status;

	conf_write("[limits]\nchannels = many\n");
	keeper = keeper_start();

	status = reap(keeper);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	cr_assert(log_has("/conf:2: channels: not \"many\"; legal: 0 to 16384"));
	cr_assert(!is_there("broker"));
}

/* ---- the service manager ---- */

/* */
Test(keeper_service, what_the_worker_says_is_passed_on, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t keeper = keeper_start();
	struct stat status;
	char text[1024], listed[64];
	int fd;

	manager_hear(text, &fd);
	cr_assert(strstr(text, "FDNAME=ls0.1"), "the listening socket can be given back");
	close(fd);
	manager_hear(text, NULL);
	cr_assert_str_eq(text, "READY=1");

	cr_assert_str_eq(ask("tell STATUS=all is well"), "0");
	manager_hear(text, NULL);
	cr_assert_str_eq(text, "STATUS=all is well");

	cr_assert_str_eq(ask("add c5.17"), "0");
	manager_hear(text, &fd);
	cr_assert(strstr(text, "FDSTORE=1\n") && strstr(text, "FDPOLL=0\n") &&
		  strstr(text, "FDNAME=c5.17"));
	cr_assert_eq(fstat(fd, &status), 0);
	close(fd);
	snprintf(listed, sizeof(listed), "c5.17 %llu\n", (unsigned long long)status.st_ino);
	cr_assert_str_eq(ask("list"), listed);

	cr_assert_str_eq(ask("remove c5.17"), "0");
	manager_hear(text, &fd);
	cr_assert(strstr(text, "FDSTOREREMOVE=1") && strstr(text, "FDNAME=c5.17"));
	cr_assert_eq(fd, -1);

	/* Of a second worker's READY=1 nothing is said: the unit was ready all the time. */
	kill(ask_process().pid, SIGKILL);
	cr_assert_eq(ask_process().ppid, keeper);
	kill(keeper, SIGTERM);
	manager_hear(text, NULL);
	cr_assert_str_eq(text, "STOPPING=1");
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

static int listener_open(const char *name, int type)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(sockaddr.sun_path, sizeof(sockaddr.sun_path), "%s/%s", setting.dir, name);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)), 0);
	cr_assert_eq(listen(fd, 16), 0);
	return fd;
}

/* called "ipc", or the first that fits; neither bound over nor removed */
Test(keeper_service, passed_socket_is_used_and_left, .init = setup, .fini = teardown, .timeout = 60)
{
	static const char *const names[] = {"ipcbroker.socket", "other:ipc", NULL};

	for (unsigned i = 0; i < 3; ++i) {
		int listener = listener_open("broker", SOCK_SEQPACKET),
		    other = listener_open("other", i == 1 ? SOCK_SEQPACKET : SOCK_STREAM);
		char path[200];
		pid_t keeper;

		setting.passed_fds[0] = i == 0 ? listener : other;
		setting.passed_fds[1] = i == 0 ? -1 : listener;
		setting.passed_names = names[i];
		setting.options.address = i == 2 ? NULL : setting.address;
		keeper = keeper_start();
		manager_await("READY=1");

		cr_assert_eq(ask_process().ppid, keeper);
		kill(ask_process().pid, SIGKILL);
		cr_assert_eq(ask_process().ppid, keeper);
		cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
		cr_assert(is_there("broker"));

		close(listener);
		close(other);
		unlink(setting.address);
		snprintf(path, sizeof(path), "%s/other", setting.dir);
		unlink(path);
	}
}

/* what an earlier keeper stored with the manager */
Test(keeper_service, stored_descriptors_are_adopted, .init = setup, .fini = teardown, .timeout = 60)
{
	int listener = listener_open("broker", SOCK_SEQPACKET),
	    state = memfd_create("state", MFD_CLOEXEC),
	    channel = memfd_create("channel", MFD_CLOEXEC);
	struct stat of_state, of_channel;
	char wanted[128];
	pid_t keeper;

	fstat(state, &of_state);
	fstat(channel, &of_channel);
	setting.passed_fds[0] = state;
	setting.passed_fds[1] = listener;
	setting.passed_fds[2] = channel;
	setting.passed_names = "st0.1:ls0.1:cA.1f";
	keeper = keeper_start();
	close(listener);
	manager_await("READY=1");

	snprintf(wanted, sizeof(wanted), "st0.1 %llu\ncA.1f %llu\n",
		 (unsigned long long)of_state.st_ino, (unsigned long long)of_channel.st_ino);
	cr_assert_str_eq(ask("list"), wanted);
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
	cr_assert(!is_there("broker"), "a socket that a keeper bound is a keeper's to remove");
	close(state);
	close(channel);
}
