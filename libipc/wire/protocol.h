/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_WIRE_PROTOCOL_H
#define LIBIPC_WIRE_PROTOCOL_H

/*
 * What a client and the broker say to each other over a SOCK_SEQPACKET socket: one message is one
 * packet, a fixed struct in the machine's own byte order. Opening, closing, listing; never data.
 *
 * client -> broker                      broker -> client
 * HELLO                                 WELCOME [table, desk, bell]    or DONE with a negative
 * result OPEN                                  RESERVE [segment], then (after CONFIRM) OPENED; or
 * OPENED [...] at once; or DONE with a negative result CONFIRM (request_id of the OPEN)      OPENED
 * CLOSE, CANCEL                         -- unanswered
 * INFO                                  INFO_REPLY
 * LIST                                  LISTED
 * REMOVE                                DONE
 * HANDLES                               HANDLED
 * STATE                                 STATED
 * RING                                  BELLS [bells], unasked, or nothing: the clients of the
 * channel look again
 * GROUP                                 DONE, then JOINED [...] whenever a queue matches
 * TAKEN                                 -- unanswered
 * SESSIONS                              SESSIONED
 *                                       OFFER [...], unasked: a session for a listener to accept
 *
 * A session is a channel without a name.  Who connects opens it by the listener's name (it is made
 * in the listener's shape), and the broker offers it to one listener at a time, as a handle that is
 * not counted until it is TAKEN; one offer a listener.  Who has a key opens one with OPEN_RESUME.
 *
 * The socket's queue is the broker's log: a request is peeked, done, answered, and only then taken
 * off; a worker that dies in between leaves it for the next one.  So every request can be done
 * twice: an OPEN whose {client, request_id} has a handle already gives that handle again. Clients
 * never resend, and drop answers (closing their descriptors) whose request_id they do not await.
 *
 * A deferred OPEN (IPC_AWAIT, or another client is reserving) leaves the queue as a PENDING record
 * of the broker.  CANCEL{request_id} ends it; if it was granted meanwhile the handle is closed.
 */

#include <stdint.h>

#include "libipc/platform/compiler.h"

#define PROTOCOL_MAGIC             UINT32_C(0x31637069)
#define PROTOCOL_VERSION           1
#define PROTOCOL_SIZE_MAX          8192 /* of any message */
#define PROTOCOL_LIST_MAX          16   /* infos in one LISTED */
#define PROTOCOL_HANDLE_MAX        48   /* infos in one HANDLED */
#define PROTOCOL_PROCESS_NAME_SIZE 64
#define PROTOCOL_KEY_SIZE          32
#define PROTOCOL_SESSION_MAX       32 /* infos in one SESSIONED */
#define PROTOCOL_CURSOR_END        UINT32_MAX

enum message_type {
	MESSAGE_HELLO = 1,
	MESSAGE_OPEN,
	MESSAGE_CONFIRM,
	MESSAGE_CLOSE,
	MESSAGE_CANCEL,
	MESSAGE_INFO,
	MESSAGE_LIST,
	MESSAGE_REMOVE,
	MESSAGE_HANDLES,
	MESSAGE_RING,
	MESSAGE_GROUP,
	MESSAGE_STATE,
	MESSAGE_TAKEN,
	MESSAGE_SESSIONS,
	MESSAGE_WELCOME = 64,
	MESSAGE_DONE,
	MESSAGE_RESERVE,
	MESSAGE_OPENED,
	MESSAGE_INFO_REPLY,
	MESSAGE_LISTED,
	MESSAGE_HANDLED,
	MESSAGE_BELLS,
	MESSAGE_JOINED,
	MESSAGE_STATED,
	MESSAGE_OFFER,
	MESSAGE_SESSIONED
};

struct message_head {
	uint32_t magic;
	uint16_t type;
	uint16_t reserved;
	uint32_t size;       /* of the whole message: equal to the packet's */
	int32_t result;      /* requests: 0; replies: 0 or a negative entry of ipc/error.h */
	uint64_t request_id; /* chosen by the client, grows by one */
};
ASSERT_SIZE(struct message_head, 24);

/* A piece of a segment.  segment_id names the memory for the life of the domain: a client that
 * mapped it already needs no descriptor. */
struct message_region {
	uint64_t segment_id; /* 0: none */
	uint64_t offset;
	uint64_t size;
};

struct message_hello {
	struct message_head head;
	uint32_t version_min, version_max;
	uint32_t lock_stamp; /* lock_layout_stamp() */
	uint32_t word_size;
	int64_t pid; /* getpid(): unlike what the broker sees in another pid namespace */
	char process_name[PROTOCOL_PROCESS_NAME_SIZE]; /* what the client calls itself; ends with 0
							*/
};

struct message_welcome {
	struct message_head head;
	uint32_t version;
	uint32_t client_slot;
	uint32_t uid;                /* as the broker sees it */
	uint32_t is_foreign;         /* 1: other pid namespace */
	struct message_region table; /* of this uid: fds[0], read-only */
	struct message_region desk;  /* of this uid: fds[1], writable */
	/* fds[2]: this client's bell, an eventfd that is written when it should look again */
};

/* OPEN.flags: the public IPC_CREATE ... IPC_STAY and the kind's own, and: */
#define OPEN_LOOK_ONCE                                                                             \
	UINT64_C(0x100000000) /* the deadline has passed: do not defer, say IPC_ETIMEDOUT */
#define OPEN_UPGRADE                                                                               \
	UINT64_C(0x200000000) /* a weak handle: channel_slot and generation name the channel, name \
				 is empty */

#define OPEN_UNCOUNTED                                                                             \
	UINT64_C(0x400000000) /* a producer of dead letters: not counted, keeps nothing alive */

#define OPEN_RESUME UINT64_C(0x800000000) /* an end of a session: `key` names it, name is empty */

struct message_open {
	struct message_head head;
	uint32_t kind; /* enum ipc_kind */
	uint32_t role; /* enum ipc_role */
	uint64_t flags;
	uint32_t mode, gid;    /* as in the options: 0 is the default */
	uint64_t shape[4];     /* wanted; 0 fits every channel */
	uint64_t shape_new[4]; /* if this OPEN creates: defaults filled in */
	uint64_t size_new;     /* of the segment then, rounded to pages */
	uint64_t generation;
	uint32_t channel_slot;
	uint32_t reserved;
	char name[256];
	char dead_letters[256]; /* of a queue: name of another one; "" fits every queue, and is none
				   if this OPEN creates */
	unsigned char key[PROTOCOL_KEY_SIZE];
};

/* The client made and reserved the segment, or could not. */
struct message_confirm {
	struct message_head head;
	uint64_t handle_id;
	int32_t status; /* 0, or why not: IPC_ENOSPC, IPC_ENOMEM, IPC_ETIMEDOUT, ... (the handle is
			   gone then, the answer is DONE with it) */
	uint32_t reserved;
};

struct message_reserve {
	struct message_head head;
	uint64_t handle_id;
	struct message_region segment; /* fds[0], writable */
	uint64_t shape[4];
	uint64_t flags; /* of the channel that is being made */
};

/* Which descriptors come with OPENED, in this order. */
#define OPENED_FD_VALUE 1u
#define OPENED_FD_LINES 2u
#define OPENED_FD_TABLE 4u
#define OPENED_FD_PAIR  8u /* inbox, session: own end of the pair that passes descriptors */

struct message_opened {
	struct message_head head;
	uint64_t handle_id;
	uint64_t generation;
	uint32_t channel_slot;
	uint32_t owner_uid;
	uint64_t flags; /* of the channel: IPC_KEEP and the kind's own */
	uint64_t shape[4];
	uint32_t fds;                /* OPENED_FD_... */
	uint32_t is_writable;        /* how to map value */
	struct message_region value; /* the channel's segment; no descriptor if this client has just
					reserved it and may write it */
	struct message_region lines; /* two struct eventcount: in the owner's desk, or a segment of
					its own where other uids may open */
	struct message_region table; /* of the owner; the descriptor comes unless the owner is the
					client's own uid */
	uint64_t fence;              /* the domain's clock: fences that are taken from now on are
					larger (core/liveness.h) */
	char dead_letters[256];      /* of a queue: "" is none */
	uint32_t side;               /* of the handle */
	uint32_t reserved;
	unsigned char key[PROTOCOL_KEY_SIZE]; /* of this end of a session */
};

struct message_close {
	struct message_head head;
	uint64_t handle_id;
	uint32_t is_detached; /* 1, of a session: its end is away, as by a death */
	uint32_t reserved;
};

/* What became of an OFFER. */
struct message_taken {
	struct message_head head;
	uint64_t handle_id;   /* of the session that was offered */
	uint32_t is_accepted; /* 0: nobody wants it, the handle is closed */
	uint32_t reserved;
};

struct message_cancel {
	struct message_head head;
	uint64_t cancelled_id; /* request_id of an OPEN, or a group_id */
};

struct message_info {
	struct message_head head;
	char name[256];
};

struct message_remove {
	struct message_head head;
	uint64_t generation; /* 0: any */
	char name[256];
};

struct message_list {
	struct message_head head;
	uint32_t cursor; /* 0, then what LISTED gave */
	uint32_t reserved;
	char pattern[256];
};

/* The handles of one channel, weak ones included. */
struct message_handles {
	struct message_head head;
	uint64_t cursor;     /* 0, then what HANDLED gave */
	uint64_t generation; /* 0, then what HANDLED gave: a new channel of the name is not gone on
				with */
	char name[256];
};

/* After a wake that found somebody armed (core/eventcount.h) where the bells are not known. */
struct message_ring {
	struct message_head head;
	uint64_t handle_id; /* of the ringer: the clients of its channel look again */
};

/*
 * The bells of all clients of a channel but the ringer's own, for ringing without the broker: good
 * as long as liveness_table.members[] of the channel is `members`.  Only for a ringer of the same
 * uid as all of them; others go on asking the broker.  request_id is 0.
 */
#define PROTOCOL_BELLS_MAX 32

struct message_bells {
	struct message_head head;
	uint64_t handle_id; /* of the ringer */
	uint32_t members;
	uint32_t n;
	uint32_t slot[PROTOCOL_BELLS_MAX];       /* client slots; fds[i] is the bell of slot[i] */
	uint32_t generation[PROTOCOL_BELLS_MAX]; /* of the slot's tenant */
};

/* A pattern to which queues are opened as they come (ipc_group). */
struct message_group {
	struct message_head head;
	uint64_t group_id; /* chosen by the client */
	char pattern[256]; /* "": no more; ends the group's handles too */
};

/* Sent before the queue's own opener is answered.  request_id is 0. */
struct message_joined {
	struct message_head head;
	uint64_t group_id;
	struct message_opened queue; /* its head is not used */
	uint32_t n_fds_queue;        /* the descriptors after these are the dead letters' */
	uint32_t has_dead;
	struct message_opened dead; /* the queue's dead letters, uncounted */
	char name[256];             /* of the queue */
};
static_assert(sizeof(struct message_joined) <= PROTOCOL_SIZE_MAX, "JOINED fits a message");

/* request_id is 0.  Counted in the client's n_joined, as JOINED is. */
struct message_offer {
	struct message_head head;
	uint64_t listener_id;
	uint32_t is_taken_back; /* 1: an end that was away */
	uint32_t reserved;
	struct message_opened session; /* its head is not used */
};
static_assert(sizeof(struct message_offer) <= PROTOCOL_SIZE_MAX, "OFFER fits a message");

/* struct ipc_handle_info without its size. */
struct message_handle {
	uint64_t handle_id;
	int64_t pid;
	char process_name[PROTOCOL_PROCESS_NAME_SIZE];
	uint32_t role, weak, holds, n_held;
	uint64_t held_ns, waiting_for, waiting_ns;
};

/* struct ipc_channel_info without its size. */
struct message_channel {
	char name[256];
	uint32_t kind, mode, uid, gid;
	uint64_t flags, generation, bytes, item_size_max, capacity;
	uint32_t handles[2];
	uint32_t waiters, reserved;
	uint64_t depth, depth_max;
	int64_t holder_pid;
	uint64_t holder_id;
	uint64_t held_ns;
};

struct message_info_reply {
	struct message_head head;
	struct message_channel channel;
};

struct message_listed {
	struct message_head head;
	uint32_t n;
	uint32_t cursor;                                   /* PROTOCOL_CURSOR_END: that was all */
	struct message_channel channel[PROTOCOL_LIST_MAX]; /* head.size covers n of them */
};
static_assert(sizeof(struct message_listed) <= PROTOCOL_SIZE_MAX, "LISTED fits a message");

struct message_handled {
	struct message_head head;
	uint64_t cursor; /* PROTOCOL_CURSOR_END: that was all */
	uint64_t generation;
	uint32_t n;
	uint32_t reserved;
	struct message_handle handle[PROTOCOL_HANDLE_MAX]; /* head.size covers n of them */
};
static_assert(sizeof(struct message_handled) <= PROTOCOL_SIZE_MAX, "HANDLED fits a message");

/* What stands in a queue. */
struct message_state {
	struct message_head head;
	char name[256];
};

#define PROTOCOL_PRIORITIES_MAX 8
#define PROTOCOL_REASONS_MAX    8

/* struct ipc_queue_state without its size and n_leased. */
struct message_stated {
	struct message_head head;
	uint32_t priorities;
	uint32_t is_partial; /* 1: too large to be looked at whole; what is counted is there */
	uint64_t items[PROTOCOL_PRIORITIES_MAX];
	uint64_t bytes[PROTOCOL_PRIORITIES_MAX];
	uint64_t leased[PROTOCOL_PRIORITIES_MAX];
	uint64_t queued[PROTOCOL_PRIORITIES_MAX];
	uint64_t acknowledged[PROTOCOL_PRIORITIES_MAX];
	uint64_t dead_lettered[PROTOCOL_PRIORITIES_MAX][PROTOCOL_REASONS_MAX];
	uint64_t dropped[PROTOCOL_PRIORITIES_MAX][PROTOCOL_REASONS_MAX];
};
static_assert(sizeof(struct message_stated) <= PROTOCOL_SIZE_MAX, "STATED fits a message");

/* The sessions that came by a listener's name. */
struct message_sessions {
	struct message_head head;
	uint64_t cursor; /* 0, then what SESSIONED gave */
	char name[256];
};

/* struct ipc_session_info without its size.  Of ends: [0] who accepted, [1] who connected. */
struct message_session {
	uint64_t generation; /* of the session's channel */
	uint64_t resumes;    /* of either end */
	uint64_t capacity;
	uint64_t sent[2], acknowledged[2], depth[2], depth_max[2]; /* of what the end sends */
	uint64_t away_ns[2];                                       /* time left; 0: not away */
	int64_t pid[2];                                            /* 0: nobody's now */
	uint32_t uid[2];
};

struct message_sessioned {
	struct message_head head;
	uint64_t cursor; /* PROTOCOL_CURSOR_END: that was all */
	uint32_t n;
	uint32_t reserved;
	struct message_session session[PROTOCOL_SESSION_MAX]; /* head.size covers n of them */
};
static_assert(sizeof(struct message_sessioned) <= PROTOCOL_SIZE_MAX, "SESSIONED fits a message");

union message {
	struct message_head head;
	struct message_hello hello;
	struct message_open open;
	struct message_confirm confirm;
	struct message_close close;
	struct message_cancel cancel;
	struct message_info info;
	struct message_list list;
	struct message_remove remove;
	struct message_welcome welcome;
	struct message_reserve reserve;
	struct message_opened opened;
	struct message_info_reply info_reply;
	struct message_listed listed;
	struct message_handles handles;
	struct message_ring ring;
	struct message_handled handled;
	struct message_bells bells;
	struct message_group group;
	struct message_joined joined;
	struct message_state state;
	struct message_stated stated;
	struct message_taken taken;
	struct message_offer offer;
	struct message_sessions sessions;
	struct message_sessioned sessioned;
	unsigned char bytes[PROTOCOL_SIZE_MAX];
};

#endif
