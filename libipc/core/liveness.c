/* SPDX-License-Identifier: MIT */
#include "libipc/core/liveness.h"

#include <ipc/error.h>

#include "libipc/platform/futex.h"

/* Memory of zero bytes is an empty table: nobody is there, everything is awaited. */
void liveness_table_init(struct liveness_table *table, uint32_t owner_uid)
{
	table->magic = LIVENESS_MAGIC;
	table->owner_uid = owner_uid;
	atomic_store_explicit(&table->domain, DOMAIN_RUNNING, memory_order_release);
}

void liveness_handle_set(struct liveness_table *table, uint32_t slot, uint64_t handle_id)
{
	if (slot < LIVENESS_HANDLES_MAX)
		atomic_store_explicit(&table->handle[slot], handle_id, memory_order_release);
}

void liveness_side_set(struct liveness_table *table, uint32_t channel_slot, unsigned side,
		       uint64_t word)
{
	/* [V1] The handle words of those who ended are visible before the side says so.  Pairs with
	 * [V2]. */
	if (channel_slot < LIVENESS_CHANNELS_MAX && side < 2)
		atomic_store_explicit(&table->side[channel_slot][side], word, memory_order_release);
}

void liveness_attend(struct liveness_table *table, uint32_t client_slot)
{
	if (client_slot >= LIVENESS_CLIENTS_MAX)
		return;

	/* [V3] The side words are visible before the attention word moves.  Pairs with the acquire
	 * loads of attention in waiter.c. */
	atomic_fetch_add_explicit(&table->attention[client_slot].word, 1, memory_order_release);
	futex_wake_all(&table->attention[client_slot].word);
}

void liveness_look_again(struct liveness_table *table, uint32_t client_slot)
{
	/* [V4] What is told is visible before the word moves.  Pairs with the acquire load in the
	 * client's poll set. */
	if (client_slot < LIVENESS_CLIENTS_MAX)
		atomic_fetch_add_explicit(&table->attention[client_slot].n_looks, 1,
					  memory_order_release);
}

void liveness_members_change(struct liveness_table *table, uint32_t channel_slot)
{
	/* [V5] Before the opener is answered, and so before it arms anything.  Pairs with [V6]. */
	if (channel_slot < LIVENESS_CHANNELS_MAX)
		atomic_fetch_add_explicit(&table->members[channel_slot], 1, memory_order_release);
}

void liveness_join(struct liveness_table *table, uint32_t client_slot)
{
	/* [V7] The message lies in the client's socket before the number moves.  Pairs with the
	 * acquire load of connection_catch_up(). */
	if (client_slot < LIVENESS_CLIENTS_MAX)
		atomic_fetch_add_explicit(&table->attention[client_slot].n_joined, 1,
					  memory_order_release);
}

void liveness_domain_end(struct liveness_table *table)
{
	atomic_store_explicit(&table->domain, DOMAIN_ENDED, memory_order_release);
}

int liveness_table_check(const struct liveness_table *table, uint64_t size, uint32_t owner_uid)
{
	if (size < sizeof(*table) || table->magic != LIVENESS_MAGIC ||
	    table->owner_uid != owner_uid)
		return IPC_EBADMSG;

	return 0;
}

bool liveness_handle_is(const struct liveness_table *table, uint64_t handle_id)
{
	if (handle_id == 0)
		return false;

	return atomic_load_explicit(&table->handle[LIVENESS_SLOT(handle_id)],
				    memory_order_acquire) == handle_id;
}

bool liveness_handle_is_overtaken(const struct liveness_table *table, uint64_t handle_id)
{
	return handle_id != 0 &&
	       atomic_load_explicit(&table->handle[LIVENESS_SLOT(handle_id)],
				    memory_order_acquire) == (handle_id | LIVENESS_OVERTAKEN);
}

uint32_t liveness_members(const struct liveness_table *table, uint32_t channel_slot)
{
	/* [V6] Pairs with [V5]. */
	return atomic_load_explicit(&table->members[channel_slot % LIVENESS_CHANNELS_MAX],
				    memory_order_acquire);
}
