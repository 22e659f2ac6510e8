/* SPDX-License-Identifier: MIT */
#include "broker/worker.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "broker/dispatch.h"
#include "broker/listener.h"
#include "broker/log.h"
#include "broker/offers.h"
#include "broker/peer.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/registry.h"
#include "broker/repair.h"
#include "broker/sandbox.h"
#include "broker/sessions.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"

/*
 * Death: the worker is made to be killed at any instruction.  All that outlives it is in records
 * (state.h), at the keeper, in the clients' sockets and in the liveness tables; the next worker
 * puts them in accord (repair.c) before it serves.
 */

#define EVENTS_MAX 64

/* Of a worker that was started for somebody who has not come yet (D22). */
#define STARTER_NS (10 * NS_PER_S)

/* ---- start ---- */

struct adoption {
	struct worker *worker;
	struct repair repair;
	uint32_t n_fds_max;
	int state_fd, config_fd;
};

static void adopt(const char *name, int fd, void *userdata)
{
	struct adoption *adoption = userdata;
	struct repair_fd *entry = &adoption->repair.fds[adoption->repair.n_fds];

	if (strcmp(name, STORE_NAME_LISTENER) == 0)
		adoption->worker->listener_fd = fd;
	else if (strcmp(name, STORE_NAME_STATE) == 0)
		adoption->state_fd = fd;
	else if (strcmp(name, STORE_NAME_CONFIG) == 0)
		adoption->config_fd = fd;
	else if (adoption->repair.n_fds < adoption->n_fds_max &&
		 store_parse_name(name, &entry->kind, &entry->slot, &entry->generation) == 0) {
		entry->fd = fd;
		++adoption->repair.n_fds;
	} else {
		/* Nothing that a worker stored. */
		(void)store_remove(&adoption->worker->store, name);
		fd_close(fd);
	}
}

static int fail(const char *what, int result)
{
	log_line(LOG_LEVEL_ERROR, "%s: %s", what, ipc_error_text(result));
	return WORKER_EXIT_FAILED;
}

static int config_adopt(struct worker *worker, int config_fd)
{
	char error[256];

	config_init(&worker->config);
	if (config_fd >= 0 && config_parse_fd(&worker->config, "configuration", config_fd, error,
					      sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "%s", error);
		return -1;
	}

	log_set_level(worker->config.log_level);
	fd_close(config_fd);
	return 0;
}

/* The earlier worker's state, or a new one: after the very first start, and where the old one was
 * another version's. */
static int state_adopt(struct worker *worker, int *state_fd, struct state **ret)
{
	int r;

	if (*state_fd >= 0 && state_attach(ret, *state_fd) == 0)
		return 0;

	if (*state_fd >= 0) {
		log_line(LOG_LEVEL_WARNING, "the state of the worker before is of another version: "
					    "this domain starts anew");
		(void)store_remove(&worker->store, STORE_NAME_STATE);
		fd_close(*state_fd);
	}

	r = state_new(ret, state_fd);
	if (r < 0)
		return r;

	CRASH_POINT();
	r = store_add(&worker->store, STORE_NAME_STATE, *state_fd);
	CRASH_POINT();
	return r;
}

static int signals_init(struct worker *worker)
{
	sigset_t set;

	/* A reader of the log that is gone, and a segment larger than ulimit -f allows: errors, not
	 * deaths. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;

	worker->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return worker->signal_fd < 0 ? -1 : 0;
}

/* Descriptors, state, memory, loop: everything but what clients left. */
static int worker_init(struct worker *worker, struct adoption *adoption)
{
	struct state *state;
	int r;

	r = store_init(&worker->store);
	if (r < 0)
		return fail("descriptor store", r);

	adoption->n_fds_max = STORE_FDS_MAX;
	adoption->repair.fds = calloc(adoption->n_fds_max + 1, sizeof(*adoption->repair.fds));
	if (!adoption->repair.fds)
		return fail("start", IPC_ENOMEM);

	r = store_adopt(adopt, adoption);
	if (r < 0)
		return fail("descriptors of the keeper", r);

	if (worker->listener_fd < 0) {
		log_line(LOG_LEVEL_ERROR, "no listening socket from the keeper");
		return WORKER_EXIT_FAILED;
	}

	if (config_adopt(worker, adoption->config_fd) < 0)
		return WORKER_EXIT_FAILED;

	r = segment_maker_init(&worker->maker);
	if (r < 0)
		return fail("/dev/shm", r);

	r = state_adopt(worker, &adoption->state_fd, &state);
	if (r < 0)
		return fail("state of the domain", r);

	++state->n_workers;
	r = registry_new(&worker->registry, state);
	if (r < 0)
		return fail("registry", r);

	if (signals_init(worker) < 0)
		return fail("signals", IPC_ENOSYS);

	r = loop_init(&worker->loop);
	if (r == 0)
		r = loop_add(&worker->loop, worker->signal_fd, LOOP_SIGNAL, 0, 0, EPOLLIN);
	if (r < 0)
		return fail("event loop", r);

	return listener_init(worker) < 0 ? WORKER_EXIT_FAILED : 0;
}

static int worker_start(struct worker *worker)
{
	struct adoption adoption = {.worker = worker, .state_fd = -1, .config_fd = -1};
	char error[256];
	int r;

	r = worker_init(worker, &adoption);
	if (r != 0)
		return r;

	r = repair_run(worker, &adoption.repair);
	free(adoption.repair.fds);
	if (r < 0)
		return fail("records of the worker before", r);

	if (!worker->options->no_sandbox &&
	    sandbox_enter(&worker->maker, error, sizeof(error)) < 0) {
		log_line(LOG_LEVEL_ERROR, "sandbox: %s", error);
		return WORKER_EXIT_FAILED;
	}

	(void)store_notify(&worker->store, "READY=1");
	worker->started_ns = clock_now_ns();
	worker->idle_since_ns = worker->started_ns;
	log_line(LOG_LEVEL_INFO, "worker %u serves: %u clients, %u channels, %u handles",
		 worker->registry->state->n_workers, worker->registry->client_slots.n_used,
		 worker->registry->channel_slots.n_used, worker->registry->handle_slots.n_used);
	repair_resume(worker);
	return 0;
}

/* ---- the idle end ---- */

static bool is_idle(const struct worker *worker)
{
	return worker->registry->client_slots.n_used == 0 &&
	       worker->registry->channel_slots.n_used == 0;
}

/* When to end if nobody comes; 0: never. */
static uint64_t idle_end_ns(const struct worker *worker)
{
	uint64_t end_ns;

	if (worker->config.idle_ns == 0 || !is_idle(worker))
		return 0;

	end_ns = worker->idle_since_ns + worker->config.idle_ns;
	if (worker->options->autostarted && !worker->had_clients &&
	    end_ns < worker->started_ns + STARTER_NS)
		end_ns = worker->started_ns + STARTER_NS;

	return end_ns;
}

/* Nobody can find the socket any more; whoever had found it is in its queue, and is served to the
 * end. */
static void idle_end(struct worker *worker)
{
	if (store_end_accepting(&worker->store) < 0)
		return;

	while (listener_accept(worker) > 0)
		;
	reaper_run(worker);

	if (is_idle(worker)) {
		log_line(LOG_LEVEL_INFO, "idle: ended");
		worker->is_done = true;
		worker->exit_status = WORKER_EXIT_DONE;
		return;
	}

	(void)store_resume_accepting(&worker->store);
}

/* ---- serving ---- */

static struct peer *peer_of(struct worker *worker, const struct loop_event *event)
{
	struct peer *peer = &worker->registry->peer[event->slot % LIVENESS_CLIENTS_MAX];

	/* Of the slot's former tenant: EOF and pidfd of one client come in one batch. */
	if (!peer->record || (peer->record->generation & 0xffffff) != event->generation)
		return NULL;

	return peer;
}

static void signal_read(struct worker *worker)
{
	struct signalfd_siginfo info;

	if (read(worker->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;

	worker->is_done = true;
	if (info.ssi_signo == SIGHUP) {
		worker->exit_status = WORKER_EXIT_RELOAD;
		return;
	}

	log_line(LOG_LEVEL_INFO, "ended by %s", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
	presence_end_domain(worker);
	worker->exit_status = WORKER_EXIT_DONE;
}

static void serve_event(struct worker *worker, const struct loop_event *event)
{
	struct peer *peer;

	switch (event->source) {
	case LOOP_LISTENER:
		(void)listener_accept(worker);
		break;
	case LOOP_SOCKET:
		peer = peer_of(worker, event);
		if (peer)
			dispatch_peer(worker, peer);
		break;
	case LOOP_PIDFD:
		peer = peer_of(worker, event);
		if (peer)
			peer_doom(worker, peer);
		break;
	case LOOP_TIMER:
		worker->timer_ns = 0;
		break;
	case LOOP_SIGNAL:
		signal_read(worker);
		break;
	}

	reaper_run(worker);
}

/* 0: never. */
static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	if (a_ns == 0 || b_ns == 0)
		return a_ns + b_ns;

	return a_ns < b_ns ? a_ns : b_ns;
}

/* What is due, and when to look again. */
static void serve_time(struct worker *worker)
{
	uint64_t quiet_ns = 0, session_ns, idle_ns, next_ns;

	if (worker->quiet_first) {
		quiet_ns = peer_expire(worker, clock_now_ns());
		reaper_run(worker);
	}

	session_ns = earlier(sessions_expire(worker, clock_now_ns()),
			     offers_retry(worker, clock_now_ns()));
	reaper_run(worker);

	idle_ns = idle_end_ns(worker);
	if (idle_ns != 0 && idle_ns <= clock_now_ns()) {
		idle_end(worker);
		idle_ns = idle_end_ns(worker);
	}

	next_ns = earlier(session_ns, earlier(idle_ns, quiet_ns));
	if (next_ns != worker->timer_ns && loop_set_timer(&worker->loop, next_ns) == 0)
		worker->timer_ns = next_ns;
}

static int worker_serve(struct worker *worker)
{
	struct loop_event events[EVENTS_MAX];

	while (!worker->is_done) {
		int i, n;

		serve_time(worker);
		if (worker->is_done)
			break;

		n = loop_wait(&worker->loop, events, EVENTS_MAX);
		if (n < 0)
			return fail("event loop", n);

		for (i = 0; i < n && !worker->is_done; ++i)
			serve_event(worker, &events[i]);
	}
	return worker->exit_status;
}

int worker_run(const struct worker_options *options)
{
	static struct worker worker; /* large: two messages */
	int r;

	worker = (struct worker){
		.options = options,
		.maker = SEGMENT_MAKER_NULL,
		.listener_fd = -1,
		.signal_fd = -1,
		.spare_fd = -1,
	};

	r = worker_start(&worker);
	return r != 0 ? r : worker_serve(&worker);
}
