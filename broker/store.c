/* SPDX-License-Identifier: MIT */
#include "broker/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ipc/error.h>

#include "broker/worker.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"

#define FDS_FIRST    3
#define FDS_RESERVED 96 /* what worker and keeper need besides the stored ones */
#define TEXT_SIZE    512
#define SEND_TRIES   200 /* of 1 ms */

/* ---- names ---- */

void store_name(char name[STORE_NAME_SIZE], char kind, uint32_t slot, uint32_t generation)
{
	(void)snprintf(name, STORE_NAME_SIZE, "%c%X.%x", kind, slot, generation & 0xffff);
}

/* Digits of one case, without leading zeros: one number has one text. */
static const char *hexadecimal_parse(const char *text, char ten, unsigned n_max, uint32_t *ret)
{
	uint32_t value = 0;
	unsigned n = 0;

	for (;; ++n) {
		char c = text[n];
		unsigned digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if (c >= ten && c < ten + 6)
			digit = (unsigned)(c - ten) + 10;
		else
			break;
		if (n == n_max)
			return NULL;
		value = value << 4 | digit;
	}
	if (n == 0 || (n > 1 && text[0] == '0'))
		return NULL;

	*ret = value;
	return text + n;
}

int store_parse_name(const char *name, char *ret_kind, uint32_t *ret_slot, uint32_t *ret_generation)
{
	uint32_t slot, generation;
	const char *at;

	if (name[0] < 'a' || name[0] > 'z')
		return -1;

	at = hexadecimal_parse(name + 1, 'A', 8, &slot);
	if (!at || *at != '.')
		return -1;
	at = hexadecimal_parse(at + 1, 'a', 4, &generation);
	if (!at || *at != '\0')
		return -1;

	*ret_kind = name[0];
	*ret_slot = slot;
	*ret_generation = generation;
	return 0;
}

/* ---- what the environment says ---- */

static int number_from(const char *name, const char *prefix, long *ret)
{
	const char *text = getenv(name);
	size_t length = strlen(prefix);
	char *end;
	long value;

	if (!text || strncmp(text, prefix, length) != 0 || text[length] < '0' || text[length] > '9')
		return IPC_EPROTO;

	errno = 0;
	value = strtol(text + length, &end, 10);
	if (errno != 0 || *end != '\0' || value > INT32_MAX)
		return IPC_EPROTO;

	*ret = value;
	return 0;
}

/* The names are in LISTEN_FDNAMES, LISTEN_FDNAMES_1, ..., each a piece of the list, separated by
 * colons. */
struct names {
	const char *at; /* NULL: before the first piece */
	unsigned piece;
};

static int names_next(struct names *names, char ret_name[STORE_NAME_SIZE])
{
	char variable[32] = "LISTEN_FDNAMES";
	size_t length;

	if (!names->at || *names->at == '\0') {
		if (names->piece > 0)
			(void)snprintf(variable, sizeof(variable), "LISTEN_FDNAMES_%u",
				       names->piece);
		++names->piece;
		names->at = getenv(variable);
		if (!names->at)
			return IPC_EPROTO;
	}

	length = strcspn(names->at, ":");
	if (length == 0 || length > STORE_NAME_MAX)
		return IPC_EPROTO;

	memcpy(ret_name, names->at, length);
	ret_name[length] = '\0';
	names->at += length + (names->at[length] == ':');
	return 0;
}

int store_adopt(void (*fn)(const char *name, int fd, void *userdata), void *userdata)
{
	char name[STORE_NAME_SIZE];
	struct names names = {0};
	long pid, n;

	if (number_from("LISTEN_PID", "", &pid) < 0 || number_from("LISTEN_FDS", "", &n) < 0 ||
	    pid != getpid() || n > STORE_FDS_MAX)
		return IPC_EPROTO;

	/* One call where there is one: with 10,000 descriptors it is half of a restart. */
	if (n > 0 &&
	    close_range(FDS_FIRST, (unsigned)(FDS_FIRST + n - 1), CLOSE_RANGE_CLOEXEC) < 0) {
		for (long i = 0; i < n; ++i)
			(void)fcntl((int)(FDS_FIRST + i), F_SETFD, FD_CLOEXEC);
	}

	for (long i = 0; i < n; ++i) {
		int r = names_next(&names, name);

		if (r < 0)
			return r;
		fn(name, (int)(FDS_FIRST + i), userdata);
	}
	return 0;
}

/* ---- the keeper's death ---- */

/* What the handler of SIGUSR2 works on: a copy, so that it does not matter where the owner keeps
 * the struct. */
static struct store handed_over;
static pid_t keeper_pid;

/*
 * The other end reads all the time.  Want of memory, and too many descriptors of this user under
 * way (others of the same user send them, too), pass as well, but are not waited for without end.
 * Async-signal-safe.
 */
static int send_patiently(int socket_fd, const char *text, const int *fd)
{
	struct pollfd pollfd = {.fd = socket_fd, .events = POLLOUT};
	unsigned n_tries = 0;
	int r;

	for (;;) {
		r = fdpass_send(socket_fd, text, strlen(text), fd, fd ? 1 : 0);
		if (r == IPC_EAGAIN)
			(void)poll(&pollfd, 1, -1);
		else if ((r == IPC_EMFILE || r == IPC_ENOMEM) && n_tries++ < SEND_TRIES)
			(void)poll(NULL, 0, 1);
		else
			return r;
	}
}

static char *text_append(char *at, const char *text)
{
	size_t length = strlen(text);

	memcpy(at, text, length + 1);
	return at + length;
}

/* By hand: it runs in a signal handler, where snprintf() may not. */
static void text_store(char text[TEXT_SIZE], const char *name)
{
	char *at = text_append(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=");

	assert(strlen(name) <= STORE_NAME_MAX);
	(void)text_append(at, name);
}

/*
 * Runs at any instruction of the worker and does not return while the keeper is dead.  Uses memory
 * that was ready before, and system calls alone.  A descriptor that cannot be sent is passed over:
 * an entry between close() and store_remove(), whose record has ended.
 */
static void keeper_died(int signal)
{
	const struct fdstore *held = handed_over.held;
	int saved = errno;
	char text[TEXT_SIZE];
	uint32_t n;

	(void)signal;
	if (getppid() == keeper_pid) { /* somebody's joke */
		errno = saved;
		return;
	}

	n = held ? atomic_load_explicit(&held->n, memory_order_relaxed) : 0;
	for (uint32_t i = 0; i < n && handed_over.spare_fd >= 0; ++i) {
		text_store(text, held->entry[i].name);
		if (send_patiently(handed_over.spare_fd, text, &held->entry[i].fd) == IPC_EPIPE)
			_exit(WORKER_EXIT_FAILED);
	}

	if (handed_over.spare_fd >= 0)
		(void)send_patiently(handed_over.spare_fd, STORE_TEXT_COMPLETE, NULL);
	_exit(WORKER_EXIT_RELOAD);
}

static void remember(const char *name, int fd, void *userdata)
{
	struct fdstore *held = userdata;
	int index = fdstore_find(held, name);

	if (index >= 0)
		held->entry[index].fd = fd;
	else
		(void)fdstore_append(held, name, fd);
}

/* ---- the store ---- */

static uint32_t fds_allowed(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= STORE_FDS_MAX + FDS_RESERVED)
		return STORE_FDS_MAX;
	return limit.rlim_cur > FDS_RESERVED ? (uint32_t)limit.rlim_cur - FDS_RESERVED : 0;
}

/* The keeper blocked the signal before exec, so a death since then is pending and arrives here. */
static int handler_install(void)
{
	struct sigaction action = {.sa_handler = keeper_died, .sa_flags = SA_RESTART};
	sigset_t set;

	(void)sigfillset(&action.sa_mask);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR2);
	if (sigaction(SIGUSR2, &action, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
		return IPC_EPROTO;
	return 0;
}

int store_init(struct store *store)
{
	struct store new = {.notify_fd = -1, .spare_fd = -1};
	struct fdstore *held;
	long notify, spare, pid;
	int r;

	r = number_from("NOTIFY_SOCKET", "fd:", &notify);
	if (r < 0 || number_from(STORE_ENV_KEEPER, "", &pid) < 0)
		return IPC_EPROTO;
	new.notify_fd = (int)notify;
	if (number_from(STORE_ENV_SPARE, "fd:", &spare) == 0)
		new.spare_fd = (int)spare;
	if (fcntl(new.notify_fd, F_SETFD, FD_CLOEXEC) < 0 ||
	    (new.spare_fd >= 0 && fcntl(new.spare_fd, F_SETFD, FD_CLOEXEC) < 0))
		return IPC_EPROTO;

	held = calloc(1, sizeof(*held));
	if (!held)
		return IPC_ENOMEM;
	r = store_adopt(remember, held);
	if (r < 0) {
		free(held);
		return r;
	}
	new.held = held;
	new.n_max = fds_allowed();

	keeper_pid = (pid_t)pid;
	handed_over = new;
	r = handler_install();
	if (r < 0) {
		free(held);
		return r;
	}

	*store = new;
	return 0;
}

void store_deinit(struct store *store)
{
	/* SIG_IGN: a keeper's death no longer concerns a process that has stopped being a worker.
	 */
	(void)signal(SIGUSR2, SIG_IGN);
	memset(&handed_over, 0, sizeof(handed_over));

	free(store->held);
	store->held = NULL;
	fd_closep(&store->notify_fd);
	fd_closep(&store->spare_fd);
}

int store_add(struct store *store, const char *name, int fd)
{
	int index = fdstore_find(store->held, name);
	char text[TEXT_SIZE];
	int r;

	if (index < 0 &&
	    atomic_load_explicit(&store->held->n, memory_order_relaxed) >= store->n_max)
		return IPC_ENFILE;

	/* Told first: what the keeper has and the worker does not remember dies with the keeper,
	 * and nobody has committed to it yet. */
	text_store(text, name);
	r = send_patiently(store->notify_fd, text, &fd);
	if (r < 0)
		return r;

	remember(name, fd, store->held);
	return 0;
}

int store_remove(struct store *store, const char *name)
{
	int index = fdstore_find(store->held, name);
	char text[TEXT_SIZE];
	int r;

	if (index < 0)
		return 0;

	(void)text_append(text_append(text, "FDSTOREREMOVE=1\nFDNAME="), name);
	r = send_patiently(store->notify_fd, text, NULL);
	if (r < 0)
		return r;

	fdstore_take(store->held, (unsigned)index);
	return 0;
}

int store_notify(struct store *store, const char *text)
{
	return send_patiently(store->notify_fd, text, NULL);
}

static int store_ask(struct store *store, const char *text)
{
	struct pollfd pollfd = {.fd = store->notify_fd, .events = POLLIN};
	char answer[TEXT_SIZE];
	size_t size;
	int r;

	r = send_patiently(store->notify_fd, text, NULL);
	while (r == 0) {
		r = fdpass_receive(store->notify_fd, answer, sizeof(answer), &size, NULL, NULL);
		if (r == 0 && size == strlen(text) && memcmp(answer, text, size) == 0)
			return 0;
		if (r == IPC_EAGAIN) {
			(void)poll(&pollfd, 1, -1);
			r = 0;
		}
	}
	return r;
}

int store_end_accepting(struct store *store)
{
	return store_ask(store, STORE_TEXT_HIDE);
}

int store_resume_accepting(struct store *store)
{
	return store_ask(store, STORE_TEXT_SHOW);
}
