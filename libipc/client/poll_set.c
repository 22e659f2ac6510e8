/* SPDX-License-Identifier: MIT */
#include "libipc/client/poll_set.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/syserr.h"

/* How often one call starts again because something changed that was not ready after all. */
#define TURNS_MAX 8

/* ---- begin and end ---- */

static int set_watch(const struct poll_set *set, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	return epoll_ctl(set->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? syserr(SYSERR_EPOLL, errno)
								       : 0;
}

static int set_make_fds(struct poll_set *set)
{
	int r;

	set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (set->epoll_fd < 0)
		return syserr(SYSERR_EPOLL, errno);

	set->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (set->timer_fd < 0)
		return syserr(SYSERR_EVENTFD, errno);

	r = fd_move_up(&set->epoll_fd);
	if (r == 0)
		r = fd_move_up(&set->timer_fd);
	if (r == 0)
		r = set_watch(set, set->client->bells.fd, EPOLLIN);
	if (r == 0)
		r = set_watch(set, set->timer_fd, EPOLLIN);

	/* Answers are no news to the program; the end of the stream is, once. */
	if (r == 0)
		r = set_watch(set, set->client->connection.fd, EPOLLRDHUP | EPOLLONESHOT);
	return r;
}

int poll_set_init(struct poll_set *set, ipc_client *client)
{
	int r;

	set->client = client;
	set->epoll_fd = set->timer_fd = -1;
	set->timer_ns = CLOCK_FOREVER;
	if (pthread_mutex_init(&set->mutex, NULL) != 0)
		return IPC_ENOMEM;

	r = set_make_fds(set);
	if (r < 0)
		poll_set_deinit(set, true);
	return r;
}

void poll_set_deinit(struct poll_set *set, bool is_ours)
{
	if (is_ours) {
		set->epoll_fd = fd_close(set->epoll_fd);
		set->timer_fd = fd_close(set->timer_fd);
	}
	free(set->sleepers);
	(void)pthread_mutex_destroy(&set->mutex);
}

/* ---- places ---- */

static void place_put(struct poll_set *set, struct poll_entry *entry, enum poll_place place,
		      bool is_first)
{
	struct poll_entry **first = &set->places[place];

	entry->place = (uint8_t)place;
	if (!*first) {
		entry->prev = entry->next = entry;
		*first = entry;
		return;
	}

	entry->next = *first;
	entry->prev = entry->next->prev;
	entry->prev->next = entry->next->prev = entry;
	if (is_first)
		*first = entry;
}

static void place_put_asleep(struct poll_set *set, struct poll_entry *entry, uint32_t armed)
{
	entry->place = POLL_ASLEEP;
	entry->prev = entry->next = entry;
	entry->sleeper = set->n_sleepers++;
	set->sleepers[entry->sleeper] = (struct poll_sleeper){
		.event = entry->event,
		.entry = entry,
		.armed = armed,
		.is_timed = entry->ready.readiness->due_ns != NULL,
	};
}

static void place_take(struct poll_set *set, struct poll_entry *entry)
{
	struct poll_entry **first;

	if (entry->place == POLL_ASLEEP) {
		struct poll_sleeper *gap = &set->sleepers[entry->sleeper];

		*gap = set->sleepers[--set->n_sleepers];
		gap->entry->sleeper = entry->sleeper;
		return;
	}

	first = &set->places[entry->place];
	if (*first == entry)
		*first = entry->next == entry ? NULL : entry->next;
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
}

static void place_move_all(struct poll_set *set, enum poll_place from, enum poll_place to)
{
	struct poll_entry *entry;

	while ((entry = set->places[from])) {
		place_take(set, entry);
		place_put(set, entry, to, false);
	}
}

/* ---- looks ---- */

static bool set_is_cancelled(const struct poll_set *set)
{
	return atomic_load_explicit(&set->client->connection.cancelled, memory_order_acquire);
}

static uint32_t entry_look(const struct poll_set *set, struct poll_entry *entry)
{
	const struct ready *ready = &entry->ready;
	const struct endpoint_readiness *readiness = ready->readiness;
	uint32_t events;

	/* One that is just being left is taken out in a moment. */
	if (readiness->begin && readiness->begin(ready->handle) < 0)
		return 0;

	entry->seen = endpoint_opposite(ready->endpoint);
	events = ready_look(ready);
	if (readiness->end)
		readiness->end(ready->handle);

	/* Its waits would say so. */
	if (ready_is_cancelled(ready) || set_is_cancelled(set) ||
	    endpoint_check(ready->endpoint) < 0)
		events |= IPC_READY_END;

	return events;
}

/* What is in no place goes to LOOK, or to ASLEEP after it was armed.  True: LOOK. */
static bool entry_lie_down(struct poll_set *set, struct poll_entry *entry, bool is_first)
{
	uint32_t armed = entry->event ? eventcount_arm(entry->event) : 0;

	CRASH_POINT();
	if (entry_look(set, entry)) {
		place_put(set, entry, POLL_LOOK, is_first);
		return true;
	}

	place_put_asleep(set, entry, armed);
	return false;
}

static bool sleeper_is_notified(const struct poll_sleeper *sleeper)
{
	return sleeper->event && eventcount_armed(sleeper->event) != sleeper->armed;
}

/* Whether everything has to be looked at: the broker or a cancel said so since the last time. */
static bool set_is_called(struct poll_set *set)
{
	const ipc_client *client = set->client;
	uint32_t looks, calls;

	/* [V4'] Pairs with [V4] in liveness.c, and with the release in poll_set_look_again(). */
	looks = atomic_load_explicit(&client->table->attention[client->slot].n_looks,
				     memory_order_acquire);
	calls = atomic_load_explicit(&set->n_calls, memory_order_acquire);
	if (looks == set->looks && calls == set->calls)
		return false;

	set->looks = looks;
	set->calls = calls;
	return true;
}

/* From ASLEEP to LOOK, before those that stand there. */
static void set_wake(struct poll_set *set, bool wakes_all, bool wakes_timed)
{
	for (uint32_t i = set->n_sleepers; i-- > 0;) {
		struct poll_sleeper *sleeper = &set->sleepers[i];
		struct poll_entry *entry = sleeper->entry;

		if (!wakes_all && !(wakes_timed && sleeper->is_timed) &&
		    LIKELY(!sleeper_is_notified(sleeper)))
			continue;

		place_take(set, entry);
		place_put(set, entry, POLL_LOOK, true);
	}
}

/* ---- the timer ---- */

static void set_timer(struct poll_set *set, uint64_t due_ns)
{
	struct itimerspec timer = {0};

	if (due_ns == set->timer_ns && (due_ns == CLOCK_FOREVER || due_ns > clock_now_ns()))
		return;

	/* Zero would be no moment. */
	if (due_ns != CLOCK_FOREVER)
		timer.it_value = clock_to_timespec(due_ns ? due_ns : 1);

	(void)timerfd_settime(set->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
	set->timer_ns = due_ns;
}

static uint64_t set_due_ns(const struct poll_set *set)
{
	uint64_t due_ns = CLOCK_FOREVER;

	for (uint32_t i = 0; set->n_timed > 0 && i < set->n_sleepers; ++i) {
		uint64_t ns;

		if (!set->sleepers[i].is_timed)
			continue;

		ns = ready_due_ns(&set->sleepers[i].entry->ready);
		if (ns < due_ns)
			due_ns = ns;
	}
	return due_ns;
}

/* ---- nothing is ready ---- */

/* The socket's one event is taken out, so that it is not told for ever. */
static void set_take_events(const struct poll_set *set)
{
	struct epoll_event events[4];

	(void)epoll_wait(set->epoll_fd, events, N_ELEMENTS(events), 0);
}

/*
 * IPC_EAGAIN, or how waits would end.  Without a broker nobody tells of deaths, nor rings for those
 * who have no bells: a look each slice, until the time of grace is over.
 */
static int set_rest(struct poll_set *set, bool asks)
{
	ipc_client *client = set->client;
	uint64_t due_ns = set_due_ns(set), slice_ns;
	int r = IPC_EAGAIN;

	if (asks)
		(void)client_check(client);
	if (UNLIKELY(atomic_load_explicit(&client->connection.fault, memory_order_acquire))) {
		r = client_check(client);
		slice_ns = clock_after_ns(FUTEX_SLICE_NS);
		if (r < 0)
			due_ns = 0;
		else if (slice_ns < due_ns)
			due_ns = slice_ns;
		if (r == 0)
			r = IPC_EAGAIN;

		/* For the look of the next slice. */
		atomic_fetch_add_explicit(&set->n_calls, 1, memory_order_relaxed);
	}

	if (r != IPC_ESTALE)
		set_timer(set, due_ns);
	return r;
}

/* 0: something is in LOOK. */
static int set_sleep(struct poll_set *set)
{
	struct bells *bells = &set->client->bells;
	struct poll_entry *entry;
	bool was_rung, is_called;

	if (!connection_is_ours(&set->client->connection))
		return IPC_ESTALE;

	/* [B1] Before anything is looked at: whoever changes it after that look rings again. */
	was_rung = bells_clear_own(bells);
	CRASH_POINT();
	if (!was_rung)
		set_take_events(set);

	is_called = set_is_called(set);
	set_wake(set, is_called, false);
	while ((entry = set->places[POLL_LOOSE])) {
		place_take(set, entry);
		(void)entry_lie_down(set, entry, true);
	}
	if (!set->places[POLL_LOOK])
		return set_rest(set, !was_rung || is_called);

	/* It was emptied a little early. */
	bells_ring_own(bells);
	return 0;
}

/* ---- the set ---- */

static bool set_give(struct poll_set *set, struct ipc_poll_event *ret)
{
	struct poll_entry *entry;

	while ((entry = set->places[POLL_LOOK])) {
		uint32_t ready = entry_look(set, entry);

		place_take(set, entry);
		if (!ready) {
			place_put(set, entry, POLL_LOOSE, false);
			continue;
		}

		/* Told once: from here on it is about the next step to gone. */
		if (ready & (IPC_READY_PEER_GONE | IPC_READY_END))
			entry->ready.wanted.began = entry->seen;

		place_put(set, entry, POLL_GIVEN, false);
		*ret = (struct ipc_poll_event){
			.handle = entry->ready.handle,
			.ready = ready,
			.userdata = entry->userdata,
		};
		return true;
	}
	return false;
}

/* Who was given in the last round comes after all others. */
static void set_begin_round(struct poll_set *set)
{
	set_wake(set, set_is_called(set), set->n_timed > 0);
	place_move_all(set, POLL_LOOSE, POLL_LOOK);
	place_move_all(set, POLL_GIVEN, POLL_LOOK);
}

int poll_set_next(struct poll_set *set, struct ipc_poll_event *ret)
{
	int r;

	if (set_give(set, ret))
		return 0;

	set_begin_round(set);
	for (unsigned i = 0; i < TURNS_MAX; ++i) {
		if (set_give(set, ret))
			return 0;

		r = set_sleep(set);
		if (r < 0)
			return r;
	}

	/* The bell is rung: the descriptor stays readable. */
	return set_give(set, ret) ? 0 : IPC_EAGAIN;
}

void poll_set_settle(struct poll_set *set, struct poll_entry *entry)
{
	place_take(set, entry);

	/* What is ready need not be armed. */
	if (entry_look(set, entry)) {
		place_put(set, entry, POLL_LOOK, false);
		bells_ring_own(&set->client->bells);
	} else if (entry_lie_down(set, entry, false)) {
		bells_ring_own(&set->client->bells);
	} else if (entry->ready.readiness->due_ns) {
		uint64_t due_ns = ready_due_ns(&entry->ready);

		if (due_ns < set->timer_ns)
			set_timer(set, due_ns);
	}
}

static int set_make_room(struct poll_set *set)
{
	uint32_t n_max = set->n_sleepers_max ? 2 * set->n_sleepers_max : 8;
	struct poll_sleeper *sleepers;

	if (atomic_load_explicit(&set->n_entries, memory_order_relaxed) < set->n_sleepers_max)
		return 0;

	sleepers = realloc(set->sleepers, n_max * sizeof(*sleepers));
	if (!sleepers)
		return IPC_ENOMEM;

	set->sleepers = sleepers;
	set->n_sleepers_max = n_max;
	return 0;
}

int poll_set_insert(struct poll_set *set, struct poll_entry *entry)
{
	int r;

	r = set_make_room(set);
	if (r < 0)
		return r;

	set->n_timed += entry->ready.readiness->due_ns != NULL;
	bells_poll_begin(&set->client->bells, entry->ready.endpoint->channel_slot);

	/* [B2] Whoever marks the handle and does not find an entry yet is found by the look that
	 * follows.  Pairs with [B3]; of a part, with LEFT in parts.c. */
	atomic_store_explicit(entry->polled, entry, memory_order_relaxed);
	atomic_fetch_add_explicit(&set->n_entries, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);

	place_put(set, entry, POLL_LOOSE, false);
	poll_set_settle(set, entry);
	return 0;
}

void poll_set_remove(struct poll_set *set, struct poll_entry *entry)
{
	place_take(set, entry);
	atomic_store_explicit(entry->polled, NULL, memory_order_relaxed);
	atomic_fetch_sub_explicit(&set->n_entries, 1, memory_order_relaxed);
	bells_poll_end(&set->client->bells, entry->ready.endpoint->channel_slot);
	set->n_timed -= entry->ready.readiness->due_ns != NULL;
	free(entry);
}

void poll_set_forget(struct poll_set *set, struct poll_entry *_Atomic *polled)
{
	struct poll_entry *entry;

	/* [B4] Whoever puts it in right now and is not seen here finds it closed or left, and takes
	 * it out.  Pairs with [B2].  So what is never in the set can be closed by a thread that
	 * holds the mutex: what a group opened, by one that hears of it in the middle of a look. */
	if (!atomic_load_explicit(polled, memory_order_seq_cst))
		return;

	pthread_mutex_lock(&set->mutex);
	entry = atomic_load_explicit(polled, memory_order_relaxed);
	if (entry)
		poll_set_remove(set, entry);
	pthread_mutex_unlock(&set->mutex);
}

void poll_set_look_again(struct poll_set *set)
{
	/* [B3] After the mark.  Pairs with [B2]. */
	atomic_fetch_add_explicit(&set->n_calls, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);

	if (atomic_load_explicit(&set->n_entries, memory_order_relaxed) &&
	    connection_is_ours(&set->client->connection))
		bells_ring_own(&set->client->bells);
}
