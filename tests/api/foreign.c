/* SPDX-License-Identifier: MIT */
/*
 * A surrounding that is not as it should be: something else stands at the broker's address, the
 * broker's client speaks another version, or there is too little of something.  Each has its own
 * entry, nothing is left behind, and once the reason is gone all is well.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "libipc/wire/protocol.h"
#include "tests/support/domain.h"
#include "tests/support/fixture.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

enum { UID_OTHER = 54321, SHORT_MS = 300 };

/* ---- what stands at an address ---- */

static char dir[32], address[64];
static struct leaks leaks;

static void place_setup(void)
{
	leaks_begin(&leaks);
	strcpy(dir, "/tmp/ipc-test-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(address, sizeof(address), "%s/broker", dir);
}

static void place_teardown(void)
{
	(void)chmod(dir, 0700);
	(void)unlink(address);
	(void)rmdir(address);
	cr_expect_eq(rmdir(dir), 0, "something was left in the directory");
	leaks_check(&leaks);
}

TestSuite(place, .init = place_setup, .fini = place_teardown, .timeout = 60);

static int connect_to(const char *path, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);
	ipc_client *client;
	int r;

	r = ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = path), &deadline);
	if (r == 0)
		ipc_client_unref(client);
	return r;
}

static int listen_at(const char *path, int type, int backlog)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	(void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(bind(fd, (const struct sockaddr *)&name, sizeof(name)), 0);
	if (backlog >= 0)
		cr_assert_eq(listen(fd, backlog), 0);
	return fd;
}

/* M-40: nobody listens behind it */
Test(place, nothing_and_what_is_no_socket_refuse_the_connection)
{
	char beneath[80];
	int fd;

	cr_expect_eq(connect_to(address, WAIT_MS), IPC_ECONNREFUSED, "nothing");

	fd = open(address, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_expect_eq(connect_to(address, WAIT_MS), IPC_ECONNREFUSED, "a file");
	(void)snprintf(beneath, sizeof(beneath), "%s/beneath", address);
	cr_expect_eq(connect_to(beneath, WAIT_MS), IPC_ECONNREFUSED, "beneath a file");
	unlink(address);

	cr_assert_eq(mkdir(address, 0700), 0);
	cr_expect_eq(connect_to(address, WAIT_MS), IPC_ECONNREFUSED, "a directory");
	cr_expect_eq(connect_to(beneath, WAIT_MS), IPC_ECONNREFUSED, "nothing in a directory");
	rmdir(address);

	close(listen_at(address, SOCK_SEQPACKET, 5));
	cr_expect_eq(connect_to(address, WAIT_MS), IPC_ECONNREFUSED, "a dead socket");
}

/* M-12, M-40 */
Test(place, an_address_that_cannot_be_one_is_refused)
{
	char path[200];

	cr_expect_eq(connect_to("", WAIT_MS), IPC_EINVAL);
	memset(path, 'a', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	cr_expect_eq(connect_to(path, WAIT_MS), IPC_EINVAL);
	cr_assert_eq(symlink("broker", address), 0);
	cr_expect_eq(connect_to(address, WAIT_MS), IPC_EINVAL, "a link to itself");
}

/* M-12 */
Test(place, a_socket_of_another_type_is_another_kind)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

	for (unsigned i = 0; i < 2; ++i) {
		int fd = listen_at(address, types[i], types[i] == SOCK_STREAM ? 5 : -1);

		cr_expect_eq(connect_to(address, WAIT_MS), IPC_EPROTOTYPE);
		close(fd);
		unlink(address);
	}
}

/* M-20: one that never answers, one that never even accepts */
Test(place, a_silent_listener_ends_at_the_deadline)
{
	int fd = listen_at(address, SOCK_SEQPACKET, 0), others[2];

	cr_expect_eq(connect_to(address, SHORT_MS), IPC_ETIMEDOUT, "nobody accepts");

	for (unsigned i = 0; i < 2; ++i) {
		struct sockaddr_un name = {.sun_family = AF_UNIX};

		(void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", address);
		others[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(others[i], (const struct sockaddr *)&name, sizeof(name));
	}
	cr_expect_eq(connect_to(address, SHORT_MS), IPC_ETIMEDOUT, "the backlog is full");
	cr_expect_eq(ipc_client_connect_wait(&(ipc_client *){NULL},
					     IPC_CLIENT_OPTIONS(.address = address), &past),
		     IPC_ETIMEDOUT, "the backlog is full, a look");

	close(others[0]);
	close(others[1]);
	close(fd);
}

/* Accepts, takes what is said, and answers with the bytes at arg. */
struct nonsense {
	const void *bytes;
	size_t size;
	int fd;
};

static void talk_nonsense(struct actor *self, void *arg)
{
	const struct nonsense *nonsense = arg;
	char hello[PROTOCOL_SIZE_MAX];
	int fd = accept(nonsense->fd, NULL, NULL);

	(void)!recv(fd, hello, sizeof(hello), 0);
	(void)!send(fd, nonsense->bytes, nonsense->size, MSG_NOSIGNAL);
	(void)actor_hear(self);
}

static void expect_of_nonsense(const void *bytes, size_t size, int result, const char *what)
{
	struct nonsense nonsense = {bytes, size, listen_at(address, SOCK_SEQPACKET, 5)};
	struct actor actor;

	actor_start(&actor, talk_nonsense, &nonsense);
	cr_expect_eq(connect_to(address, WAIT_MS), result, "%s", what);
	actor_kill(&actor);
	close(nonsense.fd);
	unlink(address);
}

/* M-11, M-60 */
Test(place, a_listener_that_talks_nonsense_is_no_broker)
{
	static char bytes[PROTOCOL_SIZE_MAX + 1000];
	struct message_welcome welcome = {
		.head = {.magic = PROTOCOL_MAGIC,
			 .type = MESSAGE_WELCOME,
			 .size = sizeof(welcome),
			 .request_id = 1},
		.version = PROTOCOL_VERSION,
	};

	expect_of_nonsense("HTTP/1.1 400 Bad Request\r\n\r\n", 28, IPC_EPROTO, "another protocol");
	expect_of_nonsense(bytes, 1, IPC_EPROTO, "a byte");
	expect_of_nonsense(bytes, sizeof(bytes), IPC_EPROTO, "more than any message");
	expect_of_nonsense(&welcome, sizeof(welcome), IPC_EPROTO, "a welcome without memory");
	welcome.version = 7;
	expect_of_nonsense(&welcome, sizeof(welcome), IPC_EPROTO, "a version nobody asked for");
}

static int as_other(int (*fn)(void))
{
	pid_t pid = process_fork();

	if (pid == 0) {
		if (getuid() == 0 && (setgid(UID_OTHER) < 0 || setuid(UID_OTHER) < 0))
			process_end(100);
		process_end(-fn());
	}
	return -process_reap(pid, WAIT_MS);
}

static int connect_here(void)
{
	return connect_to(address, SHORT_MS);
}

/* M-12 */
Test(place, a_socket_that_may_not_be_reached_is_eacces)
{
	int fd = listen_at(address, SOCK_SEQPACKET, 5);

	cr_assert_eq(chmod(dir, 0), 0);
	cr_expect_eq(as_other(connect_here), IPC_EACCES, "behind a directory");
	cr_assert_eq(chmod(dir, 0755), 0);
	cr_assert_eq(chmod(address, 0), 0);
	cr_expect_eq(as_other(connect_here), IPC_EACCES, "its own rights");
	close(fd);
}

/* ---- HELLO by hand ---- */

static int dial(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	const struct timeval patience = {.tv_sec = WAIT_MS / 1000};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", fixture_domain.address);
	cr_assert_geq(fd, 0);
	cr_assert_eq(connect(fd, (const struct sockaddr *)&name, sizeof(name)), 0);
	cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	return fd;
}

static struct message_hello hello_new(void)
{
	return (struct message_hello){
		.head = {.magic = PROTOCOL_MAGIC,
			 .type = MESSAGE_HELLO,
			 .size = sizeof(struct message_hello),
			 .request_id = 1},
		.version_min = PROTOCOL_VERSION,
		.version_max = PROTOCOL_VERSION,
		.word_size = sizeof(void *),
		.pid = getpid(),
	};
}

#define HUNG_UP 1
#define SILENT  2

/* The refusal, HUNG_UP, or 0 for a welcome; what comes with that is not taken. */
static int say(const void *bytes, size_t size)
{
	struct message_head head = {0};
	int fd = dial(), r = SILENT;
	ssize_t n;

	cr_assert_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
	n = recv(fd, &head, sizeof(head), 0);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		r = HUNG_UP;
	else if (n == (ssize_t)sizeof(head))
		r = head.type == MESSAGE_DONE ? head.result : 0;
	close(fd);
	return r;
}

TestSuite(hello, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* M-62 */
Test(hello, of_another_version_or_layout_is_refused)
{
	struct message_hello message = hello_new();

	message.version_min = message.version_max = PROTOCOL_VERSION + 1;
	cr_expect_eq(say(&message, sizeof(message)), IPC_EPROTONOSUPPORT, "a later version");

	message = hello_new();
	message.version_min = message.version_max = 0;
	cr_expect_neq(say(&message, sizeof(message)), 0, "no version");

	message = hello_new();
	message.word_size = sizeof(void *) / 2;
	cr_expect_eq(say(&message, sizeof(message)), IPC_EPROTONOSUPPORT, "shorter words");

	message = hello_new();
	message.lock_stamp = 0x12345;
	cr_expect_eq(say(&message, sizeof(message)), IPC_EPROTONOSUPPORT, "another C library");

	cr_expect_eq(connect_to(fixture_domain.address, WAIT_MS), 0, "the broker lives on");
}

/* M-60 */
Test(hello, that_is_none_is_hung_up_on)
{
	struct message_hello message = hello_new();
	static char bytes[4 * PROTOCOL_SIZE_MAX];

	cr_expect_eq(say("GET / HTTP/1.1\r\n\r\n", 18), HUNG_UP, "another protocol");
	cr_expect_eq(say(bytes, sizeof(bytes)), HUNG_UP, "more than any message");
	cr_expect_eq(say(&message, sizeof(message) - 8), HUNG_UP, "cut");
	message.head.size += 8;
	cr_expect_eq(say(&message, sizeof(message)), HUNG_UP, "a size that is not its size");
	message = hello_new();
	message.head.magic ^= 1;
	cr_expect_eq(say(&message, sizeof(message)), HUNG_UP, "another magic");
	message = hello_new();
	message.head.type = MESSAGE_REMOVE;
	cr_expect_eq(say(&message, sizeof(message)), HUNG_UP, "something else first");

	cr_expect_eq(connect_to(fixture_domain.address, WAIT_MS), 0, "the broker lives on");
}

/* ---- too little ---- */

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

/* What each open of a process says when its limit leaves room for n more of something. */
static int open_all(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer = NULL;
	ipc_shared *shared = NULL;
	ipc_client *client;
	int r;

	r = ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = fixture_domain.address),
				    &deadline);
	if (r < 0)
		return r;

	r = ipc_watch_producer_open_wait(&producer, client, "foreign/watch",
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE), &deadline);
	if (r == 0)
		r = ipc_shared_open_wait(&shared, client, "foreign/shared", IPC_SIDE_A,
					 IPC_SHARED_OPTIONS(.flags = IPC_CREATE), &deadline);
	ipc_shared_close(shared);
	ipc_watch_producer_close(producer);
	ipc_client_unref(client);
	return r;
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; ++fd)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void set_limit(int which, rlim_t value)
{
	struct rlimit limit;

	if (getrlimit(which, &limit) < 0)
		process_end(90);
	limit.rlim_cur = value;
	if (setrlimit(which, &limit) < 0)
		process_end(91);
}

/* M-11: with one descriptor more each time; what failed has left none open. */
Test(hello, a_process_without_descriptors_is_told_so)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		struct rlimit before;
		int r = IPC_EMFILE, n_refused = 0;
		unsigned n = count_fds();

		if (getrlimit(RLIMIT_NOFILE, &before) < 0)
			process_end(92);
		for (rlim_t limit = n; r != 0 && limit < n + 32; ++limit) {
			set_limit(RLIMIT_NOFILE, limit);
			r = open_all();
			if (r != 0 && r != IPC_EMFILE)
				process_end(-r);
			if (count_fds() != n)
				process_end(93);
			n_refused += r < 0;
		}
		set_limit(RLIMIT_NOFILE, before.rlim_cur);
		process_end(r != 0 ? 94 : n_refused == 0 ? 95 : open_all() == 0 ? 0 : 96);
	}

	cr_expect_eq(process_reap(pid, WAIT_MS), 0);
	cr_expect_not(exists("foreign/watch"));
	cr_expect_not(exists("foreign/shared"));
}

static size_t address_space(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	if (file && fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* M-11: with one page more each time at first, then faster */
Test(hello, a_process_without_address_space_is_told_so)
{
	pid_t pid;

	/* A test that is skipped is not torn down. */
	if (IS_SANITIZED) {
		fixture_teardown();
		cr_skip_test("the sanitizer needs address space of its own");
	}

	pid = process_fork();
	if (pid == 0) {
		size_t size = address_space(), step = 4096, more = 0;
		int r = IPC_ENOMEM, n_refused = 0;
		unsigned n = count_fds();

		for (; r != 0 && more < (size_t)1 << 30; more += step, step += step / 4 & ~4095ul) {
			set_limit(RLIMIT_AS, size + more);
			r = open_all();
			if (r != 0 && r != IPC_ENOMEM)
				process_end(-r);
			if (count_fds() != n)
				process_end(93);
			n_refused += r < 0;
		}
		process_end(r != 0 ? 94 : n_refused == 0 ? 95 : 0);
	}

	cr_expect_eq(process_reap(pid, WAIT_MS), 0);
	cr_expect_not(exists("foreign/watch"));
	cr_expect_not(exists("foreign/shared"));
}

/* As somebody who may not raise it again. */
static int run_broker_with(rlim_t n_fds, char *said, size_t size)
{
	int program = open(domain_program(), O_RDONLY | O_CLOEXEC), ends[2];
	char *argv[] = {"ipcbroker", "--address", address, NULL}, *none[] = {NULL};
	ssize_t n;
	pid_t pid;

	cr_assert_geq(program, 0);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	pid = process_fork();
	if (pid == 0) {
		const struct rlimit limit = {n_fds, n_fds};

		if (dup2(ends[1], STDERR_FILENO) < 0 || setrlimit(RLIMIT_NOFILE, &limit) < 0)
			process_end(90);
		if (getuid() == 0 && (setgid(UID_OTHER) < 0 || setuid(UID_OTHER) < 0))
			process_end(91);
		fexecve(program, argv, none);
		process_end(127);
	}
	close(program);
	close(ends[1]);
	n = read(ends[0], said, size - 1);
	said[n > 0 ? n : 0] = '\0';
	close(ends[0]);
	return process_reap(pid, WAIT_MS);
}

/* the line says which limit */
Test(place, a_broker_without_descriptors_does_not_begin)
{
	char said[512];

	cr_expect_eq(run_broker_with(100, said, sizeof(said)), 1);
	cr_expect_not_null(strstr(said, "RLIMIT_NOFILE"), "%s", said);
	cr_expect_not_null(strchr(said, '\n'), "%s", said);
	cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "more than a line: %s", said);
}
