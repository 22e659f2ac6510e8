/* SPDX-License-Identifier: MIT */

/*
 * The shard: the only one who touches the replica.
 *
 * What is marked applied does not come again, so it is marked when it is in the store.  A frame
 * that comes again after a death is known by its offset.  A snapshot is loaded into the other copy,
 * and counts by one store of an index: half a snapshot never shows.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "examples/shard/shard.h"

enum { AT_ONCE = 16 };

struct store *store_map(int file)
{
	struct store *store;

	if (ftruncate(file, sizeof(*store)) < 0)
		exit(1);
	store = mmap(NULL, sizeof(*store), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (store == MAP_FAILED)
		exit(1);
	return store;
}

static void copy_apply(struct copy *copy, const struct ipc_inbox_event *event)
{
	const struct mutation *mutations = event->data;

	for (size_t i = 0; i < event->size / sizeof(*mutations); ++i) {
		if (mutations[i].key < KEYS)
			copy->values[mutations[i].key] = mutations[i].value;
	}
}

static void apply_frame(struct store *store, struct copy *copy, const struct ipc_inbox_event *event)
{
	if (event->offset < atomic_load(&copy->next)) {
		++store->n_again;
		return;
	}

	copy_apply(copy, event);
	atomic_store(&copy->next, event->offset + 1);
	++store->n_frames;
}

static void apply(struct store *store, const struct ipc_inbox_event *event)
{
	uint32_t current = atomic_load(&store->current);
	struct copy *shadow = &store->copies[!current];

	switch (event->type) {
	case IPC_INBOX_BEGIN: /* what the snapshot does not have must go */
		memset(shadow, 0, sizeof(*shadow));
		break;
	case IPC_INBOX_CHUNK:
		copy_apply(shadow, event);
		break;
	case IPC_INBOX_END:
		atomic_store(&shadow->next, event->offset);
		atomic_store(&store->current, !current);
		++store->n_loaded;
		break;
	case IPC_INBOX_FRAME:
		apply_frame(store, &store->copies[current], event);
		break;
	case IPC_INBOX_ABORT: /* the shadow is of no use; the next BEGIN clears it */
		++store->n_torn;
		break;
	case IPC_INBOX_GAP: /* a snapshot comes */
		break;
	}
}

int run_shard(int file)
{
	struct store *store = store_map(file);
	ipc_client *client = connect_client();
	ipc_inbox_receiver *inbox;

	must("open", ipc_inbox_receiver_open_wait(&inbox, client, INBOX, inbox_options(), NULL));
	for (;;) {
		struct ipc_inbox_event events[AT_ONCE];
		int n = ipc_inbox_receive_many_wait(inbox, events, AT_ONCE, NULL);

		must("receive", n);
		for (int i = 0; i < n; ++i)
			apply(store, &events[i]);
		must("mark", ipc_inbox_mark_applied(inbox, &events[n - 1]));
	}
}
