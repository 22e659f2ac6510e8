/* SPDX-License-Identifier: MIT */
/*
 * The keeper, with a stand-in for the worker: this program, started by the keeper as its own
 * executable, becomes a small worker before main() runs.  It takes one command a connection and
 * answers with text.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ipc/error.h>

#include "broker/keeper.h"
#include "broker/launch.h"
#include "broker/log.h"
#include "broker/store.h"
#include "broker/worker.h"

#define ANSWER_SIZE 8192
#define PATIENCE_MS 30000

/* ---- the worker ---- */

#define N_HELD_MAX STORE_FDS_MAX

struct held {
	char name[STORE_NAME_SIZE];
	int fd;
};

struct standin {
	struct store store;
	int listen_fd, config_fd;
	struct held held[N_HELD_MAX];
	unsigned n_held;
};

static void standin_adopt(const char *name, int fd, void *userdata)
{
	struct standin *standin = userdata;

	if (strcmp(name, STORE_NAME_LISTENER) == 0) {
		standin->listen_fd = fd;
	} else if (strcmp(name, STORE_NAME_CONFIG) == 0) {
		standin->config_fd = fd;
	} else if (standin->n_held < N_HELD_MAX) {
		strcpy(standin->held[standin->n_held].name, name);
		standin->held[standin->n_held++].fd = fd;
	}
}

static void standin_list(const struct standin *standin, char *answer)
{
	struct stat status;

	*answer = '\0';
	for (unsigned i = 0; i < standin->n_held && i < 64; ++i) {
		if (fstat(standin->held[i].fd, &status) < 0)
			status.st_ino = 0;
		answer += sprintf(answer, "%s %llu\n", standin->held[i].name,
				  (unsigned long long)status.st_ino);
	}
}

static void standin_add(struct standin *standin, const char *name, char *answer)
{
	struct held *held = &standin->held[standin->n_held++];

	strcpy(held->name, name);
	held->fd = memfd_create("test", MFD_CLOEXEC);
	sprintf(answer, "%d", store_add(&standin->store, name, held->fd));
}

static void standin_remove(struct standin *standin, const char *name, char *answer)
{
	unsigned i = 0;

	while (i < standin->n_held && strcmp(standin->held[i].name, name) != 0)
		++i;
	sprintf(answer, "%d", store_remove(&standin->store, name));
	if (i < standin->n_held) {
		close(standin->held[i].fd);
		standin->held[i] = standin->held[--standin->n_held];
	}
}

/* Files of sizes 1, 2, 3, ..., so that one can be told from the other; stops at the first refusal.
 */
static void standin_fill(struct standin *standin, char *answer)
{
	unsigned i = 0;
	int r = 0;

	for (; r == 0 && standin->n_held < N_HELD_MAX; ++i) {
		struct held *held = &standin->held[standin->n_held];

		store_name(held->name, 'c', i, i);
		held->fd = memfd_create("test", MFD_CLOEXEC);
		r = held->fd < 0 || ftruncate(held->fd, i) < 0
			    ? -errno
			    : store_add(&standin->store, held->name, held->fd);
		if (r == 0)
			++standin->n_held;
	}
	sprintf(answer, "%d %u", r, standin->n_held);
}

/* How many there are that are what their name says. */
static void standin_check(const struct standin *standin, char *answer)
{
	uint32_t slot, generation;
	struct stat status;
	unsigned n = 0;
	char kind;

	for (unsigned i = 0; i < standin->n_held; ++i) {
		if (store_parse_name(standin->held[i].name, &kind, &slot, &generation) == 0 &&
		    kind == 'c' && generation == (slot & 0xffff) &&
		    fstat(standin->held[i].fd, &status) == 0 && status.st_size == slot)
			++n;
	}
	sprintf(answer, "%u", n);
}

static void standin_config(const struct standin *standin, char *answer)
{
	ssize_t n = pread(standin->config_fd, answer, ANSWER_SIZE - 1, 0);

	answer[n > 0 ? n : 0] = '\0';
}

static void standin_process(char *answer)
{
	char comm[16] = "", words[256] = "";
	ssize_t n;
	int fd;

	prctl(PR_GET_NAME, comm);
	fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	n = read(fd, words, sizeof(words) - 1);
	close(fd);
	for (ssize_t i = 0; i + 1 < n; ++i)
		words[i] = words[i] == '\0' ? ' ' : words[i];
	sprintf(answer, "%d %d %s %s", (int)getpid(), (int)getppid(), comm, words);
}

static void standin_do(struct standin *standin, char *command, char *answer)
{
	strcpy(answer, "done");
	if (strcmp(command, "list") == 0)
		standin_list(standin, answer);
	else if (strcmp(command, "fill") == 0)
		standin_fill(standin, answer);
	else if (strcmp(command, "check") == 0)
		standin_check(standin, answer);
	else if (strcmp(command, "process") == 0)
		standin_process(answer);
	else if (strcmp(command, "config") == 0)
		standin_config(standin, answer);
	else if (strncmp(command, "add ", 4) == 0)
		standin_add(standin, command + 4, answer);
	else if (strncmp(command, "remove ", 7) == 0)
		standin_remove(standin, command + 7, answer);
	else if (strncmp(command, "tell ", 5) == 0)
		sprintf(answer, "%d", store_notify(&standin->store, command + 5));
	else if (strcmp(command, "hide") == 0)
		sprintf(answer, "%d", store_end_accepting(&standin->store));
	else if (strcmp(command, "show") == 0)
		sprintf(answer, "%d", store_resume_accepting(&standin->store));
	else if (strcmp(command, "abort") == 0)
		abort();
	else if (strncmp(command, "exit ", 5) == 0)
		_exit(atoi(command + 5));
}

static void standin_serve(struct standin *standin)
{
	char command[256], answer[ANSWER_SIZE];
	int fd = accept4(standin->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return;
	n = recv(fd, command, sizeof(command) - 1, 0);
	if (n > 0) {
		command[n] = '\0';
		standin_do(standin, command, answer);
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	}
	close(fd);
}

static int standin_run(void)
{
	const char *wish = getenv("STANDIN");
	static struct standin standin = {.listen_fd = -1, .config_fd = -1};
	struct signalfd_siginfo info;
	sigset_t set;
	int signal_fd;

	if (wish && strcmp(wish, "fail") == 0)
		return 7;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (store_adopt(standin_adopt, &standin) < 0 || standin.listen_fd < 0 ||
	    standin.config_fd < 0 || store_init(&standin.store) < 0)
		return WORKER_EXIT_FAILED;
	if (store_notify(&standin.store, "READY=1") < 0)
		return WORKER_EXIT_FAILED;

	for (;;) {
		struct pollfd pollfds[] = {{.fd = signal_fd, .events = POLLIN},
					   {.fd = standin.listen_fd, .events = POLLIN}};

		(void)poll(pollfds, 2, -1);
		if (read(signal_fd, &info, sizeof(info)) > 0) {
			if (info.ssi_signo == SIGHUP)
				return WORKER_EXIT_RELOAD;
			if (!wish || strcmp(wish, "stubborn") != 0)
				return WORKER_EXIT_DONE;
		}
		standin_serve(&standin);
	}
}

__attribute__((__constructor__)) static void standin_main(void)
{
	if (!keeper_is_parent())
		return;
	launch_set_title(NULL, "ipcbroker");
	log_init(LOG_LEVEL_DEBUG);
	_exit(standin_run());
}

/* ---- the test's side ---- */

struct setting {
	char dir[64];
	char address[100];
	char log[100];
	int notify_fd; /* stands in for a service manager */
	struct keeper_options options;
	int passed_fds[3]; /* which the child gets as 3, 4, 5 */
	const char *passed_names;
};

static struct setting setting;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void notify_open(void)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};

	snprintf(sockaddr.sun_path, sizeof(sockaddr.sun_path), "%s/notify", setting.dir);
	setting.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(setting.notify_fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)), 0);
}

static void setup(void)
{
	static char *argv[] = {"/somewhere/ipcbroker", "--word", NULL};

	/* A keeper that took over is nobody's child but ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	memset(&setting, 0, sizeof(setting));
	strcpy(setting.dir, "/tmp/ipc-keeper-XXXXXX");
	cr_assert(mkdtemp(setting.dir));
	snprintf(setting.address, sizeof(setting.address), "%s/broker", setting.dir);
	snprintf(setting.log, sizeof(setting.log), "%s/log", setting.dir);
	memset(setting.passed_fds, -1, sizeof(setting.passed_fds));
	argv[0] = strdup("/somewhere/ipcbroker");
	setting.options = (struct keeper_options){.address = setting.address,
						  .has_level = true,
						  .level = LOG_LEVEL_DEBUG,
						  .argv = argv};
	notify_open();
	unsetenv("STANDIN");
}

static bool is_there(const char *name)
{
	char path[200];
	struct stat status;

	snprintf(path, sizeof(path), "%s/%s", setting.dir, name);
	return lstat(path, &status) == 0;
}

static void teardown(void)
{
	static const char *const names[] = {"notify",     "log",  "broker", "broker.lock",
					    "broker.new", "conf", "other"};
	char path[200];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
		snprintf(path, sizeof(path), "%s/%s", setting.dir, names[i]);
		unlink(path);
	}
	close(setting.notify_fd);
	cr_assert_eq(rmdir(setting.dir), 0, "%s: %s", setting.dir, strerror(errno));

	/* Keeper, spare and worker are gone. */
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
}

static void child_run(void)
{
	char path[120], number[16];
	int fd = open(setting.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	unsigned n_passed = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	log_init(LOG_LEVEL_DEBUG);
	snprintf(path, sizeof(path), "%s/notify", setting.dir);
	setenv("NOTIFY_SOCKET", path, 1);
	for (unsigned i = 0; i < 3 && setting.passed_fds[i] >= 0; ++i)
		setting.passed_fds[i] = fcntl(setting.passed_fds[i], F_DUPFD, 100);
	for (; n_passed < 3 && setting.passed_fds[n_passed] >= 0; ++n_passed)
		dup2(setting.passed_fds[n_passed], 3 + (int)n_passed);
	if (n_passed > 0) {
		snprintf(number, sizeof(number), "%d", (int)getpid());
		setenv("LISTEN_PID", number, 1);
		snprintf(number, sizeof(number), "%u", n_passed);
		setenv("LISTEN_FDS", number, 1);
		if (setting.passed_names)
			setenv("LISTEN_FDNAMES", setting.passed_names, 1);
	}
	_exit(keeper_run(&setting.options));
}

static pid_t keeper_start(void)
{
	pid_t pid = fork();

	if (pid == 0)
		child_run();
	return pid;
}

/* The next message to the service manager; its descriptor, if the caller wants it. */
static void manager_hear(char text[1024], int *ret_fd)
{
	struct pollfd pollfd = {.fd = setting.notify_fd, .events = POLLIN};
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec vector = {.iov_base = text, .iov_len = 1023};
	struct msghdr message = {.msg_iov = &vector,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	int fd = -1;
	ssize_t n;

	cr_assert_eq(poll(&pollfd, 1, PATIENCE_MS), 1, "nothing was told");
	n = recvmsg(setting.notify_fd, &message, MSG_CMSG_CLOEXEC);
	cr_assert_gt(n, 0);
	text[n] = '\0';
	if (CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
}

static void manager_await(const char *wanted)
{
	char text[1024];

	do
		manager_hear(text, NULL);
	while (!strstr(text, wanted));
}

static int connect_now(void)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sockaddr.sun_path, setting.address);
	if (connect(fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* False: the worker died instead of answering. */
static bool ask_once(const char *command, char answer[ANSWER_SIZE])
{
	struct pollfd pollfd = {.fd = connect_now(), .events = POLLIN};
	ssize_t n = -1;

	answer[0] = '\0';
	if (pollfd.fd < 0)
		return false;
	if (send(pollfd.fd, command, strlen(command), MSG_NOSIGNAL) > 0 &&
	    poll(&pollfd, 1, PATIENCE_MS) == 1)
		n = recv(pollfd.fd, answer, ANSWER_SIZE - 1, 0);
	close(pollfd.fd);
	if (n >= 0)
		answer[n] = '\0';
	return n > 0;
}

/* What was asked of a worker that died is asked again, as a client does. */
static const char *ask(const char *command)
{
	static char answer[ANSWER_SIZE];
	int64_t end = now_ms() + PATIENCE_MS;

	while (!ask_once(command, answer))
		cr_assert_lt(now_ms(), end, "no answer to \"%s\"", command);
	return answer;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names and inodes, sorted: a gap is filled by the last one, so their order changes. */
static const char *ask_list(void)
{
	static char text[ANSWER_SIZE], sorted[ANSWER_SIZE];
	char *lines[64], *at = text;
	unsigned n = 0;

	strcpy(text, ask("list"));
	sorted[0] = '\0';
	for (char *line; n < 64 && (line = strsep(&at, "\n")) && *line;)
		lines[n++] = line;
	qsort(lines, n, sizeof(lines[0]), compare_lines);
	for (unsigned i = 0; i < n; ++i)
		strcat(strcat(sorted, lines[i]), "\n");
	return sorted;
}

struct process {
	int pid, ppid;
	char comm[32], words[200];
};

static struct process ask_process(void)
{
	struct process process = {0};

	cr_assert_eq(sscanf(ask("process"), "%d %d %31s %199[^\n]", &process.pid, &process.ppid,
			    process.comm, process.words),
		     4);
	return process;
}

static int reap(pid_t pid)
{
	int64_t end = now_ms() + PATIENCE_MS;
	int status = -1;
	pid_t r;

	/* WNOHANG, and a wait for SIGCHLD with a deadline: a hanging keeper must not hang the test.
	 */
	sigset_t set;
	const struct timespec slice = {.tv_nsec = 50000000};

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while ((r = waitpid(pid, &status, WNOHANG)) == 0) {
		cr_assert_lt(now_ms(), end, "process %d does not end", (int)pid);
		(void)sigtimedwait(&set, NULL, &slice);
	}
	cr_assert_eq(r, pid);
	return status;
}

/* Everybody who became ours. */
static void reap_all(void)
{
	int64_t end = now_ms() + PATIENCE_MS;
	const struct timespec slice = {.tv_nsec = 10000000};
	sigset_t set;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		cr_assert_lt(now_ms(), end, "processes are left");
		if (pid == 0)
			(void)sigtimedwait(&set, NULL, &slice);
	}
}

static int keeper_stop(pid_t keeper, int signal)
{
	int status;

	kill(keeper, signal);
	status = reap(keeper);
	reap_all();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool log_has(const char *text)
{
	static char log[1 << 20];
	int fd = open(setting.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, log, sizeof(log) - 1);

	close(fd);
	log[n > 0 ? n : 0] = '\0';
	return strstr(log, text) != NULL;
}

static void conf_write(const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/conf", setting.dir);
	file = fopen(path, "we");
	cr_assert(file);
	fputs(text, file);
	fclose(file);
	free((char *)setting.options.config);
	setting.options.config = strdup(path);
}

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

/* ---- the store ---- */

/* M-6, D12 */
Test(keeper, descriptors_come_back_to_each_of_50_workers, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char before[ANSWER_SIZE], command[64];
	pid_t keeper = keeper_start();

	manager_await("READY=1");
	for (unsigned i = 0; i < 40; ++i) {
		sprintf(command, "add c%X.1", i);
		cr_assert_str_eq(ask(command), "0");
	}
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
Test(keeper, everything_said_before_a_death_is_done_before_the_next_start, .init = setup,
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
Test(keeper, a_full_store_comes_back, .init = setup, .fini = teardown, .timeout = 120)
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

Test(keeper, death_of_the_keeper_is_survived_again_and_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char before[ANSWER_SIZE], command[64];
	struct process worker;
	pid_t keeper = keeper_start();

	manager_await("READY=1");
	for (unsigned i = 0; i < 10; ++i) {
		sprintf(command, "add c%X.1", i);
		cr_assert_str_eq(ask(command), "0");
	}
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

Test(keeper, death_of_both_ends_the_domain_and_frees_the_lock, .init = setup, .fini = teardown,
     .timeout = 60)
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

Test(keeper, dead_spare_is_replaced, .init = setup, .fini = teardown, .timeout = 60)
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
Test(keeper, idle_end_hides_the_name_and_shows_it_again, .init = setup, .fini = teardown,
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

/* ---- reload ---- */

/* M-6 */
Test(keeper, reload_with_an_error_changes_nothing, .init = setup, .fini = teardown, .timeout = 60)
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
Test(keeper, reload_gives_the_next_worker_the_new_text, .init = setup, .fini = teardown,
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
Test(keeper, error_in_the_configuration_is_status_2, .init = setup, .fini = teardown, .timeout = 60)
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
Test(keeper, what_the_worker_says_is_passed_on, .init = setup, .fini = teardown, .timeout = 60)
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
Test(keeper, passed_socket_is_used_and_left, .init = setup, .fini = teardown, .timeout = 60)
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
Test(keeper, stored_descriptors_are_adopted, .init = setup, .fini = teardown, .timeout = 60)
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
