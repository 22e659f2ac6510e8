/* SPDX-License-Identifier: MIT */
#include "broker/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "broker/address.h"
#include "broker/fdstore.h"
#include "broker/launch.h"
#include "broker/log.h"
#include "broker/manager.h"
#include "broker/spare.h"
#include "broker/store.h"
#include "broker/worker.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"

#define GOES_ON        (-1) /* no exit status yet */
#define FDS_FIRST      3
#define FDS_OWN        32   /* the highest numbers allowed are the keeper's own */
#define FDS_WANTED     20480
#define FAILURES_MAX   10
#define KILLS_MAX      1000
#define RETRY_NS       (100 * NS_PER_MS)
#define MESSAGES_MAX   64   /* read in a row before a signal is looked at */
#define TEXT_SIZE      1024
#define ERROR_SIZE     1024

struct keeper {
	const struct keeper_options *options;
	struct config config;
	struct address address;
	struct manager manager;
	struct fdstore store;     /* entry i is descriptor 3 + i: a worker inherits it as it is */

	int signal_fd;
	int notify_fd;            /* to the worker; a new pair for each */
	int handover_fds[2];      /* the spare's end, the worker's end */
	int leash_fd;             /* of the spare; -1: none */
	bool wants_spare;

	pid_t worker;             /* 0: none */
	bool is_ready;            /* it said so */
	bool is_replaced;         /* it was killed by us, for a new configuration */
	bool is_stopping;
	bool told_ready;          /* to the service manager */
	unsigned n_failures, n_kills; /* workers in a row that were never ready */
	uint64_t kill_at_ns;      /* stopping: the end of its patience */
	uint64_t start_at_ns;     /* not before */
};

static struct keeper the_keeper;

bool keeper_is_parent(void)
{
	const char *pid = getenv("LISTEN_PID");

	/* The variable alone may be inherited from anywhere; LISTEN_PID is for this process only. */
	return getenv(STORE_ENV_KEEPER) && pid && atol(pid) == getpid();
}

/* ---- descriptors ---- */

static rlim_t fds_allowed(void)
{
	struct rlimit limit = { .rlim_cur = 256 };

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur < FDS_WANTED ? limit.rlim_cur : FDS_WANTED;
}

/* Out of the way of the stored ones, which are dense from 3 on. */
static int fd_raise(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, (int)fds_allowed() - FDS_OWN);

	if (high < 0)
		return fd;
	(void)fd_close(fd);
	return high;
}

/* Becomes the owner of fd. */
static int keeper_hold(struct keeper *keeper, const char *name, int fd)
{
	int index = fdstore_find(&keeper->store, name);
	int number;

	if (index < 0) {
		number = FDS_FIRST + (int)atomic_load_explicit(&keeper->store.n, memory_order_relaxed);
		if (number + 2 * FDS_OWN <= (int)fds_allowed())
			index = fdstore_append(&keeper->store, name, number);
	}
	if (index < 0) {
		log_line(LOG_LEVEL_ERROR, "the store of descriptors does not take \"%s\": full, or no legal name", name);
		(void)fd_close(fd);
		return -1;
	}

	/* A received descriptor has the lowest free number, which nearly always is the right one. */
	number = FDS_FIRST + index;
	if (fd != number) {
		(void)dup2(fd, number);
		(void)fd_close(fd);
	}
	(void)fcntl(number, F_SETFD, 0);
	return number;
}

static void keeper_drop(struct keeper *keeper, const char *name)
{
	int index = fdstore_find(&keeper->store, name);
	int last = (int)atomic_load_explicit(&keeper->store.n, memory_order_relaxed) - 1;

	if (index < 0)
		return;

	if (index != last)
		(void)dup2(FDS_FIRST + last, FDS_FIRST + index);
	(void)fd_close(FDS_FIRST + last);

	fdstore_take(&keeper->store, (unsigned)index);
	keeper->store.entry[index].fd = FDS_FIRST + index;
}

/* ---- configuration ---- */

/* What holds without a file. */
static void config_base(struct config *config, const struct keeper_options *options)
{
	config_init(config);
	if (options->autostart)
		config->idle_ns = KEEPER_IDLE_AUTOSTART_NS;
}

static int keeper_read_config(struct keeper *keeper, char *error, unsigned error_size)
{
	const struct keeper_options *options = keeper->options;
	static struct config config; /* large */

	config_base(&config, options);
	if (options->config && config_parse_file(&config, options->config, error, error_size) < 0)
		return -1;

	if (options->has_idle)
		config.idle_ns = options->idle_ns;
	if (options->has_level)
		config.log_level = options->level;

	keeper->config = config;
	log_set_level(config.log_level);
	return 0;
}

static int keeper_store_config(struct keeper *keeper)
{
	int fd = config_to_memfd(&keeper->config);

	if (fd < 0) {
		log_line(LOG_LEVEL_ERROR, "the configuration cannot be handed on: memfd: %s", strerror(errno));
		return -1;
	}
	return keeper_hold(keeper, STORE_NAME_CONFIG, fd) < 0 ? -1 : 0;
}

/* True if the workers to come have a new configuration. */
static bool keeper_reload(struct keeper *keeper)
{
	char error[ERROR_SIZE];

	if (!keeper->options->config) {
		log_line(LOG_LEVEL_NOTICE, "reload: no configuration file was given at the start");
		return false;
	}
	if (keeper_read_config(keeper, error, sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "reload: %s; nothing has changed", error);
		return false;
	}
	if (keeper_store_config(keeper) < 0)
		return false;

	log_line(LOG_LEVEL_NOTICE, "reload: %s has been read", keeper->options->config);
	return true;
}

/* ---- what the worker says ---- */

struct request {
	bool is_store, is_remove, is_ready, is_status, is_hide, is_show, is_complete;
	char name[STORE_NAME_SIZE];
};

static void request_parse(struct request *request, const char *text)
{
	*request = (struct request){ 0 };

	while (*text != '\0') {
		size_t length = strcspn(text, "\n");

		if (strncmp(text, "FDNAME=", 7) == 0 && length > 7 && length - 7 <= STORE_NAME_MAX)
			memcpy(request->name, text + 7, length - 7);
#define IS(literal) (length == sizeof(literal) - 1 && memcmp(text, literal, sizeof(literal) - 1) == 0)
		request->is_store |= IS("FDSTORE=1");
		request->is_remove |= IS("FDSTOREREMOVE=1");
		request->is_ready |= IS("READY=1");
		request->is_hide |= IS(STORE_TEXT_HIDE);
		request->is_show |= IS(STORE_TEXT_SHOW);
		request->is_complete |= IS(STORE_TEXT_COMPLETE);
		request->is_status |= IS("STOPPING=1") || strncmp(text, "STATUS=", 7) == 0;
#undef IS
		text += length + (text[length] == '\n');
	}
}

static void keeper_store(struct keeper *keeper, const struct request *request, const char *text, int fd)
{
	if (fd >= 0 && request->is_store && request->name[0] != '\0')
		fd = keeper_hold(keeper, request->name, fd);
	else
		fd = fd_close(fd);

	/* The configuration is the keeper's own: it reads it at each start. */
	if (fd >= 0 && strcmp(request->name, STORE_NAME_CONFIG) != 0)
		manager_tell(&keeper->manager, text, fd);
}

static void keeper_request(struct keeper *keeper, const char *text, int fd)
{
	struct request request;

	request_parse(&request, text);

	if (request.is_store || fd >= 0) {
		keeper_store(keeper, &request, text, fd);
	} else if (request.is_remove) {
		keeper_drop(keeper, request.name);
		manager_tell(&keeper->manager, text, -1);
	} else if (request.is_hide || request.is_show) {
		if (request.is_hide)
			address_hide(&keeper->address);
		else
			address_show(&keeper->address);
		(void)fdpass_send(keeper->notify_fd, text, strlen(text), NULL, 0);
	} else if (request.is_ready) {
		keeper->is_ready = true;
		keeper->n_failures = keeper->n_kills = 0;
		log_line(LOG_LEVEL_DEBUG, "worker %d is ready", (int)keeper->worker);
		if (!keeper->told_ready)
			manager_tell(&keeper->manager, text, -1);
		keeper->told_ready = true;
	} else if (request.is_status) {
		manager_tell(&keeper->manager, text, -1);
	}
}

enum read_result { READ_NOTHING, READ_MORE, READ_END };

static enum read_result text_read(int socket_fd, char text[TEXT_SIZE], int *ret_fd)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 0;
	size_t size;
	int r;

	r = fdpass_receive(socket_fd, text, TEXT_SIZE - 1, &size, fds, &n_fds);

	/* A worker that died with our answer unread: told once as an error, before what it had sent. */
	if (r == IPC_EPIPE)
		r = fdpass_receive(socket_fd, text, TEXT_SIZE - 1, &size, fds, &n_fds);
	if (r == IPC_EAGAIN)
		return READ_NOTHING;
	if (r == IPC_EPIPE)
		return READ_END;
	if (r < 0) {
		log_line(LOG_LEVEL_ERROR, "a message of the worker was lost: error %d", -r);
		size = 0;
	}

	text[size] = '\0';
	*ret_fd = n_fds > 0 ? fds[0] : -1;
	for (unsigned i = 1; i < n_fds; ++i)
		(void)fd_close(fds[i]);
	return READ_MORE;
}

static void keeper_listen(struct keeper *keeper, unsigned n_max)
{
	enum read_result result = READ_MORE;
	char text[TEXT_SIZE];
	int fd = -1;

	while (keeper->notify_fd >= 0 && result == READ_MORE && n_max-- > 0) {
		result = text_read(keeper->notify_fd, text, &fd);
		if (result == READ_MORE)
			keeper_request(keeper, text, fd);
		else if (result == READ_END)
			keeper->notify_fd = fd_close(keeper->notify_fd);
	}
}

/* ---- the worker's life ---- */

static int keeper_failed(struct keeper *keeper)
{
	if (++keeper->n_failures < FAILURES_MAX)
		return GOES_ON;

	log_line(LOG_LEVEL_ERROR, "%s: giving up: %u workers in a row ended before they were ready", keeper->address.path, keeper->n_failures);
	return KEEPER_EXIT_FAILED;
}

static int keeper_launch(struct keeper *keeper)
{
	struct launch launch = { .store = &keeper->store, .spare_fd = keeper->handover_fds[1] };
	int fds[2];

	if (clock_now_ns() < keeper->start_at_ns)
		return GOES_ON;

	/* A worker died between hide and show. */
	address_show(&keeper->address);

	keeper->is_ready = keeper->is_replaced = false;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0) {
		keeper->notify_fd = fd_raise(fds[0]);
		launch.notify_fd = fd_raise(fds[1]);
		launch.argv = keeper->options->argv ? keeper->options->argv + 1 : NULL;
		keeper->worker = launch_worker(&launch);
		launch.notify_fd = fd_close(launch.notify_fd);
		if (keeper->worker > 0)
			return GOES_ON;
		keeper->worker = 0;
		keeper->notify_fd = fd_close(keeper->notify_fd);
	}

	log_line(LOG_LEVEL_ERROR, "the worker cannot be started: %s", strerror(errno));
	keeper->start_at_ns = clock_after_ns(RETRY_NS);
	return keeper_failed(keeper);
}

static int keeper_worker_died(struct keeper *keeper, int status)
{
	int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	if (keeper->is_replaced)
		return GOES_ON;

	if (signal)
		log_line(LOG_LEVEL_WARNING, "the worker was ended by signal %d (%s); the next one starts", signal, strsignal(signal));
	else
		log_line(LOG_LEVEL_WARNING, "the worker ended with status %d; the next one starts", WEXITSTATUS(status));

	if (keeper->is_ready)
		return GOES_ON;
	if (signal == SIGKILL && ++keeper->n_kills < KILLS_MAX)
		return GOES_ON;
	return keeper_failed(keeper);
}

static int keeper_worker_ended(struct keeper *keeper, int status)
{
	/* Everything that it said counts, before the next one starts. */
	keeper_listen(keeper, UINT32_MAX);
	keeper->notify_fd = fd_close(keeper->notify_fd);
	keeper->worker = 0;

	if (keeper->is_stopping)
		return KEEPER_EXIT_DONE;
	if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGINT))
		return KEEPER_EXIT_DONE;
	if (WIFEXITED(status)) {
		switch (WEXITSTATUS(status)) {
		case WORKER_EXIT_DONE:
			return KEEPER_EXIT_DONE;
		case WORKER_EXIT_FAILED:
			return KEEPER_EXIT_FAILED;
		case WORKER_EXIT_RELOAD:
			(void)keeper_reload(keeper);
			return GOES_ON;
		}
	}
	return keeper_worker_died(keeper, status);
}

/* ---- signals ---- */

static int signals_open(void)
{
	sigset_t set;

	/* SIGUSR2: for the worker, which inherits that it is blocked. */
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_SETMASK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL); /* ignored ones leave no status */

	(void)sigdelset(&set, SIGUSR2);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int keeper_stop(struct keeper *keeper)
{
	if (keeper->is_stopping)
		return GOES_ON;

	/* The spare goes first: if somebody loses patience and kills the keeper now, nothing shall come back. */
	keeper->leash_fd = spare_end(keeper->leash_fd);
	keeper->is_stopping = true;
	keeper->kill_at_ns = clock_after_ns(keeper->config.grace_ns);
	manager_tell(&keeper->manager, "STOPPING=1", -1);

	if (keeper->worker == 0)
		return KEEPER_EXIT_DONE;
	(void)kill(keeper->worker, SIGTERM);
	return GOES_ON;
}

static int keeper_reap(struct keeper *keeper)
{
	int exit_status = GOES_ON, status;
	pid_t pid;

	/* As process 1 of a container it gets the orphans of others, too. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == keeper->worker)
			exit_status = keeper_worker_ended(keeper, status);
	}
	return exit_status;
}

static int keeper_signals(struct keeper *keeper)
{
	struct signalfd_siginfo info;
	int status = GOES_ON;

	while (status == GOES_ON && read(keeper->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD:
			status = keeper_reap(keeper);
			break;
		case SIGHUP:
			if (!keeper->is_stopping && keeper_reload(keeper) && keeper->worker != 0) {
				keeper->is_replaced = true;
				(void)kill(keeper->worker, SIGKILL);
			}
			break;
		case SIGTERM:
		case SIGINT:
			status = keeper_stop(keeper);
			break;
		}
	}
	return status;
}

/* ---- the loop ---- */

static int keeper_spare_run(int leash_fd, void *userdata);

static void keeper_keep_spare(struct keeper *keeper)
{
	if (!keeper->wants_spare || keeper->is_stopping || keeper->leash_fd >= 0)
		return;

	keeper->leash_fd = spare_start(fd_raise, keeper_spare_run, keeper);
	if (keeper->leash_fd < 0)
		log_line(LOG_LEVEL_WARNING, "no spare keeper: %s", strerror(errno));
}

/* Milliseconds until the earlier of two moments, 0: none; rounded up, so that it has passed then. */
static int timeout_ms(uint64_t a_ns, uint64_t b_ns)
{
	uint64_t at_ns = a_ns == 0 || (b_ns != 0 && b_ns < a_ns) ? b_ns : a_ns;
	uint64_t now_ns = clock_now_ns();

	if (at_ns == 0)
		return -1;
	if (at_ns <= now_ns)
		return 0;
	return at_ns - now_ns > 1000 * NS_PER_S ? 1000000 : (int)((at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int keeper_step(struct keeper *keeper)
{
	struct pollfd pollfds[] = {
		{ .fd = keeper->signal_fd, .events = POLLIN },
		{ .fd = keeper->notify_fd, .events = POLLIN },
		{ .fd = keeper->leash_fd, .events = POLLIN },
	};
	uint64_t start_at_ns = keeper->worker == 0 ? keeper->start_at_ns : 0;
	int r;

	r = poll(pollfds, sizeof(pollfds) / sizeof(pollfds[0]), timeout_ms(keeper->kill_at_ns, start_at_ns));

	if (keeper->kill_at_ns != 0 && clock_now_ns() >= keeper->kill_at_ns && keeper->worker != 0) {
		log_line(LOG_LEVEL_WARNING, "the worker did not end in time; it is killed");
		(void)kill(keeper->worker, SIGKILL);
		keeper->kill_at_ns = 0;
	}
	if (r <= 0)
		return GOES_ON;

	if (pollfds[1].revents != 0)
		keeper_listen(keeper, MESSAGES_MAX);
	if (pollfds[2].revents != 0)
		keeper->leash_fd = fd_close(keeper->leash_fd);
	return pollfds[0].revents != 0 ? keeper_signals(keeper) : GOES_ON;
}

static int keeper_serve(struct keeper *keeper)
{
	int status = GOES_ON;

	keeper->signal_fd = fd_raise(signals_open());
	keeper->handover_fds[0] = keeper->handover_fds[1] = -1;
	if (keeper->wants_spare && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, keeper->handover_fds) == 0) {
		keeper->handover_fds[0] = fd_raise(keeper->handover_fds[0]);
		keeper->handover_fds[1] = fd_raise(keeper->handover_fds[1]);
	}

	while (status == GOES_ON) {
		keeper_keep_spare(keeper);
		if (keeper->worker == 0)
			status = keeper_launch(keeper);
		if (status == GOES_ON)
			status = keeper_step(keeper);
	}

	keeper->leash_fd = spare_end(keeper->leash_fd);
	address_remove(&keeper->address);
	log_line(LOG_LEVEL_INFO, "%s: the broker has ended, status %d", keeper->address.path, status);
	return status;
}

/* ---- the spare ---- */

static int config_from_store(struct keeper *keeper)
{
	int index = fdstore_find(&keeper->store, STORE_NAME_CONFIG);
	char error[ERROR_SIZE];

	return index < 0 ? -1 : config_parse_fd(&keeper->config, STORE_NAME_CONFIG, FDS_FIRST + index, error, sizeof(error));
}

/* True: the worker has handed over, the keeper is dead.  False: both are. */
static bool spare_wait(struct keeper *keeper, int leash_fd)
{
	struct pollfd pollfds[] = { { .fd = leash_fd, .events = POLLIN }, { .fd = keeper->handover_fds[0], .events = POLLIN } };
	enum read_result result = READ_NOTHING;
	bool is_complete = false;
	struct request request;
	char text[TEXT_SIZE];
	int fd = -1;

	while (result != READ_END) {
		if (poll(pollfds, 2, -1) < 0 && errno != EINTR)
			return false;

		/* A byte: the keeper ends in good order.  The end of the stream: it is dead, but its worker may not have noticed yet. */
		if (pollfds[0].revents & POLLIN && recv(leash_fd, text, 1, MSG_DONTWAIT) == 1)
			_exit(0);
		if (pollfds[0].revents != 0)
			pollfds[0].fd = -1;

		while ((result = text_read(keeper->handover_fds[0], text, &fd)) == READ_MORE) {
			request_parse(&request, text);
			is_complete |= request.is_complete;
			if (fd >= 0)
				keeper_store(keeper, &request, text, fd);
		}
	}
	return is_complete;
}

static int keeper_spare_run(int leash_fd, void *userdata)
{
	struct keeper *keeper = userdata;
	unsigned n = atomic_load_explicit(&keeper->store.n, memory_order_relaxed);
	char *argv0 = keeper->options->argv ? keeper->options->argv[0] : NULL;
	bool is_complete;

	launch_set_title(argv0, "ipc-spare");

	/* A client's socket that stays open here would hide its end. */
	if (n > 0)
		(void)close_range(FDS_FIRST, FDS_FIRST + n - 1, 0);
	fdstore_clear(&keeper->store);
	fd_closep(&keeper->signal_fd);
	fd_closep(&keeper->notify_fd);
	fd_closep(&keeper->handover_fds[1]);
	manager_deinit(&keeper->manager);
	keeper->leash_fd = -1;
	keeper->worker = 0;
	keeper->start_at_ns = 0;
	keeper->n_failures = keeper->n_kills = 0;

	is_complete = spare_wait(keeper, leash_fd);
	(void)fd_close(leash_fd);
	fd_closep(&keeper->handover_fds[0]);

	if (!is_complete || config_from_store(keeper) < 0) {
		log_line(LOG_LEVEL_ERROR, "%s: keeper and worker died at the same time: the domain has ended", keeper->address.path);
		address_remove(&keeper->address);
		return KEEPER_EXIT_FAILED;
	}

	launch_set_title(argv0, "ipckeeper");
	log_set_level(keeper->config.log_level);
	log_line(LOG_LEVEL_WARNING, "%s: the keeper died; process %d is the keeper now", keeper->address.path, (int)getpid());
	return keeper_serve(keeper);
}

/* ---- the start ---- */

static void limits_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;

	if (limit.rlim_max < FDS_WANTED) {
		struct rlimit more = { FDS_WANTED, FDS_WANTED };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0) /* root only */
			return;
	}
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static bool is_listener(int fd)
{
	int value = 0, type = 0;
	socklen_t length = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value == 1 &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

/* What the service manager passes: descriptors of an earlier keeper by their names, and a listening socket called "ipc", or the first that is there. */
static void passed_adopt(const char *name, int fd, void *userdata)
{
	struct keeper *keeper = userdata;
	uint32_t slot, generation;
	char kind;

	if (store_parse_name(name, &kind, &slot, &generation) == 0 || strcmp(name, STORE_NAME_STATE) == 0) {
		(void)keeper_hold(keeper, name, fd);
	} else if (strcmp(name, STORE_NAME_LISTENER) == 0) {
		/* Bound by an earlier keeper, if nothing better comes. */
		if (fdstore_find(&keeper->store, STORE_NAME_LISTENER) < 0 && is_listener(fd) && keeper->address.lock_fd >= 0 && address_adopt(&keeper->address))
			(void)keeper_hold(keeper, STORE_NAME_LISTENER, fd);
		else
			(void)fd_close(fd);
	} else if (is_listener(fd) && (strcmp(name, "ipc") == 0 || fdstore_find(&keeper->store, STORE_NAME_LISTENER) < 0)) {
		keeper->address.is_ours = false;
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		(void)keeper_hold(keeper, STORE_NAME_LISTENER, fd);
	} else {
		log_line(LOG_LEVEL_WARNING, "passed descriptor %d \"%s\" is not used: not called \"ipc\", or not a listening SOCK_SEQPACKET socket", fd, name);
		(void)fd_close(fd);
	}
}

/* The address of a passed socket, so that nobody else binds over it. */
static void passed_address(const char **address, char path[ADDRESS_SIZE])
{
	struct sockaddr_un sockaddr;
	socklen_t length;

	for (unsigned i = 0; i < manager_passed() && !*address; ++i) {
		length = sizeof(sockaddr);
		memset(&sockaddr, 0, sizeof(sockaddr));
		if (is_listener((int)(FDS_FIRST + i)) && getsockname((int)(FDS_FIRST + i), (struct sockaddr *)&sockaddr, &length) == 0 &&
		    sockaddr.sun_family == AF_UNIX && sockaddr.sun_path[0] == '/') {
			(void)snprintf(path, ADDRESS_SIZE, "%.*s", (int)sizeof(sockaddr.sun_path) - 1, sockaddr.sun_path);
			*address = path;
		}
	}
}

static int keeper_taken(const struct keeper *keeper, enum address_result result, const char *error)
{
	if (result == ADDRESS_TAKEN && keeper->options->autostart) {
		log_line(LOG_LEVEL_INFO, "%s", error);
		return KEEPER_EXIT_DONE;
	}
	log_line(LOG_LEVEL_ERROR, "%s", error);
	return KEEPER_EXIT_FAILED;
}

static int keeper_find_address(struct keeper *keeper)
{
	const char *given = keeper->options->address;
	unsigned n_passed = manager_passed();
	char path[ADDRESS_SIZE], error[ERROR_SIZE];
	enum address_result result;

	passed_address(&given, path);
	if (address_find(&keeper->address, given, error, sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "%s", error);
		return KEEPER_EXIT_FAILED;
	}

	result = address_lock(&keeper->address, error, sizeof(error));
	if (result == ADDRESS_FAILED && n_passed > 0)
		log_line(LOG_LEVEL_NOTICE, "%s; going on without a lock", error);
	else if (result != ADDRESS_DONE)
		return keeper_taken(keeper, result, error);

	keeper->address.lock_fd = fd_raise(keeper->address.lock_fd);
	return GOES_ON;
}

static int keeper_open_socket(struct keeper *keeper)
{
	char error[ERROR_SIZE];
	enum address_result result;
	int fd;

	if (fdstore_find(&keeper->store, STORE_NAME_LISTENER) >= 0)
		return GOES_ON;

	if (keeper->address.lock_fd < 0) {
		log_line(LOG_LEVEL_ERROR, "%s: no lock, and no socket was passed", keeper->address.path);
		return KEEPER_EXIT_FAILED;
	}
	result = address_bind(&keeper->address, &fd, error, sizeof(error));
	if (result != ADDRESS_DONE)
		return keeper_taken(keeper, result, error);

	fd = keeper_hold(keeper, STORE_NAME_LISTENER, fd);
	manager_tell(&keeper->manager, "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORE_NAME_LISTENER, fd);
	return GOES_ON;
}

int keeper_run(const struct keeper_options *options)
{
	struct keeper *keeper = &the_keeper;
	char error[ERROR_SIZE];
	int status;

	*keeper = (struct keeper){
		.options = options, .address = ADDRESS_NULL, .manager = MANAGER_NULL, .signal_fd = -1, .notify_fd = -1, .handover_fds = { -1, -1 }, .leash_fd = -1,
		.wants_spare = !manager_restarts(),
	};
	if (keeper_read_config(keeper, error, sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "%s", error);
		return KEEPER_EXIT_USAGE;
	}

	/* An embedded broker lives longer than the program that started it: it keeps none of that program's files open. */
	(void)close_range(FDS_FIRST + manager_passed(), ~0u, 0);
	limits_raise();
	manager_init(&keeper->manager);
	keeper->manager.notify_fd = fd_raise(keeper->manager.notify_fd);

	status = keeper_find_address(keeper);
	if (status == GOES_ON) {
		manager_adopt(passed_adopt, keeper);
		status = keeper_open_socket(keeper);
	}
	if (status != GOES_ON)
		return status;
	if (keeper_store_config(keeper) < 0) {
		address_remove(&keeper->address);
		return KEEPER_EXIT_FAILED;
	}

	launch_set_title(options->argv ? options->argv[0] : NULL, "ipckeeper");
	log_line(LOG_LEVEL_INFO, "%s: the broker starts", keeper->address.path);
	return keeper_serve(keeper);
}
