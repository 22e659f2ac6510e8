/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_JSON_H
#define BROKER_CTL_JSON_H

/*
 * The public structs as JSON: the keys are the names of the fields.
 */

#include <jansson.h>

#include <ipc/admin.h>

/* "watch", "shared", ...: what the value of "kind" is. */
const char *channel_kind_name(enum ipc_kind kind);

json_t *json_channel(const struct ipc_channel_info *info); /* NULL: out of memory */
int json_print(const json_t *document); /* and a new line; 0, or -1: there is none */

#endif
