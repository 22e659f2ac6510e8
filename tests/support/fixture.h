/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_FIXTURE_H
#define TESTS_SUPPORT_FIXTURE_H

/*
 * What most tests of the whole begin with: a domain, a client in it, nothing left over at the end;
 * and short forms of the calls that they make again and again.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"

#define WAIT_MS 30000 /* for what comes at once, on a machine that may be busy */

extern struct domain fixture_domain;
extern ipc_client *fixture_client;
extern const struct timespec past; /* look once */

void fixture_setup(void);
void fixture_teardown(void);

/* Opens by fixture_client, within WAIT_MS. */
IPC_CHECKED int produce(ipc_watch_producer **ret, const char *name, uint64_t flags);
IPC_CHECKED int consume(ipc_watch_consumer **ret, const char *name, uint64_t flags);
IPC_CHECKED int share(ipc_shared **ret, const char *name, enum ipc_side side, uint64_t flags);

/* Made, of the default size; abort on failure. */
ipc_watch_producer *producer_new(const char *name);
ipc_shared *shared_new(const char *name, enum ipc_side side);

IPC_CHECKED int info_of(const char *name, struct ipc_channel_info *ret);
bool exists(const char *name);
IPC_CHECKED int take_away(const char *name, uint64_t generation);

/* Until the broker has told the handle's end, to all whom it concerns. */
void until_not_alive(uint64_t id);

/* An actor: says the id of its producer of the watch `arg`, and holds that until it hears
 * something. */
void hold_producer(struct actor *self, void *arg);

#endif
