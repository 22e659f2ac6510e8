/* SPDX-License-Identifier: MIT */
#ifndef BROKER_ACCOUNT_H
#define BROKER_ACCOUNT_H

/*
 * What each uid has taken of the broker (M-51).  Everything that a client can make grow is charged
 * to its uid before it is made; a refusal leaves no trace but a line of the log that names user,
 * quota and figure.
 */

#include <stdint.h>
#include <sys/types.h>

#include "broker/config.h"
#include "include/ipc/error.h"

enum account_item {
	ACCOUNT_BYTES,
	ACCOUNT_CHANNELS,
	ACCOUNT_HANDLES,
	ACCOUNT_CONNECTIONS,
	ACCOUNT_PENDINGS,
	ACCOUNT_N_ITEMS
};

struct account {
	uid_t uid;
	const struct config_limits *limits;
	uint64_t used[ACCOUNT_N_ITEMS];
	uint64_t logged_ns[ACCOUNT_N_ITEMS]; /* when a refusal was last logged: a hostile client
						must not fill the log */
};

void account_init(struct account *account, uid_t uid, const struct config_limits *limits);

uint64_t account_limit(const struct account *account, enum account_item item);

/* One line a second for each item, however often it is refused. */
void account_log_refusal(struct account *account, enum account_item item, uint64_t amount);

/* 0 or IPC_EDQUOT, which is logged. */
IPC_CHECKED int account_charge(struct account *account, enum account_item item, uint64_t amount);

/* What an earlier worker granted is not refused now, whatever the quota says by now. */
void account_adopt(struct account *account, enum account_item item, uint64_t amount);

void account_discharge(struct account *account, enum account_item item, uint64_t amount);

#endif
