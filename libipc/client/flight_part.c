/* SPDX-License-Identifier: MIT */

/*
 * The public functions of a part: joining and asking, looks and waits, what a leader does and what
 * anybody may ask.
 */

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/client.h"
#include "libipc/client/flight.h"
#include "libipc/platform/clock.h"

/* ---- joining ---- */

int part_join(struct flight_owner *owner, const struct flight_wish *wish, ipc_flight **ret)
{
	ipc_flight *flight;
	int r;

	r = parts_take(owner, &flight);
	if (r < 0)
		return r;

	flight->part.form = wish->form;
	flight->part.stays = owner->endpoint.stays;
	r = flight_join(&owner->view, &flight->part, wish->key, wish->key_size, wish->urgency);
	if (r < 0) {
		parts_abort(flight, false);
		return r;
	}

	*ret = flight;
	return r;
}

/* How a part waits.  The leader may change from look to look. */
struct part_waiting {
	ipc_flight *flight;
	struct waiter waiter;
};

static void waiting_show_leader(struct part_waiting *waiting)
{
	struct flight_owner *owner = part_owner(waiting->flight);
	struct desk_cell *cell = owner->endpoint.cell;
	uint64_t leader = flight_leader_id(&owner->view, &waiting->flight->part);

	if (leader == waiting->waiter.waits_for)
		return;

	waiting->waiter.waits_for = leader;
	if (atomic_load_explicit(&cell->waits_since, memory_order_relaxed))
		atomic_store_explicit(&cell->waits_for, leader, memory_order_relaxed);
}

static int part_look(void *subject)
{
	struct part_waiting *waiting = subject;
	ipc_flight *flight = waiting->flight;
	int r;

	r = flight_look(&part_owner(flight)->view, &flight->part);
	if (r != IPC_EAGAIN)
		return r;
	if (atomic_load_explicit(&flight->handle.cancelled, memory_order_acquire))
		return IPC_ECANCELED;

	waiting_show_leader(waiting);
	return WAITER_NOT_YET;
}

int part_wait(ipc_flight *flight, uint64_t deadline_ns)
{
	struct flight_owner *owner = part_owner(flight);
	struct part_waiting waiting = {.flight = flight};

	endpoint_waiter(&owner->endpoint, &waiting.waiter,
			flight_event(&owner->view, &flight->part), deadline_ns);
	return waiter_wait(&waiting.waiter, part_look, &waiting);
}

static int table_join(ipc_flight **ret, ipc_flight_table *table, const struct flight_wish *wish)
{
	ipc_flight *flight;
	int r, given;

	r = endpoint_enter((struct endpoint *)table, IPC_ROLE_FLIGHT_TABLE);
	if (r < 0)
		return r;

	r = ret ? part_join(&table->owner, wish, &flight) : IPC_EINVAL;
	if (r >= 0) {
		given = parts_give(flight);
		if (given < 0)
			r = given;
		else
			*ret = flight;
	}

	endpoint_leave((struct endpoint *)table);
	return r;
}

/* A wait that fails leaves the flight again. */
static int join_and_wait(struct flight_owner *owner, const struct flight_wish *wish,
			 uint64_t deadline_ns, ipc_flight **ret)
{
	ipc_flight *flight;
	int r, given;

	r = part_join(owner, wish, &flight);
	if (r < 0)
		return r;

	if (r == 2)
		r = part_wait(flight, deadline_ns);
	if (r < 0) {
		parts_abort(flight, true);
		return r;
	}

	given = parts_give(flight);
	if (given < 0)
		return given;

	*ret = flight;
	return r;
}

static int table_join_wait(ipc_flight **ret, ipc_flight_table *table,
			   const struct flight_wish *wish, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)table, IPC_ROLE_FLIGHT_TABLE);
	if (r < 0)
		return r;

	r = ret ? join_and_wait(&table->owner, wish, deadline_ns, ret) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)table);
	return r;
}

int ipc_flight_join(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size)
{
	const struct flight_wish wish = {.form = FLIGHT_JOIN, .key = key, .key_size = key_size};

	return table_join(ret, table, &wish);
}

int ipc_flight_join_wait(ipc_flight **ret, ipc_flight_table *table, const void *key,
			 size_t key_size, const struct timespec *deadline)
{
	const struct flight_wish wish = {.form = FLIGHT_JOIN, .key = key, .key_size = key_size};

	return table_join_wait(ret, table, &wish, deadline);
}

int ipc_flight_ask(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size,
		   uint32_t urgency)
{
	const struct flight_wish wish = {
		.form = FLIGHT_ASK, .key = key, .key_size = key_size, .urgency = urgency};

	return table_join(ret, table, &wish);
}

int ipc_flight_ask_wait(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size,
			uint32_t urgency, const struct timespec *deadline)
{
	const struct flight_wish wish = {
		.form = FLIGHT_ASK, .key = key, .key_size = key_size, .urgency = urgency};

	return table_join_wait(ret, table, &wish, deadline);
}

/* ---- a part ---- */

static int part_enter(const ipc_flight *flight)
{
	if (UNLIKELY(!endpoint_is_part((const struct endpoint_part *)flight)))
		return IPC_EINVAL;

	return endpoint_enter(flight->handle.endpoint, 0);
}

static void part_exit(const ipc_flight *flight)
{
	endpoint_leave(flight->handle.endpoint);
}

/* The same as a visitor. */
static int part_enter_visiting(ipc_flight *flight)
{
	int r;

	r = part_enter(flight);
	if (r < 0)
		return r;

	r = part_begin(flight);
	if (r < 0)
		part_exit(flight);
	return r;
}

static void part_exit_visiting(ipc_flight *flight)
{
	part_end(flight);
	part_exit(flight);
}

int ipc_flight_look(ipc_flight *flight)
{
	int r;

	r = part_enter_visiting(flight);
	if (r < 0)
		return r;

	r = flight_look(&part_owner(flight)->view, &flight->part);
	part_exit_visiting(flight);
	return r;
}

int ipc_flight_look_wait(ipc_flight *flight, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = part_enter_visiting(flight);
	if (r < 0)
		return r;

	r = part_wait(flight, deadline_ns);
	part_exit_visiting(flight);
	return r;
}

/* ---- the leader ---- */

static int part_finish(ipc_flight *flight, enum ipc_failure failure, int32_t code, const void *data,
		       size_t size)
{
	uint64_t use;
	int r;

	r = part_enter(flight);
	if (r < 0)
		return r;

	use = part_use(flight);
	if (LIKELY((use & (PART_IN_USE | PART_LEFT)) == PART_IN_USE)) {
		r = flight_finish(&part_owner(flight)->view, &flight->part, use, failure, code,
				  data, size);
		part_settle(flight);
	} else {
		r = IPC_EINVAL;
	}

	part_exit(flight);
	return r;
}

int ipc_flight_land(ipc_flight *flight, const void *data, size_t size)
{
	return part_finish(flight, IPC_FAILURE_NONE, 0, data, size);
}

/* What a caller may say. */
static bool failure_is_sayable(enum ipc_failure failure)
{
	switch (failure) {
	case IPC_FAILURE_NOT_FOUND:
	case IPC_FAILURE_REFUSED:
	case IPC_FAILURE_UPSTREAM:
	case IPC_FAILURE_LOCAL:
	case IPC_FAILURE_TIMED_OUT:
	case IPC_FAILURE_TOO_BIG:
		return true;
	case IPC_FAILURE_NONE:
	case IPC_FAILURE_ABANDONED:
		return false;
	}

	return false;
}

int ipc_flight_fail(ipc_flight *flight, enum ipc_failure failure, int32_t code, const void *reason,
		    size_t size)
{
	if (!failure_is_sayable(failure))
		return IPC_EINVAL;

	return part_finish(flight, failure, code, reason, size);
}

/* ---- what a part can be asked ---- */

/*
 * The end of a call that has only looked.  One that another thread has left meanwhile may be
 * somebody's next flight by now.
 */
static int part_looked(const ipc_flight *flight, uint64_t use, int r)
{
	if (UNLIKELY((part_use(flight) ^ use) >> 32 != 0))
		r = IPC_EINVAL;

	part_exit(flight);
	return r;
}

int ipc_flight_get_key(const ipc_flight *flight, const void **ret_key, size_t *ret_size)
{
	const void *key;
	uint64_t use;
	size_t size;
	int r;

	if (!ret_key || !ret_size)
		return IPC_EINVAL;

	r = part_enter(flight);
	if (r < 0)
		return r;

	use = part_use(flight);
	flight_get_key(&part_owner(flight)->view, &flight->part, &key, &size);
	r = part_looked(flight, use, 0);
	if (r < 0)
		return r;

	*ret_key = key;
	*ret_size = size;
	return 0;
}

int ipc_flight_get_urgency(const ipc_flight *flight, uint32_t *ret)
{
	uint32_t urgency;
	uint64_t use;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = part_enter(flight);
	if (r < 0)
		return r;

	use = part_use(flight);
	urgency = flight_get_urgency(&part_owner(flight)->view, &flight->part);
	r = part_looked(flight, use, 0);
	if (r == 0)
		*ret = urgency;
	return r;
}

int ipc_flight_get_fence(const ipc_flight *flight, uint64_t *ret)
{
	uint64_t use, fence;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = part_enter(flight);
	if (r < 0)
		return r;

	/* What is const to the caller is shared with those who take leads. */
	use = part_use(flight);
	r = flight_get_fence(&part_owner(flight)->view, &((ipc_flight *)flight)->part, &fence);
	r = part_looked(flight, use, r);
	if (r == 0)
		*ret = fence;
	return r;
}

int ipc_flight_get_result(const ipc_flight *flight, struct ipc_flight_result *ret)
{
	struct ipc_flight_result result;
	uint64_t use;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = part_enter(flight);
	if (r < 0)
		return r;

	use = part_use(flight);
	r = flight_get_result(&part_owner(flight)->view, &flight->part, &result);
	r = part_looked(flight, use, r);
	if (r == 0)
		*ret = result;
	return r;
}

/* ---- cancel, leave ---- */

int ipc_flight_cancel(ipc_flight *flight)
{
	struct endpoint *endpoint;
	int r = 0;

	if (!endpoint_is_part((struct endpoint_part *)flight))
		return IPC_EINVAL;

	endpoint = flight->handle.endpoint;
	if (thread_is_foreign(endpoint->epoch))
		return IPC_ECHILD;

	/* As endpoint_cancel(): perhaps in a signal handler. */
	thread_visit();
	if (endpoint_check(endpoint) == 0) {
		atomic_store_explicit(&flight->handle.cancelled, 1, memory_order_release);
		endpoint_bump(endpoint);
		poll_set_look_again(&endpoint->client->polls);
	} else {
		r = IPC_ESTALE;
	}
	thread_visit_end();

	return r;
}

ipc_flight *ipc_flight_leave(ipc_flight *flight)
{
	struct endpoint *endpoint;

	if (!endpoint_is_part((struct endpoint_part *)flight))
		return NULL;

	/* In a forked child nothing is there that could be left; inside of a callback, and for a
	 * client that is held dead, it is. */
	endpoint = flight->handle.endpoint;
	switch (thread_enter(endpoint, endpoint->epoch)) {
	case 0:
		part_leave(flight);
		thread_leave();
		break;
	case IPC_EDEADLK:
		thread_visit();
		part_leave(flight);
		thread_visit_end();
		break;
	default:
		atomic_store_explicit(&flight->handle.magic, 0, memory_order_relaxed);
	}

	return NULL;
}

/* ---- waits for several ---- */

static struct eventcount *part_event(void *handle)
{
	const ipc_flight *flight = handle;

	return flight_event(&part_owner(flight)->view, &flight->part);
}

static uint32_t part_ready(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_flight *flight = handle;
	int r = flight_look(&part_owner(flight)->view, &flight->part);

	if (r >= 0)
		return wanted->events & IPC_READY_READABLE;

	return r == IPC_EAGAIN ? 0 : IPC_READY_END;
}

static uint64_t part_waits_for(void *handle)
{
	const ipc_flight *flight = handle;

	return flight_leader_id(&part_owner(flight)->view, &flight->part);
}

static int part_ready_begin(void *handle)
{
	return part_begin(handle);
}

static void part_ready_end(void *handle)
{
	part_end(handle);
}

const struct endpoint_readiness flight_part_readiness = {
	.events = IPC_READY_READABLE,
	.event = part_event,
	.look = part_ready,
	.waits_for = part_waits_for,
	.begin = part_ready_begin,
	.end = part_ready_end,
};
