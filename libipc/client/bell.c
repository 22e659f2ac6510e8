/* SPDX-License-Identifier: MIT */
#include "libipc/client/bell.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

int bells_init(struct bells *bells, int fd)
{
	if (pthread_mutex_init(&bells->mutex, NULL) != 0)
		return IPC_ENOMEM;

	bells->fd = fd;
	return 0;
}

void bells_deinit(struct bells *bells, bool is_ours)
{
	/* Those of others went with the handles. */
	if (is_ours)
		bells->fd = fd_close(bells->fd);
	(void)pthread_mutex_destroy(&bells->mutex);
}

/* ---- the own one ---- */

/* Full is rung enough; anything else says that it cannot be rung. */
static bool bell_write(int fd)
{
	const uint64_t one = 1;

	return write(fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN;
}

void bells_ring_own(const struct bells *bells)
{
	int saved_errno = errno;

	(void)bell_write(bells->fd);
	errno = saved_errno;
}

bool bells_clear_own(const struct bells *bells)
{
	uint64_t n;

	return read(bells->fd, &n, sizeof(n)) == sizeof(n);
}

void bells_poll_begin(struct bells *bells, uint32_t channel_slot)
{
	atomic_fetch_add_explicit(&bells->n_polled[channel_slot % BELL_POLLED], 1,
				  memory_order_relaxed);
}

void bells_poll_end(struct bells *bells, uint32_t channel_slot)
{
	atomic_fetch_sub_explicit(&bells->n_polled[channel_slot % BELL_POLLED], 1,
				  memory_order_relaxed);
}

/* ---- those of others: under the mutex ---- */

static struct bell **bell_find(struct bells *bells, uint32_t slot, uint32_t generation)
{
	struct bell **link = &bells->bucket[slot % BELL_BUCKETS];

	while (*link && ((*link)->slot != slot || (*link)->generation != generation))
		link = &(*link)->next;

	return link;
}

/* Takes the descriptor. */
static struct bell *bell_get(struct bells *bells, uint32_t slot, uint32_t generation, int fd)
{
	struct bell **link = bell_find(bells, slot, generation);

	if (*link) {
		(void)fd_close(fd);
	} else {
		*link = calloc(1, sizeof(**link));
		if (!*link) {
			(void)fd_close(fd);
			return NULL;
		}
		**link = (struct bell){.slot = slot, .generation = generation, .fd = fd};
	}

	++(*link)->n_lists;
	return *link;
}

static void bell_put(struct bells *bells, struct bell *bell)
{
	if (--bell->n_lists > 0)
		return;

	*bell_find(bells, bell->slot, bell->generation) = bell->next;
	(void)fd_close(bell->fd);
	free(bell);
}

static struct bell_list *list_free(struct bells *bells, struct bell_list *list)
{
	for (uint32_t i = 0; list && i < list->n; ++i)
		bell_put(bells, list->bell[i]);

	free(list);
	return NULL;
}

/* Takes the descriptors.  NULL: no memory. */
static struct bell_list *list_new(struct bells *bells, const struct message_bells *message,
				  const int *fds)
{
	struct bell_list *list;
	uint32_t i;

	list = malloc(sizeof(*list) + message->n * sizeof(list->bell[0]));
	if (list)
		*list = (struct bell_list){.members = message->members};

	for (i = 0; list && i < message->n; ++i) {
		struct bell *bell =
			bell_get(bells, message->slot[i], message->generation[i], fds[i]);

		if (bell)
			list->bell[list->n++] = bell;
		else
			list = list_free(bells, list);
	}
	for (; i < message->n; ++i)
		(void)fd_close(fds[i]);

	return list;
}

/* ---- who waits for BELLS: under the mutex ---- */

static struct endpoint **waiting_find(struct bells *bells, uint64_t handle_id)
{
	struct endpoint **link = &bells->waiting[LIVENESS_SLOT(handle_id) % BELL_BUCKETS];

	while (*link && (*link)->id != handle_id)
		link = &(*link)->ringer.next;

	return link;
}

static void waiting_begin(struct bells *bells, struct endpoint *endpoint)
{
	struct endpoint **bucket = &bells->waiting[LIVENESS_SLOT(endpoint->id) % BELL_BUCKETS];

	if (endpoint->ringer.is_waiting)
		return;

	endpoint->ringer.is_waiting = true;
	endpoint->ringer.next = *bucket;
	*bucket = endpoint;
}

static void waiting_end(struct bells *bells, struct endpoint *endpoint)
{
	if (!endpoint->ringer.is_waiting)
		return;

	*waiting_find(bells, endpoint->id) = endpoint->ringer.next;
	endpoint->ringer.is_waiting = false;
}

void bells_forget(struct endpoint *endpoint)
{
	struct bells *bells = &endpoint->client->bells;

	pthread_mutex_lock(&bells->mutex);
	waiting_end(bells, endpoint);
	endpoint->ringer.list = list_free(bells, endpoint->ringer.list);
	pthread_mutex_unlock(&bells->mutex);
}

void bells_take(ipc_client *client, const struct message_bells *message, int *fds, unsigned n_fds)
{
	struct bells *bells = &client->bells;
	struct endpoint *endpoint;

	pthread_mutex_lock(&bells->mutex);
	endpoint = *waiting_find(bells, message->handle_id);
	if (endpoint && message->n == n_fds) {
		struct bell_list *list = list_new(bells, message, fds);

		waiting_end(bells, endpoint);
		(void)list_free(bells, endpoint->ringer.list);
		endpoint->ringer.list = list;
		n_fds = 0;
	}
	pthread_mutex_unlock(&bells->mutex);

	for (unsigned i = 0; i < n_fds; ++i)
		fds[i] = fd_close(fds[i]);
}

/* ---- ringing ---- */

static bool client_is_deaf(const ipc_client *client, uint32_t slot)
{
	return atomic_load_explicit(&client->desk->client[slot].is_deaf, memory_order_relaxed);
}

/* Under the mutex: false if the broker has to do it. */
static bool ring_list(const struct endpoint *endpoint, uint32_t members)
{
	const struct bell_list *list = endpoint->ringer.list;
	bool is_done = true;

	if (!list || list->members != members)
		return false;

	for (uint32_t i = 0; i < list->n; ++i) {
		if (client_is_deaf(endpoint->client, list->bell[i]->slot))
			is_done = false;
		if (!bell_write(list->bell[i]->fd))
			is_done = false;
		CRASH_POINT();
	}
	return is_done && !client_is_deaf(endpoint->client, endpoint->client->slot);
}

static bool ring_others(struct endpoint *endpoint)
{
	struct bells *bells = &endpoint->client->bells;
	uint32_t members = liveness_members(endpoint->table, endpoint->channel_slot);
	bool is_known, is_done;

	pthread_mutex_lock(&bells->mutex);
	is_known = endpoint->ringer.list && endpoint->ringer.list->members == members;
	pthread_mutex_unlock(&bells->mutex);

	/* The answer to the last RING, if it has come. */
	if (!is_known)
		connection_take(&endpoint->client->connection);

	pthread_mutex_lock(&bells->mutex);
	is_done = ring_list(endpoint, members);
	if (!is_done)
		waiting_begin(bells, endpoint);
	pthread_mutex_unlock(&bells->mutex);
	return is_done;
}

void bells_ring_all(struct endpoint *endpoint)
{
	ipc_client *client = endpoint->client;
	struct bells *bells = &client->bells;

	/* [E5] Who has armed the event is among the members and among the polled.  Pairs with
	 * [E4]. */
	atomic_thread_fence(memory_order_acquire);

	if (!connection_is_ours(&client->connection))
		return;

	CRASH_POINT();
	if (atomic_load_explicit(&bells->n_polled[endpoint->channel_slot % BELL_POLLED],
				 memory_order_relaxed))
		bells_ring_own(bells);
	if (!ring_others(endpoint))
		endpoint_send_ring(endpoint);
	CRASH_POINT();
}
