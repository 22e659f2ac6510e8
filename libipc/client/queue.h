/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_QUEUE_H
#define LIBIPC_CLIENT_QUEUE_H

/*
 * What the files of the kind `queue` share.  The structure (channel/queue.h) never sleeps; here are
 * the ends, the waits, and the dead letters, which are a second handle beside each handle of a
 * queue that has them.
 *
 * Close: what the handle holds goes back at once (closing_fn); a thread that is inside and takes
 * something after that finds out by queue_handle_keep().  The row, which names the handle in the
 * structure, and the handle of the dead letters go with the last thread that leaves (last_fn),
 * since until then one may be moving something.
 */

#include <ipc/queue.h>

#include "libipc/channel/queue.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

/* Of either role. */
struct queue_handle {
	struct endpoint endpoint;
	struct queue view;
	struct queue_handle *dead; /* the dead letters: an uncounted producer; NULL: none */
	char name[QUEUE_NAME_SIZE];
};
ASSERT_OFFSET(struct queue_handle, endpoint, 0);

struct ipc_queue_producer {
	struct queue_handle handle;
};
ASSERT_OFFSET(struct ipc_queue_producer, handle, 0);

struct ipc_queue_consumer {
	struct queue_handle handle;
};
ASSERT_OFFSET(struct ipc_queue_consumer, handle, 0);

/* For ipc_wait_any(): queue_ready.c. */
extern const struct endpoint_readiness queue_producer_readiness
	__attribute__((__visibility__("hidden")));
extern const struct endpoint_readiness queue_consumer_readiness
	__attribute__((__visibility__("hidden")));

/* ---- queue_open.c ---- */

/* The `attach` of a request whose endpoint is a struct queue_handle. */
IPC_CHECKED int queue_handle_attach(struct endpoint *endpoint);

/*
 * After its endpoint was opened: the handle gets a row, and `dead` (which may be NULL) with success
 * becomes its own.  However it ends, endpoint_close() undoes what was done.  0, or what
 * queue_begin() says.
 */
IPC_CHECKED int queue_handle_begin(struct queue_handle *handle, struct queue_handle *dead,
				   const char *name);

/* The `release`: to be set as soon as the endpoint is open. */
void queue_handle_free(struct endpoint *endpoint);

/*
 * After something was taken for the program.  0; IPC_ECANCELED: another thread has closed the
 * handle, and all that it holds has gone back.
 */
static inline int queue_handle_keep(struct queue_handle *handle)
{
	/* [Q2] Either this thread sees `closing`, or the closing one sees what was taken.  Pairs
	 * with [Q1] in queue_handle_closing(). */
	process_fence_light();
	if (LIKELY(!atomic_load_explicit(&handle->endpoint.closing, memory_order_relaxed) &&
		   atomic_load_explicit(handle->endpoint.handle_word, memory_order_relaxed) ==
			   handle->endpoint.id))
		return 0;

	/* Held dead meanwhile: nobody sweeps a second time after it. */
	queue_give_back(&handle->view);
	return atomic_load_explicit(&handle->endpoint.closing, memory_order_relaxed) ? IPC_ECANCELED
										     : IPC_ESTALE;
}

/* ---- queue_producer.c ---- */

/*
 * Nobody will take from the queue again (it had no IPC_KEEP, or was removed): the end, after what
 * waits there went to the dead letters.  0: not so.
 */
int queue_producer_final(struct queue_handle *producer);

/*
 * What the consumers' absence means for a push that was refused: 0, or the end.  due_ns: as
 * queue_push() said; began: the consumers' side word when the wait began.
 */
int queue_producer_end(const struct queue_handle *producer, uint64_t began, uint64_t due_ns);

#endif
