/* SPDX-License-Identifier: MIT */

/*
 * The commands get and set.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>
#include <ipc/watch.h>

#include "broker/ctl/ctl.h"

/* The value into a buffer that grows with what is asked for: the next value may be larger than the
 * one that was too large. */
static int value_read(ipc_watch_consumer *consumer, void **ret_value, size_t *ret_size)
{
	void *buffer = NULL;
	size_t size = 4096;
	int r;

	for (;;) {
		void *larger = realloc(buffer, size);

		if (!larger) {
			free(buffer);
			return IPC_ENOMEM;
		}
		buffer = larger;

		r = ipc_watch_read(consumer, buffer, size, ret_size, NULL);
		if (r >= 0)
			break;
		if (r != IPC_EMSGSIZE) {
			free(buffer);
			return r;
		}
		size = *ret_size;
	}

	*ret_value = buffer;
	return 0;
}

int ctl_get(const struct ctl *ctl)
{
	ipc_watch_consumer *consumer;
	void *value = NULL;
	size_t size;
	int r;

	r = ipc_watch_consumer_open_wait(&consumer, ctl->client, ctl->args[0], NULL, ctl->deadline);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	r = value_read(consumer, &value, &size);
	ipc_watch_consumer_close(consumer);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	if (size && fwrite(value, 1, size, stdout) != size)
		r = ctl_fail_errno("standard output", errno);
	free(value);
	return r;
}

/* All of standard input: 0; 1: longer than size_max; -1: errno. */
static int input_read(void **ret_data, size_t *ret_size, size_t size_max)
{
	size_t size = 0, room = 4096;
	char *data = NULL;

	for (;;) {
		char *larger = realloc(data, room);

		if (!larger)
			break;
		data = larger;

		size += fread(data + size, 1, room - size, stdin);
		if (ferror(stdin))
			break;
		if (size > size_max) {
			free(data);
			return 1;
		}
		if (feof(stdin)) {
			*ret_data = data;
			*ret_size = size;
			return 0;
		}
		room *= 2;
	}

	free(data);
	return -1;
}

static int value_publish(const struct ctl *ctl, const void *data, size_t size)
{
	ipc_watch_producer *producer;
	int r;

	r = ipc_watch_producer_open_wait(&producer, ctl->client, ctl->args[0], NULL, ctl->deadline);
	if (r < 0)
		return r;

	r = ipc_watch_publish_wait(producer, data, size, ctl->deadline);
	ipc_watch_producer_close(producer);
	return r;
}

/*
 * The channel is not made: a watch lives as long as its handles, and the one of this command would
 * take it away again.  It is opened after the input was read, so that the side of the producers
 * does not seem to be there while somebody types.
 */
int ctl_set(const struct ctl *ctl)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	void *data = NULL;
	size_t size;
	int r;

	r = ipc_channel_info_wait(ctl->client, ctl->args[0], &info, ctl->deadline);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);
	if (info.kind != IPC_KIND_WATCH)
		return ctl_fail(ctl->args[0], IPC_EPROTOTYPE);

	r = input_read(&data, &size, info.item_size_max);
	if (r < 0)
		return ctl_fail_errno("standard input", errno);
	if (r > 0)
		return ctl_fail(ctl->args[0], IPC_EMSGSIZE);

	r = value_publish(ctl, data, size);
	free(data);
	return r < 0 ? ctl_fail(ctl->args[0], r) : 0;
}
