/* SPDX-License-Identifier: MIT */

/*
 * The command push: the items of standard input into a queue, each as soon as it was read.
 *
 * The producer stays when consumers come and go (IPC_STAY): while a queue is kept, whoever takes
 * from it next makes room.  A queue that is not kept ends with its last consumer, and that ends
 * the waiting, too.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>
#include <ipc/queue.h>

#include "broker/ctl/ctl.h"

#define TEXT_SIZE (IPC_NAME_SIZE_MAX + 128)

struct push {
	const struct ctl *ctl;
	ipc_queue_producer *producer;
	uint64_t item_size_max;
	char *item;
	size_t size, room;
	uint64_t n_queued, n_dead_lettered, n_dropped;
};

static int producer_open(ipc_queue_producer **ret, const struct ctl *ctl)
{
	struct ipc_queue_options options = ctl->shape;
	int r;

	r = ipc_queue_producer_open_wait(ret, ctl->client, ctl->args[0],
					 IPC_QUEUE_OPTIONS(.flags = IPC_STAY), ctl->deadline);
	if (r != IPC_ENOENT || !ctl->creates)
		return r;

	options.flags = IPC_CREATE | IPC_KEEP | IPC_STAY;
	return ipc_queue_producer_open_wait(ret, ctl->client, ctl->args[0], &options,
					    ctl->deadline);
}

/* So that a line without an end is not read until there is no memory left.  Who may push need not
 * have the right to look. */
static uint64_t item_size_limit(const struct ctl *ctl)
{
	struct ipc_channel_info info = {.size = sizeof(info)};

	if (ipc_channel_info_wait(ctl->client, ctl->args[0], &info, ctl->deadline) < 0)
		return IPC_ITEM_SIZE_MAX;
	return info.item_size_max;
}

static int item_append(struct push *push, int c)
{
	if (push->size == push->room) {
		size_t room = push->room ? 2 * push->room : 4096;
		char *larger = realloc(push->item, room);

		if (!larger)
			return IPC_ENOMEM;
		push->item = larger;
		push->room = room;
	}

	push->item[push->size++] = (char)c;
	return 0;
}

/* 1: an item; 0: there is none any more, or stdin has an error.  The last one may end with the
 * input. */
static int item_read(struct push *push)
{
	int c, r, end = push->ctl->has_null ? '\0' : '\n';

	push->size = 0;
	while ((c = getc_unlocked(stdin)) != EOF && c != end) {
		if (push->size == push->item_size_max)
			return IPC_EMSGSIZE;
		r = item_append(push, c);
		if (r < 0)
			return r;
	}

	return !ferror(stdin) && (c == end || push->size > 0);
}

static int item_push(struct push *push)
{
	const struct ctl *ctl = push->ctl;
	int r;

	if (ctl->policy < 0)
		r = ipc_queue_push_wait(push->producer, ctl->priority, push->item, push->size,
					ctl->deadline);
	else
		r = ipc_queue_push(push->producer, ctl->priority, push->item, push->size,
				   (enum ipc_full_policy)ctl->policy);

	push->n_queued += r == IPC_QUEUED;
	push->n_dead_lettered += r == IPC_DEAD_LETTERED;
	push->n_dropped += r == IPC_DROPPED;
	return r;
}

/* What has become of the items so far. */
static const char *push_told(const struct push *push, char text[TEXT_SIZE])
{
	int length = snprintf(text, TEXT_SIZE, "%s: %" PRIu64 " queued", push->ctl->args[0],
			      push->n_queued);

	if (push->n_dead_lettered)
		length += snprintf(text + length, TEXT_SIZE - (size_t)length,
				   ", %" PRIu64 " dead-lettered", push->n_dead_lettered);
	if (push->n_dropped)
		(void)snprintf(text + length, TEXT_SIZE - (size_t)length, ", %" PRIu64 " dropped",
			       push->n_dropped);
	return text;
}

static int push_all(struct push *push)
{
	char text[TEXT_SIZE];
	int r;

	while ((r = item_read(push)) > 0) {
		r = item_push(push);
		if (r < 0)
			break;
	}

	if (r < 0)
		return ctl_fail(push_told(push, text), r);
	if (ferror(stdin)) {
		int error = errno;

		return ctl_fail_errno(push_told(push, text), error);
	}
	/* As was wished; but nobody should have to guess how often. */
	if (push->n_dead_lettered || push->n_dropped)
		(void)fprintf(stderr, "ipcctl: %s\n", push_told(push, text));
	return 0;
}

int ctl_push(const struct ctl *ctl)
{
	struct push push = {.ctl = ctl};
	int r;

	r = producer_open(&push.producer, ctl);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	push.item_size_max = item_size_limit(ctl);
	r = push_all(&push);
	ipc_queue_producer_close(push.producer);
	free(push.item);
	return r;
}
