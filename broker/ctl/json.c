/* SPDX-License-Identifier: MIT */
#include "broker/ctl/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/ctl/channel.h"
#include "broker/ctl/handles.h"
#include "broker/ctl/state.h"

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

static json_t *base64(const unsigned char *data, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((size + 2) / 3 * 4 + 1), *at = text;
	json_t *string;

	if (!text)
		return NULL;

	for (size_t i = 0; i < size; i += 3) {
		size_t n = size - i < 3 ? size - i : 3;
		uint32_t bits = (uint32_t)data[i] << 16;

		if (n > 1)
			bits |= (uint32_t)data[i + 1] << 8;
		if (n > 2)
			bits |= data[i + 2];
		*at++ = digits[bits >> 18];
		*at++ = digits[bits >> 12 & 63];
		*at++ = n > 1 ? digits[bits >> 6 & 63] : '=';
		*at++ = n > 2 ? digits[bits & 63] : '=';
	}

	string = json_stringn(text, (size_t)(at - text));
	free(text);
	return string;
}

json_t *json_item(const struct ipc_queue_item *item)
{
	json_t *object = json_object();
	json_t *data = json_stringn(item->size ? item->data : "", item->size);
	bool is_text = data != NULL;
	int r = 0;

	/* Where there is no memory for a string there is none for base64 either. */
	r |= json_object_set_new(object, "data", is_text ? data : json_null());
	if (!is_text)
		r |= json_object_set_new(object, "data_base64", base64(item->data, item->size));
	r |= json_object_set_new(object, "size", number(item->size));
	r |= json_object_set_new(object, "origin", number(item->origin));
	r |= json_object_set_new(object, "enqueued_ns", number(item->enqueued_ns));
	r |= json_object_set_new(object, "priority", number(item->priority));
	r |= json_object_set_new(object, "attempt", number(item->attempt));
	r |= json_object_set_new(object, "reason", json_string(state_reason_name(item->reason)));
	r |= json_object_set_new(object, "source",
				 item->source ? json_string(item->source) : json_null());
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

static json_t *json_numbers(const uint64_t *values, size_t n)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < n && r == 0; ++i)
		r = json_array_append_new(array, number(values[i]));
	if (r == 0)
		return array;

	json_decref(array);
	return NULL;
}

static json_t *json_reasons(uint64_t counts[][IPC_DEAD_REASONS_MAX], size_t n)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < n && r == 0; ++i)
		r = json_array_append_new(array, json_numbers(counts[i], IPC_DEAD_REASONS_MAX));
	if (r == 0)
		return array;

	json_decref(array);
	return NULL;
}

json_t *json_state(struct ipc_queue_state *state, bool is_partial)
{
	json_t *object = json_object();
	size_t n = state->priorities < IPC_PRIORITIES_MAX ? state->priorities : IPC_PRIORITIES_MAX;
	int r = 0;

	r |= json_object_set_new(object, "priorities", number(state->priorities));
	r |= json_object_set_new(object, "n_leased", number(state->n_leased));
	r |= json_object_set_new(object, "items", json_numbers(state->items, n));
	r |= json_object_set_new(object, "bytes", json_numbers(state->bytes, n));
	r |= json_object_set_new(object, "leased", json_numbers(state->leased, n));
	r |= json_object_set_new(object, "queued", json_numbers(state->queued, n));
	r |= json_object_set_new(object, "acknowledged", json_numbers(state->acknowledged, n));
	r |= json_object_set_new(object, "dead_lettered", json_reasons(state->dead_lettered, n));
	r |= json_object_set_new(object, "dropped", json_reasons(state->dropped, n));
	r |= json_object_set_new(object, "partial", json_boolean(is_partial));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

json_t *json_positions(const struct ipc_inbox_positions *positions)
{
	json_t *object = json_object();
	int r = 0;

	r |= json_object_set_new(object, "written", number(positions->written));
	r |= json_object_set_new(object, "received", number(positions->received));
	r |= json_object_set_new(object, "applied", number(positions->applied));
	r |= json_object_set_new(object, "generation", number(positions->generation));
	r |= json_object_set_new(object, "applied_generation",
				 number(positions->applied_generation));
	r |= json_object_set_new(object, "snapshot_wanted", number(positions->snapshot_wanted));
	r |= json_object_set_new(object, "depth", number(positions->depth));
	r |= json_object_set_new(object, "depth_max", number(positions->depth_max));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

json_t *json_session(const struct ipc_session_info *info)
{
	json_t *object = json_object();
	int r = 0;

	r |= json_object_set_new(object, "generation", number(info->generation));
	r |= json_object_set_new(object, "resumes", number(info->resumes));
	r |= json_object_set_new(object, "capacity", number(info->capacity));
	r |= json_object_set_new(object, "sent", json_numbers(info->sent, 2));
	r |= json_object_set_new(object, "acknowledged", json_numbers(info->acknowledged, 2));
	r |= json_object_set_new(object, "depth", json_numbers(info->depth, 2));
	r |= json_object_set_new(object, "depth_max", json_numbers(info->depth_max, 2));
	r |= json_object_set_new(object, "away_ns", json_numbers(info->away_ns, 2));
	r |= json_object_set_new(
		object, "pid",
		json_pack("[o, o]", json_integer(info->pid[0]), json_integer(info->pid[1])));
	r |= json_object_set_new(object, "uid",
				 json_pack("[o, o]", number(info->uid[0]), number(info->uid[1])));
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
