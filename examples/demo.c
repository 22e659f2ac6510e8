/* SPDX-License-Identifier: MIT */
/*
 * The promise, live: real processes share a configuration value and a ledger, get killed with SIGKILL, and nobody hangs and
 * nothing committed is lost.
 *
 *	demo [PATH-OF-IPCBROKER]
 *
 * The broker runs on a private socket in a temporary directory.  Every act prints how long the waits took to end and how they ended; the exit
 * status is 0 if all of it held.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ipc/ipc.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_WATCHERS = 3, N_VALUES = 200, N_WORKER_KILLS = 10, N_FILES_MAX = 256 };

struct config {
	uint64_t number;
	uint64_t double_of_number; /* lets a reader see that the value is whole */
	char text[48];
};

struct ledger {
	int64_t account[2]; /* together always 1000 */
	uint64_t n_transfers;
};

/* What a member tells the parent. */
struct report {
	int64_t at_ns;
	int64_t result;
	uint64_t number, other;
};

/* A process of ours, and the socket it reports through. */
struct member {
	pid_t pid;
	int fd;
};

static char directory[64], address[96];
static bool all_held = true;

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct timespec in_seconds(unsigned seconds)
{
	struct timespec deadline;

	ipc_deadline_after(&deadline, (uint64_t)seconds * 1000000000);
	return deadline;
}

static void fail(const char *what, int result)
{
	fprintf(stderr, "demo: %s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	_exit(1);
}

static void check(bool holds, const char *claim)
{
	printf("    %s %s\n", holds ? "ok  " : "FAIL", claim);
	fflush(stdout);
	all_held = all_held && holds;
}

static const char *result_name(int64_t result)
{
	return result < 0 ? ipc_error_name((int)result) : result == 0 ? "done" : "done, a holder died";
}

static void act(int number, const char *title)
{
	printf("\n%d. %s\n", number, title);
	fflush(stdout);
}

/* ---- members ---- */

static ipc_client *connect_client(void)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client;
	int r;

	r = ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = address), &deadline);
	if (r < 0)
		fail("connect", r);
	return client;
}

static struct member member_start(void (*fn)(int fd))
{
	struct member member;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		perror("demo: socketpair");
		exit(1);
	}

	fflush(NULL);
	member.pid = fork();
	if (member.pid < 0) {
		perror("demo: fork");
		exit(1);
	}
	if (member.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		fn(fds[1]);
		_exit(0);
	}

	close(fds[1]);
	member.fd = fds[0];
	return member;
}

static void report(int fd, int64_t result, uint64_t number, uint64_t other)
{
	struct report report = { .at_ns = now_ns(), .result = result, .number = number, .other = other };

	(void)!write(fd, &report, sizeof(report));
}

static struct report hear(struct member member)
{
	struct pollfd ready = { .fd = member.fd, .events = POLLIN };
	struct report report;

	if (poll(&ready, 1, 10000) != 1 || read(member.fd, &report, sizeof(report)) != (ssize_t)sizeof(report)) {
		fprintf(stderr, "demo: process %d said nothing within 10 s\n", (int)member.pid);
		exit(1);
	}
	return report;
}

static void tell(struct member member)
{
	(void)!write(member.fd, "", 1);
}

static void await_word(int fd)
{
	char word;

	(void)!read(fd, &word, 1);
}

/* Kills and returns the moment before. */
static int64_t member_kill(struct member member)
{
	int64_t at = now_ns();

	kill(member.pid, SIGKILL);
	waitpid(member.pid, NULL, 0);
	return at;
}

static void member_end(struct member member)
{
	(void)member_kill(member);
	close(member.fd);
}

/* Until the member's thread sleeps in the kernel: only then does a death have to wake it. */
static void until_asleep(struct member member)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)member.pid);
	for (int i = 0; i < 2000; ++i) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		char *state;

		close(fd);
		if (n <= 0)
			return;
		text[n] = '\0';
		state = strrchr(text, ')');
		if (state && state[1] && state[2] == 'S')
			return;
		poll(NULL, 0, 1);
	}
}

/* ---- act 1: a configuration value ---- */

static void producer(int fd)
{
	ipc_client *client = connect_client();
	struct timespec deadline = in_seconds(5);
	struct config config = { .number = 0 };
	ipc_watch_producer *handle;
	int r;

	r = ipc_watch_producer_open_wait(&handle, client, "demo/config", IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = sizeof(config)),
					 &deadline);
	if (r < 0)
		fail("open producer", r);
	report(fd, 0, 0, 0);
	await_word(fd);

	for (uint64_t i = 1; i <= N_VALUES; ++i) {
		config.number = i;
		config.double_of_number = 2 * i;
		snprintf(config.text, sizeof(config.text), "setting %llu", (unsigned long long)i);
		r = ipc_watch_publish_wait(handle, &config, sizeof(config), NULL);
		if (r < 0)
			fail("publish", r);
	}

	report(fd, 0, config.number, 0);
	for (;;)
		pause();
}

/* Reads until the wait ends, and reports the last value it had and how the wait ended; then once more with the next producer. */
static void watcher(int fd)
{
	ipc_client *client = connect_client();
	struct timespec deadline = in_seconds(5);
	struct config config = { .number = 0 };
	ipc_watch_consumer *handle;
	uint64_t version = 0, n_torn = 0;
	int r;

	r = ipc_watch_consumer_open_wait(&handle, client, "demo/config", IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), &deadline);
	if (r < 0)
		fail("open consumer", r);
	report(fd, 0, 0, 0);

	for (;;) {
		r = ipc_watch_read_wait(handle, &config, sizeof(config), NULL, &version, NULL);
		if (r < 0)
			report(fd, r, config.number, n_torn);
		if (r < 0)
			await_word(fd);
		n_torn += config.double_of_number != 2 * config.number;
	}
}

static void print_ends(const char *who, int64_t killed_at, struct report *ends, int n)
{
	for (int i = 0; i < n; ++i)
		printf("    %s %d: wait ended after %6.0f us with %s, last value %llu\n", who, i + 1, (double)(ends[i].at_ns - killed_at) / 1e3,
		       result_name(ends[i].result), (unsigned long long)ends[i].number);
}

static void act_configuration(void)
{
	struct member first, watchers[N_WATCHERS], second;
	struct report ends[N_WATCHERS], last;
	bool typed = true, whole = true;
	int64_t killed_at;

	act(1, "A producer of a configuration value is killed; three watchers wait for the next value");
	first = member_start(producer);
	(void)hear(first);
	for (int i = 0; i < N_WATCHERS; ++i) {
		watchers[i] = member_start(watcher);
		(void)hear(watchers[i]);
	}
	tell(first);
	last = hear(first);
	printf("    the producer has published %llu values\n", (unsigned long long)last.number);
	for (int i = 0; i < N_WATCHERS; ++i)
		until_asleep(watchers[i]);

	killed_at = member_kill(first);
	for (int i = 0; i < N_WATCHERS; ++i) {
		ends[i] = hear(watchers[i]);
		typed = typed && ends[i].result == IPC_EOWNERDEAD;
		whole = whole && ends[i].number == last.number && ends[i].other == 0;
	}
	print_ends("watcher", killed_at, ends, N_WATCHERS);
	check(typed, "each wait ended, and says why: the other side died");
	check(whole, "each watcher had the last committed value, none was torn");

	second = member_start(producer);
	(void)hear(second);
	for (int i = 0; i < N_WATCHERS; ++i)
		tell(watchers[i]);
	tell(second);
	last = hear(second);
	for (int i = 0; i < N_WATCHERS; ++i)
		until_asleep(watchers[i]);
	killed_at = member_kill(second);
	whole = true;
	for (int i = 0; i < N_WATCHERS; ++i) {
		ends[i] = hear(watchers[i]);
		whole = whole && ends[i].number == last.number;
		member_end(watchers[i]);
	}
	check(whole, "a new producer took over at once, the same watchers went on with it");
	close(first.fd);
	close(second.fd);
}

/* ---- acts 2 and 3: a ledger with two sides ---- */

static ipc_shared *open_ledger(ipc_client *client, enum ipc_side side)
{
	struct timespec deadline = in_seconds(5);
	ipc_shared *ledger;
	int r;

	r = ipc_shared_open_wait(&ledger, client, "demo/ledger", side,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = sizeof(struct ledger)), &deadline);
	if (r < 0)
		fail("open ledger", r);
	return ledger;
}

/* Moves money a hundred times, then stops in the middle of the next transfer, with the lock held. */
static void teller(int fd)
{
	ipc_shared *handle = open_ledger(connect_client(), IPC_SIDE_A);
	struct ledger *ledger;
	const void *value;
	void *copy;

	for (int i = 0; i <= 101; ++i) {
		if (ipc_shared_lock_wait(handle, &value, NULL) < 0 || ipc_shared_edit(handle, &copy) < 0)
			fail("lock", IPC_EINVAL);
		ledger = copy;
		if (i == 0)
			ledger->account[0] = 1000;
		else
			ledger->account[0] -= 5;
		if (i == 101) {
			report(fd, 0, ledger->n_transfers, 0); /* 5 are missing now */
			for (;;)
				pause();
		}
		if (i > 0) {
			ledger->account[1] += 5;
			ledger->n_transfers += 1;
		}
		if (ipc_shared_commit(handle) < 0)
			fail("commit", IPC_EINVAL);
	}
}

static bool never(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	return false;
}

/* The other side: waits for the lock, reports the sum; then waits for something that never comes. */
static void auditor(int fd)
{
	ipc_shared *handle = open_ledger(connect_client(), IPC_SIDE_B);
	const struct ledger *ledger;
	const void *value;
	int r;

	report(fd, 0, 0, 0);
	await_word(fd);
	r = ipc_shared_lock_wait(handle, &value, NULL);
	ledger = value;
	if (r >= 0) {
		report(fd, r, (uint64_t)(ledger->account[0] + ledger->account[1]), ledger->n_transfers);
		(void)!ipc_shared_unlock(handle);
	} else {
		report(fd, r, 0, 0);
	}

	await_word(fd);
	r = ipc_shared_lock_when_wait(handle, never, NULL, &value, NULL);
	report(fd, r, 0, 0);
	await_word(fd);
}

static void idle_side(int fd)
{
	(void)open_ledger(connect_client(), IPC_SIDE_A);
	report(fd, 0, 0, 0);
	for (;;)
		pause();
}

static void act_ledger(void)
{
	struct member holder, other, opposite;
	struct report end, middle;
	int64_t killed_at;

	act(2, "The holder of a lock is killed in the middle of an edit; the other side waits for the lock");
	other = member_start(auditor);
	(void)hear(other);
	holder = member_start(teller);
	middle = hear(holder);
	tell(other);
	until_asleep(other);
	killed_at = member_kill(holder);
	end = hear(other);
	printf("    the lock came after %6.0f us with \"%s\"; sum of the accounts %llu after %llu transfers\n", (double)(end.at_ns - killed_at) / 1e3,
	       result_name(end.result), (unsigned long long)end.number, (unsigned long long)end.other);
	check(end.result == 1, "the lock was handed on, and says that its holder died");
	check(end.number == 1000 && end.other == middle.number && end.other == 100, "the ledger is the last committed one: nothing lost, nothing half done");

	act(3, "The opposite side is killed while we wait for it to change the value");
	opposite = member_start(idle_side);
	(void)hear(opposite);
	tell(other);
	until_asleep(other);
	killed_at = member_kill(opposite);
	end = hear(other);
	printf("    the wait ended after %6.0f us with %s\n", (double)(end.at_ns - killed_at) / 1e3, result_name(end.result));
	check(end.result == IPC_EOWNERDEAD, "a wait does not outlive the peer that it waits for");

	close(holder.fd);
	close(opposite.fd);
	member_end(other);
}

/* ---- act 4: the broker's worker ---- */

static bool is_odd(const void *value, size_t size, void *userdata)
{
	const uint64_t *number = value;

	(void)size;
	return *number % 2 == *(const uint64_t *)userdata;
}

/* Two players add one each in turn; reports the longest time between two turns when asked. */
static void player(int fd, enum ipc_side side, uint64_t parity)
{
	ipc_client *client = connect_client();
	struct timespec deadline = in_seconds(5);
	int64_t longest = 0, last = 0;
	struct pollfd asked = { .fd = fd, .events = POLLIN };
	const void *value;
	ipc_shared *game;
	uint64_t n = 0;
	void *copy;
	int r;

	r = ipc_shared_open_wait(&game, client, "demo/game", side, IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 8), &deadline);
	if (r < 0)
		fail("open game", r);
	report(fd, 0, 0, 0);
	await_word(fd);

	do {
		deadline = in_seconds(5);
		r = ipc_shared_lock_when_wait(game, is_odd, &parity, &value, &deadline);
		if (r >= 0)
			r = ipc_shared_edit(game, &copy);
		if (r >= 0) {
			*(uint64_t *)copy += 1;
			r = ipc_shared_commit(game);
		}
		if (last && now_ns() - last > longest)
			longest = now_ns() - last;
		last = now_ns();
		++n;
	} while (r >= 0 && (n % 64 != 0 || poll(&asked, 1, 0) == 0));

	report(fd, r < 0 ? r : 0, n, (uint64_t)longest);
	await_word(fd);
	for (;;)
		pause();
}

static void player_a(int fd)
{
	player(fd, IPC_SIDE_A, 0);
}

static void player_b(int fd)
{
	player(fd, IPC_SIDE_B, 1);
}

static pid_t worker_of(pid_t keeper)
{
	char path[64];
	FILE *children;
	int pid = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
	children = fopen(path, "re");
	if (!children)
		return 0;
	if (fscanf(children, "%d", &pid) != 1)
		pid = 0;
	fclose(children);
	return pid;
}

static void kill_worker(pid_t keeper)
{
	pid_t old = worker_of(keeper);

	if (old <= 0)
		return;
	kill(old, SIGKILL);
	for (int i = 0; i < 5000 && (worker_of(keeper) == old || worker_of(keeper) == 0); ++i)
		poll(NULL, 0, 1);
}

static void act_worker(pid_t keeper)
{
	struct member a, b;
	struct report ra, rb;
	ipc_client *client;
	ipc_shared *ledger;

	act(4, "The broker's worker is killed ten times while two processes play ping-pong");
	a = member_start(player_a);
	b = member_start(player_b);
	(void)hear(a);
	(void)hear(b);
	tell(a);
	tell(b);
	for (int i = 0; i < N_WORKER_KILLS; ++i) {
		poll(NULL, 0, 100);
		kill_worker(keeper);
	}
	poll(NULL, 0, 100);
	tell(a);
	ra = hear(a);
	tell(b);
	/* b waits for a, which has stopped playing and stays open: so ask it by ending a. */
	(void)member_kill(a);
	rb = hear(b);
	printf("    %llu turns, the longest pause of one side %.1f ms\n", (unsigned long long)(ra.number + rb.number),
	       (double)(ra.other > rb.other ? ra.other : rb.other) / 1e6);
	check(ra.result == 0, "no client saw an error");
	check(rb.result == IPC_EOWNERDEAD || rb.result == 0, "after ten workers a death is told as before");

	client = connect_client();
	ledger = open_ledger(client, IPC_SIDE_A);
	check(ledger != NULL, "new clients connect and open as before");
	(void)ipc_shared_close(ledger);
	(void)ipc_client_unref(client);
	close(a.fd);
	member_end(b);
}

/* ---- the stage ---- */

static int count_shm(void)
{
	DIR *shm = opendir("/dev/shm");
	int n = 0;

	while (shm && readdir(shm))
		++n;
	if (shm)
		closedir(shm);
	return n;
}

static void broker_path(char path[PATH_MAX], const char *given)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	snprintf(path, PATH_MAX, "%s", given ? given : "ipcbroker");
	if (given || n <= 0)
		return;
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	if (strlen(self) < PATH_MAX - 32) {
		snprintf(path, PATH_MAX, "%.*s/ipcbroker", PATH_MAX - 32, self);
		if (access(path, X_OK) != 0)
			snprintf(path, PATH_MAX, "ipcbroker");
	}
}

static pid_t start_broker(const char *given)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char program[PATH_MAX];
	pid_t pid;

	broker_path(program, given);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execlp(program, "ipcbroker", "--address", address, "--log-level", "error", (char *)NULL);
		fprintf(stderr, "demo: cannot run %s: %s\n", program, strerror(errno));
		_exit(127);
	}

	memcpy(to.sun_path, address, strlen(address) + 1);
	for (int i = 0; i < 5000; ++i) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		int r = connect(fd, (struct sockaddr *)&to, sizeof(to));

		close(fd);
		if (r == 0)
			return pid;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			break;
		poll(NULL, 0, 1);
	}
	fprintf(stderr, "demo: the broker did not start\n");
	exit(1);
}

int main(int argc, char **argv)
{
	int n_shm = count_shm(), status = -1;
	int64_t started = now_ns();
	char lock[128];
	pid_t keeper;

	snprintf(directory, sizeof(directory), "/tmp/libipc-demo-XXXXXX");
	if (!mkdtemp(directory)) {
		perror("demo: mkdtemp");
		return 1;
	}
	snprintf(address, sizeof(address), "%s/broker", directory);

	keeper = start_broker(argc > 1 ? argv[1] : NULL);
	printf("libipc demo: the broker runs, keeper %d, worker %d\n", (int)keeper, (int)worker_of(keeper));

	act_configuration();
	act_ledger();
	act_worker(keeper);

	act(5, "The end: the broker is told to stop");
	kill(keeper, SIGTERM);
	waitpid(keeper, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ended in order");
	check(access(address, F_OK) != 0, "its socket is gone");
	check(count_shm() == n_shm, "no file was left in /dev/shm");
	snprintf(lock, sizeof(lock), "%s.lock", address);
	unlink(lock);
	check(rmdir(directory) == 0, "nothing was left in its directory");

	printf("\n%s, %.1f s\n", all_held ? "demo ok: everything held" : "demo FAILED", (double)(now_ns() - started) / 1e9);
	return all_held ? 0 : 1;
}
