/* SPDX-License-Identifier: MIT */
#include "broker/ctl/json.h"

#include <inttypes.h>
#include <stdio.h>

#include "broker/ctl/channel.h"
#include "broker/ctl/handles.h"

/*
 * The integers of jansson have 63 bits and a sign.  A number beyond goes out as a string of digits:
 * exact all the same, where a floating-point number would not be.
 */
static json_t *number(uint64_t value)
{
	char text[24];

	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return json_string(text);
}

json_t *json_channel(const struct ipc_channel_info *info)
{
	json_t *object = json_object();
	int r = 0;

	r |= json_object_set_new(object, "name", json_string(info->name));
	r |= json_object_set_new(object, "kind", json_string(channel_kind_name(info->kind)));
	r |= json_object_set_new(object, "mode", number(info->mode));
	r |= json_object_set_new(object, "uid", number(info->uid));
	r |= json_object_set_new(object, "gid", number(info->gid));
	r |= json_object_set_new(object, "flags", number(info->flags));
	r |= json_object_set_new(object, "generation", number(info->generation));
	r |= json_object_set_new(object, "bytes", number(info->bytes));
	r |= json_object_set_new(object, "item_size_max", number(info->item_size_max));
	r |= json_object_set_new(object, "capacity", number(info->capacity));
	r |= json_object_set_new(
		object, "handles",
		json_pack("[o, o]", number(info->handles[0]), number(info->handles[1])));
	r |= json_object_set_new(object, "waiters", number(info->waiters));
	r |= json_object_set_new(object, "depth", number(info->depth));
	r |= json_object_set_new(object, "depth_max", number(info->depth_max));
	r |= json_object_set_new(object, "holder_pid", json_integer(info->holder_pid));
	r |= json_object_set_new(object, "holder_id", number(info->holder_id));
	r |= json_object_set_new(object, "held_ns", number(info->held_ns));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

json_t *json_handle(const struct ipc_handle_info *info)
{
	json_t *object = json_object();
	int r = 0;

	r |= json_object_set_new(object, "handle_id", number(info->handle_id));
	r |= json_object_set_new(object, "pid", json_integer(info->pid));
	r |= json_object_set_new(object, "process_name", json_string(info->process_name));
	r |= json_object_set_new(object, "role", json_string(handle_role_name(info->role)));
	r |= json_object_set_new(object, "weak", number(info->weak));
	r |= json_object_set_new(object, "holds", json_string(handle_holding_name(info->holds)));
	r |= json_object_set_new(object, "n_held", number(info->n_held));
	r |= json_object_set_new(object, "held_ns", number(info->held_ns));
	r |= json_object_set_new(object, "waiting_for", number(info->waiting_for));
	r |= json_object_set_new(object, "waiting_ns", number(info->waiting_ns));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

int json_print(const json_t *document)
{
	if (!document || json_dumpf(document, stdout, JSON_INDENT(2)) < 0)
		return -1;

	putchar('\n');
	return 0;
}
