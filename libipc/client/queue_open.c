/* SPDX-License-Identifier: MIT */

/*
 * Opening and closing queues, with their dead letters, and what every role has.
 */

#include "libipc/client/queue.h"

#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/client/options.h"

#define QUEUE_PRIORITIES_DEFAULT 2
#define QUEUE_ITEMS_DEFAULT      1024
#define QUEUE_BYTES_DEFAULT      (UINT64_C(1) << 20)
#define QUEUE_ITEM_SIZE_DEFAULT  (UINT64_C(64) << 10)
#define QUEUE_ATTEMPTS_DEFAULT   3

/* ---- options ---- */

static uint64_t shape_word(uint32_t low, uint32_t high)
{
	return low | (uint64_t)high << 32;
}

static void shape_pack(uint64_t ret[4], const struct ipc_queue_options *options)
{
	ret[0] = shape_word(options->items_max, options->priorities);
	ret[1] = options->bytes_max;
	ret[2] = shape_word((uint32_t)options->item_size_max, options->attempts_max);
	ret[3] = shape_word(options->rate, options->burst);
}

static void options_fill(struct ipc_queue_options *options)
{
	if (!options->priorities)
		options->priorities = QUEUE_PRIORITIES_DEFAULT;
	if (!options->items_max)
		options->items_max = QUEUE_ITEMS_DEFAULT;
	if (!options->bytes_max)
		options->bytes_max = QUEUE_BYTES_DEFAULT;
	if (!options->item_size_max)
		options->item_size_max = options->bytes_max < QUEUE_ITEM_SIZE_DEFAULT
						 ? options->bytes_max
						 : QUEUE_ITEM_SIZE_DEFAULT;
	if (!options->attempts_max)
		options->attempts_max = QUEUE_ATTEMPTS_DEFAULT;
	if (!options->burst)
		options->burst = options->rate;
}

static bool options_are_in_range(const struct ipc_queue_options *options)
{
	if (options->priorities > IPC_PRIORITIES_MAX || options->items_max > QUEUE_ITEMS_MAX ||
	    options->bytes_max > QUEUE_BYTES_MAX || options->item_size_max > IPC_ITEM_SIZE_MAX)
		return false;
	if (options->bytes_max && options->item_size_max > options->bytes_max)
		return false;

	return options->rate || !options->burst;
}

static int queue_request(struct endpoint_request *ret, enum ipc_role role, const char *name,
			 const struct ipc_queue_options *given)
{
	struct ipc_queue_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags,
			  IPC_CREATE | IPC_EXCLUSIVE | IPC_KEEP | IPC_AWAIT | IPC_STAY,
			  &options.mode);
	if (r < 0)
		return r;
	if (options.reserved != 0)
		return IPC_E2BIG;
	if (!options_are_in_range(&options))
		return IPC_EINVAL;

	/* Another queue: what is moved must not come back. */
	if (options.dead_letters && strcmp(options.dead_letters, name) == 0)
		return IPC_EINVAL;

	*ret = (struct endpoint_request){
		.kind = IPC_KIND_QUEUE,
		.role = role,
		.side = role == IPC_ROLE_QUEUE_PRODUCER ? QUEUE_SIDE_PRODUCERS
							: QUEUE_SIDE_CONSUMERS,
		.name = name,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
		.dead_letters = options.dead_letters,
		.make = queue_make,
		.attach = queue_handle_attach,
	};
	shape_pack(ret->shape, &options);
	options_fill(&options);
	shape_pack(ret->shape_new, &options);
	ret->size_new = queue_segment_size(ret->shape_new);

	/* What is there may be larger than the defaults. */
	return (options.flags & IPC_CREATE) && !ret->size_new ? IPC_EINVAL : 0;
}

/* ---- handles ---- */

int queue_handle_attach(struct endpoint *endpoint)
{
	struct queue_handle *handle = (struct queue_handle *)endpoint;
	struct queue *view = &handle->view;
	int r;

	r = queue_attach(view, endpoint->header, endpoint->segment_size, endpoint->shape,
			 endpoint->id);
	if (r < 0)
		return r;

	view->table = endpoint->table;
	view->attention = endpoint->attention;
	view->channel_slot = endpoint->channel_slot;
	view->generation = endpoint->generation;
	view->process = endpoint_process(endpoint);
	view->lines = endpoint->lines;
	view->name = handle->name;
	view->ring = endpoint_ring;
	view->ring_userdata = endpoint;
	return 0;
}

static void queue_handle_closing(struct endpoint *endpoint)
{
	struct queue_handle *handle = (struct queue_handle *)endpoint;
	uint64_t consumers =
		liveness_side(endpoint->table, endpoint->channel_slot, QUEUE_SIDE_CONSUMERS);

	/* [Q1] endpoint_close() set `closing` and ran a heavy fence before.  Pairs with [Q2] in
	 * queue_handle_keep(). */
	queue_give_back(&handle->view);

	/* Nobody may call after this one.  The slot is this channel's as long as the handle is
	 * open. */
	if (endpoint->role == IPC_ROLE_QUEUE_PRODUCER && (consumers & SIDE_FINAL) &&
	    side_count(consumers) == 0 && liveness_handle_is(endpoint->table, endpoint->id))
		queue_abandon(&handle->view);
}

static void queue_handle_close(struct queue_handle *handle)
{
	if (handle)
		endpoint_close(&handle->endpoint);
}

static void queue_handle_closep(struct queue_handle **handle)
{
	queue_handle_close(*handle);
}

static void queue_handle_last(struct endpoint *endpoint)
{
	struct queue_handle *handle = (struct queue_handle *)endpoint;

	queue_end(&handle->view);
	queue_handle_close(steal(&handle->dead));
}

void queue_handle_free(struct endpoint *endpoint)
{
	struct queue_handle *handle = (struct queue_handle *)endpoint;

	/* Left over in a forked child alone. */
	queue_handle_close(handle->dead);
	free(handle);
}

int queue_handle_begin(struct queue_handle *handle, struct queue_handle *dead, const char *name)
{
	int r;

	memcpy(handle->name, name, strlen(name) + 1);
	handle->view.dead = dead ? &dead->view : NULL;
	r = queue_begin(&handle->view);
	if (r < 0)
		return r;

	handle->dead = dead;
	handle->endpoint.closing_fn = queue_handle_closing;
	handle->endpoint.last_fn = queue_handle_last;
	return 0;
}

/* The name is a legal one, and so fits, if it is open. */
static int queue_handle_open_wait(struct queue_handle **ret, ipc_client *client,
				  const struct endpoint_request *request,
				  const struct timespec *deadline)
{
	struct endpoint *endpoint;
	struct queue_handle *handle;
	int r;

	r = endpoint_new_wait(&endpoint, sizeof(*handle), client, request, deadline);
	if (r < 0)
		return r;

	handle = (struct queue_handle *)endpoint;
	handle->endpoint.release = queue_handle_free;
	*ret = handle;
	return 0;
}

/* A queue of dead letters has none itself: what is moved stops there. */
static int dead_letters_open_wait(struct queue_handle **ret, ipc_client *client, const char *name,
				  const struct timespec *deadline)
{
	CLEANUP(queue_handle_closep) struct queue_handle *dead = NULL;
	char its_own[QUEUE_NAME_SIZE] = "";
	const struct endpoint_request request = {
		.kind = IPC_KIND_QUEUE,
		.role = IPC_ROLE_QUEUE_PRODUCER,
		.side = QUEUE_SIDE_PRODUCERS,
		.name = name,
		.ret_dead_letters = its_own,
		.is_uncounted = true,
		.attach = queue_handle_attach,
	};
	int r;

	r = queue_handle_open_wait(&dead, client, &request, deadline);
	if (r < 0)
		return r;
	if (its_own[0] != '\0')
		return IPC_EINVAL;

	r = queue_handle_begin(dead, NULL, name);
	if (r < 0)
		return r;

	*ret = steal(&dead);
	return 0;
}

/*
 * Dead letters that are named come first: without them the queue must not be made.  Else they are
 * those of the queue, and known once it is open.
 */
static int queue_open_wait(struct queue_handle **ret, ipc_client *client, enum ipc_role role,
			   const char *name, const struct ipc_queue_options *options,
			   const struct timespec *deadline)
{
	CLEANUP(queue_handle_closep) struct queue_handle *dead = NULL, *handle = NULL;
	char dead_name[QUEUE_NAME_SIZE] = "";
	struct endpoint_request request;
	int r;

	if (!client || !name)
		return IPC_EINVAL;

	r = queue_request(&request, role, name, options);
	if (r == 0 && request.dead_letters)
		r = dead_letters_open_wait(&dead, client, request.dead_letters, deadline);
	if (r < 0)
		return r;

	request.ret_dead_letters = dead_name;
	r = queue_handle_open_wait(&handle, client, &request, deadline);
	if (r == 0 && !dead && dead_name[0] != '\0')
		r = dead_letters_open_wait(&dead, client, dead_name, deadline);
	if (r == 0)
		r = queue_handle_begin(handle, dead, name);
	if (r < 0)
		return r;

	dead = NULL;
	*ret = steal(&handle);
	return 0;
}

int ipc_queue_producer_open_wait(ipc_queue_producer **ret, ipc_client *client, const char *name,
				 const struct ipc_queue_options *options,
				 const struct timespec *deadline)
{
	struct queue_handle *handle;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = queue_open_wait(&handle, client, IPC_ROLE_QUEUE_PRODUCER, name, options, deadline);
	if (r < 0)
		return r;

	handle->endpoint.readiness = &queue_producer_readiness;
	*ret = (ipc_queue_producer *)handle;
	return 0;
}

int ipc_queue_consumer_open_wait(ipc_queue_consumer **ret, ipc_client *client, const char *name,
				 const struct ipc_queue_options *options,
				 const struct timespec *deadline)
{
	struct queue_handle *handle;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = queue_open_wait(&handle, client, IPC_ROLE_QUEUE_CONSUMER, name, options, deadline);
	if (r < 0)
		return r;

	handle->endpoint.readiness = &queue_consumer_readiness;
	*ret = (ipc_queue_consumer *)handle;
	return 0;
}

/* ---- what every role has ---- */

ipc_queue_producer *ipc_queue_producer_close(ipc_queue_producer *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_QUEUE_PRODUCER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_queue_consumer *ipc_queue_consumer_close(ipc_queue_consumer *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_QUEUE_CONSUMER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

int ipc_queue_producer_cancel(ipc_queue_producer *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_QUEUE_PRODUCER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_queue_consumer_cancel(ipc_queue_consumer *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_QUEUE_CONSUMER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_queue_producer_get_id(const ipc_queue_producer *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_QUEUE_PRODUCER, ret);
}

int ipc_queue_consumer_get_id(const ipc_queue_consumer *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_QUEUE_CONSUMER, ret);
}

int ipc_queue_producer_peers(ipc_queue_producer *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_QUEUE_PRODUCER);
}

int ipc_queue_consumer_peers(ipc_queue_consumer *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_QUEUE_CONSUMER);
}

int ipc_queue_producer_peers_wait(ipc_queue_producer *handle, bool present,
				  const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_QUEUE_PRODUCER, present,
				   deadline);
}

int ipc_queue_consumer_peers_wait(ipc_queue_consumer *handle, bool present,
				  const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_QUEUE_CONSUMER, present,
				   deadline);
}
