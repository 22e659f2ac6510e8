/* SPDX-License-Identifier: MIT */

/*
 * Slots, names and ids: the private side of the records.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/registry.h"
#include "libipc/platform/clock.h"

/* ---- slots ---- */

#define SLOTS 8

static bool is_odd(const void *records, uint32_t slot)
{
	(void)records;
	return slot % 2 == 1;
}

Test(slots, every_slot_is_taken_once, .timeout = 60)
{
	uint32_t free_slots[SLOTS], high = 0, slot;
	struct slots slots;
	unsigned seen = 0;

	slots_init(&slots, free_slots, SLOTS, &high);
	for (unsigned i = 0; i < SLOTS; ++i) {
		cr_assert(slots_take(&slots, &slot));
		cr_assert_not(seen & 1u << slot);
		seen |= 1u << slot;
	}
	cr_assert_not(slots_take(&slots, &slot));

	slots_put(&slots, 3);
	cr_assert(slots_take(&slots, &slot));
	cr_assert_eq(slot, 3);
	cr_assert_eq(high, SLOTS);
}

/* D12: a new worker sees the records and nothing else; and none beyond what was ever used. */
Test(slots, those_in_use_are_found_again, .timeout = 60)
{
	uint32_t free_slots[SLOTS], high = 6, slot;
	struct slots slots;

	slots_init(&slots, free_slots, SLOTS, &high);
	slots_adopt(&slots, is_odd, NULL);
	cr_assert_eq(slots.n_used, 3);
	cr_assert_eq(slots.top, 6);
	for (uint32_t expected = 0; expected < 6; expected += 2) {
		cr_assert(slots_take(&slots, &slot));
		cr_assert_eq(slot, expected);
	}
	cr_assert(slots_take(&slots, &slot));
	cr_assert_eq(slot, 6);
	cr_assert_eq(high, 7);
}

/* ---- names and ids ---- */

static struct state *state;
static struct registry *registry;
static int state_fd;

static void setup(void)
{
	cr_assert_eq(state_new(&state, &state_fd), 0);
	cr_assert_eq(registry_new(&registry, state), 0);
}

static void teardown(void)
{
	registry = registry_free(registry);
	state_detach(state);
	close(state_fd);
}

TestSuite(registry, .init = setup, .fini = teardown, .timeout = 60);

static struct channel *channel_named(uint32_t slot, const char *name)
{
	struct channel *channel = &registry->channel[slot];

	channel->slot = slot;
	channel->record = &state->channel[slot];
	snprintf(channel->record->name, sizeof(channel->record->name), "%s", name);
	cr_assert_eq(registry_name_add(registry, channel), 0);
	return channel;
}

Test(registry, names_are_found_until_they_are_removed)
{
	struct channel *a = channel_named(3, "a"), *ab = channel_named(5, "a/b");

	cr_assert_eq(registry_find(registry, "a"), a);
	cr_assert_eq(registry_find(registry, "a/b"), ab);
	cr_assert_null(registry_find(registry, "a/"));
	registry_name_remove(registry, a);
	cr_assert_null(registry_find(registry, "a"));
	cr_assert_eq(registry_find(registry, "a/b"), ab);
	registry_name_remove(registry, a);
	cr_assert_eq(registry_find(registry, "a/b"), ab);
}

Test(registry, all_channels_have_room)
{
	char name[32];

	for (uint32_t i = 0; i < LIVENESS_CHANNELS_MAX; ++i) {
		snprintf(name, sizeof(name), "n%u", i);
		(void)channel_named(i, name);
	}
	for (uint32_t i = 0; i < LIVENESS_CHANNELS_MAX; ++i) {
		snprintf(name, sizeof(name), "n%u", i);
		cr_assert_eq(registry_find(registry, name), &registry->channel[i]);
	}
}

/* M-3: ids grow, and carry their slot; a later domain begins above an earlier one. */
Test(registry, ids_grow_over_domains)
{
	uint64_t first = state_handle_id(state, 77), second = state_handle_id(state, 3);
	uint64_t begin_ns = clock_now_ns();
	struct state *later;
	int fd;

	cr_assert_eq(LIVENESS_SLOT(first), 77);
	cr_assert_eq(LIVENESS_SLOT(second), 3);
	cr_assert_gt(second, first);

	/* No broker starts within a millisecond of another's start. */
	while (clock_now_ns() - begin_ns < NS_PER_MS)
		;
	cr_assert_eq(state_new(&later, &fd), 0);
	cr_assert_gt(state_handle_id(later, 0), second);
	state_detach(later);
	close(fd);
}

/* D12: the counter goes on where the earlier worker left it; another version's state is refused. */
Test(registry, a_state_is_attached_again)
{
	uint64_t id = state_next_id(state);
	struct state *again;

	cr_assert_eq(state_attach(&again, state_fd), 0);
	cr_assert_eq(state_next_id(again), id + 1);
	again->magic ^= 1;
	state_detach(again);
	cr_assert_eq(state_attach(&again, state_fd), IPC_EBADMSG);
}

Test(registry, a_handle_is_known_by_its_id_and_its_client_alone)
{
	struct peer *peer = &registry->peer[1], *other = &registry->peer[2];
	struct handle *handle = &registry->handle[9];
	struct channel *channel = channel_named(0, "x");

	*handle = (struct handle){
		.slot = 9, .record = &state->handle[9], .peer = peer, .channel = channel};
	handle->record->id = state_handle_id(state, 9);
	handle->record->request_id = 55;
	registry_link(handle);

	cr_assert_eq(registry_handle(registry, peer, handle->record->id), handle);
	cr_assert_null(registry_handle(registry, other, handle->record->id));
	cr_assert_null(registry_handle(registry, peer, handle->record->id + 65536));
	cr_assert_eq(registry_handle_of_request(peer, 55), handle);
	cr_assert_null(registry_handle_of_request(peer, 56));

	registry_unlink(handle);
	cr_assert_null(registry_handle_of_request(peer, 55));
	cr_assert_null(channel->handles[0]);
}
