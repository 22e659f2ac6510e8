/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_JSON_H
#define BROKER_CTL_JSON_H

/*
 * The public structs as JSON: the keys are the names of the fields.
 */

#include <stdbool.h>

#include <jansson.h>

#include <ipc/admin.h>
#include <ipc/inbox.h>
#include <ipc/queue.h>
#include <ipc/session.h>

/* NULL: out of memory. */
json_t *json_channel(const struct ipc_channel_info *info);
json_t *json_handle(const struct ipc_handle_info *info);
/* data is a string if it is text, else null, with the bytes as base64 under "data_base64". */
json_t *json_item(const struct ipc_queue_item *item);

json_t *json_state(struct ipc_queue_state *state, bool is_partial);
json_t *json_positions(const struct ipc_inbox_positions *positions);
json_t *json_session(const struct ipc_session_info *info);

int json_print(const json_t *document); /* and a new line; 0, or -1: there is none */

#endif
