/* SPDX-License-Identifier: MIT */
/*
 * Who waits for whom, as the broker lists it: what shows that all have come that a death is to
 * wake.
 */
#include "examples/demo/demo.h"

enum { PATIENCE_MS = 5000, HANDLES_MAX = 32 };

struct listing {
	struct ipc_handle_info handles[HANDLES_MAX];
	unsigned n;
};

static int add(const struct ipc_handle_info *info, void *userdata)
{
	struct listing *listing = userdata;

	if (listing->n < HANDLES_MAX)
		listing->handles[listing->n++] = *info;
	return 0;
}

/* Waiting for a handle of this list, which is somebody else's. */
static unsigned count_waiting(const struct listing *listing)
{
	unsigned n = 0;

	for (unsigned i = 0; i < listing->n; ++i) {
		for (unsigned k = 0; k < listing->n; ++k)
			n += i != k &&
			     listing->handles[i].waiting_for == listing->handles[k].handle_id;
	}
	return n;
}

bool waits_are_listed(const char *channel, unsigned n)
{
	ipc_client *client = broker_connect();
	bool are_listed = false;

	for (int i = 0; i < PATIENCE_MS && !are_listed; ++i) {
		struct timespec deadline = in_seconds(5);
		struct listing listing = {.n = 0};
		int r;

		r = ipc_client_list_handles_wait(client, channel, add, &listing, &deadline);
		if (r < 0)
			fail("list handles", r);
		are_listed = count_waiting(&listing) == n;
		if (!are_listed)
			pause_ms(1);
	}

	(void)ipc_client_unref(client);
	return are_listed;
}
