/* SPDX-License-Identifier: MIT */
#include "tests/support/thing.h"

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"

#define THING_SIZE 4096

static _Atomic unsigned n_released;

static int thing_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	(void)flags;
	header_init(segment, IPC_KIND_SHARED, size, shape);
	return 0;
}

static void thing_release(struct endpoint *endpoint)
{
	atomic_fetch_add(&n_released, 1);
	free(endpoint);
}

unsigned thing_n_released(void)
{
	return atomic_load(&n_released);
}

int thing_open_wait(struct thing **ret, ipc_client *client, const char *name, enum ipc_role role,
		    uint64_t flags, const struct timespec *deadline)
{
	struct endpoint_request request = {
		.kind = IPC_KIND_SHARED,
		.role = role,
		.side = role == IPC_ROLE_SHARED_B,
		.name = name,
		.flags = flags,
		.shape_new = {64, 1},
		.size_new = THING_SIZE,
		.make = thing_make,
	};
	struct endpoint *endpoint;
	int r;

	r = endpoint_new_wait(&endpoint, sizeof(**ret), client, &request, deadline);
	if (r < 0)
		return r;

	endpoint->release = thing_release;
	*ret = (struct thing *)endpoint;
	return 0;
}

struct thing *thing_close(struct thing *thing)
{
	endpoint_close((struct endpoint *)thing);
	return NULL;
}

struct thing_look {
	const struct endpoint *endpoint;
	uint64_t began;
};

static int thing_look(void *subject)
{
	const struct thing_look *look = subject;
	int r = endpoint_opposite_end(look->endpoint, look->began);

	return r < 0 ? r : WAITER_NOT_YET;
}

int thing_sleep(struct thing *thing, const struct timespec *deadline)
{
	struct thing_look look = {.endpoint = &thing->endpoint};
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	look.began = endpoint_opposite(&thing->endpoint);
	endpoint_waiter(&thing->endpoint, &waiter, &thing->endpoint.lines[thing->endpoint.side],
			deadline_ns);
	return waiter_wait(&waiter, thing_look, &look);
}

int thing_wait(struct thing *thing, const struct timespec *deadline)
{
	int r;

	r = endpoint_enter(&thing->endpoint, 0);
	if (r < 0)
		return r;

	r = thing_sleep(thing, deadline);
	endpoint_leave(&thing->endpoint);
	return r;
}
