/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <fcntl.h>
#include <string.h>

#include "libipc/platform/crash.h"

/*
 * The sender's end.  Every call holds the turn, so there is one thread at a time.
 *
 * An END: room first, then sent[], then the commit; a death between the last two leaves an entry
 * that does not count yet, and is cleared by the next sender before it publishes anything.
 */

/* One unit is for an ABORT, as long as a snapshot is open. */
#define KEEP_FOR_ABORT 1

static struct inbox_shared *shared_of(const struct inbox_sender *sender)
{
	return sender->inbox.shared;
}

static uint64_t wanted(const struct inbox_sender *sender)
{
	return atomic_load_explicit(&shared_of(sender)->wanted, memory_order_acquire);
}

static uint64_t written(const struct inbox_sender *sender)
{
	return inbox_written(&sender->inbox, sender->out.head, sender->out.number);
}

static struct inbox_writer writer_of(const struct inbox_sender *sender)
{
	return (struct inbox_writer){&shared_of(sender)->ring.head, ring_tag(sender->out.head)};
}

/* What stays of the state of head until the next END. */
static unsigned gapped(const struct inbox_sender *sender)
{
	return ring_state(sender->out.head) & INBOX_GAPPED;
}

/* No frame may follow before the next BEGIN. */
static bool is_requested(const struct inbox_sender *sender)
{
	if (sender->is_inside)
		return sender->is_void || wanted(sender) != sender->begin_wanted;

	return wanted(sender) != sender->now.answers;
}

/* ---- turns ---- */

/* Taken if it is 0. */
static int sender_enter(struct inbox_sender *sender)
{
	int r;

	turn_take(&sender->turn);
	r = header_fault(sender->inbox.header);
	if (r == 0 && UNLIKELY(!ring_producer_is(&sender->out)))
		r = IPC_ESTALE;
	if (r == 0 && UNLIKELY(sender->is_closed))
		r = IPC_ECANCELED;
	if (r < 0)
		turn_give(&sender->turn);

	return r;
}

/* is_published: the receiver is told. */
static int sender_leave(struct inbox_sender *sender, int r, bool is_published)
{
	turn_give(&sender->turn);
	if (is_published)
		inbox_notify(&sender->inbox, INBOX_SIDE_RECEIVER);

	return inbox_result(&sender->inbox, r);
}

/* The same where others on its own side may wait for it: for room, a request, a generation. */
static int sender_leave_and_tell(struct inbox_sender *sender, int r, bool is_published)
{
	r = sender_leave(sender, r, is_published);
	if (r == 0)
		inbox_notify(&sender->inbox, INBOX_SIDE_SENDER);

	return r;
}

/* ---- room ---- */

/* What IPC_EAGAIN means here. */
static int when_full(struct inbox_sender *sender, int r, bool waits)
{
	if (r != IPC_EAGAIN || waits || !sender->inbox.collapses)
		return r;

	return inbox_collapse(sender);
}

/* ---- taking the end ---- */

static int send_abort(struct inbox_sender *sender, enum ipc_inbox_reason reason)
{
	const struct ring_commit commit = {
		.type = INBOX_ABORT,
		.flags = reason,
		.number_next = sender->out.number,
		.state = gapped(sender),
	};

	sender->out.keep = 0;
	return ring_send(&sender->out, "", &commit);
}

/* Of those who stand in the way some may be gone, and only the stream has to get past where they
 * stood: the receiver looks again. */
static int begin_result(const struct inbox_sender *sender, int r)
{
	if (r == IPC_EBUSY)
		inbox_notify(&sender->inbox, INBOX_SIDE_RECEIVER);
	return inbox_result(&sender->inbox, r);
}

int inbox_begin_sender(struct inbox_sender *sender, uint64_t handle_id, uint32_t process)
{
	const struct inbox *inbox = &sender->inbox;
	int r;

	turn_init(&sender->turn);
	sender->out = (struct ring_producer){.view = inbox->view};
	r = ring_take_head(&sender->out, inbox->table, handle_id, process);
	if (r < 0)
		return begin_result(sender, r);

	/* An END that was not committed is told by the head; not once that has jumped. */
	sender->now = inbox_end_take(inbox->shared->sent, writer_of(sender),
				     ring_position(sender->out.head));
	r = ring_take_memory(&sender->out);
	if (r == 0)
		r = inbox_collapse_cancel(sender);
	if (r == 0 && ring_state(sender->out.head) & INBOX_INSIDE) {
		r = send_abort(sender, IPC_INBOX_SENDER_DIED);
		if (r == IPC_EAGAIN)
			r = IPC_EBUSY;
		inbox_notify(inbox, INBOX_SIDE_RECEIVER);
	}

	return begin_result(sender, r);
}

void inbox_close_sender(struct inbox_sender *sender)
{
	if (sender_enter(sender) < 0)
		return;

	if (ring_state(sender->out.head) & INBOX_INSIDE)
		(void)send_abort(sender, IPC_INBOX_SENDER_CLOSED);
	sender->is_closed = true;
	(void)sender_leave(sender, 0, true);
}

void inbox_leave_sender(struct inbox_sender *sender)
{
	ring_leave_producer(&sender->out);
	turn_deinit(&sender->turn);
}

/* ---- snapshots ---- */

int inbox_begin_snapshot(struct inbox_sender *sender, uint64_t generation, bool waits)
{
	struct inbox_begin begin = {.generation = generation};
	struct ring_commit commit = {.type = INBOX_BEGIN, .size = sizeof(begin)};
	uint64_t now;
	int r;

	if (generation == 0 || generation > INBOX_GENERATION_MAX)
		return IPC_EINVAL;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	/* A request that comes after this look makes the snapshot void: at worst it is begun
	 * twice. */
	now = wanted(sender);
	begin.n_fds = atomic_load_explicit(&shared_of(sender)->n_fds, memory_order_relaxed);
	commit.number_next = sender->out.number;
	commit.flags = gapped(sender);
	commit.state = INBOX_INSIDE | gapped(sender);
	sender->out.keep = KEEP_FOR_ABORT;
	r = ring_send(&sender->out, &begin, &commit);
	if (r == 0) {
		sender->is_inside = true;
		sender->is_void = false;
		sender->generation = generation;
		sender->begin_wanted = now;
	} else if (ring_depth(&sender->inbox.view) > 0 || !ring_producer_is(&sender->out)) {
		r = when_full(sender, r, waits);
	}

	return sender_leave(sender, r, r == 0);
}

/* Of chunk and end. */
static int check_inside(const struct inbox_sender *sender)
{
	if (!sender->is_inside)
		return IPC_EINVAL;

	return is_requested(sender) ? IPC_EOVERFLOW : 0;
}

static int send_inside(struct inbox_sender *sender, const void *data,
		       const struct ring_commit *commit, bool waits)
{
	sender->out.keep = KEEP_FOR_ABORT;
	return when_full(sender, ring_send(&sender->out, data, commit), waits);
}

int inbox_send_chunk(struct inbox_sender *sender, const void *data, size_t size, bool waits)
{
	struct ring_commit commit = {.type = INBOX_CHUNK, .size = size};
	int r;

	if (size > sender->inbox.frame_size_max)
		return IPC_EMSGSIZE;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = check_inside(sender);
	if (r == 0) {
		commit.number_next = sender->out.number;
		commit.state = INBOX_INSIDE | gapped(sender);
		r = send_inside(sender, data, &commit, waits);
	}

	return sender_leave(sender, r, r == 0);
}

/* Room first, so that the packet with the descriptor is followed by its chunk. */
static int send_chunk_fd(struct inbox_sender *sender, int fd, struct inbox_chunk_fd *chunk)
{
	struct ring_producer *out = &sender->out;
	unsigned tag = (unsigned)(ring_tag(out->head) & UINT16_MAX);
	const struct ring_commit commit = {
		.type = INBOX_CHUNK_FD,
		.extra = tag,
		.size = sizeof(*chunk),
		.number_next = out->number,
		.state = INBOX_INSIDE | gapped(sender),
	};
	struct ring_claim *claim;
	void *data;
	int r;

	out->keep = KEEP_FOR_ABORT;
	r = ring_claim(out, sizeof(*chunk), &data);
	if (r < 0)
		return r;

	chunk->id = atomic_load_explicit(&shared_of(sender)->n_fds, memory_order_relaxed) + 1;
	atomic_store_explicit(&shared_of(sender)->n_fds, chunk->id, memory_order_relaxed);
	memcpy(data, chunk, sizeof(*chunk));
	claim = ring_find_claim(out, data);
	r = parcel_send(sender->inbox.pair_fd, fd, chunk->id, tag);
	CRASH_POINT();
	if (r == 0)
		r = ring_commit(out, claim, &commit);
	if (r < 0)
		ring_abort(out, claim);
	return r;
}

int inbox_send_chunk_fd(struct inbox_sender *sender, int fd, uint64_t fd_offset, size_t size,
			bool waits)
{
	struct inbox_chunk_fd chunk = {.offset = fd_offset, .size = size};
	int r;

	if (size > IPC_ITEM_SIZE_MAX)
		return IPC_EMSGSIZE;
	if (fd < 0 || fcntl(fd, F_GETFD) < 0)
		return IPC_EINVAL;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = check_inside(sender);
	if (r == 0)
		r = when_full(sender, send_chunk_fd(sender, fd, &chunk), waits);

	return sender_leave(sender, r, r == 0);
}

static int send_end(struct inbox_sender *sender, uint64_t next_offset)
{
	const uint64_t bytes[2] = {sender->generation, sender->begin_wanted};
	const struct ring_commit commit = {
		.type = INBOX_END,
		.size = sizeof(bytes),
		.number_next = next_offset,
	};
	struct ring_producer *out = &sender->out;
	struct inbox_now before = sender->now;
	struct ring_claim *claim;
	void *data;
	int r;

	/* What is kept for an ABORT is for this, too. */
	out->keep = 0;
	r = ring_claim(out, sizeof(bytes), &data);
	if (r < 0)
		return r;

	memcpy(data, bytes, sizeof(bytes));
	claim = ring_find_claim(out, data);
	r = inbox_end_write(shared_of(sender)->sent, writer_of(sender), &sender->now,
			    ring_position(out->head) + 1, sender->generation, sender->begin_wanted);
	if (r == 0)
		r = ring_commit(out, claim, &commit);
	if (r < 0) {
		sender->now = before;
		ring_abort(out, claim);
	}
	return r;
}

int inbox_end_snapshot(struct inbox_sender *sender, uint64_t next_offset, bool waits)
{
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = check_inside(sender);
	if (r == 0 && sender->generation == sender->now.generation && next_offset < written(sender))
		r = IPC_EINVAL;
	if (r == 0)
		r = when_full(sender, send_end(sender, next_offset), waits);
	if (r == 0)
		sender->is_inside = false;

	return sender_leave_and_tell(sender, r, r == 0);
}

int inbox_abort_snapshot(struct inbox_sender *sender)
{
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	if (!sender->is_inside)
		r = IPC_EINVAL;
	else if (ring_state(sender->out.head) & INBOX_INSIDE)
		r = send_abort(sender, IPC_INBOX_ABORTED);
	if (r == 0)
		sender->is_inside = sender->is_void = false;

	return sender_leave_and_tell(sender, r, r == 0);
}

/* ---- frames ---- */

static int check_frame(const struct inbox_sender *sender)
{
	if (sender->now.generation == 0 && !sender->is_void)
		return IPC_EINVAL;
	if (is_requested(sender))
		return IPC_EOVERFLOW;

	return sender->is_inside ? IPC_EINVAL : 0;
}

/* What is asked for by a frame of this offset; the claim is the caller's.  Positions are offsets of
 * the next frame: the last one of 64 bits has none. */
static int check_offset(const struct inbox_sender *sender, uint64_t offset)
{
	int r = check_frame(sender);

	return r == 0 && (offset != sender->out.number || offset == UINT64_MAX) ? IPC_EINVAL : r;
}

static void frame_is_sent(struct inbox_sender *sender)
{
	inbox_end_renew(shared_of(sender)->sent, writer_of(sender), &sender->now,
			ring_position(sender->out.head));
}

int inbox_send_frame(struct inbox_sender *sender, uint64_t offset, const void *data, size_t size,
		     bool waits)
{
	const struct ring_commit commit = {
		.type = INBOX_FRAME,
		.size = size,
		.number_next = offset + 1,
	};
	int r;

	if (size > sender->inbox.frame_size_max)
		return IPC_EMSGSIZE;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = check_offset(sender, offset);
	if (r == 0) {
		sender->out.keep = 0;
		r = when_full(sender, ring_send(&sender->out, data, &commit), waits);
	}
	if (r == 0)
		frame_is_sent(sender);

	return sender_leave(sender, r, r == 0);
}

int inbox_claim_frame(struct inbox_sender *sender, size_t size, void **ret_data, bool waits)
{
	int r;

	if (size > sender->inbox.frame_size_max)
		return IPC_EMSGSIZE;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = sender->out.n_claims > 0 ? IPC_EINVAL : check_frame(sender);
	if (r == 0) {
		sender->out.keep = 0;
		r = when_full(sender, ring_claim(&sender->out, size, ret_data), waits);
	}

	return sender_leave(sender, r, false);
}

static int commit_frame(struct inbox_sender *sender, uint64_t offset, void *data, size_t size,
			bool *ret_gives_room)
{
	const struct ring_commit commit = {
		.type = INBOX_FRAME,
		.size = size,
		.number_next = offset + 1,
	};
	struct ring_claim *claim = ring_find_claim(&sender->out, data);
	int r;

	if (!claim)
		return IPC_EINVAL;
	if (size > claim->size)
		return IPC_EMSGSIZE;

	*ret_gives_room = ring_commit_leaves_room(claim, size);
	r = check_offset(sender, offset);
	if (r == 0)
		r = ring_commit(&sender->out, claim, &commit);
	if (r == 0)
		frame_is_sent(sender);
	return r;
}

int inbox_commit_frame(struct inbox_sender *sender, uint64_t offset, void *data, size_t size)
{
	bool gives_room = false;
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = commit_frame(sender, offset, data, size, &gives_room);
	return gives_room ? sender_leave_and_tell(sender, r, r == 0)
			  : sender_leave(sender, r, r == 0);
}

int inbox_abort_frame(struct inbox_sender *sender, void *data)
{
	struct ring_claim *claim;
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	claim = ring_find_claim(&sender->out, data);
	if (claim)
		ring_abort(&sender->out, claim);
	else
		r = IPC_EINVAL;

	return sender_leave_and_tell(sender, r, false);
}

/* ---- looks ---- */

int inbox_probe_wanted(struct inbox_sender *sender, uint64_t *served)
{
	uint64_t now = wanted(sender);
	int r = header_fault(sender->inbox.header);

	if (r < 0)
		return r;
	if (now <= *served)
		return IPC_EAGAIN;

	*served = now;
	return 0;
}

bool inbox_is_requested(struct inbox_sender *sender)
{
	bool is;

	if (sender_enter(sender) < 0)
		return false;

	is = is_requested(sender);
	turn_give(&sender->turn);
	return is;
}

int inbox_probe_room(struct inbox_sender *sender)
{
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	sender->out.keep = sender->is_inside ? KEEP_FOR_ABORT : 0;
	r = ring_probe_room(&sender->out, 0);
	return sender_leave(sender, r, false);
}
