/* SPDX-License-Identifier: MIT */
/*
 * in_domain BROKER PROGRAM [ARGUMENT ...]: runs PROGRAM beside a broker of its own, in a folder of
 * its own, with $IPC_BROKER saying where.
 *
 * The status is PROGRAM's; 125 if the broker did not come up, or did not end in order when told to.
 */

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS_FAILED = 125, LOOKS_MAX = 1000, LOOK_MS = 20 };

static pid_t program_start(char *const *argv)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}

	return pid;
}

static int program_join(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return STATUS_FAILED;

	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool broker_accepts(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool is_there;

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	is_there = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
	if (fd >= 0)
		(void)close(fd);
	return is_there;
}

/* Each look waits for something to happen in the folder; 20 s in all, if nothing does. */
static bool broker_wait(pid_t broker, const char *folder, const char *path)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	bool is_there = false;

	if (fd < 0 || inotify_add_watch(fd, folder, IN_CREATE | IN_MOVED_TO) < 0)
		return false;

	for (int i = 0; i < LOOKS_MAX && !is_there; ++i) {
		struct pollfd item = {.fd = fd, .events = POLLIN};
		char events[4096];

		is_there = broker_accepts(path);
		if (is_there || waitpid(broker, NULL, WNOHANG) == broker)
			break;

		if (poll(&item, 1, LOOK_MS) > 0)
			(void)!read(fd, events, sizeof(events));
	}

	(void)close(fd);
	return is_there;
}

static void folder_remove(const char *folder)
{
	DIR *directory = opendir(folder);

	if (!directory)
		return;

	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
		(void)unlinkat(dirfd(directory), entry->d_name, 0);

	(void)closedir(directory);
	(void)rmdir(folder);
}

int main(int argc, char **argv)
{
	char folder[] = "/tmp/ipc-domain-XXXXXX";
	char path[sizeof(folder) + 16];
	char *broker_argv[4];
	int result = STATUS_FAILED, broker_result;
	pid_t broker;

	if (argc < 3) {
		(void)fprintf(stderr, "usage: in_domain BROKER PROGRAM [ARGUMENT ...]\n");
		return STATUS_FAILED;
	}

	if (!mkdtemp(folder)) {
		perror(folder);
		return STATUS_FAILED;
	}
	(void)snprintf(path, sizeof(path), "%s/broker", folder);
	(void)setenv("IPC_BROKER", path, 1);

	broker_argv[0] = argv[1];
	broker_argv[1] = (char[]){"--address"};
	broker_argv[2] = path;
	broker_argv[3] = NULL;
	broker = program_start(broker_argv);
	if (broker > 0 && broker_wait(broker, folder, path)) {
		result = program_join(program_start(argv + 2));
		(void)kill(broker, SIGTERM);
		broker_result = program_join(broker);
		if (broker_result != 0) {
			(void)fprintf(stderr, "in_domain: the broker ended with status %d\n",
				      broker_result);
			result = result == 0 ? STATUS_FAILED : result;
		}
	} else {
		(void)fprintf(stderr, "in_domain: %s did not come up\n", argv[1]);
	}

	folder_remove(folder);
	return result;
}
