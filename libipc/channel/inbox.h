/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_INBOX_H
#define LIBIPC_CHANNEL_INBOX_H

/*
 * An inbox: one ring from the sender to the receiver, and what is known beside it.  Nothing here
 * sleeps or talks to the broker.
 *
 * segment
 *   struct channel_header
 *   struct inbox_shared      with the ring
 *   data of the ring
 *
 * The number of a record (core/ring.h) is the offset that counts before it: what `applied` is when
 * all before it is applied.  A frame's is its own offset; begin, chunks and end of a snapshot have
 * that of before the snapshot; behind the end stands its next_offset.  So `written` is the number
 * at head, `applied` the one at tail, and each is one word; but for the two times when records go
 * without being applied, and the number at that place would say more than is true:
 *
 *   state of head  INBOX_GAPPED: the backlog was given up.  `written` is gap_written until the next
 *                  END is committed.
 *   state of tail  INBOX_GAPPED: a snapshot was lost, with its receiver or a descriptor.  `applied`
 *                  is gap_applied until the next END is applied.
 *
 * Both values stand there before the bit is set, and are of no meaning before.  INBOX_INSIDE, in
 * either state: inside of a snapshot.  INBOX_SKIPS, in that of tail: nothing counts up to the next
 * BEGIN.
 *
 * field          written by   rule
 * wanted         anybody      grows by one a request (I-10)
 * sent[2]        sender       an END that was committed: {position behind it, generation, request
 *                             that it answers}; of two the later one that is not after head counts,
 *                             the other one is written next
 * applied[2]     receiver     the same of what is applied: {position, generation}, and tail
 * gap_written    sender       see above
 * gap_applied    receiver     see above
 * begun          receiver     generation of the snapshot that tail is inside of
 * end_received   receiver     {its tag, position behind the last END that it received}
 * collapse       sender       0, or a backlog is being given up, {tag of the sender, 1, position}:
 *                             from there on nothing is received until it is 0 again, or the tag
 *                             another's
 * ring.received  receiver     state INBOX_COLLAPSED, set by the sender: given up from here.
 *                             INBOX_CLOSED, set by the next receiver: not this one's any more
 *
 * Giving up the backlog (only where the channel is made so, IPC_INBOX_FULL_COLLAPSE): gap_written,
 * wanted + 1, collapse = position; then one exchange of ring.received decides up to where the
 * receiver has come, which from then on receives nothing; ring_rewind(); collapse = 0.  A sender
 * that dies in between leaves `collapse`, which the next one takes back.  The receiver tells ABORT
 * or GAP when it comes to that place, where a BEGIN follows or nothing yet.  If anything else does,
 * the mark is of a sender that did not come to the rewind, and nothing was given up.
 *
 * A request stands as long as `wanted` is not what the last END answered; inside of a snapshot, as
 * long as it is not what it was at its BEGIN: then the snapshot is void.
 *
 * Who is taken over may be late with everything: so what the next one writes as well is written by
 * exchange, from what stood there before a look at whose the end is.
 *
 * Deaths: of the sender inside of a snapshot: the next one publishes ABORT first (a unit is kept
 * free for it); a receiver that has drained the ring before tells it by itself.  Of the receiver:
 * inbox_begin_receiver().
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "include/ipc/inbox.h"
#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/liveness.h"
#include "libipc/core/parcel.h"
#include "libipc/core/ring.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/turn.h"

#define INBOX_SIDE_SENDER   0
#define INBOX_SIDE_RECEIVER 1

#define INBOX_GENERATION_MAX ((UINT64_C(1) << 53) - 1)

/* Types of records. */
enum inbox_record {
	INBOX_BEGIN = 2, /* bytes: struct inbox_begin; flags: INBOX_GAPPED, if head was */
	INBOX_CHUNK,
	INBOX_CHUNK_FD, /* bytes: struct inbox_chunk_fd; extra: lowest bits of the sender's tag */
	INBOX_END,      /* bytes: generation, request that it answers */
	INBOX_FRAME,
	INBOX_ABORT, /* flags: enum ipc_inbox_reason */
};

struct inbox_begin {
	uint64_t generation;
	uint64_t n_fds; /* descriptors that were sent before it: of no use any more */
};

struct inbox_chunk_fd {
	uint64_t id, offset, size;
};

/* States of head and tail; of `received`. */
#define INBOX_INSIDE    1u
#define INBOX_GAPPED    2u
#define INBOX_SKIPS     4u
#define INBOX_COLLAPSED 1u
#define INBOX_CLOSED    RING_RECEIVED_CLOSED
#define INBOX_ABORTED   4u /* the snapshot that it was in was aborted */
#define INBOX_TURNED    8u /* flips with each collapse */

/* State of end_received: there is one. */
#define INBOX_RECEIVED_ONE 1u

struct inbox_end {
	_Atomic uint64_t position;   /* a word, with the tag of who wrote it */
	_Atomic uint64_t generation; /* above its 53 bits the lowest ones of that tag */
	_Atomic uint64_t answers;
	uint64_t reserved;
};

struct inbox_shared {
	_Alignas(64) _Atomic uint64_t wanted;
	_Atomic uint64_t gap_written, gap_applied, collapse;
	_Atomic uint64_t n_fds; /* descriptors ever sent: the last one's id */
	_Atomic uint64_t begun, end_received;
	uint64_t reserved[1];
	_Alignas(64) struct inbox_end sent[2];
	_Alignas(64) struct inbox_end applied[2];
	struct ring ring;
};

#define INBOX_SHARED_OFFSET sizeof(struct channel_header)

/* shape[0] capacity, [1] frame_size_max, [2] enum ipc_inbox_full.  0: not legal. */
uint64_t inbox_segment_size(const uint64_t shape[4]);
int inbox_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* What all roles have. */
struct inbox {
	struct channel_header *header;
	struct inbox_shared *shared;
	struct ring_view view;
	const struct liveness_table *table;
	uint32_t channel_slot;
	uint64_t frame_size_max;
	bool collapses;
	int pair_fd;              /* own end of the socket pair; -1: none */
	struct eventcount *lines; /* [s]: where side s sleeps */
	void (*ring)(void *userdata);
	void *ring_userdata;
};

/* The caller fills in table, channel_slot, pair_fd, lines, ring. */
IPC_CHECKED int inbox_attach(struct inbox *inbox, struct channel_header *header, uint64_t size,
			     const uint64_t shape[4]);

/* What stands there, by anybody who may read.  IPC_EAGAIN: it moved all the time. */
IPC_CHECKED int inbox_get_positions(const struct inbox *inbox, struct ipc_inbox_positions *ret);

/*
 * 0: everything before `offset` is applied, in `generation` (0: the last one whose END was
 * committed); IPC_EAGAIN: not yet; IPC_ESTALE: another one's END was committed.
 */
IPC_CHECKED int inbox_probe_applied(const struct inbox *inbox, uint64_t generation,
				    uint64_t offset);

/* One of sent[] or applied[]. */
struct inbox_now {
	unsigned slot;
	uint64_t position, generation, answers;
};

/* The one that counts at this position of head or tail. */
struct inbox_now inbox_now(const struct inbox_end ends[2], uint64_t position);

/* Whose: head or tail, and what the writer knows of it. */
struct inbox_writer {
	const _Atomic uint64_t *word;
	uint64_t tag;
};

/* A word beside the stream, by who has the end: whoever had it before, and is late, exchanges it
 * once more at most.  0; IPC_ESTALE: taken over. */
IPC_CHECKED int inbox_store(_Atomic uint64_t *word, struct inbox_writer writer, uint64_t value);

/* Writes the other one, to count from this position on.  0; IPC_ESTALE: taken over. */
IPC_CHECKED int inbox_end_write(struct inbox_end ends[2], struct inbox_writer writer,
				struct inbox_now *now, uint64_t position, uint64_t generation,
				uint64_t answers);

/* Who takes an end: the one that counted at the position where it was taken.  What somebody wrote
 * before it counted, or is about to write, never will. */
struct inbox_now inbox_end_take(struct inbox_end ends[2], struct inbox_writer writer,
				uint64_t position);

/* Before positions have come half way around: the same once more. */
void inbox_end_renew(struct inbox_end ends[2], struct inbox_writer writer, struct inbox_now *now,
		     uint64_t position);

/* What is `written`, `applied` at this word of head or tail, whose number is this. */
uint64_t inbox_written(const struct inbox *inbox, uint64_t head, uint64_t number);
uint64_t inbox_applied(const struct inbox *inbox, uint64_t tail, uint64_t number);

/* After an exchange that published something: wakes side `side`. */
static inline void inbox_notify(const struct inbox *inbox, unsigned side)
{
	if (UNLIKELY(eventcount_notify_exchanged(&inbox->lines[side])))
		inbox->ring(inbox->ring_userdata);
}

/* A request; sender and observers are told. */
void inbox_want(const struct inbox *inbox);

/* What the ring says, to what the channel says. */
int inbox_result(const struct inbox *inbox, int r);

/* ---- sender: inbox_sender.c ---- */

struct inbox_sender {
	struct inbox inbox;
	struct turn turn;
	struct ring_producer out;
	uint64_t generation;   /* of the snapshot that it is in */
	uint64_t begin_wanted; /* `wanted` at its BEGIN */
	bool is_inside;        /* of a snapshot */
	bool is_void;          /* ... whose backlog was given up */
	bool is_closed;
	struct inbox_now now; /* what the last END said */
};

/*
 * Takes the end and finishes what was left: a collapse, a snapshot (by ABORT).  `inbox` is
 * attached. As ring_take_producer().  inbox_close_sender(): at close, threads may be inside: ABORT
 * of an open snapshot.  inbox_leave_sender(): nobody is.
 */
IPC_CHECKED int inbox_begin_sender(struct inbox_sender *sender, uint64_t handle_id,
				   uint32_t process);
void inbox_close_sender(struct inbox_sender *sender);
void inbox_leave_sender(struct inbox_sender *sender);

/*
 * 0, or what the page says; IPC_EAGAIN: full.  `waits`: of a `_wait` form, which never gives the
 * backlog up.  They look at nothing but the structure: whether a receiver is there is the caller's.
 */
IPC_CHECKED int inbox_begin_snapshot(struct inbox_sender *sender, uint64_t generation, bool waits);
IPC_CHECKED int inbox_send_chunk(struct inbox_sender *sender, const void *data, size_t size,
				 bool waits);
IPC_CHECKED int inbox_send_chunk_fd(struct inbox_sender *sender, int fd, uint64_t fd_offset,
				    size_t size, bool waits);
IPC_CHECKED int inbox_end_snapshot(struct inbox_sender *sender, uint64_t next_offset, bool waits);
IPC_CHECKED int inbox_abort_snapshot(struct inbox_sender *sender);
IPC_CHECKED int inbox_send_frame(struct inbox_sender *sender, uint64_t offset, const void *data,
				 size_t size, bool waits);
IPC_CHECKED int inbox_claim_frame(struct inbox_sender *sender, size_t size, void **ret_data,
				  bool waits);
IPC_CHECKED int inbox_commit_frame(struct inbox_sender *sender, uint64_t offset, void *data,
				   size_t size);
IPC_CHECKED int inbox_abort_frame(struct inbox_sender *sender, void *data);

/* 0: *served is not the newest request, and is now; IPC_EAGAIN. */
IPC_CHECKED int inbox_probe_wanted(struct inbox_sender *sender, uint64_t *served);
/* A snapshot is wanted, and none was begun for it. */
bool inbox_is_requested(struct inbox_sender *sender);
/* Room for the smallest record: 0, IPC_EAGAIN. */
IPC_CHECKED int inbox_probe_room(struct inbox_sender *sender);

/* ---- giving the backlog up: inbox_collapse.c ---- */

/* IPC_EOVERFLOW: done; else why not.  Takes part in the caller's turn. */
IPC_CHECKED int inbox_collapse(struct inbox_sender *sender);
/* What the sender before began. */
IPC_CHECKED int inbox_collapse_cancel(struct inbox_sender *sender);

/* ---- receiver: inbox_receiver.c, inbox_begin.c, inbox_apply.c ---- */

/* An END that was received and is not applied. */
struct inbox_pending_end {
	uint64_t position, generation;
};

struct inbox_receiver {
	struct inbox inbox;
	struct turn turn;
	struct ring_consumer in;
	uint64_t number;      /* lowest bits of its handle's, for the tokens of its events */
	uint64_t tail_before; /* at the begin of the call: a word */
	uint64_t marked;      /* the word in ring.received; inbox_mark_received() */
	uint64_t handed;      /* position behind the last record that was handed out */
	uint64_t expected;    /* offset of the next frame */
	uint64_t generation;  /* of what was received last */
	uint64_t begin_tag;   /* of head when the last BEGIN was received */
	uint64_t lost_at;     /* position, and the offset that counts there */
	uint64_t lost_offset;
	bool is_inside;       /* of a snapshot, by what was received */
	bool skips;           /* up to the next BEGIN */
	bool was_taken_over;  /* ABORT(RECEIVER_CHANGED) is to be told */
	bool is_gapped;       /* a snapshot was lost, and no END came since */
	bool has_lost;        /* one behind lost_at, where the tail is not yet */
	bool gap_was_told;    /* of the gap at the present end of the stream */
	struct inbox_now now; /* of what is applied */
	struct inbox_pending_end *ends;
	unsigned n_ends, n_ends_max;
};

IPC_CHECKED int inbox_begin_receiver(struct inbox_receiver *receiver, uint64_t handle_id,
				     uint32_t process);
void inbox_leave_receiver(struct inbox_receiver *receiver);

/* The turn is taken if it is 0; what a call says. */
IPC_CHECKED int inbox_receiver_enter(struct inbox_receiver *receiver);
int inbox_receiver_leave(struct inbox_receiver *receiver, int r);

/* Nothing that was handed out lies behind `position`, which is the tail or behind it. */
bool inbox_holds_nothing(const struct inbox_receiver *receiver, uint64_t position);
/* Up to `position`, and what follows if that was passed over. */
IPC_CHECKED int inbox_let_go(struct inbox_receiver *receiver, uint64_t position, unsigned state);

/* Before what lies in front of `position` is handed out.  False: the backlog was given up. */
bool inbox_mark_received(struct inbox_receiver *receiver, uint64_t position, unsigned state);

/* The sender is giving it up from here on: what lies there is not to be looked at. */
bool inbox_is_held_up(const struct inbox_receiver *receiver);
/* Where a mark says so: the stream goes on here as one does that was rewound to here. */
bool inbox_was_given_up(const struct inbox_receiver *receiver);

/* A BEGIN comes that is not taken back before the end of what there is. */
bool inbox_begin_is_coming(const struct ring_consumer *from);

/*
 * How many events, at least 1; IPC_EAGAIN: none.  sender_end: 0, or how the sender's side ended
 * (IPC_EPIPE, IPC_EOWNERDEAD): then ABORT is told before IPC_EAGAIN, where a snapshot is open.
 * IPC_EMFILE: no descriptor is free for the first one's, which stays.
 */
IPC_CHECKED int inbox_receive_many(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
				   unsigned n, int sender_end);
IPC_CHECKED int inbox_probe_event(struct inbox_receiver *receiver, int sender_end);
IPC_CHECKED int inbox_mark_applied(struct inbox_receiver *receiver,
				   const struct ipc_inbox_event *event);
/* 0: raised; 1: one is on its way. */
IPC_CHECKED int inbox_request_snapshot(struct inbox_receiver *receiver);

#endif
