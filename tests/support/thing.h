/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_THING_H
#define TESTS_SUPPORT_THING_H

/*
 * A handle of no kind in particular, for tests of what all handles have in common: its segment
 * holds the header and nothing else.
 */

#include <time.h>

#include "libipc/client/endpoint.h"

struct thing {
	struct endpoint endpoint;
};

/* As a side of a shared channel; flags as in the options. */
int thing_open_wait(struct thing **ret, ipc_client *client, const char *name, enum ipc_role role,
		    uint64_t flags, const struct timespec *deadline);
struct thing *thing_close(struct thing *thing);

/* How many were released since the process began. */
unsigned thing_n_released(void);

/* A wait that nothing but its ends can end. */
int thing_wait(struct thing *thing, const struct timespec *deadline);

/* The same between endpoint_enter() and endpoint_leave(). */
int thing_sleep(struct thing *thing, const struct timespec *deadline);

#endif
