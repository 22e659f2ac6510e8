/* SPDX-License-Identifier: MIT */
#include "tests/support/fixture.h"

#include "tests/support/failure.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

const struct timespec past = {0, 0};

struct domain fixture_domain;
ipc_client *fixture_client;
static struct leaks leaks;

void fixture_setup(void)
{
	leaks_begin(&leaks);
	domain_start(&fixture_domain, NULL);
	fixture_client = domain_connect(&fixture_domain);
}

void fixture_teardown(void)
{
	ipc_client_unref(fixture_client);
	domain_stop(&fixture_domain);
	leaks_check(&leaks);
}

int produce(ipc_watch_producer **ret, const char *name, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_watch_producer_open_wait(ret, fixture_client, name,
					    IPC_WATCH_OPTIONS(.flags = flags), &deadline);
}

int consume(ipc_watch_consumer **ret, const char *name, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_watch_consumer_open_wait(ret, fixture_client, name,
					    IPC_WATCH_OPTIONS(.flags = flags), &deadline);
}

int share(ipc_shared **ret, const char *name, enum ipc_side side, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_shared_open_wait(ret, fixture_client, name, side,
				    IPC_SHARED_OPTIONS(.flags = flags), &deadline);
}

ipc_watch_producer *producer_new(const char *name)
{
	ipc_watch_producer *producer = NULL;
	int r = produce(&producer, name, IPC_CREATE);

	if (r < 0)
		failure("%s: %s", name, ipc_error_name(r));
	return producer;
}

ipc_shared *shared_new(const char *name, enum ipc_side side)
{
	ipc_shared *shared = NULL;
	int r = share(&shared, name, side, IPC_CREATE);

	if (r < 0)
		failure("%s: %s", name, ipc_error_name(r));
	return shared;
}

int info_of(const char *name, struct ipc_channel_info *ret)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	*ret = (struct ipc_channel_info){.size = sizeof(*ret)};
	return ipc_channel_info_wait(fixture_client, name, ret, &deadline);
}

bool exists(const char *name)
{
	struct ipc_channel_info info;
	int r = info_of(name, &info);

	if (r != 0 && r != IPC_ENOENT)
		failure("info of %s: %s", name, ipc_error_name(r));
	return r == 0;
}

int take_away(const char *name, uint64_t generation)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_channel_remove_wait(fixture_client, name, generation, &deadline);
}

void until_not_alive(uint64_t id)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int r;

	while ((r = ipc_client_is_alive(fixture_client, id)) == 1) {
		if (process_has_passed(&deadline))
			failure("a closed handle is still alive");
		process_pause();
	}
	if (r < 0)
		failure("is_alive: %s", ipc_error_name(r));

	/* It does one thing after the other: what belongs to that end is done before this. */
	(void)exists("fixture/nothing");
}

void hold_producer(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_watch_producer *producer;
	uint64_t id;

	if (ipc_watch_producer_open_wait(&producer, own, arg, NULL, NULL) < 0 ||
	    ipc_watch_producer_get_id(producer, &id) < 0)
		process_end(1);
	actor_say(self, (int64_t)id);
	(void)actor_hear(self);
}
