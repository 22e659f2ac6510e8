/* SPDX-License-Identifier: MIT */

/*
 * The command take: items of a queue to standard output.
 *
 * An item is acknowledged after it was written, never before: what was not written goes back when
 * the consumer is closed or dies, and comes again with its attempt number one larger.  So nothing
 * is lost, whoever kills this process or closes what it writes to.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/error.h>
#include <ipc/limits.h>
#include <ipc/queue.h>

#include "broker/ctl/ctl.h"
#include "broker/ctl/json.h"
#include "broker/ctl/spool.h"

struct take {
	const struct ctl *ctl;
	ipc_queue_consumer *consumer;
	uint64_t n_taken;
	char *text; /* an item as it is written */
	size_t room;
};

static int consumer_open(ipc_queue_consumer **ret, const struct ctl *ctl)
{
	struct ipc_queue_options options = ctl->shape;
	int r;

	r = ipc_queue_consumer_open_wait(ret, ctl->client, ctl->args[0],
					 IPC_QUEUE_OPTIONS(.flags = IPC_STAY), ctl->deadline);
	if (r != IPC_ENOENT || !ctl->creates)
		return r;

	options.flags = IPC_CREATE | IPC_KEEP | IPC_STAY;
	return ipc_queue_consumer_open_wait(ret, ctl->client, ctl->args[0], &options,
					    ctl->deadline);
}

/* 0 or an errno.  One write, so that several who take into one pipe do not mix small items. */
static int item_write(struct take *take, const struct ipc_queue_item *item)
{
	if (take->room < item->size + 1) {
		char *larger = realloc(take->text, item->size + 1);

		if (!larger)
			return ENOMEM;
		take->text = larger;
		take->room = item->size + 1;
	}

	if (item->size)
		memcpy(take->text, item->data, item->size);
	take->text[item->size] = take->ctl->has_null ? '\0' : '\n';
	return spool_write_bytes(STDOUT_FILENO, take->text, item->size + 1);
}

/* An element of the array that is open. */
static int item_write_json(const struct take *take, const struct ipc_queue_item *item)
{
	json_t *object = json_item(item);
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	const char *before = take->n_taken ? ",\n" : "[\n";
	int error = ENOMEM;

	if (text) {
		error = spool_write_bytes(STDOUT_FILENO, before, strlen(before));
		if (!error)
			error = spool_write_bytes(STDOUT_FILENO, text, strlen(text));
	}

	free(text);
	json_decref(object);
	return error;
}

/* 0; IPC_EAGAIN: nothing is there, and it does not wait; a failure.  *ret_error: errno of the
 * writing, and then the item is still leased. */
static int take_one(struct take *take, int *ret_error)
{
	const struct ctl *ctl = take->ctl;
	struct ipc_queue_item item;
	int r;

	*ret_error = 0;
	if (ctl->waits)
		r = ipc_queue_take_wait(take->consumer, &item, ctl->deadline);
	else
		r = ipc_queue_take(take->consumer, &item);
	if (r < 0)
		return r;

	*ret_error = ctl->json ? item_write_json(take, &item) : item_write(take, &item);
	if (*ret_error)
		return 0;

	++take->n_taken;
	return ipc_queue_ack(take->consumer, &item);
}

static int take_failed(const struct take *take, int result)
{
	char text[IPC_NAME_SIZE_MAX + 64];

	if (take->n_taken == 0)
		return ctl_fail(take->ctl->args[0], result);

	(void)snprintf(text, sizeof(text), "%s: %" PRIu64 " taken", take->ctl->args[0],
		       take->n_taken);
	return ctl_fail(text, result);
}

static int take_all(struct take *take)
{
	uint64_t count = take->ctl->count ? take->ctl->count : 1;
	int r = 0, error = 0;

	while (take->n_taken < count && r == 0 && error == 0)
		r = take_one(take, &error);

	if (error == 0 && take->ctl->json && take->n_taken)
		error = spool_write_bytes(STDOUT_FILENO, "\n]\n", 3);
	if (error)
		return ctl_fail_errno("standard output", error);

	return r == 0 || (r == IPC_EAGAIN && take->n_taken) ? 0 : take_failed(take, r);
}

int ctl_take(const struct ctl *ctl)
{
	struct take take = {.ctl = ctl};
	int r;

	/* A reader that has gone is an error to tell, like a full disk. */
	(void)signal(SIGPIPE, SIG_IGN);

	r = consumer_open(&take.consumer, ctl);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	r = take_all(&take);
	ipc_queue_consumer_close(take.consumer);
	free(take.text);
	return r;
}
