/* SPDX-License-Identifier: MIT */
#include "tests/support/standin.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"
#include "tests/support/failure.h"
#include "tests/support/process.h"

#define TAKE_MS 30000

enum { TABLE_ID = 100, DESK_ID = 101, SEGMENT_ID = 102 };

/* ---- the process ---- */

struct start {
	void (*run)(struct script *script);
	int listen_fd;
};

static void standin_run(struct actor *self, void *arg)
{
	struct start *start = arg;
	struct script script = {.test = self, .listen_fd = start->listen_fd};

	start->run(&script);
}

static int standin_listen(const struct standin *standin)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	strcpy(address.sun_path, standin->address);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 8) < 0)
		failure("%s: %s", address.sun_path, strerror(errno));
	return fd;
}

void standin_start(struct standin *standin, void (*run)(struct script *script))
{
	struct start start = {.run = run};

	strcpy(standin->dir, "/tmp/ipc-test-XXXXXX");
	if (!mkdtemp(standin->dir))
		failure("mkdtemp: %s", strerror(errno));
	snprintf(standin->address, sizeof(standin->address), "%s/broker", standin->dir);

	start.listen_fd = standin_listen(standin);
	actor_start(&standin->actor, standin_run, &start);
	close(start.listen_fd);
}

void standin_stop(struct standin *standin)
{
	actor_kill(&standin->actor);
	unlink(standin->address);
	if (rmdir(standin->dir) < 0)
		failure("%s: %s", standin->dir, strerror(errno));
}

/* ---- scripts ---- */

static void await(int fd, const char *what)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};

	if (poll(&pollfd, 1, TAKE_MS) != 1)
		failure("stand-in: no %s within %d ms", what, TAKE_MS);
}

int script_accept(struct script *script)
{
	int fd;

	await(script->listen_fd, "client");
	fd = accept4(script->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		failure("accept4: %s", strerror(errno));
	return fd;
}

static int segment(uint64_t size)
{
	int fd = memfd_create("standin", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		failure("memfd: %s", strerror(errno));
	return fd;
}

static void *map(int fd, uint64_t size)
{
	void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (address == MAP_FAILED)
		failure("mmap: %s", strerror(errno));
	return address;
}

void caller_take(struct caller *caller, union message *message, enum message_type type)
{
	size_t size;
	int r;

	await(caller->fd, "message");
	r = fdpass_receive(caller->fd, message, sizeof(*message), &size, NULL, NULL);
	if (r < 0 || message_check_request(message, size) < 0)
		failure("stand-in: result %d instead of a message of type %d", r, (int)type);
	if (message->head.type != type)
		failure("stand-in: message of type %d instead of %d", message->head.type,
			(int)type);
}

void caller_say(struct caller *caller, const union message *message, const int *fds, unsigned n_fds)
{
	int r = fdpass_send(caller->fd, message, message->head.size, fds, n_fds);

	if (r < 0)
		failure("stand-in: cannot answer: %d", r);
}

void caller_done(struct caller *caller, uint64_t request_id, int result)
{
	union message message;

	message_init(&message, MESSAGE_DONE, request_id);
	message.head.result = result;
	caller_say(caller, &message, NULL, 0);
}

void caller_welcome(struct caller *caller, int fd)
{
	union message message;
	int fds[3];

	*caller = (struct caller){.fd = fd, .slot = 3, .next_id = 1000};
	caller->table_fd = segment(sizeof(struct liveness_table));
	caller->desk_fd = segment(sizeof(struct desk));
	caller->table = map(caller->table_fd, sizeof(struct liveness_table));
	caller->desk = map(caller->desk_fd, sizeof(struct desk));
	liveness_table_init(caller->table, geteuid());

	caller_take(caller, &message, MESSAGE_HELLO);
	message_init(&message, MESSAGE_WELCOME, message.head.request_id);
	message.welcome.version = PROTOCOL_VERSION;
	message.welcome.client_slot = caller->slot;
	message.welcome.uid = geteuid();
	message.welcome.table = (struct message_region){TABLE_ID, 0, sizeof(*caller->table)};
	message.welcome.desk = (struct message_region){DESK_ID, 0, sizeof(*caller->desk)};
	fds[0] = caller->table_fd;
	fds[1] = caller->desk_fd;
	fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	caller_say(caller, &message, fds, 3);
	close(fds[2]);
}

void caller_begin(struct caller *caller, struct script *script)
{
	caller_welcome(caller, script_accept(script));
}

void caller_reserve(struct caller *caller, const struct message_open *open, uint64_t handle_id,
		    int *segment_fd)
{
	union message message;

	if (*segment_fd < 0)
		*segment_fd = segment(open->size_new);

	message_init(&message, MESSAGE_RESERVE, open->head.request_id);
	message.reserve.handle_id = handle_id;
	message.reserve.segment = (struct message_region){SEGMENT_ID, 0, open->size_new};
	memcpy(message.reserve.shape, open->shape_new, sizeof(message.reserve.shape));
	caller_say(caller, &message, segment_fd, 1);
}

void caller_opened(struct caller *caller, const struct message_open *open, uint64_t handle_id,
		   int segment_fd, bool with_value)
{
	union message message;

	message_init(&message, MESSAGE_OPENED, open->head.request_id);
	message.opened.handle_id = handle_id;
	message.opened.generation = 7;
	message.opened.channel_slot = STANDIN_CHANNEL;
	message.opened.owner_uid = geteuid();
	memcpy(message.opened.shape, open->shape_new, sizeof(message.opened.shape));
	message.opened.fds = with_value ? OPENED_FD_VALUE : 0;
	message.opened.is_writable = 1;
	message.opened.value = (struct message_region){SEGMENT_ID, 0, open->size_new};
	message.opened.lines =
		(struct message_region){DESK_ID, offsetof(struct desk, line[STANDIN_CHANNEL]),
					2 * sizeof(struct eventcount)};
	message.opened.table = (struct message_region){TABLE_ID, 0, sizeof(*caller->table)};
	caller_say(caller, &message, &segment_fd, with_value);
}

uint64_t caller_handle(struct caller *caller)
{
	uint64_t slot = caller->next_id - 1000 + 1;
	uint64_t id = caller->next_id++ << 16 | slot;

	liveness_handle_set(caller->table, (uint32_t)slot, id);
	return id;
}

void caller_side(struct caller *caller, unsigned side, uint64_t word)
{
	liveness_side_set(caller->table, STANDIN_CHANNEL, side, word);
	liveness_attend(caller->table, caller->slot);
}
