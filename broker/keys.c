/* SPDX-License-Identifier: MIT */
#include "broker/keys.h"

#include <string.h>
#include <sys/random.h>

#include "libipc/platform/crash.h"

/*
 * Death: a candidate means nothing until its handle has taken the end, which is promoted by the
 * next worker if this one does not get so far.  A change of the valid keys is written beside them,
 * and one store makes it count.
 */

struct key {
	uint64_t generation; /* of the session's channel */
	uint32_t slot, side;
	unsigned char secret[16];
};
ASSERT_SIZE(struct key, PROTOCOL_KEY_SIZE);

struct channel *keys_channel(struct registry *registry, const unsigned char key[PROTOCOL_KEY_SIZE],
			     unsigned *ret_side)
{
	struct channel *channel;
	struct key parts;

	memcpy(&parts, key, sizeof(parts));
	channel = registry_channel_at(registry, parts.slot, parts.generation);
	if (!channel || !channel->session || parts.side > 1)
		return NULL;

	*ret_side = parts.side;
	return channel;
}

int keys_prepare(const struct channel *channel, unsigned side, uint64_t handle_id,
		 const unsigned char *before)
{
	struct session_end *end = &channel->session->end[side];
	struct key key = {
		.generation = channel->record->generation,
		.slot = channel->slot,
		.side = side,
	};

	if (getrandom(key.secret, sizeof(key.secret), 0) != sizeof(key.secret))
		return IPC_ENOSYS;

	memcpy(end->candidate, &key, sizeof(end->candidate));
	if (before)
		memcpy(end->candidate_before, before, sizeof(end->candidate_before));
	end->candidate_n = before ? 2 : 1;
	end->candidate_id = handle_id;
	record_fence();
	return 0;
}

static struct session_keys *keys_now(struct session_end *end)
{
	return &end->keys[record_get(&end->keys_at) & 1];
}

static void keys_turn(struct session_end *end, const struct session_keys *keys)
{
	uint32_t next = !(record_get(&end->keys_at) & 1);

	end->keys[next] = *keys;
	CRASH_POINT();
	record_set(&end->keys_at, next);
	CRASH_POINT();
}

void keys_promote(struct session_end *end, uint64_t handle_id)
{
	struct session_keys keys = {.handle_id = handle_id, .n = end->candidate_n};

	if (end->candidate_id != handle_id || keys_now(end)->handle_id == handle_id)
		return;

	memcpy(keys.newest, end->candidate, sizeof(keys.newest));
	memcpy(keys.before, end->candidate_before, sizeof(keys.before));
	keys_turn(end, &keys);
}

void keys_confirm(struct session_end *end)
{
	struct session_keys keys = *keys_now(end);

	if (keys.n != 2)
		return;

	keys.n = 1;
	keys_turn(end, &keys);
}

/* All of it is looked at, whatever is found. */
static bool is_equal(const unsigned char *a, const unsigned char *b)
{
	const volatile unsigned char *first = a, *second = b;
	unsigned difference = 0, i;

	for (i = 0; i < PROTOCOL_KEY_SIZE; ++i)
		difference |= first[i] ^ second[i];
	return difference == 0;
}

bool keys_match(const struct session_end *end, const unsigned char key[PROTOCOL_KEY_SIZE])
{
	const struct session_keys *keys = &end->keys[record_get(&end->keys_at) & 1];
	bool is_newest = is_equal(keys->newest, key);
	bool is_before = is_equal(keys->before, key);

	return (is_newest & (keys->n >= 1)) | (is_before & (keys->n >= 2));
}

const unsigned char *keys_newest(const struct session_end *end)
{
	return end->keys[record_get(&end->keys_at) & 1].newest;
}

const unsigned char *keys_of(const struct session_end *end, uint64_t handle_id)
{
	if (end->candidate_id == handle_id)
		return end->candidate;

	return keys_newest(end);
}
