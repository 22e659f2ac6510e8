/* SPDX-License-Identifier: MIT */
#ifndef BROKER_STATE_H
#define BROKER_STATE_H

/*
 * The worker's memory that outlives the worker: arrays of records in a memfd that the keeper holds
 * (stored as "st0.1").  Nobody but the worker maps it, so it is trusted; but the worker may die
 * between any two stores.
 *
 * Rule of every record: write the fields, then one store of `state` makes it be; one store of
 * `state` ends it.  Nothing that can be counted from the records is kept in them: counts, indexes
 * and quotas are computed anew at start.
 *
 * Descriptors are stored at the keeper under names of at most 11 characters,
 * <kind><slot>.<generation>, with the generation of the record's slot (hexadecimal, 16 bits' worth
 * is enough: it tells tenants of one slot apart).  Kinds:
 *
 * s  client's socket      p  client's pidfd      b  client's bell
 * c  channel's segment    l  channel's own lines
 * e  side 0's end of a channel's socket pair            f  side 1's
 * t  a uid's table        d  a uid's desk
 *
 * Order: make the descriptor, store it, commit the record, answer, take the request off the queue.
 * At start a stored descriptor without a record is an orphan and is removed from the store; a
 * record without its descriptor is dead.
 *
 * state_next_id() gives handle ids, generations and segment ids: one counter that starts from the
 * domain's start time and never goes back, so that numbers of an earlier domain do not come again.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/wire/protocol.h"

#define STATE_MAGIC        UINT64_C(0x3174617473637069)
#define STATE_PENDINGS_MAX 8192
#define STATE_USERS_MAX    1024
#define STATE_GROUPS_MAX   1024

enum record_state {
	RECORD_FREE = 0,
	RECORD_USED = 1,

	/* Channel, handle: the creator (the channel's `reserver`) has not confirmed yet. */
	RECORD_RESERVING = 2,

	/* Client: its handles are being ended.  Pending: it is being answered by `result`. */
	RECORD_DYING = 3,

	/* Handle: of an end that another one took over; see overtaken.h. */
	RECORD_OVERTAKEN = 4,
};

/*
 * Two notes are written before what they are about is done, so that a request that is still in the
 * queue after a worker's death is not done in another way the second time:
 *
 * remove_...  which generation a REMOVE is about: not the next channel of the name
 * done_...    what a request was answered by DONE: that is said again, whatever the world is like
 * now
 */
struct client_record {
	_Atomic uint32_t state;
	uint32_t generation; /* of the slot: grows with every tenant */
	uint32_t uid, gid;
	int64_t pid;
	uint32_t is_foreign; /* other pid namespace */
	uint32_t is_welcome; /* HELLO was answered */
	uint32_t died;       /* DYING: 1 by death, 0 by an orderly end of the connection */
	uint32_t closings_seen;
	uint64_t remove_request, remove_generation;
	uint64_t done_request;
	int32_t done_result;
	uint32_t ringings_seen;
	char process_name[PROTOCOL_PROCESS_NAME_SIZE]; /* printable, ends with 0 */
};

#define REQUEST_NONE UINT64_MAX

struct channel_record {
	_Atomic uint32_t state;
	uint32_t generation_slot; /* of the slot, for the stored name */
	uint64_t generation;      /* of the name: public */
	uint32_t kind, mode, uid, gid;
	uint64_t flags; /* IPC_KEEP and the kind's own */
	uint64_t shape[4];
	uint64_t size;
	uint64_t segment_id, lines_id; /* lines_id 0: the lines are in the owner's desk */
	uint64_t reserver;             /* RESERVING: handle id */
	_Atomic uint32_t is_removed;   /* nameless: nobody finds it any more */
	uint32_t is_session;           /* named after its listener, never found by that */
	char name[256];
	char dead_letters[256]; /* of a queue: the name of another one; "": none */
};

struct handle_record {
	_Atomic uint32_t state;
	uint32_t client_slot, client_generation;
	uint32_t channel_slot;
	uint64_t id;
	uint64_t request_id; /* of the OPEN, for doing it twice */
	uint64_t since;      /* CLOCK_MONOTONIC ns */
	uint64_t flags;      /* of the OPEN */
	uint32_t role;
	uint8_t side, is_counted, is_ending,
		ended_by_death; /* is_ending: being told; redone by the next worker */

	/* Of a group; else 0.  lender_id: of dead letters, the handle of the queue whose they are.
	 * is_joined: JOINED was sent; of the queue's handle. */
	uint64_t group_id, lender_id;
	uint32_t is_joined;    /* of an offer: OFFER was sent */
	uint32_t is_overtaken; /* set before is_ending: it is not freed by that */

	/* Of an end of a session that came by OFFER: the listener's handle; else 0.  Not counted
	 * as long as it is not accepted. */
	uint64_t listener_id;
};

struct pending_record {
	_Atomic uint32_t state;
	uint32_t client_slot, client_generation;
	int32_t result; /* DYING: what it is answered */
	uint64_t order; /* first come first served */
	struct message_open request;
};

/* DYING: its handles are being ended. */
struct group_record {
	_Atomic uint32_t state;
	uint32_t client_slot, client_generation;
	uint32_t reserved;
	uint64_t group_id; /* the client's number for it */
	char pattern[256];
};

struct user_record {
	_Atomic uint32_t state;
	uint32_t uid;
	uint32_t generation;
	uint32_t reserved;
	uint64_t table_id, desk_id;
	uint64_t fence_start; /* where the desk's counter began */
	uint64_t fence_floor; /* of the slot, whoever has it: earlier desks counted up to here */
};

/* The keys of one end.  One store says which of two of these counts (session_end.keys_at). */
struct session_keys {
	unsigned char newest[PROTOCOL_KEY_SIZE];
	unsigned char before[PROTOCOL_KEY_SIZE];
	uint64_t handle_id; /* with whom the newest one came */
	uint32_t n;         /* 0: none is valid; 1: the newest; 2: both */
	uint32_t reserved;
};

enum session_end_state {
	END_NONE = 0,     /* nobody has accepted yet */
	END_OPEN = 1,     /* somebody's, or away */
	END_CLOSED = 2,   /* for ever */
	END_REFUSED = 3,  /* nobody will accept: the listeners closed */
	END_DESERTED = 4, /* ... died */
};

/*
 * field       rule
 * holder      handle id of who has the end; 0 of an open one: away.  The store that makes it away
 * until_ns    when the window passes; and
 * away_order  since when it is away, as a number of state_next_id(): both before holder becomes 0
 * candidate   key for the handle candidate_id, which takes the end with it; candidate_before stays
 *             valid then (candidate_n 2)
 */
struct session_end {
	_Atomic uint32_t state; /* enum session_end_state */
	uint32_t uid;           /* of who had it last */
	uint64_t holder, until_ns, away_order;
	uint64_t candidate_id;
	unsigned char candidate[PROTOCOL_KEY_SIZE];
	unsigned char candidate_before[PROTOCOL_KEY_SIZE];
	uint32_t candidate_n;
	_Atomic uint32_t keys_at;
	struct session_keys keys[2];
};

/* At the slot of its channel; meaningful as long as that is a session. */
struct session_record {
	_Atomic uint32_t is_lost; /* a window has passed: ended, with all that is not closed */
	uint32_t listener_slot;   /* the listener's channel that it waits for, or came by */
	uint64_t listener_generation;
	struct session_end end[2]; /* [0] accepted, [1] connected */
};

enum state_array {
	STATE_USERS,
	STATE_CLIENTS,
	STATE_CHANNELS,
	STATE_HANDLES,
	STATE_PENDINGS,
	STATE_GROUPS,
	STATE_N_ARRAYS
};

struct state {
	uint64_t magic;
	uint64_t size;
	_Atomic uint64_t next; /* see state_next_id() */
	uint64_t domain_start;
	uint32_t n_workers;            /* how many workers have run */
	uint32_t high[STATE_N_ARRAYS]; /* no record of an array from here on was ever used: reading
					  one would make its page be */
	int64_t fence_epoch_ns; /* added to the time since boot: the domain's clock (fences.h) */
	uint32_t reserved[1008];
	struct user_record user[STATE_USERS_MAX];
	struct client_record client[LIVENESS_CLIENTS_MAX];
	struct channel_record channel[LIVENESS_CHANNELS_MAX];
	struct handle_record handle[LIVENESS_HANDLES_MAX];
	struct pending_record pending[STATE_PENDINGS_MAX];
	struct group_record group[STATE_GROUPS_MAX];
	struct session_record session[LIVENESS_CHANNELS_MAX];
};

/*
 * The order of stores into records binds the compiler alone: the only other reader of this memory
 * is the next worker, and what a dead process has stored is there in program order.  record_set()
 * is the one store that makes a record be, or ends it.
 */
static inline void record_fence(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void record_set(_Atomic uint32_t *state, uint32_t value)
{
	record_fence();
	atomic_store_explicit(state, value, memory_order_relaxed);
	record_fence();
}

static inline uint32_t record_get(const _Atomic uint32_t *state)
{
	return atomic_load_explicit(state, memory_order_relaxed);
}

/* A new, empty state and its descriptor, which the caller stores. */
int state_new(struct state **ret, int *ret_fd);

/* The state that an earlier worker left.  IPC_EBADMSG: not one of this version. */
int state_attach(struct state **ret, int fd);

void state_detach(struct state *state);

/* Never the same number twice, over workers and reboots; below 2^48. */
uint64_t state_next_id(struct state *state);

/* A handle's id: the next number and, in the low 16 bits, its slot. */
uint64_t state_handle_id(struct state *state, uint32_t slot);

#endif
