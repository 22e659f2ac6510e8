/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_WATCH_H
#define LIBIPC_CLIENT_WATCH_H

/*
 * What the files of the kind `watch` share.
 */

#include <ipc/watch.h>

#include "libipc/channel/watch.h"
#include "libipc/client/endpoint.h"

struct ipc_watch_producer {
	struct endpoint endpoint;
	struct watch view;

	/* The open edit.  Belongs to the thread that holds the lock; is_editing is also looked at
	 * by whoever closes. */
	struct value_edit edit;
	_Atomic uint32_t is_editing;
};
ASSERT_OFFSET(struct ipc_watch_producer, endpoint, 0);

struct ipc_watch_consumer {
	struct endpoint endpoint;
	struct watch view;
	_Atomic uint64_t version_read; /* the newest */
};
ASSERT_OFFSET(struct ipc_watch_consumer, endpoint, 0);

/* For ipc_wait_any(): watch_ready.c. */
extern const struct endpoint_readiness watch_producer_readiness
	__attribute__((__visibility__("hidden")));
extern const struct endpoint_readiness watch_consumer_readiness
	__attribute__((__visibility__("hidden")));

int watch_producer_attach(struct endpoint *endpoint);

/* Opens as the request says.  As every open. */
IPC_CHECKED int watch_producer_open_wait(ipc_watch_producer **ret, ipc_client *client,
					 const struct endpoint_request *request,
					 const struct timespec *deadline);

#endif
