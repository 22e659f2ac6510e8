/* SPDX-License-Identifier: MIT */

/*
 * ipc_flight_do_wait(): join, run the operation if this caller leads, copy the result, leave.
 *
 * The calling thread stays inside of the table while fn runs, so that the part does not go away
 * under it; calls of fn nest.  The part itself is not kept: close of the table by another thread,
 * and fn that leaves it, hand the lead on at once.  So after fn the part is taken by the use that
 * it had before.
 */

#include <string.h>

#include <ipc/error.h>

#include "libipc/client/flight.h"
#include "libipc/platform/clock.h"

struct doing {
	struct flight_owner *owner;
	const struct flight_wish *wish;
	ipc_flight_fn fn;
	void *userdata;
	void *buffer;
	size_t size;
	uint64_t deadline_ns;
	struct ipc_flight_result result; /* what the caller gets */
};

/* The result is this part's to read.  0: landed; 1: failed; or what the call says. */
static int doing_copy(struct doing *doing, const ipc_flight *flight)
{
	struct ipc_flight_result *result = &doing->result;
	bool has_failed;
	int r;

	r = flight_get_result(&doing->owner->view, &flight->part, result);
	if (r < 0)
		return r;

	has_failed = result->failure != IPC_FAILURE_NONE;
	if (result->size > doing->size) {
		if (!has_failed)
			return IPC_EMSGSIZE;
		result->size = doing->size;
	}

	if (result->size > 0)
		memcpy(doing->buffer, result->data, result->size);
	result->data = result->size > 0 ? doing->buffer : NULL;

	/* Held dead meanwhile: those may be the bytes of another flight. */
	if (!liveness_handle_is(doing->owner->endpoint.table, doing->owner->endpoint.id))
		return IPC_ESTALE;

	return has_failed;
}

/* fn has returned, the part is still this call's.  0: the flight is finished. */
static int doing_after_fn(struct doing *doing, ipc_flight *flight, int fn_result)
{
	struct ipc_flight_result result;
	int r;

	/* Passed over: what is finished by now is not what fn has done. */
	r = endpoint_check(&doing->owner->endpoint);
	if (r < 0)
		return r;

	r = flight_get_result(&doing->owner->view, &flight->part, &result);
	if (r != IPC_EAGAIN)
		return r;
	if (fn_result >= 0)
		return IPC_EINVAL;

	r = flight_finish(&doing->owner->view, &flight->part, part_use(flight), IPC_FAILURE_LOCAL,
			  fn_result, NULL, 0);
	part_settle(flight);
	return r;
}

/* With a part that leads and is joining; as doing_copy(). */
static int doing_lead(struct doing *doing, ipc_flight *flight)
{
	uint64_t use = part_use(flight);
	const void *key;
	size_t key_size;
	int r, fn_result;

	flight_get_key(&doing->owner->view, &flight->part, &key, &key_size);
	r = parts_give(flight);
	if (r < 0)
		return r;

	fn_result = doing->fn(flight, key, key_size, doing->userdata);

	/* fn has forked, and this is the child. */
	if (thread_is_foreign(doing->owner->endpoint.epoch))
		return IPC_ECHILD;

	r = part_begin_again(flight, use);
	if (r < 0)
		return atomic_load_explicit(&doing->owner->endpoint.closing, memory_order_relaxed)
			       ? IPC_ECANCELED
			       : IPC_EINVAL;

	r = doing_after_fn(doing, flight, fn_result);
	if (r == 0)
		r = doing_copy(doing, flight);

	part_leave_visited(flight);
	return r;
}

static int doing_run(struct doing *doing)
{
	ipc_flight *flight;
	int r;

	r = part_join(doing->owner, doing->wish, &flight);
	if (r < 0)
		return r;

	if (r == 2)
		r = part_wait(flight, doing->deadline_ns);
	if (r == 1)
		return doing_lead(doing, flight);

	if (r == 0)
		r = doing_copy(doing, flight);
	parts_abort(flight, true);
	return r;
}

int ipc_flight_do_wait(ipc_flight_table *table, const void *key, size_t key_size, ipc_flight_fn fn,
		       void *userdata, void *buffer, size_t size, struct ipc_flight_result *ret,
		       const struct timespec *deadline)
{
	const struct flight_wish wish = {.form = FLIGHT_JOIN, .key = key, .key_size = key_size};
	struct doing doing = {
		.wish = &wish, .fn = fn, .userdata = userdata, .buffer = buffer, .size = size};
	int r;

	if (!fn || !ret || (!buffer && size > 0))
		return IPC_EINVAL;

	r = clock_deadline(&doing.deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)table, IPC_ROLE_FLIGHT_TABLE);
	if (r < 0)
		return r;

	doing.owner = &table->owner;
	r = doing_run(&doing);
	endpoint_leave((struct endpoint *)table);

	if (r >= 0)
		*ret = doing.result;
	else if (r == IPC_EMSGSIZE && doing.result.size > size)
		ret->size = doing.result.size;
	return r;
}
