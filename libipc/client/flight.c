/* SPDX-License-Identifier: MIT */

/*
 * The two roles of the kind `flight`: opening, closing, what every role has, and the handler's
 * take.
 */

#include "libipc/client/flight.h"

#include <ipc/error.h>
#include <ipc/limits.h>
#include <ipc/wait.h>

#include "libipc/client/client.h"
#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

#define FLIGHT_KEYS_DEFAULT        1024
#define FLIGHT_ATTEMPTS_DEFAULT    3
#define FLIGHT_KEY_SIZE_DEFAULT    256
#define FLIGHT_RESULT_SIZE_DEFAULT 65536

/* ---- tables ---- */

int ipc_flight_table_count(ipc_flight_table *table)
{
	uint32_t n;
	int r;

	r = endpoint_enter((struct endpoint *)table, IPC_ROLE_FLIGHT_TABLE);
	if (r < 0)
		return r;

	r = header_fault(table->owner.endpoint.header);
	if (r == 0) {
		n = flight_count(&table->owner.view);
		r = (int)n;
	}

	endpoint_leave((struct endpoint *)table);
	return r;
}

/* Its flights end; a table by itself has no end but a fault. */
static uint32_t table_ready(void *handle, const struct endpoint_wanted *wanted)
{
	const ipc_flight_table *table = handle;

	(void)wanted;
	return header_fault(table->owner.endpoint.header) < 0 ? IPC_READY_END : 0;
}

static const struct endpoint_readiness table_readiness = {
	.events = IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE,
	.look = table_ready,
};

/* ---- handlers ---- */

enum { TAKING_CELLS_MAX = 4096 };

struct taking {
	struct flight_owner *owner;
	struct flight_part *part;
	uint64_t began; /* the tables' side word */
};

/* 0, the end, or WAITER_NOT_YET. */
static int taking_look(void *subject)
{
	struct taking *taking = subject;
	int r, end;

	r = flight_take(&taking->owner->view, taking->part);
	if (r != IPC_EAGAIN)
		return r;

	end = endpoint_opposite_end(&taking->owner->endpoint, taking->began);
	if (end == 0)
		return WAITER_NOT_YET;

	/* The last key may have come between the two looks. */
	r = flight_take(&taking->owner->view, taking->part);
	return r != IPC_EAGAIN ? r : end;
}

static int taking_wait(struct taking *taking, uint64_t deadline_ns)
{
	struct waiter waiter;

	endpoint_waiter(&taking->owner->endpoint, &waiter,
			flight_handlers_event(&taking->owner->view), deadline_ns);

	/* A look goes over all keys: in a large table it is no cheaper than a sleep. */
	if (taking->owner->view.n_cells > TAKING_CELLS_MAX)
		waiter.patience = NULL;
	return waiter_wait(&waiter, taking_look, taking);
}

/* deadline_ns NULL: without a wait. */
static int handler_take(struct flight_owner *owner, ipc_flight **ret, const uint64_t *deadline_ns)
{
	struct taking taking = {.owner = owner, .began = endpoint_opposite(&owner->endpoint)};
	ipc_flight *flight;
	int r;

	r = parts_take(owner, &flight);
	if (r < 0)
		return r;

	flight->part.form = FLIGHT_TAKEN;
	taking.part = &flight->part;
	r = deadline_ns ? taking_wait(&taking, *deadline_ns) : taking_look(&taking);
	if (r == WAITER_NOT_YET)
		r = IPC_EAGAIN;
	if (r < 0) {
		parts_abort(flight, false);
		return r;
	}

	r = parts_give(flight);
	if (r == 0)
		*ret = flight;
	return r;
}

int ipc_handler_take(ipc_flight **ret, ipc_handler *handler)
{
	int r;

	r = endpoint_enter((struct endpoint *)handler, IPC_ROLE_HANDLER);
	if (r < 0)
		return r;

	r = ret ? handler_take(&handler->owner, ret, NULL) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)handler);
	return r;
}

int ipc_handler_take_wait(ipc_flight **ret, ipc_handler *handler, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)handler, IPC_ROLE_HANDLER);
	if (r < 0)
		return r;

	r = ret ? handler_take(&handler->owner, ret, &deadline_ns) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)handler);
	return r;
}

static struct eventcount *handler_event(void *handle)
{
	const ipc_handler *handler = handle;

	return flight_handlers_event(&handler->owner.view);
}

/* A key is taken before the end is told. */
static uint32_t handler_ready(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_handler *handler = handle;
	struct flight_owner *owner = &handler->owner;

	if (header_fault(owner->endpoint.header) < 0)
		return IPC_READY_END;
	if (!flight_is_takeable(&owner->view)) {
		if (endpoint_opposite_end(&owner->endpoint, wanted->began) == 0)
			return 0;
		if (!flight_is_takeable(&owner->view))
			return IPC_READY_END;
	}

	return wanted->events & IPC_READY_READABLE;
}

static const struct endpoint_readiness handler_readiness = {
	.events = IPC_READY_READABLE | IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE,
	.event = handler_event,
	.look = handler_ready,
};

/* ---- open ---- */

static int flight_attach_endpoint(struct endpoint *endpoint)
{
	struct flight_owner *owner = (struct flight_owner *)endpoint;
	struct flight *view = &owner->view;
	struct desk *desk = endpoint->client->desk;
	int r;

	r = flight_attach(view, endpoint->header, endpoint->segment_size, endpoint->shape,
			  endpoint->channel_flags, endpoint->id);
	if (r < 0)
		return r;

	view->table = endpoint->table;
	view->channel_slot = endpoint->channel_slot;
	view->fence = &desk->fence;
	view->fence_lane = desk->lane;
	view->is_foreign = endpoint->lines_map != NULL;
	view->ring = endpoint_ring;
	view->ring_userdata = endpoint;
	return 0;
}

static bool options_are_in_range(const struct ipc_flight_table_options *options)
{
	return options->keys_max <= FLIGHT_KEYS_MAX && options->key_size_max <= IPC_KEY_SIZE_MAX &&
	       options->result_size_max <= IPC_ITEM_SIZE_MAX;
}

static int flight_request(struct endpoint_request *ret, enum ipc_role role, const char *name,
			  const struct ipc_flight_table_options *given)
{
	struct ipc_flight_table_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags,
			  IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_STAY |
				  IPC_FLIGHT_TABLE_NO_PROMOTE,
			  &options.mode);
	if (r < 0)
		return r;
	if (!options_are_in_range(&options))
		return IPC_EINVAL;

	*ret = (struct endpoint_request){
		.kind = IPC_KIND_FLIGHT,
		.role = role,
		.side = role == IPC_ROLE_HANDLER ? FLIGHT_SIDE_HANDLERS : FLIGHT_SIDE_TABLES,
		.name = name,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
		.shape = {options.result_size_max, options.keys_max, options.key_size_max,
			  options.attempts_max},
		.shape_new = {options.result_size_max ? options.result_size_max
						      : FLIGHT_RESULT_SIZE_DEFAULT,
			      options.keys_max ? options.keys_max : FLIGHT_KEYS_DEFAULT,
			      options.key_size_max ? options.key_size_max : FLIGHT_KEY_SIZE_DEFAULT,
			      options.attempts_max ? options.attempts_max
						   : FLIGHT_ATTEMPTS_DEFAULT},
		.make = flight_make,
		.attach = flight_attach_endpoint,
	};
	ret->size_new = flight_segment_size(ret->shape_new);
	return 0;
}

static int flight_open_wait(struct flight_owner **ret, ipc_client *client, const char *name,
			    enum ipc_role role, const struct ipc_flight_table_options *options,
			    const struct timespec *deadline)
{
	struct endpoint_request request;
	struct endpoint *endpoint;
	struct flight_owner *owner;
	int r;

	if (!client || !name)
		return IPC_EINVAL;

	r = flight_request(&request, role, name, options);
	if (r < 0)
		return r;

	r = endpoint_new_wait(&endpoint, sizeof(*owner), client, &request, deadline);
	if (r < 0)
		return r;

	owner = (struct flight_owner *)endpoint;
	parts_init(owner);
	owner->endpoint.release = parts_release;
	owner->endpoint.closing_fn = parts_closing;
	owner->endpoint.readiness =
		role == IPC_ROLE_HANDLER ? &handler_readiness : &table_readiness;
	*ret = owner;
	return 0;
}

int ipc_flight_table_open_wait(ipc_flight_table **ret, ipc_client *client, const char *name,
			       const struct ipc_flight_table_options *options,
			       const struct timespec *deadline)
{
	struct flight_owner *owner;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = flight_open_wait(&owner, client, name, IPC_ROLE_FLIGHT_TABLE, options, deadline);
	if (r == 0)
		*ret = (ipc_flight_table *)owner;
	return r;
}

int ipc_handler_open_wait(ipc_handler **ret, ipc_client *client, const char *name,
			  const struct ipc_flight_table_options *options,
			  const struct timespec *deadline)
{
	struct flight_owner *owner;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = flight_open_wait(&owner, client, name, IPC_ROLE_HANDLER, options, deadline);
	if (r == 0)
		*ret = (ipc_handler *)owner;
	return r;
}

/* ---- what every role has ---- */

ipc_flight_table *ipc_flight_table_close(ipc_flight_table *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_FLIGHT_TABLE))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_handler *ipc_handler_close(ipc_handler *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_HANDLER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

int ipc_flight_table_cancel(ipc_flight_table *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_FLIGHT_TABLE))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_handler_cancel(ipc_handler *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_HANDLER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_flight_table_get_id(const ipc_flight_table *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_FLIGHT_TABLE, ret);
}

int ipc_handler_get_id(const ipc_handler *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_HANDLER, ret);
}

int ipc_flight_table_peers(ipc_flight_table *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_FLIGHT_TABLE);
}

int ipc_handler_peers(ipc_handler *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_HANDLER);
}

int ipc_flight_table_peers_wait(ipc_flight_table *handle, bool present,
				const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_FLIGHT_TABLE, present,
				   deadline);
}

int ipc_handler_peers_wait(ipc_handler *handle, bool present, const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_HANDLER, present, deadline);
}
