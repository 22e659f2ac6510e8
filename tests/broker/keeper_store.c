/* SPDX-License-Identifier: MIT */
/*
 * The keeper: what it keeps over deaths of workers, its own death, and times when there is nobody.
 */
#include "tests/broker/keeper_scene.h"

/* So many descriptors, from c0.1 on. */
static void ask_to_add(unsigned n)
{
	char command[64];

	for (unsigned i = 0; i < n; ++i) {
		sprintf(command, "add c%X.1", i);
		cr_assert_str_eq(ask(command), "0");
	}
}

/* ---- the store ---- */

/* M-6, D12 */
Test(keeper_store, descriptors_come_back_to_each_of_50_workers, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char before[ANSWER_SIZE];
	pid_t keeper = keeper_start();

	manager_await("READY=1");
	ask_to_add(40);
	/* Gaps at the start, in the middle and at the end. */
	cr_assert_str_eq(ask("remove c0.1"), "0");
	cr_assert_str_eq(ask("remove c12.1"), "0");
	cr_assert_str_eq(ask("remove c27.1"), "0");
	strcpy(before, ask_list());

	for (unsigned i = 0; i < 50; ++i) {
		struct process worker = ask_process();

		cr_assert_eq(worker.ppid, keeper);
		kill(worker.pid, SIGKILL);
		while (ask_process().pid == worker.pid)
			;
		cr_assert_str_eq(ask_list(), before);
	}
	cr_assert(strstr(before, "c26.1 ") && !strstr(before, "c27.1 ") &&
		  !strstr(before, "c0.1 "));
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

/* D12: what was sent before the death counts */
Test(keeper_store, everything_said_before_a_death_is_done_before_the_next_start, .init = setup,
     .fini = teardown, .timeout = 60)
{
	pid_t keeper = keeper_start();
	char answer[ANSWER_SIZE], command[64];

	manager_await("READY=1");
	for (unsigned i = 0; i < 10; ++i) {
		struct pollfd worker = {.fd = (int)syscall(SYS_pidfd_open, ask_process().pid, 0),
					.events = POLLIN};

		/* More than the keeper reads before it looks at signals; and the signal is there
		 * when it does. */
		kill(keeper, SIGSTOP);
		for (unsigned n = 0; n < 40; ++n) {
			cr_assert_str_eq(ask("add s1.1"), "0");
			cr_assert_str_eq(ask("remove s1.1"), "0");
		}
		sprintf(command, "add c%X.%x", i, i);
		cr_assert_str_eq(ask(command), "0");
		(void)ask_once("abort", answer);
		cr_assert_eq(poll(&worker, 1, PATIENCE_MS), 1);
		close(worker.fd);
		kill(keeper, SIGCONT);
		sprintf(command, "c%X.%x ", i, i);
		cr_assert(strstr(ask("list"), command));
		cr_assert_null(strstr(ask("list"), "s1.1"));
	}
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

/* D12: all that fit, by more names than one string of an environment holds; one more is refused;
 * both kinds of death bring them back. */
Test(keeper_store, a_full_store_comes_back, .init = setup, .fini = teardown, .timeout = 120)
{
	unsigned n_wanted, n_stored, n;
	struct process worker;
	struct rlimit limit;
	pid_t keeper;
	int r;

	setting.options.level = LOG_LEVEL_NOTICE;
	keeper = keeper_start();
	manager_await("READY=1");
	close(setting.notify_fd); /* nobody reads */
	getrlimit(RLIMIT_NOFILE, &limit);
	n_wanted = limit.rlim_max >= STORE_FDS_MAX + 100 ? STORE_FDS_MAX - 2
							 : (unsigned)limit.rlim_max - 100;
	cr_assert_eq(sscanf(ask("fill"), "%d %u", &r, &n_stored), 2);
	cr_assert_eq(r, IPC_ENFILE);
	cr_assert_geq(n_stored, n_wanted);

	worker = ask_process();
	kill(worker.pid, SIGKILL);
	cr_assert_eq(sscanf(ask("check"), "%u", &n), 1);
	cr_assert_eq(n, n_stored);

	worker = ask_process();
	kill(keeper, SIGKILL);
	(void)reap(keeper);
	while (ask_process().pid == worker.pid)
		;
	cr_assert_eq(sscanf(ask("check"), "%u", &n), 1);
	cr_assert_eq(n, n_stored);
	cr_assert_eq(keeper_stop(ask_process().ppid, SIGTERM), 0);
	setting.notify_fd = -1;
}

/* ---- M-6: the keeper dies ---- */

Test(keeper_store, death_of_the_keeper_is_survived_again_and_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char before[ANSWER_SIZE];
	struct process worker;
	pid_t keeper = keeper_start();

	manager_await("READY=1");
	ask_to_add(10);
	cr_assert_str_eq(ask("remove c3.1"), "0");
	strcpy(before, ask_list());

	for (unsigned i = 0; i < 20; ++i) {
		worker = ask_process();
		kill(worker.ppid, SIGKILL);
		(void)reap(worker.ppid);

		/* The worker of the dead one may still answer; it ends, and the next one has the
		 * next keeper. */
		while (ask_process().pid == worker.pid)
			;
		cr_assert_neq(ask_process().ppid, worker.ppid);
		cr_assert_str_eq(ask_list(), before);
	}

	/* The last one is a keeper like the first. */
	worker = ask_process();
	kill(worker.pid, SIGKILL);
	while (ask_process().pid == worker.pid)
		;
	cr_assert_eq(ask_process().ppid, worker.ppid);
	cr_assert_str_eq(ask_list(), before);
	keeper = worker.ppid;
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
	cr_assert(!is_there("broker"));
}

Test(keeper_store, death_of_both_ends_the_domain_and_frees_the_lock, .init = setup,
     .fini = teardown, .timeout = 60)
{
	pid_t keeper = keeper_start();
	pid_t worker;

	manager_await("READY=1");
	worker = ask_process().pid;
	kill(worker, SIGSTOP);
	kill(keeper, SIGKILL);
	kill(worker, SIGKILL);
	reap_all();

	cr_assert(!is_there("broker"));
	keeper = keeper_start();
	manager_await("READY=1");
	cr_assert_eq(keeper_stop(keeper, SIGTERM), 0);
}

static pid_t spare_find(pid_t keeper)
{
	/* The spare holds the lock, like the keeper, and is our child: its parent has ended. */
	char path[64], text[256];
	pid_t found = 0;
	FILE *file;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "re");
	while (fscanf(file, "%d", &pid) == 1) {
		FILE *comm;

		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		comm = fopen(path, "re");
		if (pid != keeper && comm && fgets(text, sizeof(text), comm) &&
		    strcmp(text, "ipc-spare\n") == 0)
			found = pid;
		if (comm)
			fclose(comm);
	}
	fclose(file);
	return found;
}

Test(keeper_store, dead_spare_is_replaced, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t keeper = keeper_start(), spare, next;
	int64_t end = now_ms() + PATIENCE_MS;
	struct process worker;

	manager_await("READY=1");
	while ((spare = spare_find(keeper)) == 0)
		cr_assert_lt(now_ms(), end);
	kill(spare, SIGKILL);
	(void)reap(spare);
	while ((next = spare_find(keeper)) == 0)
		cr_assert_lt(now_ms(), end);
	cr_assert_neq(next, spare);

	worker = ask_process();
	kill(keeper, SIGKILL);
	(void)reap(keeper);
	while (ask_process().pid == worker.pid)
		;
	cr_assert_eq(ask_process().ppid, next);
	cr_assert_eq(keeper_stop(next, SIGTERM), 0);
}

/* ---- idle end ---- */

/* D22 */
Test(keeper_store, idle_end_hides_the_name_and_shows_it_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t keeper = keeper_start();
	char answer[ANSWER_SIZE];
	int early, fd, status;

	manager_await("READY=1");

	/* Who connected before the name went is served. */
	kill(keeper, SIGSTOP);
	fd = connect_now();
	send(fd, "hide", 4, 0);
	early = connect_now();
	cr_assert_geq(early, 0);
	kill(keeper, SIGCONT);
	cr_assert_eq(recv(fd, answer, sizeof(answer), 0), 1);
	cr_assert_eq(answer[0], '0');
	cr_assert(!is_there("broker"));
	close(fd);

	send(early, "show", 4, 0);
	cr_assert_eq(recv(early, answer, sizeof(answer), 0), 1);
	close(early);
	cr_assert_eq(ask_process().ppid, keeper);

	/* A worker that dies while the name is hidden. */
	fd = connect_now();
	early = connect_now();
	send(fd, "hide", 4, 0);
	cr_assert_eq(recv(fd, answer, sizeof(answer), 0), 1);
	close(fd);
	cr_assert(!is_there("broker"));
	send(early, "abort", 5, 0);
	cr_assert_eq(ask_process().ppid, keeper);
	close(early);

	/* The end. */
	fd = connect_now();
	early = connect_now();
	send(fd, "hide", 4, 0);
	cr_assert_eq(recv(fd, answer, sizeof(answer), 0), 1);
	close(fd);
	send(early, "exit 0", 6, 0);
	status = reap(keeper);
	reap_all();
	close(early);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(!is_there("broker"));
	cr_assert(!is_there("broker.new"));
}
