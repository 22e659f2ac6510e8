/* SPDX-License-Identifier: MIT */
#ifndef BROKER_USERS_H
#define BROKER_USERS_H

/*
 * The uids of the domain: each has a table, a desk and an account while it has connections or
 * channels; after that until the place is needed.
 */

#include <sys/types.h>

#include "broker/registry.h"

struct worker;

/* The user of this uid, made if there is none: IPC_ENFILE, IPC_ENOMEM, ... */
IPC_CHECKED int users_get(struct worker *worker, uid_t uid, struct user **ret);

/* A user is in use while anything is charged to it. */
bool users_is_idle(const struct user *user);

#endif
