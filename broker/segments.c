/* SPDX-License-Identifier: MIT */
#include "broker/segments.h"

#include <poll.h>
#include <unistd.h>

#include "broker/fences.h"
#include "broker/pairs.h"
#include "broker/policy.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"

/*
 * Death: a descriptor is made, then stored, and only then named by a committed record; what was
 * stored without a record is an orphan that the next worker removes from the store.  The slot's
 * generation is raised before anything is stored under it, so an orphan never has the name of the
 * next tenant's descriptor.  Unmapped and dropped is in any order: a record without descriptor is
 * dead, too.
 */

/* Left free for clients that come to look why there is no room, and for the keeper's own. */
#define ROOM_RESERVED 64

static_assert(STATE_USERS_MAX <= 1 << FENCE_LANE_BITS, "each user has a lane");

#define END_MS 10000

int segments_check_room(const struct worker *worker, unsigned n)
{
	const struct store *store = &worker->store;
	uint32_t n_held = atomic_load_explicit(&store->held->n, memory_order_relaxed);

	return n_held + n + ROOM_RESERVED > store->n_max ? IPC_ENFILE : 0;
}

/*
 * The keeper has ended, and SIGUSR2, which ends this process, is on its way: a dying process closes
 * its files first.  Nothing more may be answered, and no stored descriptor's number may get another
 * meaning, until it is here.
 */
static void __attribute__((__noreturn__)) wait_for_the_end(void)
{
	unsigned i;

	for (i = 0; i < END_MS / 10; ++i)
		(void)poll(NULL, 0, 10);

	_exit(WORKER_EXIT_FAILED);
}

int segments_store(struct worker *worker, char kind, uint32_t slot, uint32_t generation, int fd)
{
	char name[STORE_NAME_SIZE];
	int r;

	store_name(name, kind, slot, generation);
	r = store_add(&worker->store, name, fd);
	if (r == IPC_EPIPE)
		wait_for_the_end();
	return r;
}

void segments_unstore(struct worker *worker, char kind, uint32_t slot, uint32_t generation)
{
	char name[STORE_NAME_SIZE];

	store_name(name, kind, slot, generation);
	if (store_remove(&worker->store, name) == IPC_EPIPE)
		wait_for_the_end();
}

/* ---- users ---- */

int segments_map_user(struct user *user)
{
	void *address;
	int r;

	r = segment_map(&address, user->table_fd, 0, segment_round(sizeof(struct liveness_table)),
			true);
	if (r < 0)
		return r;

	user->table = address;
	return 0;
}

/* Before anybody else has it, so mapping it is safe here. */
static int desk_init(const struct user *user, uint64_t fence)
{
	uint64_t size = segment_round(offsetof(struct desk, client));
	struct desk *desk;
	void *address;
	int r;

	r = segment_map(&address, user->desk_fd, 0, size, true);
	if (r < 0)
		return r;

	desk = address;
	desk->magic = LIVENESS_MAGIC;
	desk->uid = user->record->uid;
	desk->lane = user->slot;
	atomic_store_explicit(&desk->fence, fence, memory_order_relaxed);
	segment_unmap(address, size);
	return 0;
}

/* What could not be stored is closed, so that -1 says "nothing to drop". */
static int store_or_close(struct worker *worker, char kind, uint32_t slot, uint32_t generation,
			  int *fd)
{
	int r;

	CRASH_POINT();
	r = segments_store(worker, kind, slot, generation, *fd);
	if (r < 0)
		*fd = fd_close(*fd);
	return r;
}

static int table_make(struct worker *worker, struct user *user)
{
	int r;

	r = segment_new_sealed(&user->table_fd, "ipc-table",
			       segment_round(sizeof(struct liveness_table)));
	if (r < 0)
		return r;

	r = segments_map_user(user);
	if (r < 0) {
		user->table_fd = fd_close(user->table_fd);
		return r;
	}

	liveness_table_init(user->table, user->record->uid);
	return store_or_close(worker, 't', user->slot, user->record->generation, &user->table_fd);
}

static int desk_make(struct worker *worker, struct user *user)
{
	int r;

	r = segment_new_sealed(&user->desk_fd, "ipc-desk", segment_round(sizeof(struct desk)));
	if (r < 0)
		return r;

	r = desk_init(user, fences_begin(worker->registry->state, user->record));
	if (r < 0) {
		user->desk_fd = fd_close(user->desk_fd);
		return r;
	}

	return store_or_close(worker, 'd', user->slot, user->record->generation, &user->desk_fd);
}

int segments_make_user(struct worker *worker, struct user *user)
{
	struct state *state = worker->registry->state;
	int r;

	r = segments_check_room(worker, 2);
	if (r < 0)
		return r;

	++user->record->generation;
	user->record->table_id = state_next_id(state);
	user->record->desk_id = state_next_id(state);

	r = table_make(worker, user);
	if (r == 0)
		r = desk_make(worker, user);
	if (r < 0)
		segments_drop_user(worker, user);
	return r;
}

void segments_drop_user(struct worker *worker, struct user *user)
{
	uint32_t generation = user->record->generation;

	if (user->table)
		segment_unmap(user->table, segment_round(sizeof(struct liveness_table)));
	user->table = NULL;
	if (user->table_fd >= 0)
		segments_unstore(worker, 't', user->slot, generation);
	if (user->desk_fd >= 0)
		segments_unstore(worker, 'd', user->slot, generation);
	user->table_fd = fd_close(user->table_fd);
	user->desk_fd = fd_close(user->desk_fd);
	user->reader_fd = fd_close(user->reader_fd);
}

int segments_reader(struct worker *worker, struct user *user, int *ret_fd)
{
	int r;

	if (user->reader_fd < 0) {
		r = segment_reopen_readonly(&user->reader_fd, &worker->maker, user->table_fd);
		if (r < 0) {
			user->reader_fd = -1;
			return r;
		}
	}

	*ret_fd = user->reader_fd;
	return 0;
}

/* ---- channels ---- */

static bool channel_is_open_to_others(const struct channel_record *record)
{
	/* Whoever has its key takes an end of a session, whatever uid that is. */
	return record->is_session || policy_is_public(record->kind, record->mode);
}

static int lines_make(struct worker *worker, struct channel *channel)
{
	int r;

	if (channel->record->lines_id == 0)
		return 0;

	r = segment_new_sealed(&channel->lines_fd, "ipc-lines", segment_round(SEGMENTS_LINES_SIZE));
	if (r < 0)
		return r;

	return store_or_close(worker, 'l', channel->slot, channel->record->generation_slot,
			      &channel->lines_fd);
}

static int channel_make(struct worker *worker, struct channel *channel)
{
	struct channel_record *record = channel->record;
	int r;

	/* POSIX shared memory cannot be sealed; where only one uid comes in, nobody has to be kept
	 * from truncating it. */
	if (channel_is_open_to_others(record))
		r = segment_new_sealed(&channel->segment_fd, "ipc-channel", record->size);
	else
		r = segment_new_shm(&channel->segment_fd, &worker->maker, record->size);
	if (r < 0)
		return r;

	r = store_or_close(worker, 'c', channel->slot, record->generation_slot,
			   &channel->segment_fd);
	if (r == 0)
		r = lines_make(worker, channel);
	if (r == 0)
		r = pairs_make(worker, channel);
	return r;
}

int segments_make_channel(struct worker *worker, struct channel *channel)
{
	struct state *state = worker->registry->state;
	struct channel_record *record = channel->record;
	bool is_public = channel_is_open_to_others(record);
	int r;

	r = segments_check_room(worker, (is_public ? 2 : 1) + pairs_count(record));
	if (r < 0)
		return r;

	++record->generation_slot;
	record->segment_id = state_next_id(state);
	record->lines_id = is_public ? state_next_id(state) : 0;
	channel->segment_fd = channel->lines_fd = -1;
	channel->pair_fd[0] = channel->pair_fd[1] = -1;

	r = channel_make(worker, channel);
	if (r < 0)
		segments_drop_channel(worker, channel);
	return r;
}

void segments_drop_channel(struct worker *worker, struct channel *channel)
{
	uint32_t generation = channel->record->generation_slot;

	if (channel->segment_fd >= 0)
		segments_unstore(worker, 'c', channel->slot, generation);
	if (channel->lines_fd >= 0)
		segments_unstore(worker, 'l', channel->slot, generation);
	channel->segment_fd = fd_close(channel->segment_fd);
	channel->lines_fd = fd_close(channel->lines_fd);
	pairs_drop(worker, channel);
}

struct message_region segments_lines(const struct channel *channel, uint32_t uid, int *ret_fd)
{
	const struct channel_record *record = channel->record;
	struct message_region region = {.size = SEGMENTS_LINES_SIZE};

	if (record->lines_id != 0) {
		region.segment_id = record->lines_id;
		*ret_fd = channel->lines_fd;
		return region;
	}

	/* Whoever is not of the owner's uid here is root, who reads everything: the owner's desk,
	 * then. */
	region.segment_id = channel->owner->record->desk_id;
	region.offset = offsetof(struct desk, line) + (uint64_t)channel->slot * SEGMENTS_LINES_SIZE;
	*ret_fd = uid == record->uid ? -1 : channel->owner->desk_fd;
	return region;
}

int segments_check_channel(const struct channel *channel)
{
	int r = segment_is_reserved(channel->segment_fd, channel->record->size);

	return r == 1 ? 0 : r < 0 ? r : IPC_EBADMSG;
}

bool segments_read(int fd, uint64_t offset, void *ret, size_t size)
{
	return fd >= 0 && pread(fd, ret, size, (off_t)offset) == (ssize_t)size;
}

uint64_t segments_peek(int fd, uint64_t offset)
{
	uint64_t value;

	return segments_read(fd, offset, &value, sizeof(value)) ? value : 0;
}
