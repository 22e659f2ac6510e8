/* SPDX-License-Identifier: MIT */

/*
 * The public functions of the kind `watch`: endpoints, and views of channel/watch.h.
 */

#include "libipc/client/watch.h"

#include <stdatomic.h>

#include "libipc/channel/watch.h"
#include "libipc/client/endpoint.h"
#include "libipc/client/options.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

#define WATCH_VALUE_SIZE_DEFAULT 4096
#define WATCH_CONSUMERS_DEFAULT  64

/* ---- open ---- */

int watch_producer_attach(struct endpoint *endpoint)
{
	ipc_watch_producer *producer = (ipc_watch_producer *)endpoint;

	return watch_attach(&producer->view, endpoint->header, endpoint->segment_size,
			    endpoint->shape, endpoint->lines);
}

static int consumer_attach(struct endpoint *endpoint)
{
	ipc_watch_consumer *consumer = (ipc_watch_consumer *)endpoint;

	return watch_attach(&consumer->view, endpoint->header, endpoint->segment_size,
			    endpoint->shape, endpoint->lines);
}

/*
 * An open edit is dropped.  Only the thread that holds the lock can let go of it: if it is another
 * one of this process, the memory stays mapped, since the C library would write into the lock when
 * that thread takes its next robust lock or ends; its end frees the lock.  A thread that is just
 * taking the lock either sees `closing` (producer_keep_edit) or is seen here.
 */
static void producer_closing(struct endpoint *endpoint)
{
	ipc_watch_producer *producer = (ipc_watch_producer *)endpoint;

	/* [W1] endpoint_close() set `closing` and ran a heavy fence before.  Pairs with [W2]. */
	if (!atomic_load_explicit(&producer->is_editing, memory_order_relaxed))
		return;

	if (watch_is_editing(&producer->view, endpoint->id)) {
		atomic_store_explicit(&producer->is_editing, 0, memory_order_relaxed);
		watch_abort(&producer->view);
	}
}

/* An edit that began just then may have ended with the close. */
static void producer_last(struct endpoint *endpoint)
{
	const ipc_watch_producer *producer = (const ipc_watch_producer *)endpoint;

	endpoint->keep_mapped =
		atomic_load_explicit(&producer->is_editing, memory_order_relaxed) != 0;
}

static int watch_request(struct endpoint_request *ret, enum ipc_role role, const char *name,
			 const struct ipc_watch_options *given)
{
	struct ipc_watch_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags, IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_STAY,
			  &options.mode);
	if (r < 0)
		return r;
	if (options.reserved != 0)
		return IPC_E2BIG;
	if (options.value_size_max > IPC_VALUE_SIZE_MAX)
		return IPC_EINVAL;

	*ret = (struct endpoint_request){
		.kind = IPC_KIND_WATCH,
		.role = role,
		.side = role == IPC_ROLE_WATCH_PRODUCER ? WATCH_PRODUCERS : WATCH_CONSUMERS,
		.name = name,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
		.shape = {options.value_size_max, options.consumers_max},
		.shape_new = {options.value_size_max ? options.value_size_max
						     : WATCH_VALUE_SIZE_DEFAULT,
			      options.consumers_max ? options.consumers_max
						    : WATCH_CONSUMERS_DEFAULT},
		.make = watch_make,
		.attach = role == IPC_ROLE_WATCH_PRODUCER ? watch_producer_attach : consumer_attach,
	};
	ret->size_new = watch_size(ret->shape_new);
	return 0;
}

int watch_producer_open_wait(ipc_watch_producer **ret, ipc_client *client,
			     const struct endpoint_request *request,
			     const struct timespec *deadline)
{
	struct endpoint *endpoint;
	ipc_watch_producer *producer;
	int r;

	r = endpoint_new_wait(&endpoint, sizeof(*producer), client, request, deadline);
	if (r < 0)
		return r;

	producer = (ipc_watch_producer *)endpoint;
	producer->endpoint.closing_fn = producer_closing;
	producer->endpoint.last_fn = producer_last;
	producer->endpoint.readiness = &watch_producer_readiness;
	producer->view.ring = endpoint_ring;
	producer->view.ring_userdata = &producer->endpoint;
	*ret = producer;
	return 0;
}

int ipc_watch_producer_open_wait(ipc_watch_producer **ret, ipc_client *client, const char *name,
				 const struct ipc_watch_options *options,
				 const struct timespec *deadline)
{
	struct endpoint_request request;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = watch_request(&request, IPC_ROLE_WATCH_PRODUCER, name, options);
	if (r < 0)
		return r;

	return watch_producer_open_wait(ret, client, &request, deadline);
}

int ipc_watch_consumer_open_wait(ipc_watch_consumer **ret, ipc_client *client, const char *name,
				 const struct ipc_watch_options *options,
				 const struct timespec *deadline)
{
	struct endpoint_request request;
	struct endpoint *endpoint;
	ipc_watch_consumer *consumer;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = watch_request(&request, IPC_ROLE_WATCH_CONSUMER, name, options);
	if (r < 0)
		return r;

	r = endpoint_new_wait(&endpoint, sizeof(*consumer), client, &request, deadline);
	if (r < 0)
		return r;

	consumer = (ipc_watch_consumer *)endpoint;
	consumer->endpoint.readiness = &watch_consumer_readiness;
	*ret = consumer;
	return 0;
}

/* ---- what every role has ---- */

ipc_watch_producer *ipc_watch_producer_close(ipc_watch_producer *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_WATCH_PRODUCER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_watch_consumer *ipc_watch_consumer_close(ipc_watch_consumer *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_WATCH_CONSUMER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

int ipc_watch_producer_cancel(ipc_watch_producer *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_WATCH_PRODUCER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_watch_consumer_cancel(ipc_watch_consumer *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_WATCH_CONSUMER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_watch_producer_get_id(const ipc_watch_producer *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_WATCH_PRODUCER, ret);
}

int ipc_watch_consumer_get_id(const ipc_watch_consumer *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_WATCH_CONSUMER, ret);
}

int ipc_watch_producer_peers(ipc_watch_producer *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_WATCH_PRODUCER);
}

int ipc_watch_consumer_peers(ipc_watch_consumer *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_WATCH_CONSUMER);
}

int ipc_watch_producer_peers_wait(ipc_watch_producer *handle, bool present,
				  const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_WATCH_PRODUCER, present,
				   deadline);
}

int ipc_watch_consumer_peers_wait(ipc_watch_consumer *handle, bool present,
				  const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_WATCH_CONSUMER, present,
				   deadline);
}

/* ---- producers ---- */

static int producer_enter(ipc_watch_producer *producer)
{
	return endpoint_enter((struct endpoint *)producer, IPC_ROLE_WATCH_PRODUCER);
}

int ipc_watch_publish(ipc_watch_producer *producer, const void *data, size_t size)
{
	int r;

	if (!data && size > 0)
		return IPC_EINVAL;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	r = watch_publish(&producer->view, data, size);

	endpoint_leave(&producer->endpoint);
	return r;
}

int ipc_watch_publish_wait(ipc_watch_producer *producer, const void *data, size_t size,
			   const struct timespec *deadline)
{
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	if (!data && size > 0)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	endpoint_waiter(&producer->endpoint, &waiter, NULL, deadline_ns);
	r = watch_publish_wait(&producer->view, &waiter, data, size);

	endpoint_leave(&producer->endpoint);
	return r;
}

/*
 * The calling thread holds the lock and keeps it beyond this call: unless another thread closes the
 * handle meanwhile, which has to find the edit or be found here.
 */
static int producer_keep_edit(ipc_watch_producer *producer)
{
	atomic_store_explicit(&producer->is_editing, 1, memory_order_relaxed);

	/* [W2] Either this thread sees `closing`, or the closing one sees the edit.  Pairs with
	 * [W1]. */
	process_fence_light();
	if (!atomic_load_explicit(&producer->endpoint.closing, memory_order_relaxed))
		return 0;

	atomic_store_explicit(&producer->is_editing, 0, memory_order_relaxed);
	watch_abort(&producer->view);
	return IPC_ECANCELED;
}

/* Stands for an edit until the lock is free or the edit is kept after all: another thread may begin
 * one as soon as the lock is free. */
static bool producer_take_edit(ipc_watch_producer *producer)
{
	if (!atomic_load_explicit(&producer->is_editing, memory_order_relaxed) ||
	    !watch_is_editing(&producer->view, producer->endpoint.id))
		return false;

	atomic_store_explicit(&producer->is_editing, 0, memory_order_relaxed);
	return true;
}

int ipc_watch_edit_wait(ipc_watch_producer *producer, void **ret_value, size_t *ret_size,
			size_t *ret_size_max, const struct timespec *deadline)
{
	struct value_edit edit;
	struct waiter waiter;
	uint64_t deadline_ns, size;
	int r;

	if (!ret_value || !ret_size || !ret_size_max)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	endpoint_waiter(&producer->endpoint, &waiter, NULL, deadline_ns);
	r = watch_edit_wait(&producer->view, &waiter, producer->endpoint.id, &edit, &size);
	if (r == 0) {
		producer->edit = edit;
		r = producer_keep_edit(producer);
	}
	if (r == 0) {
		*ret_value = value_data(&producer->view.value, &edit);
		*ret_size = size;
		*ret_size_max = producer->view.value.size_max;
	}

	endpoint_leave(&producer->endpoint);
	return r;
}

int ipc_watch_commit(ipc_watch_producer *producer, size_t size)
{
	int r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	if (!producer_take_edit(producer)) {
		r = IPC_EINVAL;
	} else {
		r = watch_commit(&producer->view, &producer->edit, size);
		if (r < 0)
			(void)producer_keep_edit(producer);
	}

	endpoint_leave(&producer->endpoint);
	return r;
}

int ipc_watch_abort(ipc_watch_producer *producer)
{
	int r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	if (producer_take_edit(producer))
		watch_abort(&producer->view);
	else
		r = IPC_EINVAL;

	endpoint_leave(&producer->endpoint);
	return r;
}

int ipc_watch_shutdown(ipc_watch_producer *producer)
{
	int r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	watch_shutdown(&producer->view);

	endpoint_leave(&producer->endpoint);
	return 0;
}

/* ---- consumers ---- */

static int consumer_enter(ipc_watch_consumer *consumer)
{
	return endpoint_enter((struct endpoint *)consumer, IPC_ROLE_WATCH_CONSUMER);
}

/* *ret_size is written for IPC_EMSGSIZE too: the one thing that is (W-14). */
static void tell_size(size_t *ret_size, int result, uint64_t size)
{
	if (ret_size && (result == 0 || result == IPC_EMSGSIZE))
		*ret_size = size;
}

/* For the poll set, which wants to know of newer ones (M-34). */
static void consumer_has_read(ipc_watch_consumer *consumer, uint64_t version)
{
	uint64_t known = atomic_load_explicit(&consumer->version_read, memory_order_relaxed);

	while (known < version &&
	       !atomic_compare_exchange_weak_explicit(&consumer->version_read, &known, version,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

int ipc_watch_read(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size,
		   uint64_t *ret_version)
{
	uint64_t value_size = 0, version = 0;
	int r;

	if (!buffer && size > 0)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = watch_read(&consumer->view, 0, buffer, size, &value_size, &version);
	tell_size(ret_size, r, value_size);
	if (r == 0)
		consumer_has_read(consumer, version);
	if (r == 0 && ret_version)
		*ret_version = version;

	endpoint_leave(&consumer->endpoint);
	return r;
}

/* A call of read_next or read_wait. */
struct reading {
	ipc_watch_consumer *consumer;
	void *buffer;
	size_t size;
	uint64_t newer_than;
	uint64_t began; /* the producers' side word */
	uint64_t value_size, version;
};

/* The end, if it has come: a shutdown is final for everybody and comes first. */
static int reading_end(const struct reading *reading)
{
	int r;

	r = watch_end(&reading->consumer->view);
	if (r < 0)
		return r;

	return endpoint_opposite_end(&reading->consumer->endpoint, reading->began);
}

/* 0, the end, IPC_EMSGSIZE, or WAITER_NOT_YET. */
static int reading_look(void *subject)
{
	struct reading *reading = subject;
	const struct watch *view = &reading->consumer->view;
	int r, end;

	r = watch_read(view, reading->newer_than, reading->buffer, reading->size,
		       &reading->value_size, &reading->version);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	end = reading_end(reading);
	if (end == 0)
		return WAITER_NOT_YET;

	/* The last value may have come between the two looks; it is seen now, since it came before
	 * the end (W-5). */
	r = watch_read(view, reading->newer_than, reading->buffer, reading->size,
		       &reading->value_size, &reading->version);
	return r != IPC_EAGAIN ? r : end;
}

int ipc_watch_read_next(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size,
			uint64_t *version)
{
	struct reading reading = {.consumer = consumer, .buffer = buffer, .size = size};
	int r;

	if ((!buffer && size > 0) || !version)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	reading.newer_than = *version;
	reading.began = endpoint_opposite(&consumer->endpoint);
	r = reading_look(&reading);
	if (r == WAITER_NOT_YET)
		r = IPC_EAGAIN;

	tell_size(ret_size, r, reading.value_size);
	if (r == 0) {
		consumer_has_read(consumer, reading.version);
		*version = reading.version;
	}

	endpoint_leave(&consumer->endpoint);
	return r;
}

int ipc_watch_read_wait(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size,
			uint64_t *version, const struct timespec *deadline)
{
	struct reading reading = {.consumer = consumer, .buffer = buffer, .size = size};
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	if ((!buffer && size > 0) || !version)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	reading.newer_than = *version;
	reading.began = endpoint_opposite(&consumer->endpoint);
	r = reading_look(&reading);
	if (r == WAITER_NOT_YET) {
		endpoint_waiter(&consumer->endpoint, &waiter,
				&consumer->endpoint.lines[WATCH_CONSUMERS], deadline_ns);
		r = waiter_wait(&waiter, reading_look, &reading);
	}

	tell_size(ret_size, r, reading.value_size);
	if (r == 0) {
		consumer_has_read(consumer, reading.version);
		*version = reading.version;
	}

	endpoint_leave(&consumer->endpoint);
	return r;
}
