/* SPDX-License-Identifier: MIT */
/*
 * The broker on a private socket.  A new keeper is not a child of the dead one's parent: this
 * process is a subreaper, so that whatever comes of the broker is its child, can be found, and is
 * not left behind.
 */
#include "examples/demo/demo.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS = 5000, STOP_MS = 7000 };

static char directory[32], address[64];
static pid_t owner; /* the process that has to clean up: not its members */

/* ---- looking for its processes ---- */

/* A zombie is nobody. */
static bool is_alive_as(pid_t pid, const char *wanted)
{
	char path[64], name[32] = "", state = 'Z';
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fscanf(file, "%*d (%31[^)]) %c", name, &state) != 2)
		state = 'Z';
	(void)fclose(file);
	return state != 'Z' && state != 'X' && strcmp(name, wanted) == 0;
}

/* The child of that name; 0: none now. */
static pid_t child_named(pid_t parent, const char *name)
{
	char path[64];
	pid_t found = 0;
	FILE *children;
	int pid;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	children = fopen(path, "re");
	if (!children)
		return 0;
	while (found == 0 && fscanf(children, "%d", &pid) == 1) {
		if (is_alive_as(pid, name))
			found = pid;
	}
	(void)fclose(children);
	return found;
}

pid_t broker_keeper(void)
{
	return child_named(getpid(), "ipckeeper");
}

pid_t broker_worker(void)
{
	pid_t keeper = broker_keeper();

	return keeper > 0 ? child_named(keeper, "ipcbroker") : 0;
}

static bool accepts(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool is_there;

	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", address);
	is_there = fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0;
	if (fd >= 0)
		(void)close(fd);
	return is_there;
}

bool broker_is_whole(void)
{
	return accepts() && broker_worker() > 0 && child_named(getpid(), "ipc-spare") > 0;
}

/* ---- what is left ---- */

/*
 * How many segments the keeper holds, negative if one of them has a name: what never has a name
 * cannot be left in /dev/shm, whoever is killed.
 */
int broker_n_segments(void)
{
	char path[64], link[320], target[PATH_MAX];
	bool has_name = false;
	struct dirent *entry;
	int n = 0;
	DIR *fds;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker_keeper());
	fds = opendir(path);
	while (fds && (entry = readdir(fds))) {
		ssize_t size;

		(void)snprintf(link, sizeof(link), "%s/%s", path, entry->d_name);
		size = readlink(link, target, sizeof(target) - 1);
		if (size <= 0)
			continue;
		target[size] = '\0';
		if (strncmp(target, "/dev/shm/", 9) != 0)
			continue;
		++n;
		has_name = has_name || !strstr(target, " (deleted)");
	}
	if (fds)
		(void)closedir(fds);
	return has_name ? -1 : n;
}

static bool directory_remove(void)
{
	char lock[sizeof(address) + 8];

	(void)snprintf(lock, sizeof(lock), "%s.lock", address);
	(void)unlink(lock);
	return rmdir(directory) == 0;
}

/* Every way out, also that of a claim that did not hold, leaves nothing. */
static void clean_up(void)
{
	pid_t keeper;

	if (getpid() != owner)
		return;

	for (int i = 0; i < STOP_MS && (keeper = broker_keeper()) > 0; ++i) {
		(void)kill(keeper, SIGTERM);
		pause_ms(1);
	}
	(void)unlink(address);
	(void)directory_remove();
}

/* ---- start ---- */

/* Beside this program or in the folder above, as in a build folder; else in PATH. */
static void find_program(char path[PATH_MAX], const char *given)
{
	char self[PATH_MAX - 16];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	(void)snprintf(path, PATH_MAX, "%s", given ? given : "ipcbroker");
	if (given || n <= 0)
		return;

	self[n] = '\0';
	for (int i = 0; i < 2 && (slash = strrchr(self, '/')); ++i) {
		*slash = '\0';
		(void)snprintf(path, PATH_MAX, "%s/ipcbroker", self);
		if (access(path, X_OK) == 0)
			return;
	}
	(void)snprintf(path, PATH_MAX, "ipcbroker");
}

static void make_directory(void)
{
	(void)snprintf(directory, sizeof(directory), "/tmp/libipc-demo-XXXXXX");
	if (!mkdtemp(directory)) {
		perror("demo: mkdtemp");
		exit(1);
	}
	(void)snprintf(address, sizeof(address), "%s/broker", directory);
}

void broker_start(const char *given)
{
	char program[PATH_MAX];
	pid_t pid;

	make_directory();
	owner = getpid();
	(void)atexit(clean_up);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);

	find_program(program, given);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)execlp(program, "ipcbroker", "--address", address, "--log-level", "error",
			     (char *)NULL);
		(void)fprintf(stderr, "demo: cannot run %s: %s\n", program, strerror(errno));
		_exit(127);
	}

	for (int i = 0; i < START_MS; ++i) {
		if (accepts() && broker_worker() > 0)
			return;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			break;
		pause_ms(1);
	}
	(void)fprintf(stderr, "demo FAILED: the broker did not start\n");
	exit(1);
}

ipc_client *broker_connect(void)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client;
	int r;

	r = ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = address), &deadline);
	if (r < 0)
		fail("connect", r);
	return client;
}

/* ---- stop ---- */

void broker_stop(void)
{
	pid_t keeper = broker_keeper(), ended = 0;
	int status = -1;

	if (keeper > 0)
		(void)kill(keeper, SIGTERM);
	for (int i = 0; keeper > 0 && i < STOP_MS && ended == 0; ++i) {
		ended = waitpid(keeper, &status, WNOHANG);
		if (ended == 0)
			pause_ms(1);
	}

	check(keeper > 0 && ended == keeper && WIFEXITED(status) && WEXITSTATUS(status) == 0,
	      "it ended in order");
	check(broker_keeper() == 0 && child_named(getpid(), "ipc-spare") == 0,
	      "no process of it is left");
	check(access(address, F_OK) != 0, "its socket is gone");
	check(directory_remove(), "nothing was left in its directory");
}
