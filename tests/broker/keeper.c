/* SPDX-License-Identifier: MIT */
/*
 * The keeper: how it starts and ends, and that there is one.
 */
#include "tests/broker/keeper_scene.h"

/* ---- start and end ---- */

/* names; X-3: status 0; D22: the socket goes, the lock stays */
Test(keeper, orderly_end_removes_the_socket_and_not_the_lock, .init = setup, .fini = teardown,
     .timeout = 60)
{
	static const int signals[] = {SIGTERM, SIGINT};

	for (unsigned i = 0; i < 2; ++i) {
		pid_t keeper = keeper_start();

		manager_await("READY=1");
		cr_assert(is_there("broker"));
		cr_assert_eq(keeper_stop(keeper, signals[i]), 0);
		cr_assert(!is_there("broker"));
		cr_assert(!is_there("broker.new"));
		cr_assert(is_there("broker.lock"));
	}
}

/* */
Test(keeper, signal_to_the_worker_ends_both_in_order, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t keeper = keeper_start();
	int status;

	manager_await("READY=1");
	kill(ask_process().pid, SIGTERM);

	status = reap(keeper);
	reap_all();
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(!is_there("broker"));
}

/* a signal that comes before the worker can deal with it is not lost */
Test(keeper, signal_right_after_the_start_is_an_orderly_end, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (unsigned i = 0; i < 30; ++i) {
		pid_t keeper = keeper_start();
		int64_t end = now_ms() + PATIENCE_MS;
		int fd = -1;

		while (fd < 0 && now_ms() < end)
			fd = connect_now();
		cr_assert_geq(fd, 0);
		close(fd);
		cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
		cr_assert(!is_there("broker"));
	}
}

/* */
Test(keeper, parent_and_worker_have_their_names, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t keeper = keeper_start();
	char path[64], comm[32] = "";
	struct process worker;
	int fd;

	manager_await("READY=1");
	worker = ask_process();

	cr_assert_eq(worker.ppid, keeper);
	cr_assert_str_eq(worker.comm, "ipcbroker");
	cr_assert_str_eq(worker.words, "ipcbroker --word");
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)keeper);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_gt(read(fd, comm, sizeof(comm) - 1), 0);
	close(fd);
	cr_assert_str_eq(comm, "ipckeeper\n");
	cr_assert_str_eq(setting.options.argv[0], "/somewhere/ipcbroker", "the test's own copy");
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

/* grace */
Test(keeper, worker_that_does_not_end_is_killed_after_the_grace_time, .init = setup,
     .fini = teardown, .timeout = 60)
{
	pid_t keeper;

	conf_write("[broker]\ngrace = 0.2\n");
	setenv("STANDIN", "stubborn", 1);
	keeper = keeper_start();
	manager_await("READY=1");

	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
	cr_assert(log_has("it is killed"));
	cr_assert(!is_there("broker"));
}

/* */
Test(keeper, worker_that_cannot_run_ends_the_keeper_with_1, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t keeper = keeper_start();
	char answer[ANSWER_SIZE];
	int status;

	manager_await("READY=1");
	(void)ask_once("exit 1", answer);

	status = reap(keeper);
	reap_all();
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	cr_assert(!is_there("broker"));
}

Test(keeper, gives_up_when_no_worker_gets_ready, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t keeper;
	int status;

	setenv("STANDIN", "fail", 1);
	keeper = keeper_start();

	status = reap(keeper);
	reap_all();
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	cr_assert(log_has("giving up"));
	cr_assert(!is_there("broker"));
}

/* ---- one broker ---- */

/* D22, X-3 */
Test(keeper, of_two_at_once_one_stays, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 20; ++i) {
		pid_t first, second, winner, loser;
		int status;

		setting.options.autostart = i % 2;
		first = keeper_start();
		second = keeper_start();

		/* One of them is ready, the other one ends. */
		manager_await("READY=1");
		winner = ask_process().ppid;
		loser = winner == first ? second : first;
		cr_assert(winner == first || winner == second);
		status = reap(loser);
		cr_assert(WIFEXITED(status));
		cr_assert_eq(WEXITSTATUS(status), setting.options.autostart ? 0 : 1);
		cr_assert_eq(ask_process().ppid, winner, "the loser did not touch the socket");
		cr_assert_eq(keeper_stop(winner, SIGTERM), 0);
	}
}

static void stale_make(void)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sockaddr.sun_path, setting.address);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)), 0);
	listen(fd, 1);
	close(fd);
}

/* D22 */
Test(keeper, socket_of_a_dead_broker_is_taken_over, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t keeper;

	stale_make();
	keeper = keeper_start();

	manager_await("READY=1");
	cr_assert_eq(ask_process().ppid, keeper);
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

Test(keeper, file_that_is_no_socket_is_left_alone, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd = open(setting.address, O_WRONLY | O_CREAT, 0600), status;
	pid_t keeper;

	close(fd);
	keeper = keeper_start();

	status = reap(keeper);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	cr_assert(log_has("not a socket"));
	cr_assert(is_there("broker"));
}

Test(keeper, socket_that_a_stranger_listens_on_is_left_alone, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), client, status;
	pid_t keeper;

	strcpy(sockaddr.sun_path, setting.address);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)), 0);
	cr_assert_eq(listen(fd, 4), 0);
	keeper = keeper_start();

	status = reap(keeper);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	client = connect_now();
	cr_assert_geq(client, 0);
	close(client);
	close(fd);
}

Test(keeper, path_that_is_too_long_is_named, .init = setup, .fini = teardown, .timeout = 60)
{
	char path[200];
	pid_t keeper;
	int status;

	snprintf(path, sizeof(path), "%s/%0110d", setting.dir, 0);
	setting.options.address = path;
	keeper = keeper_start();

	status = reap(keeper);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	cr_assert(log_has("legal: up to 103"));
}

/* M-40 */
Test(keeper, directory_of_the_address_is_made, .init = setup, .fini = teardown, .timeout = 60)
{
	char path[200];
	struct stat status;
	pid_t keeper;

	setting.options.address = NULL;
	setenv("XDG_RUNTIME_DIR", setting.dir, 1);
	unsetenv("IPC_BROKER");
	keeper = keeper_start();
	manager_await("READY=1");

	snprintf(path, sizeof(path), "%s/ipc", setting.dir);
	cr_assert_eq(stat(path, &status), 0);
	cr_assert_eq(status.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "%s/ipc/broker", setting.dir);
	cr_assert_eq(stat(path, &status), 0);
	cr_assert_eq(status.st_mode & 07777, 0666);
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
	cr_assert_eq(stat(path, &status), -1);
	strcat(path, ".lock");
	cr_assert_eq(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/ipc", setting.dir);
	rmdir(path);
}
