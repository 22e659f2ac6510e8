/* SPDX-License-Identifier: MIT */

/*
 * Weak producers: they remember a channel, and can become producers of it while it has one.
 */

#include <pthread.h>
#include <stdlib.h>

#include "libipc/client/watch.h"

/*
 * The name of a channel, so to say: nothing is mapped and the broker does not know it.  `magic` is
 * where an endpoint has its own.
 */
struct ipc_watch_weak {
	uint64_t magic;
	ipc_client *client; /* a reference */
	uint64_t generation;
	uint32_t channel_slot;
	uint32_t epoch;
	bool stays; /* as the producer that it comes from */
	struct thread_object object;
};
ASSERT_OFFSET(struct ipc_watch_weak, magic, offsetof(struct endpoint, magic));

#define WEAK_MAGIC (ENDPOINT_MAGIC | IPC_ROLE_WATCH_WEAK)

static void weak_free(struct thread_object *object)
{
	ipc_watch_weak *weak =
		(ipc_watch_weak *)((char *)object - offsetof(struct ipc_watch_weak, object));

	(void)ipc_client_unref(weak->client);
	free(weak);
}

int ipc_watch_weaken(ipc_watch_weak **ret, ipc_watch_producer *producer)
{
	ipc_watch_weak *weak;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = endpoint_enter((struct endpoint *)producer, IPC_ROLE_WATCH_PRODUCER);
	if (r < 0)
		return r;

	weak = calloc(1, sizeof(*weak));
	if (weak) {
		*weak = (ipc_watch_weak){
			.magic = WEAK_MAGIC,
			.client = ipc_client_ref(producer->endpoint.client),
			.generation = producer->endpoint.generation,
			.channel_slot = producer->endpoint.channel_slot,
			.epoch = producer->endpoint.epoch,
			.stays = producer->endpoint.stays,
			.object = {.address = weak, .free = weak_free},
		};
		*ret = weak;
	} else {
		r = IPC_ENOMEM;
	}

	endpoint_leave(&producer->endpoint);
	return r;
}

static int weak_upgrade_wait(ipc_watch_producer **ret, const ipc_watch_weak *weak,
			     const struct timespec *deadline)
{
	const struct endpoint_request request = {
		.kind = IPC_KIND_WATCH,
		.role = IPC_ROLE_WATCH_PRODUCER,
		.side = WATCH_PRODUCERS,
		.flags = weak->stays ? IPC_STAY : 0,
		.mode = 0600,
		.is_upgrade = true,
		.channel_slot = weak->channel_slot,
		.generation = weak->generation,
		.make = watch_make,
		.attach = watch_producer_attach,
	};
	ipc_watch_producer *producer;
	int r;

	r = watch_producer_open_wait(&producer, weak->client, &request, deadline);
	if (r < 0)
		return r;

	/* The broker knows whether there is a producer, the channel's memory whether it was shut
	 * down. */
	r = watch_end(&producer->view);
	if (r < 0) {
		(void)ipc_watch_producer_close(producer);
		return r;
	}

	*ret = producer;
	return 0;
}

int ipc_watch_upgrade_wait(ipc_watch_producer **ret, ipc_watch_weak *weak,
			   const struct timespec *deadline)
{
	int r;

	if (!ret || !weak || weak->magic != WEAK_MAGIC)
		return IPC_EINVAL;

	r = thread_enter(weak, weak->epoch);
	if (r < 0)
		return r;

	r = weak_upgrade_wait(ret, weak, deadline);

	thread_leave();
	return r;
}

ipc_watch_weak *ipc_watch_weak_close(ipc_watch_weak *weak)
{
	int cancel_state;

	if (!weak || weak->magic != WEAK_MAGIC)
		return NULL;

	weak->magic = 0;
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);

	/* In a forked child nobody else is inside: the threads of the parent are not here. */
	if (thread_is_foreign(weak->epoch))
		weak_free(&weak->object);
	else
		thread_retire(&weak->object);

	(void)pthread_setcancelstate(cancel_state, NULL);
	return NULL;
}
