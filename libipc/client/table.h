/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_TABLE_H
#define LIBIPC_CLIENT_TABLE_H

/*
 * The liveness tables that a client has mapped: its own user's, and that of each other user of whom
 * it opened a channel.  Each is mapped once and stays until the client ends, so that the list can
 * be read without a lock, in callbacks and while holding one.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/wire/protocol.h"

struct table {
	struct table *next;
	uint64_t segment_id;
	const struct liveness_table *liveness;
	uint64_t size;
};

struct table_list {
	_Atomic(struct table *) first;
	pthread_mutex_t mutex; /* who adds */
};

int table_list_init(struct table_list *list);
void table_list_deinit(
	struct table_list *list,
	bool is_foreign); /* is_foreign: the memory is not mapped here (forked child) */

/*
 * The table of owner_uid in that region, mapped from fd unless it is known.  fd stays the caller's;
 * -1: only if it is known. IPC_EPROTO: not known and no descriptor, or not a region that can be a
 * table; IPC_EBADMSG: not a table.
 */
int table_get(struct table_list *list, const struct message_region *region, int fd,
	      uint32_t owner_uid, const struct liveness_table **ret);

/* Whether any of them says that this handle is open.  Takes no lock. */
bool table_list_has_handle(struct table_list *list, uint64_t handle_id);

#endif
