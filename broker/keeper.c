/* SPDX-License-Identifier: MIT */
#include "broker/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/frame.h"
#include "broker/holdings.h"
#include "broker/launch.h"
#include "broker/log.h"
#include "broker/notice.h"
#include "broker/spare.h"
#include "broker/store.h"
#include "broker/worker.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"

#define GOES_ON      (-1) /* no exit status yet */
#define IS_SPARE     (-2) /* this process is the spare now */
#define FAILURES_MAX 10
#define KILLS_MAX    1000
#define RETRY_NS     (100 * NS_PER_MS)
#define MESSAGES_MAX 64 /* read in a row before a signal is looked at */
#define ERROR_SIZE   1024

struct keeper {
	const struct keeper_options *options;
	struct config config;
	struct frame frame;

	int signal_fd;
	int notify_fd;       /* to the worker; a new pair for each */
	int handover_fds[2]; /* the spare's end, the worker's end */
	int leash_fd;        /* of the spare; -1: none */
	bool wants_spare;

	pid_t worker;     /* 0: none */
	bool is_ready;    /* it said so */
	bool is_replaced; /* it was killed by us, for a new configuration */
	bool is_stopping;
	bool told_ready;              /* to the service manager */
	unsigned n_failures, n_kills; /* workers in a row that were never ready */
	uint64_t kill_at_ns;          /* stopping: the end of its patience */
	uint64_t start_at_ns;         /* not before */
};

static struct keeper the_keeper;

bool keeper_is_parent(void)
{
	const char *pid = getenv("LISTEN_PID");

	/* The variable alone may be inherited from anywhere; LISTEN_PID is for this process only.
	 */
	return getenv(STORE_ENV_KEEPER) && pid && atol(pid) == getpid();
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
		log_line(LOG_LEVEL_ERROR, "the configuration cannot be handed on: memfd: %s",
			 strerror(errno));
		return -1;
	}
	return holdings_add(&keeper->frame.store, STORE_NAME_CONFIG, fd) < 0 ? -1 : 0;
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

	/* The spare has the old one: the loop starts another. */
	keeper->leash_fd = spare_end(keeper->leash_fd);

	log_line(LOG_LEVEL_NOTICE, "reload: %s has been read", keeper->options->config);
	return true;
}

/* ---- what the worker says ---- */

static void keeper_store(struct keeper *keeper, const struct notice *notice)
{
	int fd = -1;

	if (notice->is_store && notice->name[0] != '\0' && notice->fd >= 0)
		fd = holdings_add(&keeper->frame.store, notice->name, notice->fd);
	else
		(void)fd_close(notice->fd);

	/* The configuration is the keeper's own: it reads it at each start. */
	if (fd >= 0 && strcmp(notice->name, STORE_NAME_CONFIG) != 0)
		manager_tell(&keeper->frame.manager, notice->text, fd);
}

static void keeper_notice(struct keeper *keeper, const struct notice *notice)
{
	if (notice->is_store || notice->fd >= 0) {
		keeper_store(keeper, notice);
	} else if (notice->is_remove) {
		holdings_remove(&keeper->frame.store, notice->name);
		manager_tell(&keeper->frame.manager, notice->text, -1);
	} else if (notice->is_hide || notice->is_show) {
		if (notice->is_hide)
			address_hide(&keeper->frame.address);
		else
			address_show(&keeper->frame.address);
		(void)fdpass_send(keeper->notify_fd, notice->text, strlen(notice->text), NULL, 0);
	} else if (notice->is_ready) {
		keeper->is_ready = true;
		keeper->n_failures = keeper->n_kills = 0;
		log_line(LOG_LEVEL_DEBUG, "worker %d is ready", (int)keeper->worker);
		if (!keeper->told_ready)
			manager_tell(&keeper->frame.manager, notice->text, -1);
		keeper->told_ready = true;
	} else if (notice->is_status) {
		manager_tell(&keeper->frame.manager, notice->text, -1);
	}
}

static void keeper_listen(struct keeper *keeper, unsigned n_max)
{
	enum notice_result result = NOTICE_READ;
	struct notice notice;

	while (keeper->notify_fd >= 0 && result == NOTICE_READ && n_max-- > 0) {
		result = notice_read(keeper->notify_fd, &notice);
		if (result == NOTICE_READ)
			keeper_notice(keeper, &notice);
		else if (result == NOTICE_END)
			keeper->notify_fd = fd_close(keeper->notify_fd);
	}
}

/* ---- the worker's life ---- */

static int keeper_failed(struct keeper *keeper)
{
	if (++keeper->n_failures < FAILURES_MAX)
		return GOES_ON;

	log_line(LOG_LEVEL_ERROR, "%s: giving up: %u workers in a row ended before they were ready",
		 keeper->frame.address.path, keeper->n_failures);
	return KEEPER_EXIT_FAILED;
}

static int keeper_launch(struct keeper *keeper)
{
	struct launch launch = {.store = &keeper->frame.store, .spare_fd = keeper->handover_fds[1]};
	int fds[2];

	if (clock_now_ns() < keeper->start_at_ns)
		return GOES_ON;

	/* A worker died between hide and show. */
	address_show(&keeper->frame.address);

	keeper->is_ready = keeper->is_replaced = false;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0) {
		keeper->notify_fd = holdings_raise(fds[0]);
		launch.notify_fd = holdings_raise(fds[1]);
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
		log_line(LOG_LEVEL_WARNING,
			 "the worker was ended by signal %d (%s); the next one starts", signal,
			 strsignal(signal));
	else
		log_line(LOG_LEVEL_WARNING, "the worker ended with status %d; the next one starts",
			 WEXITSTATUS(status));

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

/* Before there is anything to leave behind: a signal that comes now waits for signals_open(). */
static sigset_t signals_block(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGUSR2); /* for the worker, which inherits that it is blocked */
	(void)sigprocmask(SIG_SETMASK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL); /* ignored ones leave no status */

	(void)sigdelset(&set, SIGUSR2);
	return set;
}

static int signals_open(void)
{
	sigset_t set = signals_block();

	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int keeper_stop(struct keeper *keeper)
{
	if (keeper->is_stopping)
		return GOES_ON;

	/* The spare goes first: if somebody loses patience and kills the keeper now, nothing shall
	 * come back. */
	keeper->leash_fd = spare_end(keeper->leash_fd);
	keeper->is_stopping = true;
	keeper->kill_at_ns = clock_after_ns(keeper->config.grace_ns);
	manager_tell(&keeper->frame.manager, "STOPPING=1", -1);

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

	while (status == GOES_ON &&
	       read(keeper->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
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

/* IS_SPARE in the process that has become one. */
static int keeper_keep_spare(struct keeper *keeper)
{
	int r;

	if (!keeper->wants_spare || keeper->is_stopping || keeper->leash_fd >= 0)
		return GOES_ON;

	r = spare_start(&keeper->leash_fd);
	if (r < 0)
		log_line(LOG_LEVEL_WARNING, "no spare keeper: %s", strerror(errno));
	return r == 0 ? IS_SPARE : GOES_ON;
}

/* Milliseconds until the earlier of two moments, 0: none; rounded up, so that it has passed then.
 */
static int timeout_ms(uint64_t a_ns, uint64_t b_ns)
{
	uint64_t at_ns = a_ns == 0 || (b_ns != 0 && b_ns < a_ns) ? b_ns : a_ns;
	uint64_t now_ns = clock_now_ns();

	if (at_ns == 0)
		return -1;
	if (at_ns <= now_ns)
		return 0;
	return at_ns - now_ns > 1000 * NS_PER_S
		       ? 1000000
		       : (int)((at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int keeper_step(struct keeper *keeper)
{
	struct pollfd pollfds[] = {
		{.fd = keeper->signal_fd, .events = POLLIN},
		{.fd = keeper->notify_fd, .events = POLLIN},
		{.fd = keeper->leash_fd, .events = POLLIN},
	};
	uint64_t start_at_ns = keeper->worker == 0 ? keeper->start_at_ns : 0;
	int r;

	r = poll(pollfds, sizeof(pollfds) / sizeof(pollfds[0]),
		 timeout_ms(keeper->kill_at_ns, start_at_ns));

	if (keeper->kill_at_ns != 0 && clock_now_ns() >= keeper->kill_at_ns &&
	    keeper->worker != 0) {
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

	keeper->signal_fd = holdings_raise(signals_open());
	keeper->handover_fds[0] = keeper->handover_fds[1] = -1;
	if (keeper->wants_spare &&
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, keeper->handover_fds) == 0) {
		keeper->handover_fds[0] = holdings_raise(keeper->handover_fds[0]);
		keeper->handover_fds[1] = holdings_raise(keeper->handover_fds[1]);
	}

	while (status == GOES_ON) {
		status = keeper_keep_spare(keeper);
		if (status == GOES_ON && keeper->worker == 0)
			status = keeper_launch(keeper);
		if (status == GOES_ON)
			status = keeper_step(keeper);
	}

	if (status == IS_SPARE)
		return status;

	keeper->leash_fd = spare_end(keeper->leash_fd);
	address_remove(&keeper->frame.address);
	log_line(LOG_LEVEL_INFO, "%s: the broker has ended, status %d", keeper->frame.address.path,
		 status);
	return status;
}

/* ---- the spare ---- */

/* GOES_ON: it is the keeper now. */
static int keeper_be_spare(struct keeper *keeper)
{
	char *argv0 = keeper->options->argv ? keeper->options->argv[0] : NULL;
	bool is_complete;

	launch_set_title(argv0, "ipc-spare");

	/* A client's socket that stays open here would hide its end. */
	holdings_clear(&keeper->frame.store);
	fd_closep(&keeper->signal_fd);
	fd_closep(&keeper->notify_fd);
	fd_closep(&keeper->handover_fds[1]);
	manager_deinit(&keeper->frame.manager);
	keeper->worker = 0;
	keeper->start_at_ns = 0;
	keeper->n_failures = keeper->n_kills = 0;

	is_complete = spare_wait(keeper->leash_fd, keeper->handover_fds[0], &keeper->frame.store);
	fd_closep(&keeper->leash_fd);
	fd_closep(&keeper->handover_fds[0]);

	if (!is_complete) {
		log_line(LOG_LEVEL_ERROR,
			 "%s: keeper and worker died at the same time: the domain has ended",
			 keeper->frame.address.path);
		address_remove(&keeper->frame.address);
		return KEEPER_EXIT_FAILED;
	}

	/* As it was when this process was forked, and that is the last one: each reload makes a new
	 * spare. */
	if (keeper_store_config(keeper) < 0) {
		address_remove(&keeper->frame.address);
		return KEEPER_EXIT_FAILED;
	}

	launch_set_title(argv0, "ipckeeper");
	log_line(LOG_LEVEL_WARNING, "%s: the keeper died; process %d is the keeper now",
		 keeper->frame.address.path, (int)getpid());
	return GOES_ON;
}

/* ---- the start ---- */

int keeper_run(const struct keeper_options *options)
{
	struct keeper *keeper = &the_keeper;
	char error[ERROR_SIZE];
	int status;

	keeper->options = options;
	keeper->signal_fd = keeper->notify_fd = keeper->leash_fd = -1;
	keeper->handover_fds[0] = keeper->handover_fds[1] = -1;
	keeper->wants_spare = !manager_restarts();

	if (keeper_read_config(keeper, error, sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "%s", error);
		return KEEPER_EXIT_USAGE;
	}
	(void)signals_block();
	if (frame_open(&keeper->frame, options->address, options->autostart, &status) < 0)
		return status;
	if (keeper_store_config(keeper) < 0) {
		address_remove(&keeper->frame.address);
		return KEEPER_EXIT_FAILED;
	}

	launch_set_title(options->argv ? options->argv[0] : NULL, "ipckeeper");
	log_line(LOG_LEVEL_INFO, "%s: the broker starts", keeper->frame.address.path);

	do {
		status = keeper_serve(keeper);
		if (status == IS_SPARE)
			status = keeper_be_spare(keeper);
	} while (status == GOES_ON);
	return status;
}
