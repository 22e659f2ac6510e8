/* SPDX-License-Identifier: MIT */
#include "broker/registry.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <utlist.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libipc/platform/clock.h"

/*
 * Death: nothing to think of, this is private memory.  What must survive is in the records
 * (state.h).
 */

static uint64_t hash_seed;

uint32_t registry_hash(const void *key, size_t size)
{
	return (uint32_t)XXH3_64bits_withSeed(key, size, hash_seed);
}

static void seed_init(void)
{
	if (hash_seed == 0 &&
	    getrandom(&hash_seed, sizeof(hash_seed), GRND_NONBLOCK) != sizeof(hash_seed))
		hash_seed = clock_now_ns();
}

static void objects_init(struct registry *registry)
{
	struct state *state = registry->state;
	uint32_t i;

	/* Only users are few; the others get their record when their slot is taken, so that
	 * untouched pages stay untouched. */
	for (i = 0; i < STATE_USERS_MAX; ++i) {
		struct user *user = &registry->user[i];

		user->slot = i;
		user->record = &state->user[i];
		user->table_fd = user->desk_fd = user->reader_fd = -1;
	}
}

int registry_new(struct registry **ret, struct state *state)
{
	struct registry *registry;

	seed_init();

	registry = mmap(NULL, sizeof(*registry), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (registry == MAP_FAILED)
		return IPC_ENOMEM;

	registry->state = state;
	slots_init(&registry->user_slots, registry->user_free, STATE_USERS_MAX,
		   &state->high[STATE_USERS]);
	slots_init(&registry->client_slots, registry->client_free, LIVENESS_CLIENTS_MAX,
		   &state->high[STATE_CLIENTS]);
	slots_init(&registry->channel_slots, registry->channel_free, LIVENESS_CHANNELS_MAX,
		   &state->high[STATE_CHANNELS]);
	slots_init(&registry->handle_slots, registry->handle_free, LIVENESS_HANDLES_MAX,
		   &state->high[STATE_HANDLES]);
	slots_init(&registry->pending_slots, registry->pending_free, STATE_PENDINGS_MAX,
		   &state->high[STATE_PENDINGS]);
	slots_init(&registry->group_slots, registry->group_free, STATE_GROUPS_MAX,
		   &state->high[STATE_GROUPS]);
	objects_init(registry);

	*ret = registry;
	return 0;
}

struct registry *registry_free(struct registry *registry)
{
	if (!registry)
		return NULL;

	HASH_CLEAR(hh, registry->names);
	munmap(registry, sizeof(*registry));
	return NULL;
}

static bool user_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->user[slot].state) != RECORD_FREE;
}

static bool client_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->client[slot].state) != RECORD_FREE;
}

static bool channel_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->channel[slot].state) != RECORD_FREE;
}

static bool handle_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->handle[slot].state) != RECORD_FREE;
}

static bool pending_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->pending[slot].state) != RECORD_FREE;
}

static bool group_is_used(const void *state, uint32_t slot)
{
	return record_get(&((const struct state *)state)->group[slot].state) != RECORD_FREE;
}

void registry_adopt_slots(struct registry *registry)
{
	slots_adopt(&registry->user_slots, user_is_used, registry->state);
	slots_adopt(&registry->client_slots, client_is_used, registry->state);
	slots_adopt(&registry->channel_slots, channel_is_used, registry->state);
	slots_adopt(&registry->handle_slots, handle_is_used, registry->state);
	slots_adopt(&registry->pending_slots, pending_is_used, registry->state);
	slots_adopt(&registry->group_slots, group_is_used, registry->state);
}

struct user *registry_user(struct registry *registry, uid_t uid)
{
	uint32_t i;

	/* Few uids, looked for once a connection and once a channel that is found by its record. */
	for (i = 0; i < registry->user_slots.top; ++i) {
		struct user *user = &registry->user[i];

		if (user->table && user->record->uid == uid)
			return user;
	}
	return NULL;
}

int registry_name_add(struct registry *registry, struct channel *channel)
{
	HASH_ADD_KEYPTR(hh, registry->names, channel->record->name, strlen(channel->record->name),
			channel);
	if (!channel->hh.tbl)
		return IPC_ENOMEM;

	channel->is_named = true;
	return 0;
}

void registry_name_remove(struct registry *registry, struct channel *channel)
{
	if (!channel->is_named)
		return;

	HASH_DELETE(hh, registry->names, channel);
	channel->is_named = false;
}

struct channel *registry_find(struct registry *registry, const char *name)
{
	struct channel *channel;

	HASH_FIND(hh, registry->names, name, strlen(name), channel);
	return channel;
}

struct channel *registry_channel_at(struct registry *registry, uint32_t slot, uint64_t generation)
{
	struct channel_record *record;

	if (slot >= registry->channel_slots.top)
		return NULL;

	record = &registry->state->channel[slot];
	if (record_get(&record->state) == RECORD_FREE || record->generation != generation)
		return NULL;

	return &registry->channel[slot];
}

struct handle *registry_handle(struct registry *registry, const struct peer *peer,
			       uint64_t handle_id)
{
	struct handle *handle = &registry->handle[LIVENESS_SLOT(handle_id)];

	if (handle->peer != peer || handle->record->id != handle_id)
		return NULL;

	return handle;
}

struct handle *registry_handle_of_request(const struct peer *peer, uint64_t request_id)
{
	struct handle *handle;

	DL_FOREACH2(peer->handles, handle, client_next)
	{
		if (handle->record->request_id == request_id)
			return handle;
	}
	return NULL;
}

bool registry_is_open_on(const struct handle *handle, const struct channel *channel)
{
	return handle->peer && handle->channel == channel &&
	       record_get(&handle->record->state) == RECORD_USED && !handle->record->is_ending;
}

const struct handle *registry_handle_on(const struct registry *registry,
					const struct channel *channel, uint64_t handle_id)
{
	const struct handle *handle = &registry->handle[LIVENESS_SLOT(handle_id)];

	return registry_is_open_on(handle, channel) && handle->record->id == handle_id ? handle
										       : NULL;
}

void registry_link(struct handle *handle)
{
	struct channel *channel = handle->channel;

	/* The youngest first: that is the one a request may ask for twice. */
	DL_PREPEND2(handle->peer->handles, handle, client_prev, client_next);
	DL_APPEND2(channel->handles[handle->record->side], handle, channel_prev, channel_next);
}

void registry_unlink(struct handle *handle)
{
	DL_DELETE2(handle->peer->handles, handle, client_prev, client_next);
	DL_DELETE2(handle->channel->handles[handle->record->side], handle, channel_prev,
		   channel_next);
	handle->peer = NULL;
	handle->channel = NULL;
}

struct channel **registry_away(struct registry *registry, const char *name)
{
	return &registry->away[registry_hash(name, strlen(name)) % REGISTRY_BUCKETS];
}

struct pending **registry_waiting(struct registry *registry, const char *name)
{
	return &registry->waiting[registry_hash(name, strlen(name)) % REGISTRY_BUCKETS];
}
