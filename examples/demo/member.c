/* SPDX-License-Identifier: MIT */
#include "examples/demo/demo.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A report takes a millisecond or so: who says nothing for so long hangs, which is what this
 * library promises not to happen. */
enum { PATIENCE_MS = 5000 };

struct member member_start(void (*fn)(int fd))
{
	struct member member;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		perror("demo: socketpair");
		exit(1);
	}

	(void)fflush(NULL);
	member.pid = fork();
	if (member.pid < 0) {
		perror("demo: fork");
		exit(1);
	}
	if (member.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(fds[0]);
		fn(fds[1]);
		_exit(0);
	}

	(void)close(fds[1]);
	member.fd = fds[0];
	return member;
}

struct report member_hear(struct member member)
{
	struct pollfd ready = {.fd = member.fd, .events = POLLIN};
	struct report report;

	if (poll(&ready, 1, PATIENCE_MS) != 1) {
		(void)fprintf(stderr, "demo FAILED: process %d said nothing within %d s\n",
			      (int)member.pid, PATIENCE_MS / 1000);
		exit(1);
	}
	if (read(member.fd, &report, sizeof(report)) != (ssize_t)sizeof(report)) {
		(void)fprintf(stderr, "demo FAILED: process %d ended early\n", (int)member.pid);
		exit(1);
	}
	return report;
}

void member_tell(struct member member)
{
	(void)!send(member.fd, "", 1, MSG_NOSIGNAL);
}

void member_until_asleep(struct member member)
{
	char path[64], text[256];

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)member.pid);
	for (int i = 0; i < 2000; ++i) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		const char *state;

		if (fd >= 0)
			(void)close(fd);
		if (n <= 0)
			return;
		text[n] = '\0';
		state = strrchr(text, ')');
		if (state && state[1] && state[2] == 'S')
			return;
		pause_ms(1);
	}
}

int64_t member_kill(struct member member)
{
	int64_t at = now_ns();

	(void)kill(member.pid, SIGKILL);
	(void)waitpid(member.pid, NULL, 0);
	return at;
}

void member_end(struct member member)
{
	(void)member_kill(member);
	(void)close(member.fd);
}

void report(int fd, int64_t result, uint64_t number, uint64_t other)
{
	struct report report = {
		.at_ns = now_ns(), .result = result, .number = number, .other = other};

	(void)!send(fd, &report, sizeof(report), MSG_NOSIGNAL);
}

void await_word(int fd)
{
	char word;

	(void)!read(fd, &word, 1);
}
