/* SPDX-License-Identifier: MIT */
#include "broker/account.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>

#include "broker/log.h"
#include "libipc/platform/clock.h"

/*
 * Death: accounts are private memory, counted anew from the records by each worker (account_adopt);
 * so no death can leave a charge behind.
 */

void account_init(struct account *account, uid_t uid, const struct config_limits *limits)
{
	*account = (struct account){.uid = uid, .limits = limits};
}

uint64_t account_limit(const struct account *account, enum account_item item)
{
	switch (item) {
	case ACCOUNT_BYTES:
		return account->limits->bytes;
	case ACCOUNT_CHANNELS:
		return account->limits->channels;
	case ACCOUNT_HANDLES:
		return account->limits->handles;
	case ACCOUNT_CONNECTIONS:
		return account->limits->connections;
	case ACCOUNT_PENDINGS:
		return account->limits->pendings;
	case ACCOUNT_N_ITEMS:
		break;
	}
	return 0;
}

static const char *item_name(enum account_item item)
{
	static const char *const names[ACCOUNT_N_ITEMS] = {"bytes", "channels", "handles",
							   "connections", "pendings"};

	return names[item];
}

void account_log_refusal(struct account *account, enum account_item item, uint64_t amount)
{
	uint64_t now_ns = clock_now_ns();

	if (account->logged_ns[item] != 0 && now_ns - account->logged_ns[item] < NS_PER_S)
		return;

	account->logged_ns[item] = now_ns;
	log_line(LOG_LEVEL_WARNING,
		 "user %u: quota of %s: %" PRIu64 " in use and %" PRIu64 " more wanted, %" PRIu64
		 " allowed",
		 (unsigned)account->uid, item_name(item), account->used[item], amount,
		 account_limit(account, item));
}

int account_charge(struct account *account, enum account_item item, uint64_t amount)
{
	uint64_t limit = account_limit(account, item);

	/* In use may be above the limit: the configuration was made stricter. */
	if (account->used[item] > limit || amount > limit - account->used[item]) {
		account_log_refusal(account, item, amount);
		return IPC_EDQUOT;
	}

	account->used[item] += amount;
	return 0;
}

void account_adopt(struct account *account, enum account_item item, uint64_t amount)
{
	account->used[item] += amount;
}

void account_discharge(struct account *account, enum account_item item, uint64_t amount)
{
	assert(account->used[item] >= amount);
	account->used[item] -= amount;
}
