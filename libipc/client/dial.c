/* SPDX-License-Identifier: MIT */
#include "libipc/client/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/client/autostart.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/syserr.h"
#include "libipc/wire/codec.h"

/* Beside 0 and the errors: worth another try. */
enum { DIAL_NOBODY = 1, DIAL_HUNG_UP = 2 };

/*
 * Between two tries.  What we wait for is a name in a directory and somebody who listens behind it;
 * neither tells anybody when it comes to be, so here alone we look again and again.  A broker is up
 * after some milliseconds.
 */
enum { PAUSE_MS_MIN = 1, PAUSE_MS_MAX = 50 };

/* Where nothing can be started: how long a listener is believed in that hangs up before WELCOME. */
#define HUNG_UP_NS UINT64_C(1000000000)

/* ---- one attempt ---- */

/* A full backlog is waited for in the kernel, in slices. */
static int dial_set_patience(int fd, uint64_t deadline_ns)
{
	uint64_t now_ns = clock_now_ns(), ns;
	struct timeval patience;

	ns = deadline_ns <= now_ns ? NS_PER_MS : deadline_ns - now_ns;
	if (ns > FUTEX_SLICE_NS)
		ns = FUTEX_SLICE_NS;

	patience = (struct timeval){.tv_usec = (suseconds_t)(ns / 1000 + 1)};
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0
		       ? syserr(SYSERR_SOCKOPT, errno)
		       : 0;
}

static int dial_connect(int fd, const struct dial *dial)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int r;

	memcpy(address.sun_path, dial->location->path, sizeof(address.sun_path));
	for (;;) {
		r = dial_set_patience(fd, dial->deadline_ns);
		if (r < 0)
			return r;
		if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
			return 0;

		switch (errno) {
		case ENOENT:
		case ECONNREFUSED:
			return DIAL_NOBODY;
		case EINTR:
		case EAGAIN:
			break;
		default:
			return syserr(SYSERR_CONNECT, errno);
		}
		if (clock_now_ns() >= dial->deadline_ns)
			return IPC_ETIMEDOUT;
	}
}

/* In the user's own directory nobody but the user and root can be the broker; who else listens
 * there does not wish us well. */
static int dial_check_owner(int fd, const struct location *location)
{
	struct ucred owner;
	socklen_t size = sizeof(owner);

	if (!location->is_runtime)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &size) < 0)
		return syserr(SYSERR_SOCKOPT, errno);

	return owner.uid == geteuid() || owner.uid == 0 ? 0 : IPC_EACCES;
}

static int dial_socket(int *ret_fd, const struct dial *dial)
{
	CLEANUP(fd_closep) int fd = -1;
	int r;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return syserr(SYSERR_SOCKET, errno);

	r = fd_move_up(&fd);
	if (r == 0)
		r = dial_connect(fd, dial);
	if (r == 0)
		r = dial_check_owner(fd, dial->location);
	if (r == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		r = syserr(SYSERR_SOCKOPT, errno);
	if (r != 0)
		return r;

	*ret_fd = fd;
	fd = -1;
	return 0;
}

/*
 * For people who look on: what the program was started as.  Not the kernel's name of the calling
 * thread, which programs set for each thread and which is cut to 15 bytes.
 */
static void dial_name_self(char ret[PROTOCOL_PROCESS_NAME_SIZE])
{
	size_t size = strnlen(program_invocation_short_name, PROTOCOL_PROCESS_NAME_SIZE - 1);

	memcpy(ret, program_invocation_short_name, size);
	ret[size] = '\0';
}

/* HELLO and its answer. */
static int dial_greet(const struct dial *dial)
{
	union message hello;
	uint64_t deadline_ns = connection_reply_deadline(dial->deadline_ns);
	const struct message_head *head = &dial->call->reply.head;
	int r;

	message_init(&hello, MESSAGE_HELLO, dial->call->id);
	hello.hello.version_min = PROTOCOL_VERSION;
	hello.hello.version_max = PROTOCOL_VERSION;
	hello.hello.lock_stamp = lock_layout_stamp();
	hello.hello.word_size = sizeof(void *);
	hello.hello.pid = getpid();
	dial_name_self(hello.hello.process_name);

	r = connection_send(dial->connection, &hello, deadline_ns);
	if (r == 0)
		r = connection_await(dial->connection, dial->call, deadline_ns);
	if (r == IPC_ECONNREFUSED)
		return DIAL_HUNG_UP;
	if (r < 0)
		return r;

	if (head->type == MESSAGE_DONE && head->result < 0)
		return head->result;

	return head->type == MESSAGE_WELCOME ? 0 : IPC_EPROTO;
}

static int dial_try(const struct dial *dial)
{
	int fd = -1, r;

	r = dial_socket(&fd, dial);
	if (r != 0)
		return r;

	r = connection_init(dial->connection, fd);
	if (r < 0)
		return r;

	connection_begin(dial->connection, dial->call);
	r = dial_greet(dial);
	if (r != 0) {
		connection_end(dial->connection, dial->call);
		connection_deinit(dial->connection, false);
	}
	return r;
}

/* ---- until it works ---- */

struct dialling {
	const struct dial *dial;
	struct autostart autostart;
	uint64_t hung_up_ns; /* since when somebody listened, but hung up; 0: not */
	int pause_ms;
	bool is_once;
	bool has_failed; /* the broker that we started did not come up */
};

/* Nobody listens: 0 after something was done about it, or why not. */
static int dialling_start(struct dialling *dialling)
{
	if (!dialling->dial->may_start || dialling->is_once || dialling->has_failed)
		return IPC_ECONNREFUSED;

	return dialling->autostart.fd >= 0
		       ? 0
		       : autostart_begin(&dialling->autostart, dialling->dial->location);
}

static int dialling_pause(struct dialling *dialling)
{
	uint64_t now_ns = clock_now_ns();
	int ms = dialling->pause_ms;

	if (now_ns >= dialling->dial->deadline_ns)
		return IPC_ETIMEDOUT;
	if (dialling->dial->deadline_ns - now_ns < (uint64_t)ms * NS_PER_MS)
		ms = (int)((dialling->dial->deadline_ns - now_ns) / NS_PER_MS) + 1;

	switch (autostart_wait(&dialling->autostart, ms)) {
	case AUTOSTART_FAILED:
		/* Another process's may have come up all the same: one more look. */
		dialling->has_failed = true;
		break;
	case AUTOSTART_NOTHING:
	case AUTOSTART_OTHER:
		break;
	}

	if (dialling->pause_ms < PAUSE_MS_MAX)
		dialling->pause_ms *= 2;
	return 0;
}

/* After an attempt that is worth another one. */
static int dialling_go_on(struct dialling *dialling, int attempt)
{
	int r;

	if (attempt == DIAL_NOBODY) {
		r = dialling_start(dialling);
		if (r < 0)
			return r;
	} else {
		if (dialling->hung_up_ns == 0)
			dialling->hung_up_ns = clock_now_ns();
		if (dialling->is_once || (!dialling->dial->may_start &&
					  clock_now_ns() - dialling->hung_up_ns >= HUNG_UP_NS))
			return IPC_ECONNREFUSED;
	}

	return dialling_pause(dialling);
}

int dial_wait(const struct dial *dial)
{
	struct dialling dialling = {
		.dial = dial,
		.autostart = AUTOSTART_NULL,
		.pause_ms = PAUSE_MS_MIN,
		.is_once = dial->deadline_ns <= clock_now_ns(),
	};
	int r;

	for (;;) {
		r = dial_try(dial);
		if (r <= 0)
			break;

		r = dialling_go_on(&dialling, r);
		if (r < 0)
			break;
	}

	autostart_end(&dialling.autostart);
	return r;
}
