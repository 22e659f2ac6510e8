/* SPDX-License-Identifier: MIT */
#include "broker/users.h"

#include "broker/fences.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/platform/crash.h"

/*
 * Death: table and desk are stored before the record says USED; when a user is dropped the record
 * goes first, and what is still stored then is an orphan.
 */

bool users_is_idle(const struct user *user)
{
	unsigned i;

	for (i = 0; i < ACCOUNT_N_ITEMS; ++i) {
		if (user->account.used[i] != 0)
			return false;
	}
	return user->n_quiet == 0;
}

static void user_drop(struct worker *worker, struct user *user)
{
	fences_end(worker->registry->state, user);
	CRASH_POINT();
	record_set(&user->record->state, RECORD_FREE);
	CRASH_POINT();
	segments_drop_user(worker, user);
	slots_put(&worker->registry->user_slots, user->slot);
}

static void evict_one(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->user_slots.top; ++slot) {
		struct user *user = &registry->user[slot];

		if (user->table && users_is_idle(user)) {
			user_drop(worker, user);
			return;
		}
	}
}

static int user_new(struct worker *worker, uid_t uid, struct user **ret)
{
	struct registry *registry = worker->registry;
	struct user *user;
	uint32_t slot;
	int r;

	if (registry->user_slots.n_used == STATE_USERS_MAX)
		evict_one(worker);

	if (!slots_take(&registry->user_slots, &slot))
		return IPC_ENFILE;

	user = &registry->user[slot];
	user->record->uid = uid;
	r = segments_make_user(worker, user);
	if (r < 0) {
		slots_put(&registry->user_slots, slot);
		return r;
	}

	CRASH_POINT();
	record_set(&user->record->state, RECORD_USED);
	CRASH_POINT();

	user->n_quiet = 0;
	account_init(&user->account, uid, config_limits_of(&worker->config, uid));
	*ret = user;
	return 0;
}

int users_get(struct worker *worker, uid_t uid, struct user **ret)
{
	struct user *user = registry_user(worker->registry, uid);

	if (!user)
		return user_new(worker, uid, ret);

	*ret = user;
	return 0;
}
